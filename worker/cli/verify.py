"""`projector verify`: does the table agree with the stream?"""

from collections import Counter
from typing import Any

import click

from worker.cli.context import chosen_settings, open_of
from worker.cli.options import broker_command, json_option, since_option
from worker.cli.output import Members, Report, counted, report, safe
from worker.cli.source import reading, without_deadlines_option
from worker.cli.tables import progress
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.inspection.verification import OUTCOMES, WRONG, Verification
from worker.jetstream.stream_reader import StreamReader


@click.command(short_help="Does the table agree with the stream?")
@since_option
@without_deadlines_option
@json_option
@broker_command
def verify(*, since: int | None, without_deadlines: bool, as_json: bool, **options: Any) -> int:
    """Compare every event that the stream holds with its row, and change nothing.

    \b
    projector verify
    projector verify --since 2h --json | jq .missing

    It reads the stream through a consumer of its own, beside a worker or without one. What is
    missing or different is listed, everything is counted:

    \b
    equal             in every column that a start fills in
    rejected          among the rejected events
    ack_pending         not there: not settled yet, or above one that is not
    there before      the row is of an earlier event of the run, or another program wrote it
    deadline changed  the manifest was changed later; the row keeps the deadline of its time
    deadline missing  the manifest was not known at the time
    discarded         no start, and not among the rejected events any more
    different         at least one column is wrong
    missing           settled, and neither a run nor a rejected event

    With --json: {"events": [{"outcome": "different", "stream_sequence": 7, "result_id": …,
    "columns": {"pc_id": [EXPECTED, FOUND]}}, …], "equal": 3, …}.

    Exit codes: 0 they agree; 1 something is different or missing; 64 a wrong option; 65 the
    database is damaged or none; 75 broker or database cannot be read just now; 78 either is not set
    up.
    """
    settings = chosen_settings(options)
    counts = Counter(dict.fromkeys(OUTCOMES, 0))
    with (
        open_of(settings).reader() as reader,
        reading(settings, since=since, without_deadlines=without_deadlines) as source,
        report(as_json=as_json, name="events", line=_line, ending=counted) as told,
    ):
        verification = Verification(
            *(reader, settings.stream, source.settled, source.manifests),
            deadlines=not without_deadlines,
        )
        try:
            _verify_all(source.stream, verification, told, counts)
        finally:
            told.end(dict(counts))
    return EXIT_PARTLY if any(counts[outcome] for outcome in WRONG) else EXIT_OK


def _verify_all(
    stream: StreamReader, verification: Verification, told: Report, counts: Counter[str]
) -> None:
    with progress("verifying", stream.expected) as bar:
        for page in stream.pages():
            verdicts = list(verification.verify(page))
            counts.update(verdict.outcome for verdict in verdicts)
            wrong = [verdict for verdict in verdicts if verdict.outcome in WRONG]
            if wrong:
                with bar.aside():
                    for verdict in wrong:
                        told.add(verdict._asdict())
            bar.advance(len(page))


def _line(item: Members) -> str:
    columns = "".join(
        f"; {name}: expected {expected}, found {found}"
        for name, (expected, found) in item["columns"].items()
    )
    outcome, sequence = item["outcome"], item["stream_sequence"]
    return safe(f"{outcome:10} sequence {sequence}, result_id {item['result_id']}{columns}")
