"""Payloads of events, changed at random in the ways in which JSON goes wrong."""

import json
import random
from collections.abc import Iterator
from typing import Any

START: dict[str, Any] = {
    "result_id": "r-1",
    "request_id": "q",
    "exec_id": "e",
    "pc_id": "p",
    "started_at": "2026-05-20T12:00:00.123456789Z",
    "manifest_id": "m",
    "version": "1",
}
RESULT: dict[str, Any] = {
    **{name: value for name, value in START.items() if name != "version"},
    "exit_code": 0,
    "stdout": "a\nb \u30ab",
    "stderr": "",
    "finished_at": "2026-05-20T12:00:05.5Z",
    "skipped": False,
    "parent_result_id": None,
    "stdout_object": None,
}
_NUMBERS = [0, -1, 1, 1.0, 1e400, 2**31, 2**31 - 1, -(2**31), -(2**31) - 1, 10**30]
_TEXTS = ["", "x", "\x00", "\x7f", "\ud800", "\udfff\ud800", "é", "\u2028", '"', "\\", 'a"b']
_TIMES = [
    "2026-05-20T12:00:00Z",
    "2026-02-30T00:00:00.123456789Z",
    "2026-05-20T12:00:60.123456789Z",
    "2026-12-31T23:59:60.123456789Z",
    "2026-05-20 12:00:00.123456789Z",
    "2026-05-20T12:00:00.123456000Z",
    "9999-12-31T23:59:59.999999999Z",
    "0000-01-01T00:00:00.000000001Z",
    "\uff12026-05-20T12:00:00.123456789Z",
    "2026-05-20T12:00:00.12345678\uff19Z",
]
_VALUES = [None, True, False, *_NUMBERS, *_TEXTS, *_TIMES, "\\u0041", [], {}, {"a": 1}, ["x"]]
_PIECES = [
    *(b'"', b"\\", b'\\"', b"\\u", b"\\ud83d", b"\\ude00", b",", b":", b"{", b"}", b"[", b"]"),
    *(b" ", b"  ", b"\n", b"\t", b"\x00", b"\x1f", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80"),
    *(b"\xef\xbb\xbf", b"NaN", b"1e5", b"-", b"0", b"null", b"true", b"/**/"),
    *(b'"x":1,', b'"pc_id":"twice",', b'"exit_code":1.0'),
]
_FORMS = [(",", ":"), (", ", ": "), (" , ", " : ")]


def mutated(members: dict[str, Any], count: int, chance: random.Random) -> Iterator[bytes]:
    """Yield payloads: members changed, removed or added, in any order; then pieces of the text."""
    for _ in range(count):
        changed = dict(members)
        for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
            name = chance.choice([*members, "more", "Result_ID"])
            if chance.random() < 0.2:
                changed.pop(name, None)
            else:
                changed[name] = chance.choice(_VALUES)
        items = list(changed.items())
        if chance.random() < 0.3:
            chance.shuffle(items)
        text = json.dumps(
            dict(items), separators=chance.choice(_FORMS), ensure_ascii=chance.random() < 0.6
        )
        payload = text.encode("utf-8", "surrogatepass")
        for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
            at, length = chance.randrange(len(payload) + 1), chance.choice((0, 0, 1, 2, 5))
            some_byte = bytes([chance.randrange(256)])
            piece = chance.choice(_PIECES) if chance.random() < 0.7 else some_byte
            payload = payload[:at] + piece + payload[at + length :]
        yield payload
