"""Rules that no linter checks: sources without SQL, documents that name only what exists."""

import ast
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from repo.statements import statement, texts
from tests.support.datasette import METADATA, TITLES, UNIT, document
from worker.cli.run import run

ROOT = Path(__file__).parents[2]
SOURCES = {
    path: path.read_text("utf-8")
    for room in ("worker", "repo", "sql")
    for path in sorted((ROOT / room).rglob("*.py"))
}
CODE = "\n".join(SOURCES.values())
SCRIPTS = {path.name: path for path in (ROOT / "scripts").iterdir() if path.suffix == ""}
READMES = [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/**/README.md"))]
RUNBOOK = (ROOT / "scripts" / "README.md").read_text("utf-8")

SQL = re.compile(
    r"\s*((SELECT|INSERT|REPLACE|UPDATE|DELETE|CREATE|DROP|ALTER|PRAGMA|ROLLBACK|SAVEPOINT|RELEASE"
    r"|VACUUM|ATTACH|WITH|VALUES|WHERE|ORDER BY|ON CONFLICT)\b|COMMIT\s*;?$|BEGIN(?! NATS| USER)\b)"
)
EXAMPLES = [
    *("SELECT 1", "INSERT INTO runs", "UPDATE runs SET x = 1", "DELETE FROM runs", "COMMIT"),
    *("PRAGMA journal_mode", "BEGIN IMMEDIATE", "ROLLBACK TO s", "CREATE UNIQUE INDEX i"),
    *("\n WITH a AS (", "WHERE x = ", "ON CONFLICT DO NOTHING", "VALUES (?, ?)"),
]


# --- sources and scripts ---


def constants(source: str) -> Iterator[str]:
    """Yield each constant of a source as text except docstrings, including parts of f-strings."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield os.fsdecode(node.value) if isinstance(node.value, bytes) else str(node.value)


def test_python_modules_contain_no_sql() -> None:
    assert len(SOURCES) > 20
    for path, source in SOURCES.items():
        assert [text for text in constants(source) if SQL.match(text)] == [], path
    assert all(SQL.match(text) for text in EXAMPLES)
    for text in ("BEGIN NATS USER JWT", "Update the bucket", "with a file"):
        assert not SQL.match(text), text


def test_no_module_is_longer_than_450_lines() -> None:
    lengths = {path: len(source.splitlines()) for path, source in SOURCES.items()}
    assert {path: length for path, length in lengths.items() if length > 450} == {}


def test_every_script_is_executable_and_stops_at_the_first_error() -> None:
    assert SCRIPTS.keys() >= {"projector", "demo", "test", "migrate", "bench"}
    for path in filter(Path.is_file, SCRIPTS.values()):
        assert path.stat().st_mode & stat.S_IXUSR, path
        first, *rest = path.read_text("utf-8").splitlines()
        assert "python" in first or "set -euo pipefail" in rest, path


# --- READMEs ---


def section(title: str) -> str:
    return RUNBOOK.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_and_every_named_file_exists(path: Path) -> None:
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"`([a-z_./]+\.(?:py|sql|ini))`", text):
        assert (path.parent / name).exists() or (ROOT / name).exists(), name
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_the_developers_page_names_only_things_that_are_in_the_code() -> None:
    text = (ROOT / "worker" / "README.md").read_text("utf-8")
    for name in re.findall(r"`((?:[A-Z]\w+\.)?_?[a-z_]+|[A-Z]\w+)`", text):
        assert name.rpartition(".")[2] in CODE, name


def test_the_runbook_lists_every_option_of_the_worker_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([^|]*) \|", section("Options"), re.MULTILINE))
    options = {option.opts[0]: option for option in run.params}
    assert list(listed) == list(options)
    for name, option in options.items():
        default = option.default
        if isinstance(option, click.Option) and isinstance(default, str | int | list | tuple):
            (default,) = default if isinstance(default, list | tuple) else (default,)
            assert listed[name] == ("off" if default is False else f"`{default}`")


def test_the_runbook_lists_exactly_the_events_that_the_worker_logs() -> None:
    listed = re.findall(r"`([a-z]+\.[a-z_]+)`", section("Log events"))
    assert all(f'"{event}"' in CODE for event in listed)
    assert set(re.findall(r'\blog\.\w+\(\s*"([a-z]+\.[a-z_]+)"', CODE)) <= set(listed)


# --- Datasette ---


def test_the_canned_queries_are_the_statements_for_operators() -> None:
    assert METADATA.read_text("utf-8") == document(), "run python -m tests.support.datasette"
    for name in TITLES:
        assert texts("sqlite")[statement(name)].startswith("-- Operators: "), name


def test_the_unit_opens_the_file_with_locks_and_not_as_immutable() -> None:
    started = UNIT.read_text("utf-8").partition("ExecStart=")[2].partition("\nRestart")[0]
    assert not {"-i", "--immutable", "--nolock"} & set(started.split())
