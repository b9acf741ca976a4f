"""The end: tables that a person reads, and the proof that nothing was lost, doubled or touched."""

import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tests.demo.agents import Agents
from tests.demo.process import ROOT
from tests.demo.tables import Rows, Tables
from worker.codec.timestamps import NANOSECONDS, parse_instant

_QUERIES = ROOT / "sql" / "sqlite" / "queries"


def show_tables(console: Console, tables: Tables) -> None:
    """Show what an operator asks for; everything comes from `sql/sqlite/queries`."""
    jobs = _table(
        "Runs in flight by job, deadlines in UTC",
        *("job", ">runs", ">PCs", "first deadline", "last deadline", ">without\ndeadline"),
    )
    for row in tables.query("runs_in_flight_by_job"):
        jobs.add_row(
            Text(row["job_id"]),
            str(row["runs"]),
            str(row["pcs"]),
            _deadline(row["first_deadline"]),
            _deadline(row["last_deadline"]),
            Text(str(row["without_deadline"]), "yellow") if row["without_deadline"] else "",
        )
    executions = _table("Executions by status", "status", ">executions")
    for row in tables.query("executions_by_status"):
        executions.add_row(row["status"], str(row["executions"]))
    rejected = _table("Rejected events, the newest first", ">sequence", "subject")
    rejected.add_column("reason", overflow="fold")
    for row in tables.query("latest_rejected_events"):
        rejected.add_row(str(row["stream_sequence"]), Text(row["subject"]), Text(row["reason"]))
    for table in (jobs, executions, rejected):
        console.print(Padding(table, (0, 0, 1, 2), expand=False))


def sums(agents: Agents, tables: Tables) -> str:
    """Return what was published beside what the tables hold."""
    runs, rejected = tables.counts()
    finished = len(tables.finished_runs())
    return (
        f"published {len(agents.published)} messages = {runs} rows ({runs - finished} in flight, "
        f"{finished} finished) + {agents.starts - len(agents.result_ids)} duplicates "
        f"+ {rejected} rejected"
    )


async def problems(
    agents: Agents, tables: Tables, *, finished: Rows, executions: list[dict[str, Any]]
) -> list[str]:
    """Compare every published message with the tables; returns what is wrong, in words.

    `finished` are the runs that were finished before their last start came, `executions` what
    the row of each should have become.
    """
    found: list[str] = []
    ids = [row["result_id"] for row in tables.runs()]
    published = agents.result_ids
    duplicates = agents.starts - len(published)
    runs, rejected = tables.counts()
    if lost := published.difference(ids):
        found.append(f"{len(lost)} starts are lost: {', '.join(sorted(lost)[:5])}")
    if strange := set(ids) - published:
        found.append(f"{len(strange)} rows were never published: {', '.join(sorted(strange)[:5])}")
    if len(ids) != len(set(ids)):
        found.append(f"{len(ids) - len(set(ids))} runs are there twice")
    sequences = sorted(row["stream_sequence"] for row in tables.query("latest_rejected_events"))
    if sequences != agents.malformed_sequences:
        found.append(f"rejected {sequences}, expected {agents.malformed_sequences}")
    if len(agents.published) != runs + duplicates + rejected:
        found.append("the sum does not come out")
    if touched := [id for id, row in finished.items() if tables.finished_runs().get(id) != row]:
        found.append(f"{len(touched)} finished runs were changed: {', '.join(touched[:5])}")
    found += [
        f"execution {expected['exec_id']} has {name} {row[name]}, expected {value}"
        for row, expected in zip(tables.executions(), executions, strict=True)
        for name, value in expected.items()
        if row[name] != value
    ]
    if not await agents.is_settled():
        found.append("the broker still holds messages that are not settled")
    return found


def show_where_to_look(console: Console, database: Path, log: Path) -> None:
    """Name the database and the commands to look further; each is one line to copy."""
    console.print(f"  The database stays: {database}", soft_wrap=True)
    console.print(f"  The workers' log:   {log}", soft_wrap=True)
    if shutil.which("sqlite3") is None:
        console.print("  Look further (after apt-get install sqlite3):")
    else:
        console.print("  Look further:")
    for name in (
        "runs_in_flight_by_job",
        "executions_by_status",
        "latest_rejected_events",
        "overdue_runs",
    ):
        file = shlex.quote(str(_QUERIES / f"{name}.sql"))
        command = f"sqlite3 -box {shlex.quote(str(database))} < {file}"
        console.print(Text(f"    {command}", "cyan"), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    """Return a table without rows; the numbers of a column named with `>` stand on the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        justify: JustifyMethod = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=justify, no_wrap=True)
    return table


def _deadline(instant: str | None) -> str:
    """Return `14:05:09 in 4 min` for a stored instant."""
    if instant is None:
        return "none"
    seconds = parse_instant(instant) / NANOSECONDS - time.time()
    return f"{instant[11:19]} {_away(seconds)}"


def _away(seconds: float) -> str:
    minutes = round(abs(seconds) / 60)
    if minutes < 100:
        text = f"{minutes} min" if abs(seconds) >= 60 else f"{abs(seconds):.0f} s"
    else:
        text = f"{minutes / 60:.1f} h"
    return f"in {text}" if seconds >= 0 else f"{text} ago"
