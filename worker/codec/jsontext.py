"""Parse JSON strictly by RFC 8259; every failure is a ValueError. Pure."""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection
from operator import itemgetter
from typing import Any, NoReturn

_MOST_DIGITS = 18

_PLAIN_TEXT = r"[ !#-\[\]-~]*"
# Orders of members that are remembered; programs have one each.
_MOST_ORDERS = 4
_Match = Callable[[str], re.Match[str] | None]
_InOrder = Callable[[tuple[str, ...]], tuple[str, ...]]


class _Members(list[tuple[str, Any]]):
    """The members of an object in their order, those that stand twice included."""

    __slots__ = ()


class TextScanner:
    """Reads objects that have certain members and no others, all of them plain texts.

    A shortcut, since nearly all payloads are such an object: printable ASCII without escapes, with
    at most a space behind a colon or comma. `parse_members` finds the same texts in it, and says
    what is wrong with any other payload.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._orders: set[tuple[str, ...]] = set()
        self._forms: list[tuple[_Match, _InOrder]] = []

    def scan(self, payload: bytes) -> tuple[str, ...] | None:
        """Return the texts of the members, in the order of the names; None for another payload."""
        if not payload.isascii():
            return None
        text = payload.decode("ascii")
        for match, in_order in self._forms:
            if (found := match(text)) is not None:
                return in_order(found.groups())
        return self._learn(text)

    def _learn(self, text: str) -> tuple[str, ...] | None:
        """Return the texts as `scan`; the order of the members is known from now on."""
        order = tuple(re.findall(r'"(\w+)" ?:', text))
        is_known = order in self._orders or len(self._orders) == _MOST_ORDERS
        if is_known or sorted(order) != sorted(self._names):
            return None
        members = ", ?".join(f'"{name}": ?"({_PLAIN_TEXT})"' for name in order)
        match = re.compile(rf"\{{{members}\}}").fullmatch
        if (found := match(text)) is None:
            return None
        in_order: _InOrder = itemgetter(*map(order.index, self._names))
        self._orders.add(order)
        self._forms.append((match, in_order))
        return in_order(found.groups())


def scan_members(payload: bytes) -> dict[str, Any] | None:
    """Return the members of an object, each of which stands once.

    A shortcut as above: None for any other payload, and for white space around the object.
    `parse_members` returns the same, but for integers of more than 18 digits, which are whole here.
    """
    try:
        text = payload.decode()
        found, end = _scan_unique(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return None
    return found if type(found) is dict and end == len(text) else None


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


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a member stands twice")
    return found


_scan_unique: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    parse_constant=_not_json, object_pairs_hook=_unique
).scan_once  # type: ignore[attr-defined]
_decoder = json.JSONDecoder(parse_int=float, parse_constant=_not_json)
_decoder_of_members = json.JSONDecoder(
    parse_int=_integer, parse_constant=_not_json, object_pairs_hook=_Members
)
