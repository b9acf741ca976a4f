"""Recovery at a look: a stream that goes back while the connection lasts, as in a cluster."""

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.js.api import SequenceInfo

from repo.checkpoint import Checkpoint, Lost, Recalled, Stored
from worker.errors import PullLost
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding, Consumer, wanted_consumer
from worker.jetstream.recovery import Recovery
from worker.jetstream.stream import StreamState
from worker.projections.starts import STARTS
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus

SETTINGS = Settings((), "sqlite:///x.db")
CREATED = "2026-05-20T00:00:00+00:00"
STORED = "2026-05-20T12:00:00+00:00"
REACHED = Checkpoint(CREATED, 90, 90, STORED)


class Database:
    """A repository whose checkpoint says that 90 messages are there."""

    def recall(self) -> Recalled:
        return Recalled(Stored(REACHED, "place", 1, Lost(0, 0, None)), "place")

    def begin(self, *_: Any, **__: Any) -> Checkpoint:
        return REACHED

    def ask(self, question: Any) -> "Future[Any]":
        answer: Future[Any] = Future()
        answer.set_result(question(self))
        return answer


class Peers:
    async def announce(self, _place: str) -> None: ...

    async def ask(self) -> None: ...

    def show(self, *_: object) -> None: ...

    def peers(self, **_: Any) -> list[Any]:
        return []


class Broker:
    """Answers how far the stream is by now, and when a message was stored."""

    def __init__(self, stream: StreamState) -> None:
        self.stream = stream

    async def ask(self, subject: str, _body: object = None) -> dict[str, Any]:
        if "MSG.GET" in subject:
            return {"message": {"seq": 90, "time": self.stream.last_stored_at}}
        state = {"messages": 0, "bytes": 0, "first_seq": 1, "last_seq": self.stream.last_sequence}
        return {"created": CREATED, "config": {}, "state": state}


def stream(last: int, stored_at: str = STORED) -> StreamState:
    return StreamState(CREATED, 90, 9000, 1, last, stored_at, keeps_acked=True)


def bound(state: StreamState) -> Binding:
    config = wanted_consumer(SETTINGS, STARTS)
    position = SequenceInfo(90, 90)
    return Binding(state, config, 0, 0, 0, 0, position, position)


@pytest.mark.parametrize(
    ("later", "went_back"),
    [
        (stream(90), False),
        (stream(91), False),
        (stream(89), True),
        (stream(90, "2026-05-20T12:00:01+00:00"), True),
        (stream(95, "2026-05-20T12:00:01+00:00"), True),
    ],
)
def test_a_stream_that_goes_back_while_the_worker_runs_ends_the_pull(
    later: StreamState, went_back: bool
) -> None:
    status = WorkerStatus(["starts"], stalled_after=1, busy_timeout=1, is_observed=False)
    dispatcher = SimpleNamespace(outstanding=[], advance=lambda _: None)

    async def begin_and_look() -> None:
        recovery = Recovery(
            settings=SETTINGS,
            projection=STARTS,
            pool=cast(Any, Database()),
            prerequisite=cast(Any, None),
            outputs=None,
            dispatcher=cast(Any, dispatcher),
            presence=cast(Any, Peers()),
            status=status.projections["starts"],
        )
        broker = Broker(stream(90))
        connection = cast(Connection, broker)
        await recovery.begin(connection, cast(Consumer, None), bound(stream(90)))
        broker.stream = later
        await recovery.look(bound(later))

    if went_back:
        with pytest.raises(PullLost, match="went back to an older state"):
            asyncio.run(begin_and_look())
    else:
        asyncio.run(begin_and_look())
