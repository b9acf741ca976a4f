"""Make the manifest cache equal to the bucket, with one small request while nothing has changed.

A bucket is a stream. What the server says of it (creation, first and last message, number of
messages) shows whether the cache is still the bucket: also where keys went without a message, by
age, TTL or purge, and where the bucket was recreated or restored. Then what changed is read, or all
of it. Nothing is taken from a watch, which could fall silent without an error; `notices` only says
that something may have changed. Consumer thread only.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from worker.codec.timestamps import parse_instant
from worker.errors import ConfigurationError
from worker.jetstream.connection import Connection
from worker.jetstream.ephemeral import Received, reading
from worker.jetstream.stream import stream_info
from worker.jetstream.wire import Delivered
from worker.logs import Repeats
from worker.projections.manifests import Manifest, ManifestCache, NoTimeout, read_timeout

log = logging.getLogger(__name__)

_ROUNDS = 10
_TRIES = 3
# Whatever happens to the bucket, and however many starts come: each worker asks the same server.
_SECONDS_A_LOOK = 0.25
# So many subjects show whether what follows is of the same bucket.
_RECENT = 16
_UNANNOUNCED = ("mirror", "sources", "max_age", "allow_msg_ttl")
_WARN_AGAIN_AFTER = 60.0


class BucketMissing(ConfigurationError):
    """The bucket does not exist."""


class State(NamedTuple):
    """A bucket's stream: sequences of the first and last message, and the last one's store time.

    `history` is how many revisions it keeps of a key. `is_announced` is whether nothing comes or
    goes unless a client asks for it: no copies of another stream's messages, no expiry.
    """

    created_at: str
    first: int
    last: int
    last_at: int
    messages: int
    history: int
    is_announced: bool

    @property
    def place(self) -> tuple[int, int]:
        return self.last, self.last_at


class Entry(NamedTuple):
    """A message of the bucket. `key` is None for a message that has none."""

    sequence: int
    stored_at: int
    key: str | None
    message: Delivered

    @property
    def place(self) -> tuple[int, int]:
        """What distinguishes this message from any other that has been in the bucket."""
        return self.sequence, self.stored_at


class Bucket:
    """Reads one bucket into a cache.

    `without_key` is how many messages without a key the last full read found, `read_at` when a page
    arrived that no attempt had read before (monotonic seconds). `delete` is whether to delete the
    consumers that read, instead of leaving that to the server.
    """

    def __init__(self, name: str, cache: ManifestCache, *, delete: bool = False) -> None:
        self.without_key = 0
        self.read_at = float("-inf")
        self._furthest = 0
        self._next_look_at = float("-inf")
        self._name = name
        self._stream = f"KV_{name}"
        self._cache = cache
        self._delete = delete
        self._repeats = Repeats(_WARN_AGAIN_AFTER)
        # The state that the cache reflects; what the server says next must be equal, or is read.
        self._seen: State | None = None
        # The places of the last messages by subject, oldest first: those of deleted keys as well.
        self._recent: dict[str, tuple[int, int]] = {}

    async def sync(self, connection: Connection) -> State:
        """Make the cache hold what the bucket holds now; returns what the server last said of it.

        Raises BucketMissing, and BrokerError where the broker does not answer.
        """
        # Only the first look of a reading waits for its time.
        await asyncio.sleep(self._next_look_at - time.monotonic())
        state = await self._look(connection)
        if state != self._seen:
            state = await self._follow(connection, state) or await self._load(connection, state)
        self._furthest = 0
        return state

    def forget(self) -> None:
        """Read everything the next time: the cache was cleared."""
        self._seen = None

    async def _look(self, connection: Connection) -> State:
        """Ask the server for the state, without waiting: between two looks more is put."""
        self._next_look_at = max(self._next_look_at, time.monotonic()) + _SECONDS_A_LOOK
        info = await stream_info(connection, self._stream)
        if info is None:
            raise BucketMissing("does not exist")
        state, config = info["state"], info["config"]
        return State(
            info["created"],
            state["first_seq"],
            state["last_seq"],
            parse_instant(state["last_ts"]),
            state["messages"],
            config.get("max_msgs_per_subject", -1),
            config.get("subjects") == [f"$KV.{self._name}.>"]
            and not any(config.get(name) for name in _UNANNOUNCED),
        )

    # --- what has changed ---

    async def _follow(self, connection: Connection, state: State) -> State | None:
        """Apply what has changed; returns None where only reading everything can show it.

        With one message a key, the number of messages proves that no key is gone unnoticed.
        """
        seen = self._seen
        if seen is None or state.history != 1 or state.created_at != seen.created_at:
            return None
        tail: dict[str, Entry] = {}
        if state.last > seen.last:
            state, tail = await self._tail(connection, state)
            if not self._continues(seen, tail, state.first):
                return None
        if state.place != max([seen.place, *(entry.place for entry in tail.values())]):
            return None
        messages = seen.messages - self._cache.remove_below(state.first)
        self._recent = {s: place for s, place in self._recent.items() if place[0] >= state.first}
        messages += sum(self._is_new(subject, entry) for subject, entry in tail.items())
        self._apply(tail)
        self._seen = state
        return state if state.messages == messages else None

    async def _tail(self, connection: Connection, state: State) -> tuple[State, dict[str, Entry]]:
        """Return the last entry of each subject, from the oldest message that is remembered."""
        tail: dict[str, Entry] = {}
        first = min((sequence for sequence, _ in self._recent.values()), default=1)
        config = {"deliver_policy": "by_start_sequence", "opt_start_seq": max(first, 1)}

        def take(entry: Entry) -> None:
            tail[entry.message.subject] = entry

        return await self._read(connection, state, take, **config), tail

    def _continues(self, seen: State, tail: dict[str, Entry], first: int) -> bool:
        """Return whether the tail is of the bucket that the cache holds.

        It is if it has, up to what was seen, the messages that are remembered and no others. A
        bucket restored from a copy has others there, even once it has grown beyond what was seen.
        """
        old = {s: entry.place for s, entry in tail.items() if entry.sequence <= seen.last}
        expected = {
            subject: place
            for subject, place in self._recent.items()
            if place[0] >= first and (subject not in tail or subject in old)
        }
        return bool(old) and old == expected

    def _is_new(self, subject: str, entry: Entry) -> bool:
        return subject not in self._recent and (
            entry.key is None or self._cache.find(entry.key) is None
        )

    def _apply(self, tail: dict[str, Entry]) -> None:
        for entry in sorted(tail.values(), key=lambda entry: entry.sequence):
            self._remember(entry)
            if entry.key is not None:
                self._cache.apply(entry.key, self._manifest(entry.key, entry))

    # --- everything ---

    async def _load(self, connection: Connection, state: State) -> State:
        """Read the whole bucket into the cache; returns the state afterwards."""
        self._seen = None
        for _ in range(_TRIES):
            before = state
            manifests, messages, state = await self._read_all(connection, before)
            # Where something has changed meanwhile, what was read must add up.
            adds_up = state.history == 1 and messages == state.messages
            if state == before or (adds_up and state.created_at == before.created_at):
                self._seen = state
                break
        self._cache.replace(manifests)
        self._log_loaded(state)
        return state

    async def _read_all(
        self, connection: Connection, state: State
    ) -> tuple[dict[str, Manifest], int, State]:
        """Return all manifests, how many subjects have a message, and the state afterwards."""
        manifests: dict[str, Manifest] = {}
        subjects: set[str] = set()
        self.without_key = 0
        self._recent = {}

        def take(entry: Entry) -> None:
            subjects.add(entry.message.subject)
            self._remember(entry)
            self._take(manifests, entry)

        after = await self._read(connection, state, take)
        return manifests, len(subjects), after

    def _take(self, manifests: dict[str, Manifest], entry: Entry) -> None:
        """Add the entry to what is read; the last one of a key counts."""
        if entry.key is None:
            self.without_key += 1
            return
        manifest = self._manifest(entry.key, entry)
        if manifest is None:
            manifests.pop(entry.key, None)
        else:
            manifests[entry.key] = manifest

    def _log_loaded(self, state: State) -> None:
        if not self._repeats.due((state.created_at, len(self._cache) > 0)):
            return
        figures = {"bucket": self._name, "manifests": len(self._cache), "revision": state.last}
        log.info("manifests.loaded", extra=figures)
        if self.without_key and not figures["manifests"]:
            log.warning("manifests.without_key", extra={"messages": self.without_key, **figures})

    # --- messages ---

    async def _read(
        self, connection: Connection, state: State, take: Callable[[Entry], None], **config: Any
    ) -> State:
        """Read the bucket, from its beginning unless `config` says otherwise.

        Returns a state of which everything was read. What was put meanwhile has replaced messages
        that were not read, so that is read as well, until no message is missing in it.
        """
        async with reading(connection, self._stream, delete=self._delete, **config) as consumer:
            known_until: int | None = None
            for _ in range(_ROUNDS):
                taken = 0
                while page := await consumer.page(state.last):
                    self._note_read(page[-1].delivery.stream_sequence)
                    taken += len(page)
                    for one in page:
                        take(_entry(one))
                if known_until is not None and taken >= state.last - known_until:
                    break
                known_until = state.last
                state = await self._look(connection)
        return state

    def _note_read(self, sequence: int) -> None:
        if sequence > self._furthest:
            self._furthest, self.read_at = sequence, time.monotonic()

    def _remember(self, entry: Entry) -> None:
        subject = entry.message.subject
        self._recent.pop(subject, None)
        self._recent[subject] = entry.place
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]

    def _manifest(self, key: str, entry: Entry) -> Manifest | None:
        """Return the manifest of an entry, or None where the entry says that the key is gone."""
        if _is_deletion(entry.message.headers):
            return None
        known = self._cache.find(key)
        if known is not None and (known.revision, known.put_at) == entry.place:
            return known
        timeout = read_timeout(entry.message.data)
        if isinstance(timeout, NoTimeout) and self._repeats.due(key):
            log.warning(
                "manifest.without_timeout",
                extra={"manifest_id": key, "reason": timeout.reason, "error": timeout.problem},
            )
        return Manifest(entry.sequence, timeout, entry.stored_at)


def _entry(received: Received) -> Entry:
    read, message = received
    # A bucket that mirrors or sources another one has the other one's subjects.
    prefix, _, key = message.subject.removeprefix("$KV.").partition(".")
    is_key = message.subject.startswith("$KV.") and prefix and key
    return Entry(read.stream_sequence, read.stored_at, key if is_key else None, message)


def _is_deletion(headers: dict[str, Any] | None) -> bool:
    """Return whether a message marks its key as deleted, by a client or, expired, by the server."""
    return headers is not None and (
        headers.get("KV-Operation") in ("DEL", "PURGE") or "Nats-Marker-Reason" in headers
    )
