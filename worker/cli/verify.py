"""`projector verify`: compare the tables with the stream."""

from typing import Any

import click
from rich.progress import TaskID

from worker.cli.context import chosen_settings, database_of, open_stream
from worker.cli.options import broker_command, since_option, without_deadlines_option
from worker.cli.output import Members, counts_text, progress, report, safe
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.inspection.verification import OUTCOMES, WRONG, Verification
from worker.processing.processor import BatchProcessor
from worker.projections.starts import STARTS
from worker.settings import Since
from worker.status.counters import Counters


@click.command(short_help="Compare the tables with the stream.")
@since_option
@without_deadlines_option
@broker_command
def verify(*, since: Since | None, without_deadlines: bool, as_json: bool, **options: Any) -> int:
    """Compare every event in the stream with its row, and change nothing.

    \b
    projector verify
    projector verify --since 2h --json | jq .missing

    It reads the stream through a temporary consumer, with or without a running worker. It counts
    every event by outcome, and lists those that are different or missing:

    \b
    equal             every column that a start sets has the expected value
    rejected          the event is among the rejected events
    pending           the event has no row, and may not have been acked yet
    existing          an earlier event of the run, or another program, wrote the row
    deadline changed  the manifest changed later; the row keeps its deadline
    deadline missing  it could not be computed when the event was projected
    discarded         the event cannot be decoded, and is not among the rejected events
    marker            the server's note of an expired message, which has no row
    different         at least one column has an unexpected value
    missing           the event was acked, but has no row and was not rejected

    With --json: {"events": [{"outcome": "different", "stream_sequence": 7, "result_id": …,
    "columns": {"pc_id": [EXPECTED, FOUND]}}, …], "equal": 3, …}.

    Exit codes: 0 nothing is different or missing; 1 something is.
    """
    settings = chosen_settings(options)
    counts = dict.fromkeys(OUTCOMES, 0)

    def extent() -> tuple[int, int]:
        return sum(counts.values()), stream.reader.expected

    with (
        database_of(settings).reader() as reader,
        open_stream(settings, since=since, without_deadlines=without_deadlines) as stream,
        report("events", counts, _line, counts_text, extent, as_json=as_json) as add,
        progress("verifying", stream.reader.expected) as bar,
    ):
        processor = BatchProcessor(STARTS, settings.stream, stream.manifests, Counters())
        verification = Verification(
            *(reader, processor, stream.manifests, stream.ack_floor, not without_deadlines)
        )
        for page in stream.reader.pages():
            verdicts = list(verification.verify(page))
            for verdict in verdicts:
                counts[verdict.outcome] += 1
            if wrong := [verdict for verdict in verdicts if verdict.outcome in WRONG]:
                bar.stop()
                for verdict in wrong:
                    add(verdict._asdict())
                bar.start()
            bar.advance(TaskID(0), len(page))
    return EXIT_PARTLY if any(counts[outcome] for outcome in WRONG) else EXIT_OK


def _line(item: Members) -> str:
    columns = "".join(
        f"; {name}: expected {expected}, found {found}"
        for name, (expected, found) in item["columns"].items()
    )
    outcome, sequence = item["outcome"], item["stream_sequence"]
    return safe(f"{outcome:10} sequence {sequence}, result_id {item['result_id']}{columns}")
