"""`projector copy`: move a database to another engine, or to another place."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import click
from rich.progress import TaskID

from repo import open_database
from repo.copying import Copied, copy_checkpoints, copy_tables, has_checkpoints, verify
from repo.retry import retry_policy
from worker.cli.context import set_up_log
from worker.cli.help import command
from worker.cli.options import DATABASE, json_option, logs, patience, together
from worker.cli.output import json_text, safe
from worker.cli.tables import progress
from worker.errors import EXIT_OK, EXIT_PARTLY, SettingError
from worker.schema import check_schema

_MOST_SHOWN = 20


@command(short_help="Copy all rows into a database of another engine.")
@click.option(
    "--from", "source_url", type=DATABASE, required=True, metavar="URL", help="Read this database."
)
@click.option(
    "--to", "target_url", type=DATABASE, required=True, metavar="URL", help="Write to this one."
)
@together(json_option, patience, logs("warning"))
def copy(*, source_url: str, target_url: str, as_json: bool, **chosen: Any) -> int:
    """Copy every row of one database into another one, then its checkpoints.

    \b
    projector migrate --database postgresql://projector@db/fleet
    systemctl stop projector
    projector copy --from sqlite:////var/lib/projector/projector.db \\
        --to postgresql://projector@db/fleet
    systemctl start projector                   # with the new --database
    projector copy --from sqlite:///a.db --to postgresql:///fleet --json | jq .tables

    The tables of the target must exist. An existing row is left unchanged. When all rows are
    copied, both databases are compared, and only then the checkpoints are written: a worker on the
    target then reads from the streams what came after. An interrupted copy may be repeated.
    Rejected events get new ids.

    With --json: {"tables": [{"table": "executions", "copied": 2, "present": 0, "refused": [],
    "different": []}, …], "checkpoints": 2}.

    Exit codes: 1 rows were not taken, for example because of a character that the engine cannot
    store, or differ in the target; they are listed, the checkpoints are not written. 64 a worker
    has written to the target already. 78 a database is not migrated.
    """
    set_up_log(chosen)
    if source_url == target_url:
        raise SettingError("--to", "expected another database than that of --from")
    timeout = chosen["busy_timeout"]
    source, target = (open_database(url, busy_timeout=timeout) for url in (source_url, target_url))
    retry = retry_policy(chosen["retry_for"])
    for database in (source, target):
        retry(check_schema, database, apply=False)
    with source.reading() as read, closing(target.connect()) as written:
        if has_checkpoints(written):
            problem = "a worker has written to this database, or a copy was completed"
            raise SettingError("--to", problem)
        tables = _follow("copying", copy_tables(read, written, retry))
        _follow("comparing", verify(read, written, tables))
        faulty = [one for one in tables.values() if one.refused or one.different]
        checkpoints = 0 if faulty else retry(copy_checkpoints, read, written)
    if as_json:
        click.echo(
            json_text(
                {"tables": [asdict(one) for one in tables.values()], "checkpoints": checkpoints}
            )
        )
    else:
        _print(tables.values(), faulty, checkpoints)
    return EXIT_PARTLY if faulty else EXIT_OK


def _follow(what: str, pages: Iterator[tuple[Copied, int]]) -> dict[str, Copied]:
    """Go through the pages with a bar; return what became of each table, by name."""
    found: dict[str, Copied] = {}
    done = 0
    with progress(what, 0) as bar:
        for table, rows in pages:
            found[table.table] = table
            done += rows
            bar.update(TaskID(0), completed=done, total=done)
    return found


def _print(tables: Iterable[Copied], faulty: list[Copied], checkpoints: int) -> None:
    for one in tables:
        click.echo(f"{one.table}: {one.copied} copied, {one.present} present")
    for one in faulty:
        for key, reason in one.refused[:_MOST_SHOWN]:
            click.echo(safe(f"not taken: {one.table} {key}: {reason}"))
        for key in one.different[:_MOST_SHOWN]:
            click.echo(safe(f"differs: {one.table} {key}"))
        more = sum(max(len(keys) - _MOST_SHOWN, 0) for keys in (one.refused, one.different))
        if more:
            click.echo(f"and {more} more in {one.table}; --json lists all")
    if faulty:
        click.echo("the checkpoints are not written; mend these rows and repeat", err=True)
    else:
        click.echo(f"compared: no difference; {checkpoints} checkpoints written", err=True)
