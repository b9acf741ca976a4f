"""The events and results of every measurement: the same ones each time. Pure.

Keys are random. Each broadcast reaches 50 PCs and has an execution of its own. `started_at` has
nanoseconds and grows from event to event, so that rows ordered by it are in the events' order.
"""

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.support.events import stored_text

BROADCAST = 50
_SEED = 20260520
_PCS = 5000
_NOON = datetime.fromisoformat("2026-05-20T12:00:00")

# The timeout in a manifest, and the seconds from recorded_at to expires_at that follow from it.
_DEADLINES = {"30s": 150, "60s": 180, "300s": 450, "1h": 5400, "2h 30m": 13_500}
TIMEOUTS = {f"manifest-{number:05}": list(_DEADLINES)[number % 5] for number in range(20)}


@dataclass(frozen=True, slots=True)
class Event:
    """One started run, as an agent publishes it."""

    members: dict[str, str]

    @property
    def subject(self) -> str:
        return f"events.started.{self.members['exec_id']}.{self.members['pc_id']}"

    @property
    def payload(self) -> bytes:
        return json.dumps(self.members).encode()

    @property
    def deadline_after(self) -> int:
        """Seconds from recorded_at to expires_at."""
        return _DEADLINES[TIMEOUTS[self.members["manifest_id"]]]

    def row(self) -> tuple[str, ...]:
        """Return the columns of its row that do not depend on when the server stored it."""
        names = ("result_id", "request_id", "exec_id", "pc_id", "started_at", "version")
        row = {**self.members, "started_at": stored_text(self.members["started_at"])}
        return (*(row[name] for name in names), row["manifest_id"])


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a run, as an agent publishes it."""

    members: dict[str, str | int]

    @property
    def subject(self) -> str:
        return f"results.{self.members['request_id']}"

    @property
    def payload(self) -> bytes:
        return json.dumps(self.members).encode()


def make_results(count: int, size: int = BROADCAST) -> Iterator[Result]:
    """Yield the results of `count` events, each with 1 KB of output; every fourth run failed."""
    for number, event in enumerate(make_events(count, size)):
        members = {name: text for name, text in event.members.items() if name != "version"}
        yield Result(
            {
                **members,
                "exit_code": int(number % 4 == 0),
                "stdout": f"{number:08}".ljust(1024, "."),
                "stderr": "",
                "finished_at": event.members["started_at"],
            }
        )


def make_events(count: int, size: int = BROADCAST) -> Iterator[Event]:
    """Yield `count` events in broadcasts of one size; a longer series begins with the shorter."""
    choice = random.Random(_SEED)
    broadcast: dict[str, str] = {}
    for number in range(count):
        if number % size == 0:
            broadcast = {name: _id(choice) for name in ("request_id", "exec_id")}
            broadcast["manifest_id"] = choice.choice(list(TIMEOUTS))
        moment = (_NOON + timedelta(milliseconds=number)).isoformat(timespec="milliseconds")
        yield Event(
            {
                "result_id": _id(choice),
                "pc_id": f"pc-{choice.randrange(_PCS):05}",
                "started_at": f"{moment}{choice.randrange(10**6):06}Z",
                "version": "2.4.1",
                **broadcast,
            }
        )


def _id(choice: random.Random) -> str:
    return str(uuid.UUID(int=choice.getrandbits(128), version=4))
