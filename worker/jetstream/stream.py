"""What the stream holds, asked through JetStream's API. Consumer thread only; changes nothing."""

import re
from dataclasses import dataclass
from typing import Any

import nats.errors

from repo.checkpoint import Checkpoint
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.errors import PullLost, no_response
from worker.jetstream.connection import API, Connection
from worker.jetstream.subjects import in_domain
from worker.settings import Settings

# One or several words of a subject, without wildcards.
_WORDS = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")

_NO_MESSAGE_FOUND = 10037
_STREAM_NOT_FOUND = 10059
_JETSTREAM_OFF = (10039, 10076)


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream that exists. Times are stored text, empty if it has no message.

    `keeps_acked` is whether messages stay when they are acked; a workqueue or interest stream
    forgets them. `max_age` is for how many seconds they stay, 0 for ever, `max_bytes` how many
    bytes, None for any number.
    """

    created_at: str
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int
    last_stored_at: str
    keeps_acked: bool
    max_age: float = 0.0
    max_bytes: int | None = None
    first_stored_at: str = ""

    def bytes_from(self, sequence: int) -> int:
        """Return about how many bytes the messages from a sequence on have.

        The API does not report it; the mean size of the stream's messages is taken for theirs.
        """
        sequences = self.last_sequence - self.first_sequence + 1
        left = self.last_sequence - max(sequence, self.first_sequence) + 1
        return self.bytes * left // sequences if self.messages and left > 0 else 0


class ApiError(PullLost):
    """JetStream refused a request; `code` is its own number for the reason."""

    def __init__(self, error: dict[str, Any], domain: str | None) -> None:
        self.code = error.get("err_code")
        if self.code not in _JETSTREAM_OFF:
            text = f"the broker refused the request: {error.get('description')} ({self.code})"
        elif domain is None:
            text = "JetStream is off on this server, or not enabled for this account"
        else:
            text = (
                f"the JetStream domain {domain} does not answer: there is none of this name, it "
                "cannot be reached from this server now, or it is not enabled for this account"
            )
        super().__init__(text)


async def request(
    connection: Connection, subject: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what the JetStream API answers; raises ApiError, and PullLost without an answer."""
    try:
        answer = await connection.ask(subject, body)
    except nats.errors.NoRespondersError as error:
        raise ApiError({"err_code": _JETSTREAM_OFF[0]}, connection.other_domain) from error
    except (nats.errors.Error, TimeoutError, ValueError) as error:
        sent = in_domain(subject, connection.other_domain)
        raise no_response(f"no reply to {sent}", error) from error
    if "error" in answer:
        raise ApiError(answer["error"], connection.other_domain)
    return answer


async def stream_info(connection: Connection, stream: str) -> dict[str, Any] | None:
    """Return what the API says of a stream, or None if it does not exist; raises as `request`."""
    try:
        return await request(connection, f"{API}.STREAM.INFO.{stream}")
    except ApiError as error:
        if error.code == _STREAM_NOT_FOUND:
            return None
        raise


def missing_stream(settings: Settings, domain: str) -> str:
    """Say that the stream does not exist in the domain, if it has a name, and what to do."""
    text = f"stream {settings.stream} does not exist"
    if domain:
        text += f" in the JetStream domain {domain}"
    if settings.create_stream:
        return f"{text}; --create-stream will create it"
    if domain and settings.js_domain is None:
        text += ", the server's own; if it is in another one, pass --js-domain, and otherwise"
    else:
        text += ";"
    return f"{text} the fleet's set-up creates it, or run --create-stream does"


async def read_state(connection: Connection, stream: str) -> StreamState | None:
    """Return the state of a stream, or None if it does not exist; raises as `request`."""
    answer = await stream_info(connection, stream)
    if answer is None:
        return None
    state, config = answer["state"], answer["config"]
    return StreamState(
        created_at=_stored(answer["created"]),
        messages=state["messages"],
        bytes=state["bytes"],
        first_sequence=state["first_seq"],
        last_sequence=state["last_seq"],
        last_stored_at=_stored(state["last_ts"]) if state["messages"] else "",
        keeps_acked=config.get("retention", "limits") == "limits",
        max_age=config.get("max_age", 0) / NANOSECONDS,
        max_bytes=config["max_bytes"] if config.get("max_bytes", -1) > 0 else None,
        first_stored_at=_stored(state["first_ts"]) if state["messages"] else "",
    )


async def last_sequence(connection: Connection, name: str) -> int:
    """Return the sequence at which a stream ends now, 0 without it; raises as `request`."""
    state = await read_state(connection, name)
    return 0 if state is None else state.last_sequence


def is_subject(text: str) -> bool:
    """Return whether a text can be one or several words of a subject that is published to."""
    return _WORDS.fullmatch(text) is not None


async def first_message(
    connection: Connection, stream: str, sequence: int, subjects: str
) -> dict[str, Any] | None:
    """Return the first message at or above a sequence on some subjects, or None.

    Its members are those of the API; raises as `request`.
    """
    return await _message(connection, stream, {"seq": sequence, "next_by_subj": subjects})


async def last_message(connection: Connection, stream: str, subject: str) -> dict[str, Any] | None:
    """Return the last message on a subject; None without one, or without the stream.

    Its members are those of the API; raises as `request`.
    """
    try:
        return await _message(connection, stream, {"last_by_subj": subject})
    except ApiError as error:
        if error.code == _STREAM_NOT_FOUND:
            return None
        raise


async def stored_at(connection: Connection, stream: str, sequence: int) -> str | None:
    """Return when the message at a sequence was stored, or None; raises as `request`."""
    message = await _message(connection, stream, {"seq": sequence})
    return None if message is None else _stored(message["time"])


async def has_gone_back(
    connection: Connection, name: str, checkpoint: Checkpoint, stream: StreamState
) -> bool:
    """Return whether a sequence of a checkpoint means another message in the same stream by now.

    Raises PullLost where the broker does not answer.
    """
    sequence = checkpoint.last_sequence
    if checkpoint.stream_created_at != stream.created_at:
        return False
    reached = max(sequence, checkpoint.caught_up_to)
    # Another worker may have reached what was published since the stream was read.
    if reached > stream.last_sequence and reached > await last_sequence(connection, name):
        return True
    if not sequence:
        return False
    found: str | None = stream.last_stored_at
    if sequence != stream.last_sequence:
        found = await stored_at(connection, name, sequence)
    return bool(found) and found != checkpoint.last_stored_at


async def _message(
    connection: Connection, stream: str, wanted: dict[str, Any]
) -> dict[str, Any] | None:
    try:
        answer = await request(connection, f"{API}.STREAM.MSG.GET.{stream}", wanted)
    except ApiError as error:
        if error.code == _NO_MESSAGE_FOUND:
            return None
        raise
    message: dict[str, Any] = answer["message"]
    return message


def _stored(time: str) -> str:
    return format_instant(parse_instant(time))
