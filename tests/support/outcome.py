"""What must be true once a fault is over: nothing lost, nothing twice, nothing stuck."""

from collections.abc import Callable, Iterable

from tests.support.broker import Broker
from tests.support.rows import Rows
from tests.support.waiting import eventually


def assert_whole(
    broker: Broker,
    rows: Rows,
    result_ids: Iterable[str],
    malformed: Iterable[bytes] = (),
    *,
    within: float = 20,
    otherwise: Callable[[], str] = str,
) -> None:
    """Fail unless these starts are rows, the malformed ones rejected events, and all is settled."""
    eventually(broker.is_settled, within, otherwise)
    wanted, found = set(result_ids), rows.result_ids()
    assert wanted - set(found) == set(), f"lost\n{otherwise()}"
    assert set(found) - wanted == set(), f"from nowhere\n{otherwise()}"
    assert len(found) == len(wanted), f"twice\n{otherwise()}"
    rejected = rows.rejected()
    # A publish that was not confirmed in time is repeated: the stream then holds it twice.
    assert {row["payload"] for row in rejected} == set(malformed), otherwise()
    sequences = [row["stream_sequence"] for row in rejected]
    assert len(set(sequences)) == len(sequences), f"twice\n{otherwise()}"


def deliveries(broker: Broker) -> int:
    """Return how often the consumer has delivered a message, redeliveries included."""
    delivered = broker.consumer().delivered
    assert delivered is not None
    return delivered.consumer_seq


def last_delivered(broker: Broker) -> int:
    """Return the highest stream sequence that the consumer has delivered."""
    delivered = broker.consumer().delivered
    assert delivered is not None
    return delivered.stream_seq
