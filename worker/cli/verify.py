"""`projector verify`: compare the tables with the streams."""

from collections.abc import Iterable
from typing import Any

from rich.progress import Progress, TaskID

from worker.cli.context import OpenStream, chosen_settings, database_of, open_streams
from worker.cli.help import command
from worker.cli.options import (
    broker_command,
    projections,
    since_option,
    without_deadlines_option,
)
from worker.cli.output import Add, Members, counts_text, report, safe
from worker.cli.tables import progress
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.inspection.verification import (
    OUTCOMES,
    WRONG,
    ReadResults,
    Verdict,
    Verification,
)
from worker.jetstream.client import BrokerClient
from worker.jetstream.stream import first_message, is_subject
from worker.processing.processor import BatchProcessor
from worker.projections.results import RESULTS
from worker.settings import Since
from worker.status.counters import Counters


@command(short_help="Compare the tables with the streams.")
@since_option
@without_deadlines_option
@projections
@broker_command
def verify(*, since: Since | None, without_deadlines: bool, as_json: bool, **options: Any) -> int:
    """Compare every start and every result in the streams with its row, and change nothing.

    \b
    projector verify
    projector verify --since 2h --json | jq .missing
    projector verify --projection starts

    It reads the streams through temporary consumers, with or without a running worker. It counts
    every event by outcome, and lists those that are different or missing:

    \b
    equal             every column that the start or the result sets has the expected value
    rejected          the event is among the rejected events
    pending           the event is not in the table, and may not have been acked yet
    existing          another event of the run, or another program, wrote the row
    deadline changed  the manifest changed later; the row keeps its deadline
    deadline missing  it could not be computed when the event was projected
    discarded         the event cannot be decoded, and is not among the rejected events
    marker            the server's note of an expired message, which has no row
    different         at least one column has an unexpected value
    missing           the event was acked and not rejected, but the start has no row, or the run of
                      the result is still in flight or was given up

    Output that agents have moved into the object store is not compared. A run that has ended
    although the stream holds no result of it is different. With --since, or if the stream has lost
    messages, that is unknown, and a run that is older than what was read may hold an earlier
    result.

    With --json: {"events": [{"outcome": "different", "stream": "EVENTS", "stream_sequence": 7,
    "result_id": …, "columns": {"pc_id": [EXPECTED, FOUND]}}, …], "equal": 3, …}.

    Exit codes: 0 nothing is different or missing; 1 something is; 78 a stream does not exist.
    """
    settings = chosen_settings(options)
    counts = dict.fromkeys(OUTCOMES, 0)

    def extent() -> tuple[int, int]:
        return sum(counts.values()), opened.expected

    with (
        database_of(settings).reader() as reader,
        open_streams(settings, since=since, without_deadlines=without_deadlines) as opened,
        report("events", counts, _line, counts_text, extent, as_json=as_json) as add,
        progress("verifying", opened.expected) as bar,
    ):
        results: ReadResults | None = None
        for stream in reversed(opened.streams):  # results first: they explain how runs ended
            place = stream.projection, stream.settings.stream
            processor = BatchProcessor(*place, opened.manifests, Counters())
            is_whole = since is None and stream.state.messages == stream.state.last_sequence
            if stream.projection is RESULTS:
                results = _results(opened.client, stream, is_whole=is_whole)
            verification = Verification(
                *(reader, processor, opened.manifests, stream.ack_floor),
                *(is_whole, not without_deadlines, results),
            )
            for page in stream.reader.pages():
                _add(verification.verify(page), counts, add, bar)
                bar.advance(TaskID(0), len(page))
            _add(verification.rest(), counts, add, bar)
    return EXIT_PARTLY if any(counts[outcome] for outcome in WRONG) else EXIT_OK


def _results(client: BrokerClient, stream: OpenStream, *, is_whole: bool) -> ReadResults:
    name, last, subjects = stream.settings.stream, stream.state.last_sequence, "results.{}"

    def has_later(request_id: str) -> bool:
        """Return whether the stream has got a result of a request since it was opened."""
        if not is_subject(request_id):
            return True
        place = client.connection, name, last + 1, subjects.format(request_id)
        return client.do(first_message(*place)) is not None

    return ReadResults(is_whole, stream.state.created_at, has_later)


def _add(verdicts: Iterable[Verdict], counts: dict[str, int], add: Add, bar: Progress) -> None:
    """Count verdicts, and print the wrong ones in place of the bar."""
    listed = list(verdicts)
    for verdict in listed:
        counts[verdict.outcome] += 1
    if wrong := [verdict for verdict in listed if verdict.outcome in WRONG]:
        bar.stop()
        for verdict in wrong:
            add(verdict._asdict())
        bar.start()


def _line(item: Members) -> str:
    columns = "".join(
        f"; {name}: expected {expected}, found {found}"
        for name, (expected, found) in item["columns"].items()
    )
    place = f"{item['stream']} sequence {item['stream_sequence']}"
    return safe(f"{item['outcome']:10} {place}, result_id {item['result_id']}{columns}")
