"""JSON exactly as RFC 8259 has it, with every way to fail turned into one ValueError. Pure."""

import json
from typing import Any, NoReturn


def parse_json(payload: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Numbers come back as floats: no member that is read here is a number, and a whole number of
    thousands of digits in a member that nobody reads must not fail. Raises ValueError with a reason
    that names the place.
    """
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        return _decoder.decode(text)
    except RecursionError as error:
        raise ValueError("not JSON that can be read: nested too deeply") from error
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" at")
        raise ValueError(f"not JSON: {problem} at character {error.pos + 1}") from error


def kind_of(value: object) -> str:
    """Return what JSON calls a value's type."""
    if value is None:
        return "null"
    return {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}.get(
        type(value), "a number"
    )


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"not JSON: {constant} is no JSON value")


_decoder = json.JSONDecoder(parse_int=float, parse_constant=_not_json)
