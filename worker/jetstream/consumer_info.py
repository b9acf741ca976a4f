"""What the broker reports of a consumer, with the settings that the client library leaves out.

And whether it serves the worker's pull requests: what `run` refuses and `check` reports.
"""

from dataclasses import dataclass
from typing import Any, Self

from nats.js.api import ConsumerConfig, ConsumerInfo
from nats.js.errors import APIError

from worker.codec.timestamps import NANOSECONDS
from worker.jetstream.connection import API, Connection

# Short, so that a stop can wait for the server to end what was requested: a message that it sends
# while the subscription goes away reaches no worker, and is stuck until the ack wait.
EXPIRES = 1.0
# With its subject and its reply subject, a message may be larger than the largest payload.
_MOST_OVERHEAD = 8192
_USUAL_BYTES = 8 * 1024 * 1024


@dataclass
class Config(ConsumerConfig):
    """The configuration of a consumer; `max_expires` is in seconds, 0 or None is no limit."""

    max_batch: int | None = None
    max_bytes: int | None = None
    max_expires: float | None = None
    priority_groups: list[str] | None = None

    @classmethod
    def from_response(cls, resp: dict[str, Any]) -> Self:
        if resp.get("max_expires"):
            resp["max_expires"] /= NANOSECONDS
        config: Self = super().from_response(resp)
        return config

    def unserved_request(self, max_payload: int) -> str | None:
        """Return why the consumer refuses every pull request of the worker, or None.

        `max_payload` is the server's, in bytes.
        """
        least = least_bytes(max_payload)
        if self.priority_groups:
            groups = ", ".join(self.priority_groups)
            return f"has the priority groups {groups}, expected none"
        if self.max_expires and self.max_expires < EXPIRES:
            return f"has max_expires {self.max_expires:g} s, expected at least {EXPIRES:g} s"
        if self.max_bytes and 0 < self.max_bytes < least:
            return f"has max_bytes {self.max_bytes}, expected at least {least} for one message"
        return None


@dataclass
class Info(ConsumerInfo):
    """A consumer that exists, with its whole configuration."""

    config: Config

    @classmethod
    def from_response(cls, resp: dict[str, Any]) -> Self:
        config = Config.from_response(dict(resp["config"]))
        info: Self = super().from_response(resp)
        info.config = config
        return info


async def consumer_info(connection: Connection, stream: str, consumer: str) -> Info:
    """Return a consumer as it is now; raises the library's errors."""
    answer = await connection.ask(f"{API}.CONSUMER.INFO.{stream}.{consumer}")
    if "error" in answer:
        APIError.from_error(answer["error"])  # raises
    return Info.from_response(answer)


def least_bytes(max_payload: int) -> int:
    """Return the fewest bytes that a pull request may ask for: the largest message must fit."""
    return max_payload + _MOST_OVERHEAD


def usual_bytes(max_payload: int) -> int:
    """Return the bytes that a pull request asks for where the consumer does not limit them."""
    return max(_USUAL_BYTES, 2 * max_payload)
