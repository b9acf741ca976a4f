"""Datasette's metadata is generated from the statements for operators."""

import pytest

from repo.statements import statement, texts
from tests.support.datasette import METADATA, TITLES, UNIT, document


def test_the_canned_queries_are_the_statements_for_operators() -> None:
    assert METADATA.read_text("utf-8") == document(), "run python -m tests.support.datasette"


@pytest.mark.parametrize("name", TITLES)
def test_every_canned_query_is_meant_for_operators(name: str) -> None:
    assert texts("sqlite")[statement(name)].startswith("-- Operators: ")


def test_the_unit_opens_the_file_with_locks_and_not_as_immutable() -> None:
    command = UNIT.read_text("utf-8").partition("ExecStart=")[2].partition("\nRestart")[0]
    assert not {"-i", "--immutable", "--nolock"} & set(command.split())
