"""The end: tables for people, and the proof that no event is lost, doubled or changed."""

import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tests.demo.agents import Agents, Members
from tests.demo.fleet import Execution
from tests.demo.process import ROOT
from tests.demo.screen import Screen, shown
from tests.demo.tables import Rows, Tables
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant

_COMMANDS = ("runs --by job", "runs --failed", "executions")


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
    executions = _table(
        "Executions", "execution", "status", ">targets", ">succeeded", ">failed", ">in flight"
    )
    flying = [row["exec_id"] for row in tables.runs() if row["finished_at"] is None]
    for row in tables.executions():
        counts = row["target_count"], row["success_count"], row["failure_count"]
        cells = row["exec_id"], row["status"], *counts, flying.count(row["exec_id"])
        executions.add_row(*map(str, cells))
    reaped = _table("Given up, by job", "job", ">runs", ">PCs")
    for row in tables.query("reaped_runs_by_job"):
        reaped.add_row(Text(row["job_id"]), str(row["runs"]), str(row["pcs"]))
    rejected = _table("Rejected events, newest first", "stream", ">sequence")
    rejected.add_column("reason", overflow="fold")
    for row in tables.query("latest_rejected_events"):
        rejected.add_row(row["stream"], str(row["stream_sequence"]), Text(row["reason"]))
    for table in (jobs, executions, reaped, rejected):
        console.print(Padding(table, (0, 0, 1, 2), expand=False))


def sums(agents: Agents, tables: Tables) -> list[str]:
    """Return how the published messages add up to the rows, a line for each stream and one more."""
    starts, results, counts = agents.starts, agents.results, tables.counts()
    flying = counts.runs - counts.finished - counts.reaped
    return [
        f"{starts.messages} messages in EVENTS = {len(starts.first)} runs started + "
        f"{starts.duplicates} duplicates + {len(starts.malformed)} rejected",
        f"{results.messages} messages in RESULTS = {len(results.first)} runs ended + "
        f"{results.duplicates} duplicates + {len(results.malformed)} rejected",
        f"{counts.runs} rows = {flying} in flight + {counts.finished} with their result + "
        f"{counts.reaped} given up",
    ]


def problems(
    agents: Agents, tables: Tables, *, finished: Rows, reaped: set[str], expected: list[Execution]
) -> list[str]:
    """Compare every published message with the tables; returns what is wrong.

    `finished` are the runs that had their result before further messages came for them, `reaped`
    those that were given up, of which some have their result by now.
    """
    rows, results = tables.runs(), agents.results.first
    ids = [row["result_id"] for row in rows]
    published = agents.result_ids
    rejected = {
        (row["stream"], row["stream_sequence"]) for row in tables.query("latest_rejected_events")
    }
    now = tables.finished_runs()
    checks: dict[str, Iterable[object]] = {
        "runs are missing": published.difference(ids),
        "rows were never published": set(ids) - published,
        "runs are stored twice": {id for id in published if ids.count(id) > 1},
        "runs ended otherwise than by their result": now.keys() ^ results.keys(),
        "results differ": {
            row["result_id"]
            for row in rows
            if row["result_id"] in results and not _fits(row, results[row["result_id"]], agents)
        },
        "finished runs were changed": {id for id, row in finished.items() if now.get(id) != row},
        "runs given up differ": {row["result_id"] for row in rows if row["reaped"]}
        ^ (reaped - results.keys()),
        "rejected events differ": rejected ^ agents.malformed,
    }
    found = [
        f"{len(wrong)} {what}: {', '.join(sorted(map(str, wrong))[:5])}"
        for what, values in checks.items()
        if (wrong := set(values))
    ]
    found += [
        f"execution {wanted['exec_id']} has {name} {row[name]}, expected {value}"
        for row, wanted in zip(
            tables.executions(), _executions(agents, reaped, expected), strict=True
        )
        for name, value in wanted.items()
        if row[name] != value
    ]
    if not agents.has_nothing_left():
        found.append("the broker still has messages that are not acked")
    return found


def _fits(row: Any, result: Members, agents: Agents) -> bool:
    """Return whether a row holds its result, with the output that is in the object store."""
    stdout = agents.outputs.get(result.get("stdout_object", ""), result["stdout"])
    wanted = {
        "exit_code": result["exit_code"],
        "stdout": stdout,
        "stderr": result["stderr"],
        "finished_at": format_instant(parse_instant(result["finished_at"])),
        "skipped": int(result.get("skipped", False)),
    }
    return all(row[name] == value for name, value in wanted.items())


def _executions(
    agents: Agents, reaped: set[str], executions: list[Execution]
) -> list[dict[str, Any]]:
    """Return the expected row of each execution, by id: every run is counted once."""
    starts, results = agents.starts.first, agents.results.first
    rows = []
    for execution in sorted(executions, key=lambda execution: execution.exec_id):
        mine = [one for one in results.values() if one["exec_id"] == execution.exec_id]
        given_up = [
            id for id in reaped - results.keys() if starts[id]["exec_id"] == execution.exec_id
        ]
        succeeded = sum(one["exit_code"] == 0 for one in mine)
        rows.append(
            execution.row(
                started=any(one["exec_id"] == execution.exec_id for one in starts.values()),
                succeeded=succeeded,
                failed=len(mine) - succeeded + len(given_up),
            )
        )
    return rows


def show_where_to_look(screen: Screen, database: Path, log: Path) -> None:
    """Print the paths, and commands to copy."""
    url = shlex.quote(f"sqlite:///{shown(database)}")
    screen.say(f"The worker's log is {shown(log)}. To look further, in {ROOT}:")
    for command in _COMMANDS:
        screen.to_copy(f"scripts/projector {command} --database {url}")
    screen.say("To publish events of your own: scripts/demo --stay")


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
