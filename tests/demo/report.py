"""The end: tables for people, and the proof that no event is lost, doubled or changed."""

import shlex
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tests.demo.agents import Agents
from tests.demo.process import ROOT
from tests.demo.tables import Rows, Tables
from worker.codec.timestamps import NANOSECONDS, parse_instant

_QUERIES = ("runs_in_flight_by_job", "runs_in_flight", "overdue_runs")


def show_tables(console: Console, tables: Tables) -> None:
    """Show what an operator asks for; the rows come from `sql/sqlite/queries`."""
    jobs = _table(
        "Runs in flight by job, deadlines in UTC",
        *("job", ">runs", ">PCs", "first deadline", "last deadline", ">without\ndeadline"),
    )
    for row in tables.query("runs_in_flight_by_job"):
        deadlines = _deadline(row["first_deadline"]), _deadline(row["last_deadline"])
        without = Text(str(row["without_deadline"] or ""), "yellow")
        jobs.add_row(Text(row["job_id"]), str(row["runs"]), str(row["pcs"]), *deadlines, without)
    executions = _table("Executions by status", "status", ">executions")
    for row in tables.query("executions_by_status"):
        executions.add_row(row["status"], str(row["executions"]))
    rejected = _table("Rejected events, newest first", ">sequence", "subject")
    rejected.add_column("reason", overflow="fold")
    for row in tables.query("latest_rejected_events"):
        rejected.add_row(str(row["stream_sequence"]), Text(row["subject"]), Text(row["reason"]))
    for table in (jobs, executions, rejected):
        console.print(Padding(table, (0, 0, 1, 2), expand=False))


def sums(agents: Agents, tables: Tables) -> str:
    """Return how the published messages add up to the rows."""
    runs, rejected = tables.counts()
    finished = len(tables.finished_runs())
    return (
        f"published {len(agents.messages)} messages = {runs} rows ({runs - finished} in flight, "
        f"{finished} finished) + {agents.duplicates} duplicates + {rejected} rejected"
    )


def problems(
    agents: Agents, tables: Tables, *, finished: Rows, executions: list[dict[str, Any]]
) -> list[str]:
    """Compare every published message with the tables; returns what is wrong.

    `finished` are the runs that had finished before their last start arrived, `executions` the
    rows that are expected.
    """
    ids = [row["result_id"] for row in tables.runs()]
    published = agents.result_ids
    runs, rejected = tables.counts()
    sequences = sorted(row["stream_sequence"] for row in tables.query("latest_rejected_events"))
    now = tables.finished_runs()
    checks = {
        "starts are missing": published.difference(ids),
        "rows were never published": set(ids) - published,
        "runs are stored twice": {id for id in published if ids.count(id) > 1},
        "finished runs were changed": {id for id, row in finished.items() if now.get(id) != row},
        "rejected events differ": set(sequences) ^ set(agents.malformed_sequences),
    }
    found = [
        f"{len(wrong)} {what}: {', '.join(map(str, sorted(wrong)[:5]))}"
        for what, wrong in checks.items()
        if wrong
    ]
    if len(agents.messages) != runs + agents.duplicates + rejected:
        found.append("the numbers do not add up")
    found += [
        f"execution {expected['exec_id']} has {name} {row[name]}, expected {value}"
        for row, expected in zip(tables.executions(), executions, strict=True)
        for name, value in expected.items()
        if row[name] != value
    ]
    if not agents.is_acked():
        found.append("the broker still has messages that are not acked")
    return found


def show_where_to_look(console: Console, database: Path, log: Path) -> None:
    """Print the paths, and one command to copy for each query."""
    console.print(f"  Database:      {database}", soft_wrap=True)
    console.print(f"  Workers' log:  {log}", soft_wrap=True)
    console.print("  To look further:")
    for name in _QUERIES:
        file = shlex.quote(str(ROOT / "sql" / "sqlite" / "queries" / f"{name}.sql"))
        command = f"sqlite3 -box {shlex.quote(str(database))} < {file}"
        console.print(Text(f"    {command}", "cyan"), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    """Return an empty table; a column whose name begins with `>` is right-aligned."""
    table = Table(title=title, title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title_justify, table.show_edge, table.pad_edge = "left", False, False
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.strip(">"), justify="right" if right else "left", no_wrap=True)
    return table


def _deadline(instant: str | None) -> str:
    """Return a stored instant as `14:05:09 in 4 min`."""
    if instant is None:
        return "none"
    seconds = parse_instant(instant) / NANOSECONDS - time.time()
    minutes = abs(seconds) / 60
    distance = f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
    return f"{instant[11:19]} " + (f"in {distance}" if seconds >= 0 else f"{distance} ago")
