"""Which workers project a consumer: each announces itself as a NATS micro service, and asks.

`nats micro ls|info` shows them as well. Consumer thread only.
"""

import asyncio
import json
import os
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import nats.errors
from nats.aio.msg import Msg
from nats.micro import add_service
from nats.micro.service import Service

from worker import __version__
from worker.codec.jsontext import parse_json
from worker.codec.timestamps import present_second
from worker.errors import PullLost, no_response
from worker.jetstream.connection import Connection
from worker.logs import MOST_PROBLEMS, Problem
from worker.settings import Settings
from worker.status.health import Verdict
from worker.status.peers import Worker

SERVICE = "projector"
ASK = f"$SRV.INFO.{SERVICE}"
# A worker is present for so long after its last answer: a few questions may be lost.
_PRESENT_FOR = 6.0
_ANSWERS_WITHIN = 0.05
# Any client may answer, so what it says is bounded; a worker's own answer as well, because one that
# is larger than the server's limit ends the connection.
_MOST_PEERS = 100
_LONGEST = 500
_FASTEST = 1e9

# The library calls datetime.utcnow, which warns on Python 3.12.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"nats\.micro")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another worker, as it announces itself. `place` names its database (see `checkpoints`).

    `domain` is the JetStream domain of the stream, or empty where the server does not say it.
    The members after `started` are those of its health: None or empty from an older version.
    """

    service_id: str
    domain: str
    stream: str
    consumer: str
    place: str
    database: str
    host: str
    pid: int
    version: str
    state: str
    started: str
    reason: str = ""
    restart_helps: bool | None = None
    per_second: float | None = None
    errors: tuple[Problem, ...] = ()

    @classmethod
    def read(cls, answer: bytes) -> Self | None:
        """Return the worker that an answer describes; None for another service of that name."""
        try:
            document = parse_json(answer)
            metadata: Mapping[str, Any] = document["metadata"]
            texts: dict[str, Any] = {name: str(metadata[name])[:_LONGEST] for name in _METADATA}
            pid = int(texts.pop("pid"))
            if document["name"] != SERVICE:
                return None
            return cls(str(document["id"]), pid=pid, **texts, **_health(metadata))
        except (ValueError, TypeError, KeyError):
            return None

    @property
    def worker(self) -> Worker:
        """What is shown of it."""
        return Worker(self.host, self.pid, self.version, self.started, self.state, self.database)

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, database {self.database}"


_METADATA = (
    *(
        "domain",
        "stream",
        "consumer",
        "place",
        "database",
        "host",
        "pid",
        "version",
        "state",
        "started",
    ),
)


def _health(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a Peer that are about its health; raises ValueError and the like."""
    if "health" not in metadata:
        return {}
    health = parse_json(str(metadata["health"]).encode())
    rate = health["per_second"]
    if rate is not None and not 0 <= float(rate) < _FASTEST:
        raise ValueError("no rate")
    errors = health["errors"][-MOST_PROBLEMS:]
    return {
        "reason": str(health["reason"])[:_LONGEST],
        "restart_helps": bool(health["restart_helps"]),
        "per_second": None if rate is None else float(rate),
        "errors": tuple(Problem(*(str(text)[:_LONGEST] for text in one)) for one in errors),
    }


class Presence:
    """This worker's announcement, and the other workers that answer on one consumer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metadata = {
            "domain": "",
            "stream": settings.stream,
            "consumer": settings.consumer,
            "place": "",
            "database": settings.database,
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
            "version": __version__,
            "state": "starting",
            "started": present_second(),
        }
        self._service: Service | None = None
        self._connection: Connection | None = None
        self._inbox = ""
        self._own_ids: set[str] = set()
        self._seen: dict[str, tuple[Peer, float, float]] = {}
        self._asked_at = 0.0
        self._own_answer_at = float("-inf")

    async def open(self, connection: Connection) -> None:
        """Ask over a connection who is there; raises PullLost, as all of these do without it."""
        self._connection, self._inbox = connection, connection.new_inbox()
        self._metadata["domain"] = connection.domain
        with _translated():
            await connection.subscribe(self._inbox, cb=self._take)
        await self.ask()

    async def announce(self, place: str) -> None:
        """Announce this worker with the place of its database, or the new place."""
        self._metadata["place"] = place
        if self._service is None and self._connection is not None:
            with _translated():
                self._service = await add_service(
                    self._connection, name=SERVICE, version=__version__, metadata=self._metadata
                )
            self._own_ids.add(self._service.id)

    def close(self) -> None:
        """Forget the connection, whose end also ends the announcement."""
        self._connection = self._service = None

    def show(self, verdict: Verdict, per_second: float | None, errors: Iterable[Problem]) -> None:
        """Announce this health from now on."""
        health = {
            "reason": verdict.reason[:_LONGEST],
            "restart_helps": verdict.restart_helps,
            "per_second": per_second,
            "errors": list(errors),
        }
        self._metadata |= {"state": verdict.state, "health": json.dumps(health)}

    async def ask(self) -> None:
        """Ask who is there; the answers arrive later."""
        if self._connection is not None and self._connection.is_connected:
            self._asked_at = time.monotonic()
            with _translated():
                await self._connection.publish(ASK, b"", self._inbox)

    async def answered(self) -> None:
        """Return when those who are there have most likely answered."""
        assert self._connection is not None
        began = time.monotonic()
        with _translated():
            await self._connection.flush()
        round_trip = time.monotonic() - began
        # An answer takes as long as the server's, and then some.
        await asyncio.sleep(self._asked_at + _ANSWERS_WITHIN + 2 * round_trip - time.monotonic())

    def peers(self, *, present_for: float = 0.0) -> list[Peer]:
        """Return the other workers of this consumer that have been there for so many seconds."""
        now = time.monotonic()
        self._seen = {
            service_id: seen
            for service_id, seen in self._seen.items()
            if now - seen[2] <= _PRESENT_FOR
        }
        return [peer for peer, first, last in self._seen.values() if last - first >= present_for]

    def others(self) -> tuple[Worker, ...] | None:
        """Return the other workers of this consumer; None where not even this one answers."""
        if time.monotonic() - self._own_answer_at > _PRESENT_FOR:
            return None
        return tuple(peer.worker for peer in self.peers())

    async def _take(self, message: Msg) -> None:
        peer = Peer.read(message.data)
        if peer is None:
            return
        if peer.service_id in self._own_ids:
            self._own_answer_at = time.monotonic()
            return
        if not self._shares_consumer(peer):
            return
        now = time.monotonic()
        before = self._seen.get(peer.service_id)
        if before is None and len(self._seen) >= _MOST_PEERS:
            return
        since = before[1] if before is not None and before[0].place == peer.place else now
        self._seen[peer.service_id] = (peer, since, now)

    def _shares_consumer(self, peer: Peer) -> bool:
        # The question crosses leaf nodes, to where another stream may have the same name.
        domains = {peer.domain, self._metadata["domain"]} - {""}
        place = self._settings.stream, self._settings.consumer
        return (peer.stream, peer.consumer) == place and len(domains) < 2


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise no_response("the other workers cannot be asked", error) from error


def elsewhere(peers: Iterable[Peer], place: str) -> list[Peer]:
    """Return the workers whose database is not the one in this place."""
    return [peer for peer in peers if peer.place != place]


async def ask_peers(connection: Connection, settings: Settings) -> list[Peer]:
    """Return the workers that answer on a consumer, for a command; empty without the rights."""
    presence = Presence(settings)
    try:
        await presence.open(connection)
        await presence.answered()
    except PullLost:
        return []
    return presence.peers()
