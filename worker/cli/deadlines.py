"""`projector deadlines recompute`: give runs in flight the deadlines of today's manifests."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import click

from repo.deadlines import DeadlineChange
from repo.queries import Filters
from repo.reader import Reader
from repo.repository import Repository
from worker.cli.context import CommandBroker, chosen_settings, database_of
from worker.cli.help import Command
from worker.cli.options import broker_options, logs
from worker.cli.output import Members, counts_text, report, safe
from worker.cli.runs import in_flight
from worker.codec.readable import until
from worker.codec.timestamps import format_instant, parse_stored
from worker.errors import EXIT_OK
from worker.inspection.explanation import calculate
from worker.jetstream.manifest_sync import read_manifests
from worker.projections.manifests import ManifestCache
from worker.settings import Settings

log = logging.getLogger(__name__)

_AT_ONCE = 500

CHANGED = "changed"
UNCHANGED = "unchanged"
WITHOUT = "without_deadline"
MEANWHILE = "changed_meanwhile"


@click.group(short_help="Recompute the deadlines of runs in flight.")
def deadlines() -> None:
    """Recompute the deadlines of runs in flight from today's manifests.

    A run has no deadline where its manifest was missing or had no valid timeout when its start was
    projected. Such a run is given up only a day after it was stored.
    """


@deadlines.command(
    cls=Command, short_help="Show, or write, the deadlines that today's manifests give."
)
@click.option("--manifest", metavar="ID", help="Recompute those of this manifest (job) only.")
@click.option("--yes", is_flag=True, help="Write them. Without it nothing is changed.")
@broker_options
@logs("warning")
def recompute(*, manifest: str | None, yes: bool, as_json: bool, **options: Any) -> int:
    """Show which runs in flight would get another deadline from today's manifests; --yes writes it.

    \b
    projector deadlines recompute
    projector deadlines recompute --manifest check-disk --yes

    A deadline is the time at which the broker stored the start, plus the timeout, plus slack. It
    may be over already: then a worker gives the run up at its next tick, unless the result waits in
    the stream. A run whose manifest gives no deadline today keeps the one it has, and the reason is
    shown; a run that has ended keeps its deadline always. It works beside workers, and may be
    repeated. Each change is printed before it is written, and their number is logged; a run that
    ends meanwhile, or whose deadline another program changes, stays as it is and is counted.

    With --json: {"runs": [{"result_id": …, "job_id": …, "pc_id": …, "before": null, "after": …},
    …], "changed": 3, "unchanged": 40, "without_deadline": 2, "changed_meanwhile": 0, "reasons":
    [{"job_id": …, "reason": …, "runs": 2}], "dry_run": true}. Without --yes, "changed" counts what
    would be.

    Exit codes: 0, even if nothing changes; 78 the bucket of the manifests does not exist.
    """
    settings = chosen_settings(options)
    database = database_of(settings)
    manifests = ManifestCache()
    with CommandBroker(settings) as broker:
        read_manifests(broker.client(), settings.bucket, manifests)
    counts = dict.fromkeys((CHANGED, UNCHANGED, WITHOUT, MEANWHILE), 0)
    reasons: Counter[tuple[str, str]] = Counter()
    summary: Members = {**counts, "reasons": [], "dry_run": not yes}
    with (
        database.reader() as reader,
        database.repository() as repository,
        report("runs", summary, _line, _ending, None, as_json=as_json) as add,
    ):
        changes = _changes(reader, manifests, manifest, summary, reasons)
        try:
            while page := list(islice(changes, _AT_ONCE)):
                # Printed first: no failure leaves a change that nobody can look up.
                for one in page:
                    add(one)
                sys.stdout.flush()
                changed = _write(repository, page) if yes else len(page)
                summary[CHANGED] += changed
                summary[MEANWHILE] += len(page) - changed
        finally:
            if yes and summary[CHANGED]:
                _log(settings, manifest, summary[CHANGED])
        summary["reasons"] = [
            {"job_id": job_id, "reason": reason, "runs": runs}
            for (job_id, reason), runs in reasons.most_common()
        ]
    return EXIT_OK


def _log(settings: Settings, manifest: str | None, runs: int) -> None:
    extra = {"runs": runs, "database": settings.database}
    if manifest is not None:
        extra["manifest"] = manifest
    log.warning("deadlines.recomputed", extra=extra)


def _changes(
    reader: Reader,
    manifests: ManifestCache,
    manifest: str | None,
    summary: Members,
    reasons: "Counter[tuple[str, str]]",
) -> Iterator[Members]:
    """Yield the runs whose deadline differs from today's; count the others and their reasons."""
    now = format_instant(time.time_ns())
    for run in in_flight(reader, Filters(job_id=manifest), now):
        job_id = run["job_id"] or ""
        after, problem = _deadline(manifests, job_id, run["recorded_at"])
        if after is None:
            summary[WITHOUT] += run["expires_at"] is None
            summary[UNCHANGED] += run["expires_at"] is not None
            reasons[job_id, problem] += 1
        elif after == run["expires_at"]:
            summary[UNCHANGED] += 1
        else:
            named = {name: run[name] for name in ("result_id", "job_id", "pc_id")}
            yield {**named, "before": run["expires_at"], "after": after}


def _deadline(manifests: ManifestCache, job_id: str, recorded_at: str) -> tuple[str | None, str]:
    """Return the deadline that the manifest gives today, or why it gives none."""
    try:
        calculation = calculate(manifests, job_id, parse_stored(recorded_at))
    except ValueError:
        return None, "its recorded_at is not in stored form"
    return calculation.expires_at, calculation.problem or ""


def _write(repository: Repository[Any], page: Sequence[Members]) -> int:
    """Write the deadlines of a page, and return how many runs got theirs."""
    changes = [DeadlineChange(one["result_id"], one["before"], one["after"]) for one in page]
    return len(repository.change_deadlines(changes))


def _line(run: Members) -> str:
    now = time.time_ns()
    before, after = until(run["before"], now)[0], until(run["after"], now)[0]
    return safe(f"{run['result_id']}  {run['job_id']}  {run['pc_id']}: {before} -> {after}")


def _ending(summary: Members) -> str:
    lines = [
        safe(f"{one['runs']} runs of {one['job_id']} get no deadline: {one['reason']}")
        for one in summary["reasons"]
    ]
    names: Sequence[str] = (CHANGED, UNCHANGED, WITHOUT, MEANWHILE)
    counts = counts_text({name: summary[name] for name in names})
    if not summary["dry_run"]:
        return "\n".join([*lines, counts])
    ending = "; nothing is changed without --yes" if summary[CHANGED] else ""
    return "\n".join([*lines, f"would be: {counts}{ending}"])
