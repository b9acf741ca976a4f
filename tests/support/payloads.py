"""Random payloads of every kind, each with its fate, independently of the worker's own code.

A payload is valid or malformed by construction. One that was changed at random may be either.
"""

import json
import random
from collections.abc import Callable, Iterator
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
    *("", "now", "2026-05-20", "2026-05-20 12:00:00Z", "2026-05-20T12:00:00", "1779278400"),
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
        self._kinds: tuple[Callable[[], Payload], ...] = (
            *(self._plain, self._any_texts, self._any_instant, self._more_members),
            *(self._other_form, self._member_missing, self._wrong_type, self._no_instant),
            *(self._surrogate, self._cut_off, self._no_json, self._noise, self._nested),
            *(self._changed_bytes, self._changed_text),
        )

    def some(self, number: int, *, huge: int) -> Iterator[Payload]:
        """Yield payloads, of which `huge` have nearly the largest size."""
        for index in range(number):
            if huge and index % (number // huge) == 0:
                yield self._huge()
            else:
                yield self._random.choice(self._kinds)()

    # --- valid ---

    def _start(self, **members: Any) -> dict[str, Any]:
        # Random, so that a changed byte does not turn it into the id of another payload.
        return events.start(**{"result_id": self._random.randbytes(16).hex(), **members})

    def _valid(self, start: dict[str, Any], raw: bytes | None = None) -> Payload:
        raw = json.dumps(start).encode() if raw is None else raw
        return Payload(raw, VALID, start["result_id"])

    def _plain(self) -> Payload:
        return self._valid(self._start())

    def _any_texts(self) -> Payload:
        names = ("request_id", "exec_id", "pc_id", "manifest_id", "version")
        start = self._start(**{name: self._random.choice(_TEXTS) for name in names})
        start["result_id"] += self._random.choice(_TEXTS)
        raw = json.dumps(start, ensure_ascii=self._random.random() < 0.5).encode()
        return self._valid(start, raw)

    def _any_instant(self) -> Payload:
        return self._valid(self._start(started_at=self._random.choice(_INSTANTS)))

    def _more_members(self) -> Payload:
        start = self._start()
        more = {f"more-{index}": value for index, value in enumerate(_OTHER_TYPES)}
        return self._valid(start, json.dumps({**more, **start, "\0": "\ud800"}).encode())

    def _other_form(self) -> Payload:
        start = self._start()
        members = list(start.items())
        self._random.shuffle(members)
        spaced = json.dumps(dict(members), indent=self._random.choice((None, 1, 8)))
        if self._random.random() < 0.5:
            spaced = "".join(
                f"\\u{ord(character):04x}" if character.isalpha() else character
                for character in spaced
            )
        return self._valid(start, f" \r\n\t{spaced}\n ".encode())

    def _huge(self) -> Payload:
        start = self._start()
        kind = self._random.randrange(3)
        if kind == 0:
            return self._valid(start, json.dumps({**start, "log": "x" * _LARGEST}).encode())
        if kind == 1:
            return self._valid({**start, "version": "☃" * (_LARGEST // 6)})
        return Payload(b"[" * _LARGEST, MALFORMED)

    # --- malformed ---

    def _malformed(self, members: dict[str, Any]) -> Payload:
        return Payload(json.dumps(members).encode(), MALFORMED)

    def _member_missing(self) -> Payload:
        start = self._start()
        del start[self._random.choice(list(start))]
        return self._malformed(start)

    def _wrong_type(self) -> Payload:
        start = self._start()
        start[self._random.choice(list(start))] = self._random.choice(_OTHER_TYPES)
        return self._malformed(start)

    def _no_instant(self) -> Payload:
        return self._malformed(self._start(started_at=self._random.choice(_NO_INSTANTS)))

    def _surrogate(self) -> Payload:
        start = self._start()
        name = self._random.choice([name for name in start if name != "started_at"])
        start[name] += self._random.choice(("\ud800", "\udfff", "\ude00\ud83d"))
        return self._malformed(start)

    def _cut_off(self) -> Payload:
        raw = json.dumps(self._start()).encode()
        return Payload(raw[: self._random.randrange(len(raw))], MALFORMED)

    def _no_json(self) -> Payload:
        return Payload(self._random.choice(_NO_JSON + _NO_OBJECT), MALFORMED)

    def _noise(self) -> Payload:
        # A first byte that cannot begin a JSON object.
        first = self._random.choice([byte for byte in range(256) if byte not in b"{ \t\r\n"])
        return Payload(
            bytes([first]) + self._random.randbytes(self._random.randrange(300)), MALFORMED
        )

    def _nested(self) -> Payload:
        """Nest more or less deeply than the decoder allows, also in a member that is ignored."""
        depth = self._random.choice((10, 500, 2_000, 20_000))
        opening, closing = self._random.choice((("[", "]"), ('{"a":', "}")))
        inner = opening * depth + ("0" if closing == "}" else "") + closing * depth
        if self._random.random() < 0.5:
            return Payload(inner.encode(), MALFORMED)
        start = self._start()
        raw = json.dumps(start)[:-1] + f', "more": {inner}}}'
        return Payload(raw.encode(), VALID if depth == 10 else EITHER, start["result_id"])

    # --- either ---

    def _changed_bytes(self) -> Payload:
        start = self._start()
        raw = bytearray(json.dumps(start).encode())
        for _ in range(self._random.randrange(1, 5)):
            place = self._random.randrange(len(raw))
            match self._random.randrange(3):
                case 0:
                    raw[place] = self._random.randrange(256)
                case 1:
                    del raw[place]
                case _:
                    raw.insert(place, self._random.randrange(256))
        return Payload(bytes(raw), EITHER)

    def _changed_text(self) -> Payload:
        text = json.dumps(self._start())
        place = self._random.randrange(len(text))
        piece = self._random.choice((*_TEXTS, "\\u0000", "\\ud83d", '"', "{", "1e5", "null", "//"))
        return Payload((text[:place] + piece + text[place:]).encode(), EITHER)
