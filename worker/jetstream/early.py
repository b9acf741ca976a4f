"""Reads messages out of what the server sends before the library does. Loop thread only.

The library takes several steps for each message, reads 32 KiB at a time, and needs a turn of the
loop for that. So complete messages of some subscriptions are taken here, which saves an eighth of
the whole worker's time, and every other command goes on to the library as it came. If the library's
internals or a command are unknown, the library reads everything.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Protocol

# Servers leave two spaces where an advisory has no reply subject.
_MESSAGE = re.compile(rb"MSG ([^ \t\r\n]+) (\d+) (?:([^ \t\r\n]*) )?(\d+)\r\n")
_WITH_HEADERS = re.compile(rb"HMSG ([^ \t\r\n]+) (\d+) (?:([^ \t\r\n]*) )?(\d+) (\d+)\r\n")
_OTHER = re.compile(rb"(?:PING|PONG|\+OK|-ERR[^\r\n]*|INFO [^\r\n]*)\s*?\r\n")
_ENDING = b"\r\n"
# No line of a server is longer, as far as is known: INFO names all servers of a cluster.
_LONGEST_LINE = 1024 * 1024


class Receiver(Protocol):
    """What takes the messages."""

    def heard(self) -> None:
        """Take note that the server has sent something."""

    def takes(self, sid: int) -> bool:
        """Return whether messages of a subscription are taken."""

    def take(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Take a message."""

    def hand_over(self) -> None:
        """All of one read have been taken."""


class EarlyReader:
    """Reads what one connection brings; `feed` gives the library the rest."""

    def __init__(self, receiver: Receiver, feed: Callable[[bytes], None]) -> None:
        self._receiver = receiver
        self._feed = feed
        self._is_passive = False
        # The beginning of a command, and how many bytes are needed to go on with it.
        self._held: list[bytes] = []
        self._held_bytes = self._needed = 0

    def read(self, data: bytes) -> None:
        """Take what the server has sent: bytes that may begin and end anywhere."""
        self._receiver.heard()
        if self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._needed:
                return
            data, self._held = b"".join(self._held), []
        read = 0 if self._is_passive else self._read_commands(data)
        self._receiver.hand_over()
        if read < len(data):
            self._keep(data[read:] if read else data)

    def _keep(self, rest: bytes) -> None:
        if self._is_passive:
            self._feed(rest)
        else:
            self._held, self._held_bytes = [rest], len(rest)

    def _read_commands(self, data: bytes) -> int:
        """Take or pass on all complete commands; returns how many bytes they are."""
        match, takes, take = _MESSAGE.match, self._receiver.takes, self._receiver.take
        at, size = 0, len(data)
        while at < size:
            if (found := match(data, at)) is not None:
                subject, number, reply, length = found.groups()
                head = body = found.end()
            elif (found := _WITH_HEADERS.match(data, at)) is not None:
                subject, number, reply, header_length, length = found.groups()
                head = found.end()
                body = head + int(header_length)
            elif (found := _OTHER.match(data, at)) is not None:
                self._feed(found[0])
                at = found.end()
                continue
            else:
                self._needed = size - at + 1
                self._is_passive = data.find(_ENDING, at) >= 0 or self._needed > _LONGEST_LINE
                return at
            end = head + int(length)
            if end + len(_ENDING) > size:
                self._needed = end + len(_ENDING) - at
                return at
            if takes(sid := int(number)):
                take(sid, subject, reply or b"", data[body:end], data[head:body])
            else:
                self._feed(data[at : end + len(_ENDING)])
            at = end + len(_ENDING)
        return at


def read_early(receiver: Receiver, reader: object) -> bool:
    """Read early what a stream reader of asyncio gets from now on; returns whether that is so."""
    if not isinstance(reader, asyncio.StreamReader):
        return False
    buffered, feed = getattr(reader, "_buffer", None), reader.feed_data
    if not isinstance(buffered, bytearray):
        return False
    early = EarlyReader(receiver, feed)
    vars(reader)["feed_data"] = early.read
    if buffered:
        data = bytes(buffered)
        buffered.clear()
        early.read(data)
    return True
