"""What Datasette is told is what stands in `sql/sqlite/queries/`."""

import pytest

from repo.statements import STATEMENTS
from tests.support.datasette import METADATA, TITLES, UNIT, document


def test_the_canned_queries_are_the_statements_for_operators() -> None:
    again = "python -m tests.support.datasette"
    assert METADATA.read_text("utf-8") == document(), f"written anew by: {again}"


@pytest.mark.parametrize("name", TITLES)
def test_a_canned_query_only_reads_and_is_meant_for_operators(name: str) -> None:
    assert STATEMENTS[name].startswith("-- Operators: ")


def test_the_unit_opens_the_file_neither_immutable_nor_without_locks() -> None:
    command = UNIT.read_text("utf-8").partition("ExecStart=")[2].partition("\nRestart")[0]
    assert " -i " not in command
    assert "--immutable" not in command
    assert "--nolock" not in command
