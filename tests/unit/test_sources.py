"""Rules for the source text that neither ruff nor import-linter checks."""

import ast
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("worker", "repo", "sql") for path in (ROOT / room).rglob("*.py"))
SCRIPTS = {path.name: path for path in (ROOT / "scripts").iterdir() if path.suffix == ""}

SQL = re.compile(
    r"\s*((SELECT|INSERT|REPLACE|UPDATE|DELETE|CREATE|DROP|ALTER|PRAGMA|ROLLBACK|SAVEPOINT|RELEASE"
    r"|VACUUM|ATTACH|WITH|VALUES|WHERE|ORDER BY|ON CONFLICT)\b|COMMIT\s*;?$|BEGIN(?! NATS| USER)\b)"
)
EXAMPLES = [
    *("SELECT 1", "INSERT INTO runs", "UPDATE runs SET x = 1", "DELETE FROM runs", "COMMIT"),
    *("PRAGMA journal_mode", "BEGIN IMMEDIATE", "ROLLBACK TO s", "CREATE UNIQUE INDEX i"),
    *("\n WITH a AS (", "WHERE x = ", "ON CONFLICT DO NOTHING", "VALUES (?, ?)"),
]


def constants(path: Path) -> Iterator[str]:
    """Yield each constant of a file as text except docstrings, including parts of f-strings."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield os.fsdecode(node.value) if isinstance(node.value, bytes) else str(node.value)


def test_python_modules_contain_no_sql() -> None:
    assert len(SOURCES) > 20
    found = {path: [text for text in constants(path) if SQL.match(text)] for path in SOURCES}
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_sql_is_distinguished_from_ordinary_words() -> None:
    for text in EXAMPLES:
        assert SQL.match(text), text
    for text in ("BEGIN NATS USER JWT", "Update the bucket", "with a file"):
        assert not SQL.match(text), text


def test_no_module_is_longer_than_450_lines() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > 450} == {}


def test_every_script_is_executable_and_stops_at_the_first_error() -> None:
    assert SCRIPTS.keys() >= {"projector", "demo", "test", "migrate", "bench"}
    for path in filter(Path.is_file, SCRIPTS.values()):
        assert path.stat().st_mode & stat.S_IXUSR, path
        first, *rest = path.read_text("utf-8").splitlines()
        assert "python" in first or "set -euo pipefail" in rest, path
