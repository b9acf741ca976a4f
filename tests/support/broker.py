"""A synchronous client for tests: publish, inspect and change what is on the broker."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Self, TypeVar

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, SequenceInfo, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError
from nats.js.kv import KeyValue

from tests.support import events
from tests.support.waiting import eventually

_Result = TypeVar("_Result")

STREAM = "EVENTS"
CONSUMER = "backend_events_projector"
RESULTS = "RESULTS"
RESULTS_CONSUMER = "backend_results_projector"
BUCKET = "jobs"
OUTPUT_BUCKET = "result_output"
_BOUND = 20.0
_CONSUMER = {
    "durable_name": CONSUMER,
    "filter_subject": "events.started.>",
    "ack_policy": "explicit",
    "deliver_policy": "all",
    "ack_wait": 30.0,
    "max_ack_pending": 10_000,
}


class Broker:
    """One connection. Its loop runs in a thread, so that it answers the server's pings."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client: Client = self.run(_connect(url, options))
        self._js: JetStreamContext = self._client.jetstream()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_BOUND)

    def close(self) -> None:
        self.run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def version(self) -> tuple[int, int]:
        """The server's version, major and minor."""
        found = self._client.connected_server_version
        return found.major, found.minor

    def heard(self, subject: str) -> list[float]:
        """Return a list that grows by the time (monotonic) of each message on a subject."""
        times: list[float] = []

        async def take(_: Msg) -> None:
            times.append(time.monotonic())

        async def subscribe() -> None:
            await self._client.subscribe(subject, cb=take)
            await self._client.flush()

        self.run(subscribe())
        return times

    # --- streams and consumers ---

    def make_stream(self, **config: Any) -> StreamInfo:
        """Create the stream as the fleet's own set-up does; `config` replaces some settings."""
        limit = 256 * 1024 * 1024
        wanted = {"name": STREAM, "subjects": ["events.>"], "max_bytes": limit, **config}
        return self.run(self._js.add_stream(StreamConfig(**wanted)))

    def delete_stream(self, name: str = STREAM) -> None:
        self.run(self._js.delete_stream(name))

    def purge(self, *, below: int) -> None:
        """Delete all messages below a stream sequence, as expiry does."""
        self.run(self._js.purge_stream(STREAM, seq=below))

    def delete_message(self, stream: str, sequence: int) -> None:
        self.run(self._js.delete_msg(stream, sequence))

    def delete_everything(self) -> None:
        """Delete all streams, and with them all consumers and buckets."""
        for stream in self.run(self._js.streams_info()):
            self.delete_stream(stream.config.name or "")

    def stream_info(self, name: str = STREAM) -> StreamInfo:
        return self.run(self._js.stream_info(name))

    def has_stream(self) -> bool:
        return _is_found(self.stream_info)

    def make_consumer(self, *, stream: str = STREAM, **config: Any) -> ConsumerInfo:
        """Create a consumer by hand; `config` replaces what the contract asks for.

        It goes past the client library, which does not know every setting.
        """
        wanted = {**_CONSUMER, **config}
        wanted["ack_wait"] = round(wanted["ack_wait"] * 1e9)
        given = {name: value for name, value in wanted.items() if value is not None}
        name = wanted["durable_name"]
        self.ask(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", stream_name=stream, config=given)
        return self.consumer(name, stream)

    def ask(self, subject: str, **request: Any) -> dict[str, Any]:
        """Return the JSON that JetStream's API answers with."""
        sent = self._client.request(f"$JS.API.{subject}", json.dumps(request).encode(), 5)
        answer: dict[str, Any] = json.loads(self.run(sent).data)
        assert "error" not in answer, answer
        return answer

    def delete_consumer(self, name: str = CONSUMER) -> None:
        self.run(self._js.delete_consumer(STREAM, name))

    def consumer(self, name: str = CONSUMER, stream: str = STREAM) -> ConsumerInfo:
        info: ConsumerInfo = self.run(self._js.consumer_info(stream, name))
        return info

    def pause_consumer(self, until: str) -> None:
        """Pause the consumer; a time in the past resumes it. Needs a server from 2.11 on."""
        self.ask(f"CONSUMER.PAUSE.{STREAM}.{CONSUMER}", pause_until=until)

    def has_consumer(self) -> bool:
        return _is_found(self.consumer)

    def is_acked(self, name: str = CONSUMER, stream: str = STREAM) -> bool:
        """Return whether every message of the consumer has been delivered and acked."""
        consumer = self.consumer(name, stream)
        return not consumer.num_pending and not consumer.num_ack_pending

    def ack_floor(self, name: str = CONSUMER, stream: str = STREAM) -> int:
        """Return the stream sequence up to which every message is acked."""
        floor = self.consumer(name, stream).ack_floor
        assert floor is not None
        return floor.stream_seq

    def delivered(self) -> SequenceInfo:
        """Return the last delivery: its stream sequence, and how many deliveries there were."""
        delivered = self.consumer().delivered
        assert delivered is not None
        return delivered

    def fetch(
        self, messages: int, name: str = CONSUMER, *, ack: bool, stream: str = STREAM
    ) -> None:
        """Fetch messages as another worker would, and ack them or leave them ack pending."""

        async def fetch() -> None:
            subscription = await self._js.pull_subscribe_bind(name, stream)
            fetched = 0
            while fetched < messages:
                for message in await subscription.fetch(messages - fetched, timeout=5):
                    fetched += 1
                    if ack:
                        await message.ack_sync()
            await subscription.unsubscribe()

        self.run(fetch())

    def fetch_some(self, messages: int, name: str = CONSUMER) -> None:
        """Fetch up to so many messages within a second, and ack them."""

        async def fetch() -> None:
            subscription = await self._js.pull_subscribe_bind(name, STREAM)
            with contextlib.suppress(TimeoutError):
                for message in await subscription.fetch(messages, timeout=1):
                    await message.ack()
            await subscription.unsubscribe()
            await self._client.flush()

        self.run(fetch())

    # --- messages ---

    def publish(
        self,
        payload: bytes | None = None,
        *,
        subject: str = "",
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> int:
        """Publish one event, a valid start by default, and return its stream sequence."""
        if payload is None:
            start = events.start(**members)
            payload, subject = json.dumps(start).encode(), subject or events.subject(start)
        ack = self.run(
            self._js.publish(subject or "events.started.e.pc", payload, headers=headers, timeout=10)
        )
        return ack.seq

    def publish_starts(self, starts: Iterable[dict[str, Any]]) -> int:
        """Publish many starts and return their number once the stream has stored them all."""
        published = [(events.subject(start), json.dumps(start).encode()) for start in starts]
        self.publish_many(published)
        return len(published)

    def publish_many(self, published: Sequence[tuple[str, bytes]], stream: str = STREAM) -> int:
        """Publish (subject, payload) pairs in order and return the first one's sequence."""
        before = self.stream_info(stream).state.last_seq
        self._send(published)
        last = before + len(published)
        # No ack confirms a single message, so the stream's last sequence has to.
        eventually(lambda: self.stream_info(stream).state.last_seq >= last, _BOUND)
        return before + 1

    def send(self, *published: tuple[str, dict[str, Any]]) -> None:
        """Send events or results in order, without waiting for any stream."""
        self._send([(subject, json.dumps(members).encode()) for subject, members in published])

    def _send(
        self, published: Sequence[tuple[str, bytes]], headers: dict[str, str] | None = None
    ) -> None:
        async def send(part: Sequence[tuple[str, bytes]]) -> None:
            for subject, payload in part:
                await self._client.publish(subject, payload, headers=headers)
            await self._client.flush()

        for start in range(0, len(published), 500):
            self.run(send(published[start : start + 500]))

    # --- results ---

    def make_results_stream(self, **config: Any) -> None:
        """Create the stream of results as the fleet's own set-up does; `config` replaces some."""
        wanted = {"subjects": ["results.>"], "max_bytes": 256 * 1024 * 1024, **config}
        self.run(self._js.add_stream(StreamConfig(name=RESULTS, **wanted)))

    def publish_results(self, results: Iterable[dict[str, Any]]) -> int:
        """Publish results in order, and return the last one's stream sequence."""
        last = 0
        for result in results:
            subject = f"results.{result['request_id']}"
            payload = json.dumps(result).encode()
            last = self.run(self._js.publish(subject, payload, timeout=10)).seq
        return last

    def make_output_bucket(self) -> None:
        self.run(self._js.create_object_store(bucket=OUTPUT_BUCKET))

    def delete_output_bucket(self) -> None:
        self.run(self._js.delete_object_store(OUTPUT_BUCKET))

    def put_output(self, key: str, data: bytes) -> None:
        async def put() -> None:
            store = await self._js.object_store(OUTPUT_BUCKET)
            await store.put(key, data)

        self.run(put())

    def delete_output(self, key: str) -> None:
        async def delete() -> None:
            store = await self._js.object_store(OUTPUT_BUCKET)
            await store.delete(key)

        self.run(delete())

    def results_consumer(self) -> ConsumerInfo:
        return self.consumer(RESULTS_CONSUMER, RESULTS)

    def delete_results_consumer(self) -> None:
        self.run(self._js.delete_consumer(RESULTS, RESULTS_CONSUMER))

    def has_acked_results(self) -> bool:
        """Return whether every result has been delivered and acked."""
        return self.is_acked(RESULTS_CONSUMER, RESULTS)

    def stored_at(self, sequence: int, stream: str = STREAM) -> str:
        """Return when the broker stored a message, in the server's RFC 3339 text."""
        return str(self.ask(f"STREAM.MSG.GET.{stream}", seq=sequence)["message"]["time"])

    # --- manifests ---

    def make_bucket(self, **config: Any) -> None:
        self.run(self._js.create_key_value(bucket=BUCKET, **config))

    def delete_bucket(self) -> None:
        self.run(self._js.delete_key_value(BUCKET))

    def _bucket(self) -> KeyValue:
        return self.run(self._js.key_value(BUCKET))

    def make_bucket_like(self, bucket: str, **config: Any) -> None:
        """Create the bucket with the server's own settings, such as `mirror` and `sources`."""
        self.run(self._js.create_key_value(bucket=bucket))
        given = {"name": f"KV_{BUCKET}", "max_msgs_per_subject": 1, **config}
        self.ask(f"STREAM.CREATE.KV_{BUCKET}", **given)

    def put_into(self, subject: str, value: object) -> None:
        self.run(self._js.publish(subject, json.dumps(value).encode()))

    def make_bucket_with_ttl(self) -> None:
        """Create the bucket so that each key may have a TTL, which needs a server from 2.11 on."""
        config = StreamConfig(
            name=f"KV_{BUCKET}", subjects=[f"$KV.{BUCKET}.>"], max_msgs_per_subject=1
        )
        config.allow_msg_ttl = config.allow_rollup_hdrs = config.allow_direct = True
        self.run(self._js.add_stream(config))

    def put_manifest(self, manifest_id: str, value: object, ttl: str = "") -> None:
        """Put a manifest: bytes as they are, any other value as JSON."""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        headers = {"Nats-TTL": ttl} if ttl else None
        self.run(self._js.publish(f"$KV.{BUCKET}.{manifest_id}", raw, headers=headers))

    def refuse_a_put(self, manifest_id: str) -> None:
        """Put a manifest that the server refuses, since it expects another revision."""
        headers = {"Nats-Expected-Last-Subject-Sequence": "999999"}
        try:
            self.run(self._js.publish(f"$KV.{BUCKET}.{manifest_id}", b"{}", headers=headers))
        except APIError:
            return
        raise AssertionError("the server has stored it")

    def put_manifests(self, manifest_ids: Iterable[str], value: object) -> None:
        *others, last = manifest_ids
        raw = json.dumps(value).encode()
        self._send([(f"$KV.{BUCKET}.{manifest_id}", raw) for manifest_id in others])
        self.put_manifest(last, raw)  # its ack covers the messages before it

    def delete_manifests(self, manifest_ids: Sequence[str]) -> None:
        subjects = [f"$KV.{BUCKET}.{manifest_id}" for manifest_id in manifest_ids[:-1]]
        self._send([(subject, b"") for subject in subjects], {"KV-Operation": "DEL"})
        self.delete_manifest(manifest_ids[-1])

    def delete_manifest(self, manifest_id: str) -> None:
        self.run(self._bucket().delete(manifest_id))

    def purge_manifest(self, manifest_id: str) -> None:
        self.run(self._bucket().purge(manifest_id))

    def purge_bucket(self, **purge: Any) -> None:
        """Remove messages without a marker, as their expiry does."""
        self.run(self._js.purge_stream(f"KV_{BUCKET}", **purge))

    def manifests_left(self) -> int:
        """Return how many messages the bucket has, markers of deleted keys included."""
        return self.run(self._js.stream_info(f"KV_{BUCKET}")).state.messages

    def readers(self, stream: str = f"KV_{BUCKET}") -> list[str]:
        """Return the names of all consumers of a stream but the worker's."""
        found = self.run(self._js.consumers_info(stream))
        return [consumer.name for consumer in found if consumer.name != CONSUMER]

    def save_bucket(self) -> dict[str, Any]:
        """Return a snapshot of the bucket, as `nats stream backup` takes it."""
        chunks: list[bytes] = []
        done = asyncio.Event()

        async def take(message: Msg) -> None:
            if message.data:
                chunks.append(message.data)
                await message.respond(b"")
            else:
                done.set()

        async def save() -> dict[str, Any]:
            inbox = self._client.new_inbox()
            subscription = await self._client.subscribe(inbox, cb=take)
            request = json.dumps({"deliver_subject": inbox, "no_consumers": True}).encode()
            subject = f"$JS.API.STREAM.SNAPSHOT.KV_{BUCKET}"
            answer = json.loads((await self._client.request(subject, request, 5)).data)
            await asyncio.wait_for(done.wait(), 5)
            await subscription.unsubscribe()
            return {"config": answer["config"], "state": answer["state"]}

        return {"request": self.run(save()), "chunks": chunks}

    def restore_bucket(self, saved: dict[str, Any]) -> None:
        """Replace the bucket by a snapshot of it; its creation time comes with it."""
        self.delete_bucket()
        place = self.ask(f"STREAM.RESTORE.KV_{BUCKET}", **saved["request"])["deliver_subject"]
        for chunk in (*saved["chunks"], b""):
            self.run(self._client.request(place, chunk, 5))


class Publisher:
    """Publishes starts from a thread until it is stopped, each until the stream has stored it.

    Every `malformed_every`-th message cannot be decoded. It pauses for `rest` seconds after 200.
    """

    def __init__(
        self, url: str, *, prefix: str = "streamed", malformed_every: int = 0, rest: float = 0.0
    ) -> None:
        self.result_ids: list[str] = []
        self.malformed: list[bytes] = []
        self._malformed_every = malformed_every
        self._rest = rest
        self._prefix = prefix
        self._url = url
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._publish()), daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        """Stop, and return the result_ids of the starts in the stream."""
        self._ending.set()
        self._thread.join(_BOUND)
        assert not self._thread.is_alive()
        return self.result_ids

    async def _publish(self) -> None:
        """Publish in groups, and repeat a group that is not confirmed: a start may stand twice."""
        client = await _connect(self._url, {})
        js = client.jetstream(timeout=1)
        number = 0
        is_confirmed = True
        # What is not confirmed may be stored all the same, so it is repeated also at the end.
        while not self._ending.is_set() or (client.is_connected and not is_confirmed):
            group = [f"{self._prefix}-{number + i:06}" for i in range(200)]
            every = self._malformed_every
            malformed = group[every - 1 :: every] if every else []
            starts = [name for name in group if name not in malformed]
            try:
                await asyncio.gather(
                    *(self._publish_start(js, name) for name in starts),
                    *(js.publish("events.started.e.pc", name.encode()) for name in malformed),
                )
            except (nats.errors.Error, OSError, TimeoutError):
                is_confirmed = False
                await asyncio.sleep(0.05)
                continue
            is_confirmed = True
            self.result_ids += starts
            self.malformed += [name.encode() for name in malformed]
            number += len(group)
            await asyncio.sleep(self._rest)
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await client.close()

    async def _publish_start(self, js: JetStreamContext, result_id: str) -> None:
        start = events.start(result_id=result_id)
        await js.publish(events.subject(start), json.dumps(start).encode())


def publish_raw(port: int, *frames: bytes) -> None:
    """Send protocol frames over a plain socket, also those that no client library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n')
        connection.sendall(b"".join(frames) + b"PING\r\n")
        received = b""
        while b"PONG" not in received:
            more = connection.recv(4096)
            assert more, f"the server hung up: {received!r}"
            received += more
        assert b"-ERR" not in received, received


def raw_publish(subject: bytes, payload: bytes, headers: bytes | None = None) -> bytes:
    """Return the protocol frame that publishes exactly these bytes."""
    if headers is None:
        return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)
    size = len(headers) + len(payload)
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, len(headers), size, headers, payload)


def _is_found(look: Callable[[], object]) -> bool:
    try:
        look()
    except NotFoundError:
        return False
    return True


async def _connect(url: str, options: dict[str, Any]) -> Client:
    async def ignore(_error: Exception) -> None:
        """Tests stop servers on purpose."""

    wanted = {
        "error_cb": ignore,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.1,
        "connect_timeout": 2,
    }
    async with asyncio.timeout(10):
        return await nats.connect(url, **{**wanted, **options})
