"""What must be true once a fault is over: nothing lost, nothing twice, nothing stuck."""

from collections.abc import Iterable

from tests.support.broker import Broker, Publisher
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import Line, WorkerProcess


def assert_complete(
    broker: Broker,
    rows: Rows,
    result_ids: Iterable[str],
    malformed: Iterable[bytes] = (),
    *,
    within: float = 20,
    worker: WorkerProcess | None = None,
) -> None:
    """Assert that these starts are runs, the malformed ones rejected events, and all are acked."""

    def log() -> str:
        return worker.text if worker else ""

    eventually(broker.is_acked, within, log)
    wanted, found = set(result_ids), rows.result_ids()
    assert wanted - set(found) == set(), f"lost\n{log()}"
    assert set(found) - wanted == set(), f"never published\n{log()}"
    assert len(found) == len(wanted), f"twice\n{log()}"
    rejected = rows.rejected()
    # A publish that is not confirmed in time is repeated, so the stream may hold a payload twice.
    assert {row["payload"] for row in rejected} == set(malformed), log()
    sequences = [row["stream_sequence"] for row in rejected]
    assert len(set(sequences)) == len(sequences), f"twice\n{log()}"


def wait_for_more(rows: Rows, worker: WorkerProcess, prefix: str = "", within: float = 10) -> None:
    """Return when 200 more runs with a prefix have been inserted."""

    def inserted() -> int:
        sql = "SELECT count(*) AS n FROM execution_results WHERE result_id LIKE ? || '%'"
        return int(rows.query(sql, prefix)[0]["n"])

    before = inserted()
    worker.until(lambda: inserted() > before + 200, within)


def recovery_lines(worker: WorkerProcess) -> list[Line]:
    """Return the log lines that report a stream which is not the one of the checkpoint."""
    events = ("stream.recreated", "stream.rewound", "messages.lost_to_limits", "consumer.shared")
    return [line for line in worker.lines if line["event"] in events]


def read_again(worker: WorkerProcess) -> int:
    """Return how many messages a worker has read again from the stream."""
    return sum(line["messages"] for line in worker.logged("catch_up.finished"))


def assert_published(
    broker: Broker, rows: Rows, publisher: Publisher, worker: WorkerProcess
) -> None:
    """Stop a publisher and assert that all it has published is acked, and a run or rejected event.

    It does not count messages: what the broker did not confirm is published twice.
    """
    result_ids = publisher.stop()
    worker.until(broker.is_acked, 60)
    assert set(result_ids) - set(rows.result_ids()) == set(), worker.text
    assert set(publisher.malformed) <= {row["payload"] for row in rows.rejected()}, worker.text


def assert_counted(worker: WorkerProcess) -> None:
    """Assert that a worker that has stopped counted an ack, sent or dropped, for each message."""
    counters = worker.counters
    acks = counters["acks_sent"] + counters["acks_dropped"]
    assert acks == counters["messages"] + counters["naks"], worker.text
