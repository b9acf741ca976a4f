"""The wire type of the stream: an EventStarted, decoded from a message's payload. Pure."""

from typing import Any, NamedTuple

from worker.codec.jsontext import kind_of, parse_json
from worker.codec.timestamps import parse_instant


class EventStarted(NamedTuple):
    """A start: this run has started. `started_at` is in nanoseconds since 1970, by the agent."""

    result_id: str
    request_id: str
    exec_id: str
    pc_id: str
    started_at: int
    manifest_id: str
    version: str


class MalformedEvent(ValueError):
    """The payload is no EventStarted; the text names the member and the shape of its value."""


def decode_start(payload: bytes) -> EventStarted:
    """Return the start that a payload holds; raises MalformedEvent if it holds none."""
    try:
        members = parse_json(payload)
    except ValueError as error:
        raise MalformedEvent(str(error)) from error
    if not isinstance(members, dict):
        raise MalformedEvent(f"expected a JSON object, found {kind_of(members)}")
    return EventStarted(
        _text(members, "result_id"),
        _text(members, "request_id"),
        _text(members, "exec_id"),
        _text(members, "pc_id"),
        _started_at(members),
        _text(members, "manifest_id"),
        _text(members, "version"),
    )


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        if name not in members:
            raise MalformedEvent(f"{name}: the member is missing")
        raise MalformedEvent(f"{name}: expected a string, found {kind_of(value)}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise MalformedEvent(
                f"{name}: a lone surrogate at character {error.start + 1} of {len(value)}, "
                "which the database cannot store"
            ) from error
    return value


def _started_at(members: dict[str, Any]) -> int:
    text = _text(members, "started_at")
    try:
        return parse_instant(text)
    except ValueError as error:
        shown = ascii(text[:40])
        raise MalformedEvent(
            f"started_at: no RFC 3339 instant, {error}: {shown} ({len(text)} characters)"
        ) from error
