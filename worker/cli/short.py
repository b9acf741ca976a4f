"""Short ids: the beginnings of ids that tables print, which commands take instead of the whole."""

import click

from repo import reports, short_ids
from repo.reader import Reader
from repo.short_ids import EXECUTIONS, RUNS, SHORTEST, Ids
from worker.cli.output import safe


def short_run(reader: Reader, result_id: str) -> str:
    """Return the shortest beginning of a run's id that no other run has."""
    return reader.read(short_ids.shorten, RUNS, result_id)


def short_execution(reader: Reader, exec_id: str) -> str:
    """Return the shortest beginning of an execution's id that no other execution has."""
    return reader.read(short_ids.shorten, EXECUTIONS, exec_id)


def whole_run(reader: Reader, given: str) -> str:
    """Return the id of the run that begins with a text, or the text where no run does."""
    return _whole(reader, RUNS, given, "run")


def whole_execution(reader: Reader, given: str) -> str:
    """Return the id of the execution that begins with a text, or the text where none does.

    An execution without a row is known by its runs.
    """
    if any(reader.read(reports.count_runs, given)):
        return given
    return _whole(reader, EXECUTIONS, given, "execution")


def _whole(reader: Reader, ids: Ids, given: str, what: str) -> str:
    # No table shows fewer characters, unless they are the whole id.
    found = reader.read(short_ids.find, ids, given) if len(given) >= SHORTEST else []
    if len(found) > 1:
        names = ", ".join(map(safe, found))
        raise click.UsageError(f"more than one {what} begins with {safe(given)}: {names}, …")
    if found and found[0] != given:
        click.echo(f"{what} {safe(found[0])}", err=True)
    return found[0] if found else given
