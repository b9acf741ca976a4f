"""What is read of the server's bytes before the library reads them."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.protocol.parser import Parser

from worker.jetstream import early
from worker.jetstream.early import EarlyReader, read_early

OWN, OTHER = 7, 12

Taken = tuple[int, bytes, bytes, bytes, bytes]


class Recorder:
    """Takes the messages of one subscription, and keeps what goes on to the library."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.handed_over: list[Taken] = []
        self.fed = b""
        self.reader = EarlyReader(self, self.feed)

    def feed(self, data: bytes) -> None:
        self.fed += data

    def heard(self) -> None:
        pass

    def takes(self, sid: int) -> bool:
        return sid == OWN

    def take(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.taken.append((sid, subject, reply, data, headers))

    def hand_over(self) -> None:
        self.handed_over = list(self.taken)


class Library(Client):
    """Keeps what the library's parser reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[Taken] = []

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.read.append((sid, subject, reply, data, headers or b""))


def message(sid: int, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> bytes:
    words = [b"HMSG" if headers else b"MSG", subject, b"%d" % sid, *([reply] if reply else [])]
    sizes = [*([b"%d" % len(headers)] if headers else []), b"%d" % len(headers + payload)]
    return b" ".join([*words, *sizes]) + b"\r\n" + headers + payload + b"\r\n"


words = st.text("aZ09.$_-é☃", min_size=1, max_size=12).map(str.encode)
header_blocks = st.sampled_from([b"", b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0 100 Idle\r\n\r\n"])
payloads = st.binary(max_size=40) | st.just(b"MSG a 7 b 3\r\nabc\r\n")
messages = st.builds(
    message, st.sampled_from([OWN, OTHER]), words, words | st.just(b""), header_blocks, payloads
)
others = st.sampled_from(
    [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b'INFO {"a":"b"} \r\n']
)


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """Yield the bytes in pieces; places beyond the end count from the beginning."""
    at = 0
    for place in sorted(place % (len(data) + 1) for place in places):
        if place > at:
            yield data[at:place]
            at = place
    if at < len(data):
        yield data[at:]


@given(st.lists(messages | others, max_size=12), st.lists(st.integers(0, 2000), max_size=12))
def test_wherever_reads_are_cut_messages_are_read_as_the_library_reads_them(
    commands: list[bytes], places: list[int]
) -> None:
    library = Library()
    own = [one for one in commands if f" {OWN} ".encode() in one[:40].split(b"\r\n")[0]]
    asyncio.run(Parser(library).parse(b"".join(own)))
    recorder = Recorder()
    for piece in cut(b"".join(commands), places):
        recorder.reader.read(piece)
    assert recorder.handed_over == library.read
    assert recorder.fed == b"".join(one for one in commands if one not in own)


@pytest.mark.parametrize("line", [b"MSG a 7  3\r\nabc\r\n", b"HMSG a 7  0 3\r\nabc\r\n"])
def test_two_spaces_where_the_reply_would_be_are_no_unknown_command(line: bytes) -> None:
    recorder = Recorder()
    recorder.reader.read(line * 2)
    assert recorder.handed_over == [(OWN, b"a", b"", b"abc", b"")] * 2
    assert recorder.fed == b""


@pytest.mark.parametrize("headers", [b"", b"NATS/1.0\r\nA: b\r\n\r\n"])
@pytest.mark.parametrize("byte", [n for n in range(256) if bytes([n]) not in b" \t\r\n"])
def test_a_subject_ends_only_where_it_does_for_the_server(byte: int, headers: bytes) -> None:
    recorder = Recorder()
    subject = b"a%cb" % byte
    recorder.reader.read(message(OWN, subject, subject, headers, b"payload"))
    assert recorder.handed_over == [(OWN, subject, subject, b"payload", headers)]
    assert recorder.fed == b""


@pytest.mark.parametrize(
    "unknown",
    [
        b"NEWS a 7 3\r\nabc\r\n",
        b"MSG  a 7 3\r\nabc\r\n",
        b"MSG a 7 -3\r\nabc\r\n",
        b"HMSG a 7 3\r\nabc\r\n",
        b"msg a 7 3\r\nabc\r\n",
    ],
)
def test_after_an_unknown_command_the_library_reads_everything(unknown: bytes) -> None:
    recorder, own = Recorder(), message(OWN, b"a", b"", b"", b"abc")
    for sent in (own, own[:5], own[5:] + unknown + own, own[:5], own[5:]):
        recorder.reader.read(sent)
    assert len(recorder.handed_over) == 2
    assert recorder.fed == unknown + own + own


def test_a_line_without_an_end_goes_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "_LONGEST_LINE", 100)
    recorder = Recorder()
    for _ in range(30):
        recorder.reader.read(b"INFO")
    assert recorder.fed == b"INFO" * 30


def test_a_large_message_is_put_together_once() -> None:
    class Counted(Recorder):
        reads = 0

        def hand_over(self) -> None:
            self.reads += 1
            super().hand_over()

    recorder, payload = Counted(), b"x" * 1_000_000
    for piece in cut(message(OWN, b"a", b"", b"", payload), list(range(0, 1_000_000, 1000))):
        recorder.reader.read(piece)
    assert [one[3] for one in recorder.handed_over] == [payload]
    assert recorder.reads == 2


def with_reader(use: Callable[[asyncio.StreamReader], None]) -> None:
    async def run() -> None:
        use(asyncio.StreamReader())

    asyncio.run(run())


def test_what_has_arrived_already_is_read_first() -> None:
    def use(reader: asyncio.StreamReader) -> None:
        recorder, own = Recorder(), message(OWN, b"a", b"", b"", b"abc")
        reader.feed_data(b"PONG\r\n" + own[:5])
        assert read_early(recorder, reader)
        reader.feed_data(own[5:] + b"PING\r\n")
        assert (len(recorder.handed_over), bytes(vars(reader)["_buffer"])) == (
            1,
            b"PONG\r\nPING\r\n",
        )

    with_reader(use)


def test_a_reader_of_another_kind_is_left_alone() -> None:
    def use(reader: asyncio.StreamReader) -> None:
        del vars(reader)["_buffer"]
        assert not read_early(Recorder(), reader)
        assert "feed_data" not in vars(reader)

    assert not read_early(Recorder(), object())
    with_reader(use)
