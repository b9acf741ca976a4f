"""Facts for the page, made up; `python -m tests.support.page` draws its picture for the README."""

import math
from pathlib import Path
from typing import Any

from repo.overview import JobCount, ReasonCount
from repo.queries import Counted
from tests.support.browser import Tab, browser
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.observability.database_view import Tables, View
from worker.observability.overview import Facts
from worker.observability.page import page
from worker.status.health import WORKING, Verdict
from worker.status.history import EVERY, SPAN, Sample
from worker.status.peers import Worker

PICTURE = Path(__file__).parents[2] / "scripts" / "deploy" / "page.png"
NOW = parse_instant("2026-05-20T12:00:00Z")
MOMENT = 10_000.0

_WORKER = Worker(
    "vm-1", 4242, "0.1.0", "2026-05-17T09:30:00+00:00", WORKING, "postgresql://projector@db/fleet"
)


def ago(seconds: float) -> str:
    """Return the stored text of so many seconds before the page was made."""
    return format_instant(NOW - round(seconds * NANOSECONDS))


def verdict(state: str = WORKING, **changes: Any) -> Verdict:
    return Verdict(
        state, is_live=True, is_ready=True, restart_helps=False, reason="", idle_for=0.0
    )._replace(**changes)


def tables(**changes: Any) -> Tables:
    jobs = (
        JobCount("disk-encryption", 41, 3, 0, ago(5400)),
        JobCount("check-disk", 1184, 0, 0, ago(95)),
        JobCount("office-update-2026-05", 512, 0, 0, ago(600)),
        JobCount("inventory", 37, 0, 37, ago(7000)),
    )
    reasons = (
        ReasonCount("expected a JSON object", 12, ago(200)),
        ReasonCount("started_at: not in the form YYYY-MM-DDTHH:MM:SS", 3, ago(86_400 * 2)),
    )
    plain = Tables(Counted(1774, 3, 37, 15), jobs, reasons, NOW, by_broker=True)
    return plain._replace(**changes)


def facts(**changes: Any) -> Facts:
    """Return the facts of a busy worker, some of them changed."""
    plain = Facts(
        made_at=NOW,
        moment=MOMENT,
        verdict=verdict(),
        this=_WORKER,
        others=(_WORKER._replace(host="vm-2", pid=977, started="2026-05-20T08:12:00+00:00"),),
        lag=0.4,
        pending=120,
        ack_pending=64,
        outstanding=32,
        projected_up_to_age=1.2,
        last_commit=NOW - NANOSECONDS // 5,
        samples=_hour(),
        database=View(tables()),
    )
    return plain._replace(**changes)


def _hour() -> tuple[Sample, ...]:
    """Return an hour with a deployment, an outage of the broker, and what came after it."""
    samples = []
    for number in range(int(SPAN / EVERY)):
        minute = number / 6
        noise = 0.5 + 0.5 * math.sin(number * 1.7) * math.sin(number * 0.37)
        lag: float | None = 0.2 + 0.5 * noise
        rate = (
            60
            + 50 * noise
            + (260 * math.sin((minute - 8) / 12 * math.pi) if 8 < minute < 20 else 0)
        )
        if 36 <= minute < 39:
            lag, rate = None, 0.0
        elif 39 <= minute < 41:
            lag, rate = 190 * (41 - minute) / 2, 900 + 60 * noise
        samples.append(Sample(MOMENT - SPAN + (number + 1) * EVERY, lag, rate))
    return tuple(samples)


if __name__ == "__main__":
    file = PICTURE.with_suffix(".html")
    file.write_bytes(page(facts()))
    with browser() as running:
        tab = Tab(running, width=820, height=1100, dark=False)
        tab.open(file.as_uri())
        PICTURE.write_bytes(tab.screenshot())
    file.unlink()
