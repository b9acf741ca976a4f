"""The fleet: PCs, manifests, executions, and the events of agents. Pure but for the clock.

Ids and choices come from one seed, so every demo plays the same; only the times differ.
"""

import json
import random
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.support.events import result, start, subject

_SEED = 20260520
_HOUR = 3_600_000_000_000
_SITES = ("berlin", "lyon", "porto", "turin")
PCS = tuple(f"{site}-{number:02}" for site in _SITES for number in range(1, 13))

# Manifests and their timeouts, as in the bucket `jobs`.
MANIFESTS = {
    "inventory": "30s",
    "check-disk": "60s",
    "rotate-logs": "300s",
    "backup-profiles": "1h",
    "install-updates": "2h 30m",
}
UNKNOWN_MANIFEST = "old-cleanup"


@dataclass(frozen=True, slots=True)
class Event:
    """A message to publish, a start or a result. `members` is None if it is malformed."""

    subject: str
    payload: bytes
    members: dict[str, Any] | None

    @property
    def is_result(self) -> bool:
        return self.subject.startswith("results.")


@dataclass(frozen=True, slots=True)
class Execution:
    """A deployment of a manifest to some PCs, with its status before the first start."""

    exec_id: str
    job_id: str
    pcs: tuple[str, ...]
    status: str = "pending"

    def row(self, *, started: bool = False, succeeded: int = 0, failed: int = 0) -> dict[str, Any]:
        """Return the values of its row in `executions`, at first or after some events."""
        status, ended = self.status, succeeded + failed
        if ended or (started and status == "pending"):
            status = "completed" if ended >= len(self.pcs) else "running"
        return {
            "exec_id": self.exec_id,
            "job_id": self.job_id,
            "target_count": len(self.pcs),
            "success_count": succeeded or (len(self.pcs) if self.status == "completed" else 0),
            "failure_count": failed,
            "status": status,
        }


class Fleet:
    """Creates the events; the order of the calls decides the ids."""

    def __init__(self) -> None:
        self.random = random.Random(_SEED)

    def execution(self, exec_id: str, job_id: str, pcs: int, status: str = "pending") -> Execution:
        """Return an execution on so many PCs, chosen at random."""
        return Execution(exec_id, job_id, tuple(self.random.sample(PCS, pcs)), status)

    def broadcast(self, execution: Execution, *, hours_late: float = 0.0) -> list[Event]:
        """Return one start for each PC of an execution; all share one request."""
        request_id = self._id()
        return [
            self._start(pc_id, execution.job_id, execution.exec_id, request_id, hours_late)
            for pc_id in execution.pcs
        ]

    def ad_hoc(self, runs: int, *, late: bool = False, site: str = "") -> list[Event]:
        """Return starts without an execution; late ones have waited in outboxes for hours."""
        pcs = [pc_id for pc_id in PCS if pc_id.startswith(site)]
        return [
            self._start(self.random.choice(pcs), job_id, "", "", late * self.random.uniform(2, 9))
            for job_id in self.random.choices(("check-disk", "rotate-logs"), k=runs)
        ]

    def shuffled(self, *groups: list[Event]) -> list[Event]:
        """Return the events of all groups in random order."""
        events = [event for group in groups for event in group]
        self.random.shuffle(events)
        return events

    def malformed(self) -> list[Event]:
        """Return messages that are not starts, each for another reason."""
        whole = {**start(result_id=self._id()), "started_at": _instant(time.time_ns(), 9, 0)}
        payloads = (
            json.dumps(whole).encode()[:70],  # the agent died while writing it
            b"\xff\xfe\x00started",
            json.dumps([whole]).encode(),
            json.dumps({name: text for name, text in whole.items() if name != "pc_id"}).encode(),
            json.dumps({**whole, "result_id": 42}).encode(),
            json.dumps({**whole, "started_at": "yesterday"}).encode(),
            json.dumps({**whole, "version": "1.0\ud83d"}).encode(),
        )
        return [Event("events.started.adhoc.turin-07", payload, None) for payload in payloads]

    def results(self, starts: list[Event], **members: Any) -> list[Event]:
        """Return the result of each start; `members` replace those of a script that succeeds."""
        return [self._result(start.members or {}, **members) for start in starts]

    def malformed_result(self) -> Event:
        """Return a result whose exit code is text."""
        members = result(result_id=self._id(), exit_code="0")
        return Event("results.request-1", json.dumps(members).encode(), None)

    def _result(self, start: dict[str, Any], **members: Any) -> Event:
        shared = ("result_id", "request_id", "pc_id", "started_at", "manifest_id")
        ended = result(
            **{name: start[name] for name in shared},
            exec_id=start["exec_id"] or None,
            stdout="done",
            finished_at=_instant(time.time_ns(), self.random.choice((0, 3, 6, 9)), 0),
        )
        ended |= members
        return Event(f"results.{ended['request_id']}", json.dumps(ended).encode(), ended)

    def _start(
        self, pc_id: str, manifest_id: str, exec_id: str, request_id: str, hours_late: float
    ) -> Event:
        started_at = _instant(
            time.time_ns() - int(hours_late * _HOUR),
            digits=self.random.choice((0, 3, 6, 9)),
            offset=self.random.choice((0, 0, 60, 120)),
        )
        ids = {"result_id": self._id(), "request_id": request_id or self._id(), "exec_id": exec_id}
        members = start(**ids, pc_id=pc_id, manifest_id=manifest_id, started_at=started_at)
        return Event(subject(members), json.dumps(members).encode(), members)

    def _id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))


def _instant(nanoseconds: int, digits: int, offset: int) -> str:
    """Return an instant as agents write it: up to 9 fractional digits, an offset in minutes."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, timezone(timedelta(minutes=offset))).isoformat()
    whole, zone = text[:19], text[19:]
    return whole + (f".{fraction:09}"[: digits + 1] if digits else "") + (zone if offset else "Z")
