"""Which subjects this program uses on the broker: the rights that an account has to give it. Pure.

`projector check`, the server's configuration in scripts/deploy and its test all read this list.
"""

from typing import NamedTuple

API = "$JS.API"
INBOX = "_INBOX.>"


class Right(NamedTuple):
    """A subject as a server's configuration has it, and what it is needed for."""

    subject: str
    purpose: str
    subscribe: bool = False

    def covered(self) -> str:
        """Return one plain subject that the right covers, and that means nothing to anybody."""
        return self.subject.replace("*", "-").replace(">", "-")


def worker_rights(stream: str, consumer: str, bucket: str) -> list[Right]:
    """Return what a worker needs on a stream that is there."""
    return [
        Right(INBOX, "answers of the broker, and messages", subscribe=True),
        Right(f"{API}.STREAM.INFO.{stream}", "is the stream there"),
        Right(f"{API}.STREAM.MSG.GET.{stream}", "does the database lack a start"),
        Right(f"{API}.CONSUMER.INFO.{stream}.{consumer}", "how the consumer stands"),
        Right(f"{API}.CONSUMER.DURABLE.CREATE.{stream}.{consumer}", "make the consumer"),
        Right(f"{API}.CONSUMER.DELETE.{stream}.{consumer}", "make the consumer anew for a replay"),
        Right(f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}", "ask for messages"),
        Right(f"$JS.ACK.{stream}.{consumer}.>", "ack them"),
        *manifest_rights(bucket),
    ]


def manifest_rights(bucket: str) -> list[Right]:
    """Return what reading and watching the manifests needs."""
    return [
        Right(f"{API}.STREAM.INFO.KV_{bucket}", "is the bucket of the manifests there"),
        Right(f"{API}.CONSUMER.CREATE.KV_{bucket}", "watch the manifests"),
        Right(f"{API}.CONSUMER.INFO.KV_{bucket}.*", "how the watch stands"),
        Right(f"$JS.FC.KV_{bucket}.>", "flow control of a large bucket"),
    ]


def create_stream_rights(stream: str) -> list[Right]:
    """Return what `--create-stream` needs besides."""
    return [Right(f"{API}.STREAM.CREATE.{stream}", "make the stream")]


def reader_rights(stream: str, consumer: str, bucket: str) -> list[Right]:
    """Return what a person needs for the commands: none of it acks, or touches the consumer."""
    return [
        Right(INBOX, "answers of the broker, and messages", subscribe=True),
        Right(f"{API}.STREAM.INFO.{stream}", "is the stream there"),
        Right(f"{API}.STREAM.MSG.GET.{stream}", "does the database lack a start"),
        Right(f"{API}.CONSUMER.INFO.{stream}.{consumer}", "how the consumer stands"),
        *reading_rights(stream),
        *manifest_rights(bucket),
    ]


def reading_rights(stream: str) -> list[Right]:
    """Return what `verify`, `rebuild` and `explain` need for a consumer of their own."""
    return [
        Right(f"{API}.CONSUMER.CREATE.{stream}", "make a consumer that ends by itself"),
        Right(f"{API}.CONSUMER.MSG.NEXT.{stream}.*", "read the stream through it"),
    ]
