"""Starts as agents publish them, and times as the tables hold them."""

import json
import uuid
from datetime import datetime, timedelta
from typing import Any

FINISHED_AT = "2026-05-20T12:00:05Z"
STARTED_AT = "2026-05-20T12:00:00.123456789Z"


def start(**members: Any) -> dict[str, Any]:
    """Return the members of a valid start, with a result_id of its own; `members` replace some."""
    return {
        "result_id": str(uuid.uuid4()),
        "request_id": "request-1",
        "exec_id": "execution-1",
        "pc_id": "pc-1",
        "started_at": STARTED_AT,
        "manifest_id": "job-1",
        "version": "1.0.0",
        **members,
    }


def result(**members: Any) -> dict[str, Any]:
    """Return the members of a valid result of a start above; `members` replace some."""
    return {
        "result_id": str(uuid.uuid4()),
        "request_id": "request-1",
        "exec_id": "execution-1",
        "pc_id": "pc-1",
        "exit_code": 0,
        "stdout": "output",
        "stderr": "",
        "started_at": STARTED_AT,
        "finished_at": FINISHED_AT,
        "manifest_id": "job-1",
        **members,
    }


def payload(**members: Any) -> bytes:
    """Return a valid start's payload; `members` replace some."""
    return json.dumps(start(**members)).encode()


def subject(event: dict[str, Any]) -> str:
    """Return the subject that an agent publishes a start on."""
    return f"events.started.{event['exec_id'] or 'adhoc'}.{event['pc_id']}"


def stored_text(instant: str, *, plus: int = 0) -> str:
    """Return the stored text of an RFC 3339 instant in UTC ("…Z"), `plus` seconds later.

    It is computed independently of the worker's own code.
    """
    whole, _, fraction = instant.removesuffix("Z").partition(".")
    moved = datetime.fromisoformat(whole) + timedelta(seconds=plus)
    digits = fraction.ljust(9, "0")
    for length in (6, 3, 0):
        if set(digits[length:]) != {"0"}:
            break
        digits = digits[:length]
    return f"{moved.isoformat()}{'.' if digits else ''}{digits}+00:00"
