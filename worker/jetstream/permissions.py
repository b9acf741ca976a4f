"""The subjects that this program uses on the broker: the permissions that its user needs.

`projector check`, the server configuration in scripts/deploy and its test all read these lists.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple

import nats.errors

from worker.errors import BrokerError
from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import API, API_TIMEOUT, Connection
from worker.jetstream.presence import ASK
from worker.jetstream.subjects import in_domain, manifest_changes, readings, stream_changes
from worker.projections.results import RESULTS
from worker.settings import Settings

# Neither JSON nor an ack: where the right is granted, the server refuses this instead.
_MEANINGLESS = b"{"


class Permission(NamedTuple):
    """A subject as a server's configuration has it, and what it is needed for.

    Without an optional one the worker projects all the same.
    """

    subject: str
    purpose: str
    subscribe: bool = False
    is_optional: bool = False

    def covered(self) -> str:
        """Return one plain subject that the permission covers and nothing listens on."""
        return self.subject.replace("*", "-").replace(">", "-")

    def placed(self, inbox_prefix: str, domain: str | None) -> "Permission":
        """Return the permission for an inbox prefix, and a JetStream domain if not the server's.

        A server takes its own domain out of a subject before it looks at permissions.
        """
        if self == _INBOX:
            return self._replace(subject=f"{inbox_prefix}.>")
        return self._replace(subject=in_domain(self.subject, domain))


_INBOX = Permission("_INBOX.>", "receive answers and messages", subscribe=True)
_FIND_WORKERS = Permission(ASK, "find other workers", is_optional=True)


def worker_permissions(settings: Settings) -> list[Permission]:
    """Return what a worker needs on streams that exist."""
    rights = [_INBOX]
    for projection in settings.chosen:
        own = settings.of(projection)
        stream, consumer, subjects = own.stream, own.consumer, projection.read_filter
        rights += [
            *_looking_permissions(stream, consumer),
            Permission(f"{API}.CONSUMER.DURABLE.CREATE.{stream}.{consumer}", "create the consumer"),
            Permission(f"{API}.CONSUMER.CREATE.{stream}.*.{subjects}", "read the stream again"),
            Permission(f"{API}.CONSUMER.MSG.NEXT.{stream}.*", "request messages"),
            Permission(f"$JS.ACK.{stream}.{consumer}.>", "ack messages"),
        ]
        if projection is RESULTS:
            rights += _output_permissions(settings.output_bucket)
    return [
        *rights,
        *manifest_permissions(settings.bucket),
        # In another domain nothing listens to what is published there.
        *(_notice_permissions(settings.bucket) if settings.js_domain is None else []),
        Permission("$SRV.>", "announce the worker", subscribe=True, is_optional=True),
        _FIND_WORKERS,
    ]


def _output_permissions(bucket: str) -> list[Permission]:
    return [
        Permission(f"{API}.STREAM.MSG.GET.OBJ_{bucket}", "look up output in the object store"),
        Permission(f"{API}.CONSUMER.CREATE.OBJ_{bucket}.*.>", "create a consumer to read output"),
        Permission(f"{API}.CONSUMER.MSG.NEXT.OBJ_{bucket}.*", "read output"),
    ]


def _looking_permissions(stream: str, consumer: str) -> list[Permission]:
    return [
        Permission(f"{API}.STREAM.INFO.{stream}", "find the stream"),
        Permission(f"{API}.STREAM.MSG.GET.{stream}", "compare the checkpoint with the stream"),
        Permission(f"{API}.CONSUMER.INFO.{stream}.{consumer}", "see the consumer's position"),
    ]


def manifest_permissions(bucket: str) -> list[Permission]:
    """Return what reading the manifests needs."""
    return [
        Permission(f"{API}.STREAM.INFO.KV_{bucket}", "see changes of the manifests"),
        Permission(f"{API}.CONSUMER.CREATE.KV_{bucket}.*", "create a consumer to read them"),
        Permission(f"{API}.CONSUMER.MSG.NEXT.KV_{bucket}.*", "read the manifests"),
    ]


def _notice_permissions(bucket: str) -> list[Permission]:
    subjects = [*manifest_changes(bucket), stream_changes(bucket), readings(bucket)]
    text = "see changes of the manifests at once"
    return [Permission(one, text, subscribe=True, is_optional=True) for one in subjects]


def create_stream_permissions(settings: Settings) -> list[Permission]:
    """Return what `--create-stream` needs as well."""
    streams = [settings.of(projection).stream for projection in settings.chosen]
    return [Permission(f"{API}.STREAM.CREATE.{name}", "create the stream") for name in streams]


def reader_permissions(settings: Settings) -> list[Permission]:
    """Return what a person needs for the commands: none acks, or changes the consumer."""
    rights = [_INBOX]
    for projection in settings.chosen:
        own = settings.of(projection)
        rights += _looking_permissions(own.stream, own.consumer)
    if RESULTS in settings.chosen:
        rights += _output_permissions(settings.output_bucket)
    return [
        *rights,
        *reading_permissions(settings),
        *manifest_permissions(settings.bucket),
        _FIND_WORKERS,
    ]


def reading_permissions(settings: Settings) -> list[Permission]:
    """Return what `verify`, `rebuild` and `explain` need for a consumer of their own."""
    rights = []
    for projection in settings.chosen:
        name = settings.of(projection).stream
        text = "create a consumer that ends by itself"
        rights += [
            Permission(f"{API}.CONSUMER.CREATE.{name}.>", text),
            Permission(f"{API}.CONSUMER.MSG.NEXT.{name}.*", "read the stream through it"),
        ]
    return rights


def missing_permissions(
    client: BrokerClient, settings: Settings, wanted: Iterable[Permission]
) -> list[Permission]:
    """Return the permissions that the broker does not grant; raises BrokerError without an answer.

    Has no effect on the broker: it reports a refused subject before it looks at what was sent
    there, and what is sent means nothing.
    """
    connection = client.connection
    placed = [one.placed(settings.inbox_prefix, connection.other_domain) for one in wanted]
    return [one for one in placed if client.do(_is_refused(connection, one))]


async def _is_refused(connection: Connection, permission: Permission) -> bool:
    began = time.monotonic()
    try:
        if permission.subscribe:
            subscription = await connection.subscribe(permission.covered())
            await subscription.unsubscribe()
        else:
            # A worker would log that it cannot answer; the server would answer a request for real.
            reply = connection.new_inbox() if permission.subject.startswith("$SRV.") else ""
            await connection.publish(permission.covered(), _MEANINGLESS, reply)
        # The server reports a refusal before it answers a later ping. The library's first ping may
        # overtake what it has not written yet; the second cannot.
        for _ in range(2):
            await connection.flush(timeout=int(API_TIMEOUT))
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise BrokerError(f"{permission.subject} cannot be tried") from error
    problem = connection.problem_since(began) or ""
    denied_at = max(connection.presence_denied_at, connection.notices_denied_at)
    return "permission" in problem.lower() or denied_at >= began
