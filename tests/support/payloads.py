"""Random payloads of every kind, each with its fate, independently of the worker's own code.

A payload is valid or malformed by construction. One that was changed at random may be either.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support import events

VALID, MALFORMED, EITHER = "valid", "malformed", "either"

_LARGEST = 1_000_000
_TEXTS = (
    *("", " ", "\0", "a\0b", "ß☃😀", "\u202e", "'; DROP TABLE x; --", "%s", "\\", "\x7f"),
    "🏴" * 50,
)
_INSTANTS = (
    *("2026-05-20T12:00:00Z", "2026-05-20t12:00:00.1z", "2026-05-20T12:00:00.123456789-23:59"),
    *("0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999+00:00", "2016-12-31T23:59:60Z"),
    "2024-02-29T00:00:00+14:00",
)
_NO_INSTANTS = (
    *("", "now", "2026-05-20", "2026-05-20T12:00:00", "1779278400"),
    *("2026-02-30T12:00:00Z", "2026-05-20T24:00:00Z", "2026-05-20T12:00:61Z"),
    *("2026-05-20T12:00:00.Z", "2026-05-20T12:00:00.1234567890Z", "2026-05-20T12:00:00+24:00"),
    *("0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "２０２６-05-20T12:00:00Z"),
    "2026-05-20T12:00:00Z\0",
)
_OTHER_TYPES: tuple[Any, ...] = (None, True, False, 0, -1, 1.5, 10**400, [], ["x"], {}, {"a": 1})
_NO_JSON = (
    *(b"", b" ", b"{", b"}", b"nul", b"NaN", b"-Infinity", b'{"a":1,}', b"{'a':1}", b"\xff\xfe"),
    *(b"\xef\xbb\xbf{}", b"\0", b'"\t"', b"[1]]", b'{"result_id"}'),
)
_PIECES = ("\\u0000", "\\ud83d", '"', "{", "1e5", "null", "//")
_NO_OBJECT = (b"null", b"true", b"0", b'"text"', b"[]", b"{}", b"[{}]", b"1e999", b"-0")


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload, its fate, and the result_id of a valid start."""

    raw: bytes
    fate: str
    result_id: str = ""


class Payloads:
    """Generates payloads from a seed; each valid one has a result_id of its own."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._choice = self._random.choice
        self._kinds = (
            *(self._valid, self._other_form, self._nested, self._changed),
            *(self._wrong_member, self._no_instant, self._surrogate, self._no_object),
        )

    def some(self, number: int, *, huge: int) -> Iterator[Payload]:
        """Yield payloads, of which `huge` have nearly the largest size."""
        for index in range(number):
            if huge and index % (number // huge) == 0:
                yield self._huge()
            else:
                yield self._choice(self._kinds)()

    def _start(self, **members: Any) -> dict[str, Any]:
        # Random, so that a changed byte does not turn it into the id of another payload.
        return events.start(**{"result_id": self._random.randbytes(16).hex(), **members})

    # --- valid ---

    def _valid(self) -> Payload:
        """Return a start with any texts and instant, and perhaps with members of any type."""
        names = ("request_id", "exec_id", "pc_id", "manifest_id", "version")
        texts = {name: self._choice(_TEXTS) for name in names}
        start = self._start(started_at=self._choice(_INSTANTS), **texts)
        start["result_id"] += self._choice(_TEXTS)
        more = {f"more-{index}": value for index, value in enumerate(_OTHER_TYPES)}
        raw = self._choice(
            (
                json.dumps(start),
                json.dumps(start, ensure_ascii=False),
                json.dumps({**more, **start, "\0": "\ud800"}),
            )
        )
        return Payload(raw.encode(), VALID, start["result_id"])

    def _other_form(self) -> Payload:
        """Return a start in another order, with white space, and perhaps with escaped letters."""
        start = self._start()
        members = self._random.sample(list(start.items()), len(start))
        text = json.dumps(dict(members), indent=self._choice((None, 1, 8)))
        if self._random.random() < 0.5:
            text = "".join(f"\\u{ord(char):04x}" if char.isalpha() else char for char in text)
        return Payload(f" \r\n\t{text}\n ".encode(), VALID, start["result_id"])

    def _huge(self) -> Payload:
        member = self._choice(({"log": "x" * _LARGEST}, {"version": "☃" * (_LARGEST // 6)}, None))
        if member is None:
            return Payload(b"[" * _LARGEST, MALFORMED)
        start = self._start(**member)
        return Payload(json.dumps(start).encode(), VALID, start["result_id"])

    # --- malformed ---

    def _malformed(self, members: dict[str, Any]) -> Payload:
        return Payload(json.dumps(members).encode(), MALFORMED)

    def _wrong_member(self) -> Payload:
        """Return a start in which a member is missing or of another type."""
        start = self._start()
        name = self._choice(list(start))
        del start[name]
        if self._random.random() < 0.5:
            start[name] = self._choice(_OTHER_TYPES)
        return self._malformed(start)

    def _no_instant(self) -> Payload:
        return self._malformed(self._start(started_at=self._choice(_NO_INSTANTS)))

    def _surrogate(self) -> Payload:
        start = self._start()
        name = self._choice([name for name in start if name != "started_at"])
        start[name] += self._choice(("\ud800", "\udfff", "\ude00\ud83d"))
        return self._malformed(start)

    def _no_object(self) -> Payload:
        """Return a start that was cut off, no JSON, no object, or noise that cannot begin one."""
        raw = json.dumps(self._start()).encode()
        first = self._choice([byte for byte in range(256) if byte not in b"{ \t\r\n"])
        noise = bytes([first]) + self._random.randbytes(self._random.randrange(300))
        cut_off = raw[: self._random.randrange(len(raw))]
        return Payload(
            self._choice((cut_off, self._choice(_NO_JSON + _NO_OBJECT), noise)), MALFORMED
        )

    # --- either ---

    def _nested(self) -> Payload:
        """Nest more or less deeply than the decoder allows, also in a member that is ignored."""
        depth = self._choice((10, 500, 2_000, 20_000))
        opening, closing = self._choice((("[", "]"), ('{"a":', "}")))
        inner = opening * depth + ("0" if closing == "}" else "") + closing * depth
        if self._random.random() < 0.5:
            return Payload(inner.encode(), MALFORMED)
        start = self._start()
        raw = json.dumps(start)[:-1] + f', "more": {inner}}}'
        return Payload(raw.encode(), VALID if depth == 10 else EITHER, start["result_id"])

    def _changed(self) -> Payload:
        """Insert a text into a start, or change, delete and insert some of its bytes."""
        raw = bytearray(json.dumps(self._start()).encode())
        place = self._random.randrange(len(raw))
        if self._random.random() < 0.5:
            raw[place:place] = self._choice((*_TEXTS, *_PIECES)).encode()
            return Payload(bytes(raw), EITHER)
        for _ in range(self._random.randrange(1, 5)):
            place = self._random.randrange(len(raw))
            inserted = self._random.randbytes(self._random.randrange(2))
            raw[place : place + self._random.randrange(2)] = inserted
        return Payload(bytes(raw), EITHER)
