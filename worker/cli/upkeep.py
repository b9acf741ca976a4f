"""`projector upkeep`: what a worker does at an interval, once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from repo import executions, reaper, reports
from repo.batch_writer import PromotionFailure
from repo.errors import CorruptDatabaseError, RepositoryError
from repo.reader import Reader
from repo.repository import Repository, Sweep
from worker.cli.context import CheckedDatabase, chosen_settings, database_of
from worker.cli.help import command
from worker.cli.options import broker_command, retention
from worker.cli.output import Add, Members, counts_text, report, safe, user_message
from worker.codec.timestamps import format_instant
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError
from worker.jetstream import upkeep as upkeep_of_worker
from worker.jetstream.client import BrokerClient
from worker.jetstream.command_limits import Known, ask_limits
from worker.settings import Settings

_PAGE = 500
_MOST_LISTED = 100_000
_COUNTS = ("promoted", "expired", "reaped", "executions_deleted", "runs_deleted", "failed")
_COUNT_OLD = {"executions": reports.count_old_executions, "runs": reports.count_old_runs}


@command(short_help="Do once what a worker does at an interval: sweep, reap, delete.")
@click.option("--once", is_flag=True, help="Required: only a worker repeats the upkeep.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and list what would be changed.")
@retention
@broker_command
def upkeep(*, once: bool, dry_run: bool, as_json: bool, **chosen: Any) -> int:
    """Do one tick as a worker does every --upkeep-every, and list what it changed.

    \b
    projector upkeep --once
    projector upkeep --once --dry-run --json | jq '.changes[] | select(.change == "reaped")'

    It sweeps: pending executions that have runs go to running, or to completed, and their ended
    runs are counted; pending executions without runs expire after an hour. It reaps: runs whose
    deadline has passed without a result are given up, and count as failures. It deletes executions
    and ended runs that are older than --retention.

    What waits in the streams must not be given up. So only what lies before the time up to which
    both streams are in the database expires or is reaped, by the broker's clock. If that time is
    unknown, the command promotes only, and says why. It works beside workers and without one, and
    may be repeated.

    With --json: {"changes": [{"change": "promoted", "execution": …}, {"change": "reaped",
    "result_id": …, "execution": …, "pc_id": …, "expires_at": …}, {"change": "deleted", "table":
    "runs", "rows": 7, "before": …}, {"change": "failed", "execution": …, "error": …}, …],
    "promoted": 3, "expired": 0, "reaped": 1, "executions_deleted": 0, "runs_deleted": 7, "failed":
    0, "dry_run": false, "projected_up_to": …, "problems": []}. Without "projected_up_to",
    "problems" has the reason.

    Exit codes: 0 done, even if only what needs no broker; 1 the tables rejected a change.
    """
    if not once:
        raise click.UsageError("expected --once; a worker repeats the upkeep by itself")
    settings = chosen_settings(chosen)
    database = database_of(settings)
    with database.reader() as reader, database.repository() as repository:
        known, problems = _ask(settings, database, reader)
        tick = _Tick(reader, repository, known, settings.retention, dry_run, problems)
        summary: Members = {
            **dict.fromkeys(_COUNTS, 0),
            "dry_run": dry_run,
            "projected_up_to": format_instant(known.limits.known) if known else None,
            "problems": problems,
        }
        with report("changes", summary, _line, _ending, None, as_json=as_json) as add:
            for part in (tick.sweep, tick.reap, tick.delete_old):
                _do(part, summary, add, tick)
        if tick.errors:
            raise tick.errors[0]
    return EXIT_PARTLY if summary["failed"] else EXIT_OK


def _ask(
    settings: Settings, database: CheckedDatabase, reader: Reader
) -> tuple[Known | None, list[str]]:
    """Return what the tick goes by, or why that is unknown."""
    try:
        with BrokerClient(settings) as client:
            return ask_limits(client, settings, reader, database.place()), []
    except (BrokerError, ConfigurationError) as error:
        text = "nothing is reaped, expired or deleted, because it is unknown up to when the streams"
        return None, [f"{text} are in the database: {user_message(error)}"]


@dataclass(slots=True)
class _Tick:
    """The parts of a tick, each of which yields its changes. `errors` are those of whole parts."""

    reader: Reader
    repository: Repository[Any]
    known: Known | None
    retention: float | None
    dry_run: bool
    problems: list[str]
    errors: list[RepositoryError] = field(default_factory=list)

    def sweep(self) -> Iterator[Members]:
        """Promote and expire pending executions."""
        before = upkeep_of_worker.expires_before(self.known.limits) if self.known else None
        sweep = Sweep(before)
        while sweep.after is not None:
            page = self.reader.read(executions.pending_after, sweep.after, before, _PAGE)
            failures: dict[str, str] = {}
            if self.dry_run:
                sweep.after = page.last
            else:
                self.repository.sweep(sweep)
                failures = _reasons([*sweep.failures, *sweep.expiry_failures])
            for change, exec_ids in (("promoted", page.with_runs), ("expired", page.old)):
                for exec_id in exec_ids:
                    yield _changed(change, failures.get(exec_id), execution=exec_id)

    def reap(self) -> Iterator[Members]:
        """Give up overdue runs."""
        if self.known is None:
            return
        reaping = upkeep_of_worker.reaping_of(self.known.limits)
        if self.dry_run:
            limits = reaping.expires_before, reaping.recorded_before, _MOST_LISTED
            for run in self.reader.read(reaper.list_overdue, *limits):
                yield _reaped(run)
            return
        while not reaping.is_complete:
            yield from map(_reaped, self.repository.reap(reaping))
        for result_id, reason in reaping.failures.items():
            yield _changed("reaped", reason, result_id=result_id)

    def delete_old(self) -> Iterator[Members]:
        """Delete what is older than the retention, executions first."""
        if self.known is None or self.retention is None:
            return
        for stream, max_age in self.known.max_ages.items():
            problem = upkeep_of_worker.retention_problem(stream, max_age, self.retention)
            if problem is not None:
                self.problems.append(problem)
                return
        before = upkeep_of_worker.old_before(self.known.limits.now, self.retention)
        for table, delete in upkeep_of_worker.OLD_ROWS:
            rows = 0
            if self.dry_run:
                rows = self.reader.read(_COUNT_OLD[table], before, _MOST_LISTED)
            else:
                for _ in range(upkeep_of_worker.MOST_DELETIONS):
                    deleted = self.repository.delete_old(delete, before)
                    rows += deleted
                    if not deleted:
                        break
            if rows:
                yield {"change": "deleted", "table": table, "rows": rows, "before": before}


def _do(part: Callable[[], Iterator[Members]], summary: Members, add: Add, tick: _Tick) -> None:
    """Do one part of a tick, print its changes and count them; a failed one costs no other."""
    try:
        for change in part():
            name, rows = change["change"], change.get("rows", 1)
            summary[f"{change['table']}_deleted" if name == "deleted" else name] += rows
            add(change)
    except CorruptDatabaseError:
        raise
    except RepositoryError as error:
        tick.errors.append(error)


def _reasons(failures: list[PromotionFailure]) -> dict[str, str]:
    return {failure.execution: failure.reason for failure in failures}


def _reaped(run: reaper.Overdue) -> Members:
    places = {"execution": run.exec_id, "job_id": run.job_id, "pc_id": run.pc_id}
    return {"change": "reaped", "result_id": run.result_id, **places, "expires_at": run.expires_at}


def _changed(change: str, error: str | None, **what: str) -> Members:
    return (
        {"change": change, **what}
        if error is None
        else {"change": "failed", **what, "error": error}
    )


def _line(item: Members) -> str:
    change = f"{item['change']:9}"
    if "rows" in item:
        return f"{change} {item['rows']} {item['table']} older than {item['before']}"
    if "result_id" not in item:
        text = f"execution {item['execution']}"
    elif "pc_id" in item:
        deadline = f"deadline {item['expires_at']}" if item["expires_at"] else "no deadline"
        text = f"run {item['result_id']} on {item['pc_id']}, {deadline}"
    else:
        text = f"run {item['result_id']}"
    return safe(f"{change} {text}" + (f": {item['error']}" if "error" in item else ""))


def _ending(summary: Members) -> str:
    counts = counts_text({name: summary[name] for name in _COUNTS})
    problems = [f"problem: {safe(problem)}" for problem in summary["problems"]]
    return "\n".join([*problems, f"{'would be: ' if summary['dry_run'] else ''}{counts}"])
