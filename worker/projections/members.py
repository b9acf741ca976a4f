"""Read the members of an event. All raise MalformedEvent, which names the member. Pure."""

from collections.abc import Collection
from typing import Any

from worker.codec.jsontext import kind_of, parse_members
from worker.codec.timestamps import to_stored
from worker.projections.base import MalformedEvent

LEAST_INTEGER, LARGEST_INTEGER = -(2**31), 2**31 - 1


def read_members(payload: bytes, known: Collection[str]) -> dict[str, Any]:
    """Return the members of a payload; none of the `known` ones may stand twice."""
    try:
        return parse_members(payload, known)
    except ValueError as error:
        raise MalformedEvent(str(error)) from error


def text(members: dict[str, Any], name: str) -> str:
    """Return a member that has to be text that the database can store."""
    value = members.get(name)
    if not isinstance(value, str):
        raise _wrong(members, name, "a string")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise MalformedEvent(
                f"{name}: a lone surrogate at character {error.start + 1} of {len(value)}, "
                "which the database cannot store"
            ) from error
    return value


def optional_text(members: dict[str, Any], name: str) -> str | None:
    """Return a member that may be missing or null."""
    return None if members.get(name) is None else text(members, name)


def instant(members: dict[str, Any], name: str) -> str:
    """Return a member that has to be an RFC 3339 instant, as stored text."""
    value = text(members, name)
    try:
        return to_stored(value)
    except ValueError as error:
        shown = ascii(value[:40])
        raise MalformedEvent(
            f"{name}: not an RFC 3339 instant, {error}: {shown} ({len(value)} characters)"
        ) from error


def integer(members: dict[str, Any], name: str) -> int:
    """Return a member that has to be a number, written as an integer of 32 bits with a sign."""
    value = members.get(name)
    expected = "a number written as an integer"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(members, name, expected)
    if isinstance(value, float):
        raise MalformedEvent(f"{name}: expected {expected}, found one with a fraction or exponent")
    if not LEAST_INTEGER <= value <= LARGEST_INTEGER:
        raise MalformedEvent(f"{name}: not between {LEAST_INTEGER} and {LARGEST_INTEGER}")
    return value


def boolean(members: dict[str, Any], name: str, *, otherwise: bool) -> bool:
    """Return a member that has to be true or false; `otherwise` where it is missing."""
    value = members.get(name, otherwise)
    if not isinstance(value, bool):
        raise _wrong(members, name, "a boolean")
    return value


def _wrong(members: dict[str, Any], name: str, expected: str) -> MalformedEvent:
    if name not in members:
        return MalformedEvent(f"{name}: the member is missing")
    return MalformedEvent(f"{name}: expected {expected}, found {kind_of(members[name])}")
