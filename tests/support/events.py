"""Starts as agents publish them, for tests and the demo."""

import json
import uuid
from typing import Any

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


def payload(**members: Any) -> bytes:
    """Return a valid start's payload; `members` replace some."""
    return json.dumps(start(**members)).encode()


def subject(event: dict[str, Any]) -> str:
    """Return the subject that an agent publishes a start on."""
    return f"events.started.{event['exec_id'] or 'adhoc'}.{event['pc_id']}"
