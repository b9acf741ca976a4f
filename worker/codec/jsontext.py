"""Parse JSON strictly by RFC 8259; every failure is a ValueError. Pure."""

import json
from collections import Counter
from collections.abc import Collection
from typing import Any, NoReturn

_MOST_DIGITS = 18


class _Members(list[tuple[str, Any]]):
    """The members of an object in their order, those that stand twice included."""

    __slots__ = ()


def parse_members(payload: bytes, known: Collection[str]) -> dict[str, Any]:
    """Return the members of a JSON object, none of whose `known` members may stand twice.

    Integers are returned as such; beyond 18 digits they are only known to be large. Raises
    ValueError for any other text, and as `parse_json`.
    """
    found = _parse(payload, _decoder_of_members)
    if not isinstance(found, _Members):
        problem = f"expected a JSON object, found {kind_of(found)}"
        raise ValueError(problem)  # noqa: TRY004 (the text is wrong, not a type of the program)
    members = dict(found)
    if len(members) < len(found):
        times = Counter(name for name, _ in found)
        if repeated := [name for name in known if times[name] > 1]:
            raise ValueError(f"{repeated[0]}: the member stands twice")
    return members


def parse_json(payload: bytes) -> Any:
    """Return the value of a JSON text in UTF-8. All numbers are returned as floats.

    The worker reads no numbers, and an integer of thousands of digits in a member that it ignores
    must not fail, as Python's `int` would. Raises ValueError with the reason and its position.
    """
    return _parse(payload, _decoder)


def _parse(payload: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        return decoder.decode(text)
    except RecursionError as error:
        raise ValueError("not JSON that the worker can read: nested too deeply") from error
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" at")
        raise ValueError(f"not JSON: {problem} at character {error.pos + 1}") from error


def kind_of(value: object) -> str:
    """Return the JSON type of a parsed value, with its article, for error messages."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    kinds[_Members] = "an object"
    return "null" if value is None else kinds.get(type(value), "a number")


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"not JSON: {constant} is not a JSON value")


def _integer(text: str) -> int:
    """Return an integer; beyond 64 bits, where `int` fails at last, the largest or the least."""
    if len(text) <= _MOST_DIGITS:
        return int(text)
    return -(2**63) if text[0] == "-" else 2**63 - 1


_decoder = json.JSONDecoder(parse_int=float, parse_constant=_not_json)
_decoder_of_members = json.JSONDecoder(
    parse_int=_integer, parse_constant=_not_json, object_pairs_hook=_Members
)
