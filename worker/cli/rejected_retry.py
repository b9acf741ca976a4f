"""`projector rejected retry`: rejected events through the ordinary projection once more."""

from collections.abc import Sequence
from typing import Any

import click

from repo.reader import Reader
from worker.cli.context import Opened, chosen_settings, open_of
from worker.cli.options import bucket, credentials, database_command, json_option, servers
from worker.cli.output import counted, report
from worker.cli.rejected_selection import all_option, ids_argument, reason_option, selected
from worker.cli.rejected_view import outcome_line
from worker.cli.source import naming_without_deadlines, without_deadlines_option
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.jetstream.manifest_loader import load_manifests
from worker.processing import rejections
from worker.processing.rejections import REJECTED, UNKNOWN, WRITTEN, Outcome, Retry
from worker.projections.manifests import ManifestCache
from worker.status.counters import Counters


@click.command(short_help="Project events again; the ones that are written are removed.")
@ids_argument
@all_option
@reason_option
@without_deadlines_option
@json_option
@servers
@bucket
@credentials
@database_command
def retry(
    *,
    ids: tuple[int, ...],
    everything: bool,
    reason: str | None,
    without_deadlines: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Project rejected events as if they came now: a newer version may understand them.

    \b
    projector rejected retry 7 8
    projector rejected retry --reason "no RFC 3339"
    projector rejected retry --all --json

    An event leaves the rejected ones in the very transaction that writes its run, or that finds its
    result_id there. One that is refused again stays, with the reason of now. It may be run again at
    any time. Deadlines need the manifests, so the broker is asked for them first.

    With --json: {"events": [{"rejected_id": 7, "outcome": "written"}, {"rejected_id": 8, "outcome":
    "rejected", "reason": …}, {"rejected_id": 9, "outcome": "unknown"}], "written": 1,
    "rejected": 1, "unknown": 1, "runs_duplicate": 0}.

    Exit codes: 0 all are written; 1 some are still rejected, or there is no such event; 64 a wrong
    option; 65 the database is damaged or none; 75 the broker or the database cannot be used just
    now; 78 either is not set up. Nothing is lost in any case, and a page is written whole or not.
    """
    selection = selected(ids, everything, reason)
    settings = chosen_settings(options)
    opened = open_of(settings)
    with opened.reader() as reader:
        chosen = selection.ids(reader)
        manifests = ManifestCache()
        if not without_deadlines and any(rejections.find(reader, one) for one in chosen):
            with naming_without_deadlines():
                load_manifests(settings, manifests)
        counts = _retry_all(opened, reader, chosen, manifests, as_json=as_json)
    missed = counts[REJECTED] + (counts[UNKNOWN] if selection.by_id else 0)
    return EXIT_PARTLY if missed else EXIT_OK


def _retry_all(
    opened: Opened, reader: Reader, ids: Sequence[int], manifests: ManifestCache, *, as_json: bool
) -> dict[str, int]:
    counters = Counters()
    counts = dict.fromkeys((WRITTEN, REJECTED, UNKNOWN), 0)
    unknown: list[int] = []
    with (
        opened.repository() as repository,
        report(as_json=as_json, name="events", line=outcome_line, ending=counted) as told,
    ):
        again = Retry(repository, manifests, counters)

        def tell(outcome: Outcome) -> None:
            counts[outcome.outcome] += 1
            told.add({name: value for name, value in outcome._asdict().items() if value != ""})

        try:
            for page in rejections.pages(reader, ids, unknown):
                for outcome in again.project(page):
                    tell(outcome)
            for rejected_id in unknown:
                tell(Outcome(rejected_id, UNKNOWN))
        finally:
            told.end({**counts, "runs_duplicate": counters["runs_duplicate"]})
    return counts
