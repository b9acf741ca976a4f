"""The fleet: PCs, manifests, executions, and the events of agents. Pure but for the clock.

Ids and choices come from one seed, so that every demo plays the same; only the times differ.
"""

import json
import random
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from tests.support.events import start, subject

_SEED = 20260520
_HOUR = 3600.0
SITES = ("berlin", "lyon", "porto", "turin")
PCS = tuple(f"{site}-{number:02}" for site in SITES for number in range(1, 13))

# Manifest and timeout, as the bucket `jobs` has them.
MANIFESTS = {
    "inventory": "30s",
    "check-disk": "60s",
    "rotate-logs": "300s",
    "backup-profiles": "1h",
    "install-updates": "2h 30m",
}
UNKNOWN_MANIFEST = "old-cleanup"
_VERSIONS = {"inventory": "3.1.0", "install-updates": "4.2.0", UNKNOWN_MANIFEST: "0.9.7"}


@dataclass(frozen=True, slots=True)
class Event:
    """A message to publish. `members` is None where it is no start."""

    subject: str
    payload: bytes
    members: dict[str, Any] | None

    @property
    def result_id(self) -> str | None:
        return None if self.members is None else str(self.members["result_id"])


@dataclass(frozen=True, slots=True)
class Execution:
    """A deployment of a manifest to some PCs, as its row is before the first start."""

    exec_id: str
    job_id: str
    pcs: tuple[str, ...]
    status: str = "pending"
    initiated_at: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )

    @property
    def row(self) -> dict[str, Any]:
        """Return the values of its row in `executions`."""
        return {
            "exec_id": self.exec_id,
            "job_id": self.job_id,
            "version": version_of(self.job_id),
            "initiated_at": self.initiated_at,
            "target_count": len(self.pcs),
            "success_count": len(self.pcs) if self.status == "completed" else 0,
            "status": self.status,
        }


def version_of(manifest_id: str) -> str:
    """Return the version of a script that the fleet runs."""
    return _VERSIONS.get(manifest_id, "1.0.0")


class Fleet:
    """Makes the events; the order of the calls decides the ids."""

    def __init__(self) -> None:
        self._random = random.Random(_SEED)

    def execution(self, exec_id: str, job_id: str, pcs: int, status: str = "pending") -> Execution:
        """Return an execution on so many PCs of the fleet, chosen at random."""
        return Execution(exec_id, job_id, tuple(self._random.sample(PCS, pcs)), status)

    def broadcast(self, execution: Execution, *, hours_late: float = 0.0) -> list[Event]:
        """Return one start for each PC of an execution; all share one request."""
        request_id = self._id()
        return [
            self._start(
                pc_id, execution.job_id, execution.exec_id, request_id, hours_late=hours_late
            )
            for pc_id in execution.pcs
        ]

    def ad_hoc(self, runs: int, *, late: bool = False, site: str = "") -> list[Event]:
        """Return starts without an execution; late ones have waited in outboxes for hours."""
        pcs = [pc_id for pc_id in PCS if pc_id.startswith(site)]
        return [
            self._start(
                self._random.choice(pcs),
                self._random.choice(("check-disk", "rotate-logs")),
                hours_late=self._random.uniform(2, 9) if late else 0.0,
            )
            for _ in range(runs)
        ]

    def some(self, events: Iterable[Event], count: int) -> list[Event]:
        """Return some of the events, which an agent publishes a second time."""
        return self._random.sample(list(events), count)

    def shuffled(self, *groups: list[Event]) -> list[Event]:
        """Return the events of all groups in an order of chance."""
        events = [event for group in groups for event in group]
        self._random.shuffle(events)
        return events

    def malformed(self) -> list[Event]:
        """Return messages that are no starts, each for another reason."""
        whole = {**start(result_id=self._id()), "started_at": _instant(time.time_ns())}
        without_pc = {name: value for name, value in whole.items() if name != "pc_id"}
        payloads = (
            json.dumps(whole).encode()[:70],  # an agent that died in the middle of it
            b"\xff\xfe\x00started",
            json.dumps([whole]).encode(),
            json.dumps(without_pc).encode(),
            json.dumps({**whole, "result_id": 42}).encode(),
            json.dumps({**whole, "started_at": "yesterday"}).encode(),
            json.dumps({**whole, "version": "1.0\ud83d"}).encode(),
        )
        return [
            Event(f"events.started.adhoc.{self._random.choice(PCS)}", payload, None)
            for payload in payloads
        ]

    def _start(
        self,
        pc_id: str,
        manifest_id: str,
        exec_id: str = "",
        request_id: str = "",
        *,
        hours_late: float = 0.0,
    ) -> Event:
        members = start(
            result_id=self._id(),
            request_id=request_id or self._id(),
            exec_id=exec_id,
            pc_id=pc_id,
            manifest_id=manifest_id,
            version=version_of(manifest_id),
            started_at=_instant(
                time.time_ns() - int(hours_late * _HOUR) * 1_000_000_000,
                digits=self._random.choice((0, 3, 6, 9)),
                offset=self._random.choice((0, 0, 60, 120)),
            ),
        )
        return Event(subject(members), json.dumps(members).encode(), members)

    def _id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def _instant(nanoseconds: int, *, digits: int = 9, offset: int = 0) -> str:
    """Return an instant as one agent or another writes it; the offset is in minutes."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    local = datetime.fromtimestamp(seconds, timezone(timedelta(minutes=offset)))
    zone = local.strftime("%z")
    return (
        local.strftime("%Y-%m-%dT%H:%M:%S")
        + (f".{fraction:09}"[: digits + 1] if digits else "")
        + (f"{zone[:3]}:{zone[3:]}" if offset else "Z")
    )
