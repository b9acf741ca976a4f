"""The rules of the rooms, held by reading the source."""

import ast
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("worker", "repo", "sql")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
SCRIPTS = sorted(
    path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix != ".md"
)

BROKER_MODULES = {
    f"worker/{name}.py"
    for name in (
        *("broker", "session", "shared", "pulling", "puller", "connection", "wire", "binding"),
        *("in_step", "handover"),
        *("manifest_watch", "manifest_snapshot"),
        *("visit", "broker_view", "rights", "stream_reader"),
    )
}
STANDARD = set(sys.stdlib_module_names)

SQL = re.compile(
    r"\s*(SELECT\s.+\sFROM|SELECT\s+\S+|INSERT\s+(OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE\s.+\sSET"
    r"|DELETE\s+FROM|(CREATE|DROP|ALTER)\s+(TEMP\w*\s+|UNIQUE\s+)?(TABLE|INDEX|TRIGGER|VIEW)"
    r"|PRAGMA\s|BEGIN\s+(IMMEDIATE|DEFERRED|EXCLUSIVE|TRANSACTION)|BEGIN\s*;?$|COMMIT\s*;?$"
    r"|ROLLBACK(\s+TO\b.*|\s*;?)$|SAVEPOINT\s|RELEASE\s|VACUUM|ATTACH\s|WITH\s+\w+\s*(\(|AS\s)"
    r"|(VALUES|WHERE|ORDER BY|ON CONFLICT)\b)",
    re.DOTALL,
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """Yield each module that a file imports, by its whole name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            assert node.module is not None
            yield node.module


def packages(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imported(path)}


def strings(path: Path) -> Iterator[str]:
    """Yield each string of a file that is no docstring, the parts of f-strings as well."""
    tree = ast.parse(path.read_text("utf-8"))
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documentation:
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")


def test_there_is_source_to_read() -> None:
    assert {path.parent.name for path in SOURCES} >= set(ROOMS)
    assert len(SOURCES) > 20
    assert {path.name for path in SCRIPTS} >= {"projector", "demo", "test", "migrate", "bench"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_imports_more_than_its_room_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    if room == "sql":
        assert packages(path) == set()
    elif room == "repo":
        assert packages(path) <= (STANDARD - {"asyncio"}) | {"tenacity", "repo"}
    else:
        assert not packages(path) & {"tests", "scripts", "sql", "tenacity"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_broker_is_known_to_the_broker_modules_alone(path: Path) -> None:
    if name_of(path) not in BROKER_MODULES:
        assert not packages(path) & {"nats"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_engine_is_known_to_the_repository_alone(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] != "repo":
        assert not packages(path) & {"sqlite3", "_sqlite3"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_broker_modules_reach_no_connection_of_the_database(path: Path) -> None:
    if name_of(path) in BROKER_MODULES:
        assert "repo" not in packages(path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_sql_is_written_in_python(path: Path) -> None:
    assert [text for text in strings(path) if SQL.match(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        *("SELECT 1", "INSERT INTO runs", "UPDATE runs SET x = 1", "DELETE FROM runs", "COMMIT"),
        *(
            "PRAGMA journal_mode",
            "BEGIN IMMEDIATE",
            "ROLLBACK TO s",
            "CREATE UNIQUE INDEX i",
            "\n WITH a AS (",
        ),
        *("WHERE x = ", "ON CONFLICT DO NOTHING", "VALUES (?, ?)"),
    ],
)
def test_sql_would_be_seen(text: str) -> None:
    assert SQL.match(text)


@pytest.mark.parametrize("text", ["BEGIN NATS USER JWT", "Update the bucket", "with a file"])
def test_ordinary_words_are_not_taken_for_sql(text: str) -> None:
    assert not SQL.match(text)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_needs_a_second_one_badly(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_every_script_can_be_started_and_stops_at_its_first_error(path: Path) -> None:
    assert path.stat().st_mode & stat.S_IXUSR
    first, *rest = path.read_text("utf-8").splitlines()
    if "python" in first:
        assert len(rest) < 40
    else:
        assert first == "#!/usr/bin/env bash"
        assert "set -euo pipefail" in rest


@pytest.mark.parametrize("name", ["projector", "demo", "test", "migrate", "bench"])
def test_a_script_is_thin_and_hands_over_to_the_program(name: str) -> None:
    lines = (ROOT / "scripts" / name).read_text("utf-8").splitlines()
    code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) <= 30
    assert re.search(r"\bexec\b", code[-1])
    assert not any(re.match(r"\s*(function\s|\w+\s*\(\))", line) for line in code)
