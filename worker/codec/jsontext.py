"""Parse JSON strictly by RFC 8259; every failure is a ValueError. Pure."""

import json
from typing import Any, NoReturn


def parse_json(payload: bytes) -> Any:
    """Return the value of a JSON text in UTF-8. All numbers are returned as floats.

    The worker reads no numbers, and an integer of thousands of digits in a member that it ignores
    must not fail, as Python's `int` would. Raises ValueError with the reason and its position.
    """
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        return _decoder.decode(text)
    except RecursionError as error:
        raise ValueError("not JSON that the worker can read: nested too deeply") from error
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" at")
        raise ValueError(f"not JSON: {problem} at character {error.pos + 1}") from error


def kind_of(value: object) -> str:
    """Return the JSON type of a parsed value, with its article, for error messages."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"not JSON: {constant} is not a JSON value")


_decoder = json.JSONDecoder(parse_int=float, parse_constant=_not_json)
