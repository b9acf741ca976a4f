"""The events of a benchmark: the same for the same seed. Pure.

Random keys, broadcasts of 50 PCs each with an execution of its own, times down to the nanosecond.
"""

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.events import stored_text

BROADCAST = 50
_PCS = 5000
_FIRST_SECOND = 12 * 3600

# Timeouts as manifests write them, and the seconds from recorded_at to the deadline.
TIMEOUTS = {"30s": 150, "60s": 180, "300s": 450, "1h": 5400, "2h 30m": 13_500}


@dataclass(frozen=True, slots=True)
class Event:
    """One start as an agent publishes it. `deadline_after` is in seconds after its record."""

    subject: str
    payload: bytes
    result_id: str
    request_id: str
    exec_id: str
    pc_id: str
    started_at: str
    manifest_id: str
    version: str
    deadline_after: int

    def row(self) -> tuple[str, ...]:
        """Return what must stand in its row, but for what follows from the time of its record."""
        return (
            self.result_id,
            self.request_id,
            self.exec_id,
            self.pc_id,
            stored_text(self.started_at),
            self.version,
            self.manifest_id,
        )


@dataclass(frozen=True, slots=True)
class DataSet:
    """So many events over so many manifests, chosen by a seed."""

    events: int
    manifests: int = 20
    seed: int = 20260520

    def __iter__(self) -> Iterator[Event]:
        choice = random.Random(self.seed)
        exec_id = request_id = manifest_id = ""
        for number in range(self.events):
            if number % BROADCAST == 0:
                exec_id, request_id = _id(choice), _id(choice)
                manifest_id = _manifest_id(choice.randrange(self.manifests))
            yield _event(
                {
                    "result_id": _id(choice),
                    "request_id": request_id,
                    "exec_id": exec_id,
                    "pc_id": f"pc-{choice.randrange(_PCS):05}",
                    "started_at": _instant(number * 1_000_000 + choice.randrange(1_000_000)),
                    "manifest_id": manifest_id,
                    "version": "2.4.1",
                }
            )

    def executions(self) -> list[tuple[str, str]]:
        """Return the exec_id and manifest_id of each execution, in the order of the events."""
        return list(dict.fromkeys((event.exec_id, event.manifest_id) for event in self))

    def timeouts(self) -> dict[str, str]:
        """Return the timeout text of each manifest."""
        return {_manifest_id(number): _timeout(number) for number in range(self.manifests)}


def _event(members: dict[str, str]) -> Event:
    return Event(
        subject=f"events.started.{members['exec_id']}.{members['pc_id']}",
        payload=json.dumps(members).encode(),
        deadline_after=TIMEOUTS[_timeout(int(members["manifest_id"].removeprefix("manifest-")))],
        **members,
    )


def _manifest_id(number: int) -> str:
    return f"manifest-{number:05}"


def _timeout(number: int) -> str:
    return list(TIMEOUTS)[number % len(TIMEOUTS)]


def _id(choice: random.Random) -> str:
    return str(uuid.UUID(int=choice.getrandbits(128), version=4))


def _instant(nanoseconds: int) -> str:
    """Return an instant of 20 May 2026, so many nanoseconds after noon, as an agent writes it."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    minutes, second = divmod(_FIRST_SECOND + seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"2026-05-20T{hour % 24:02}:{minute:02}:{second:02}.{fraction:09}Z"
