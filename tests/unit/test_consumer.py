import asyncio
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from nats.js.api import DeliverPolicy, ReplayPolicy, SequenceInfo

from repo.checkpoint import Checkpoint
from worker.errors import ConfigurationError
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import (
    Binding,
    as_binding,
    check_usable,
    differences,
    read_binding,
    wanted_consumer,
)
from worker.jetstream.consumer_info import Config, Info
from worker.jetstream.stream import StreamState, has_gone_back
from worker.projections.starts import STARTS
from worker.settings import Settings

SETTINGS = Settings(nats_urls=("nats://127.0.0.1:4222",), database="sqlite:///x.db")
WANTED = wanted_consumer(SETTINGS, STARTS)
STREAM = StreamState("2026-05-20T00:00:00+00:00", 100, 5000, 1, 100, "", keeps_acked=True)
MEBIBYTE = 1024 * 1024
BINDING = Binding(STREAM, WANTED, 0, 0, 0, 0, SequenceInfo(9, 90), SequenceInfo(6, 60))


def changed(**settings: Any) -> Config:
    return replace(WANTED, **settings)


@pytest.mark.parametrize(
    "found",
    [
        WANTED,
        changed(max_deliver=0),
        changed(max_deliver=None),
        changed(ack_wait=29.999999999),
        changed(
            name="backend_events_projector",
            max_waiting=512,
            num_replicas=0,
            flow_control=False,
            headers_only=False,
            mem_storage=False,
            inactive_threshold=0,
            rate_limit_bps=0,
            backoff=[],
            metadata={"_nats.level": "0"},
        ),
    ],
    ids=["as created", "no limit is 0", "no limit is absent", "rounded", "the server's defaults"],
)
def test_an_equivalent_consumer_does_not_differ(found: Config) -> None:
    assert differences(WANTED, found) == {}


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("deliver_policy", DeliverPolicy.NEW, ("all", "new")),
        ("ack_wait", 5.0, (30.0, 5.0)),
        ("max_deliver", 3, (-1, 3)),
        ("replay_policy", ReplayPolicy.ORIGINAL, ("instant", "original")),
        ("max_ack_pending", 1, (10_000, 1)),
        ("max_waiting", 1, (512, 1)),
        ("backoff", [1.0, 2.0], (None, [1.0, 2.0])),
        ("rate_limit_bps", 1000, (None, 1000)),
        ("inactive_threshold", 60.0, (None, 60.0)),
        ("mem_storage", True, (None, True)),
    ],
)
def test_a_difference_is_shown_with_the_wanted_and_the_found_value(
    setting: str, value: object, shown: tuple[object, object]
) -> None:
    assert differences(WANTED, changed(**{setting: value})) == {setting: shown}


def test_only_the_expected_filter_is_usable_and_other_settings_may_differ() -> None:
    check_usable(SETTINGS, STARTS, changed(ack_wait=5.0, max_deliver=3), MEBIBYTE)
    two = [STARTS.read_filter, "events.finished.>"]
    check_usable(SETTINGS, STARTS, changed(filter_subject=None, filter_subjects=two[:1]), MEBIBYTE)
    with pytest.raises(ConfigurationError, match=f"filters {', '.join(two)}"):
        check_usable(SETTINGS, STARTS, changed(filter_subject=None, filter_subjects=two), MEBIBYTE)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"priority_groups": ["a", "b"], "max_batch": 1}, "priority groups a, b"),
        ({"max_expires": 0.2}, "max_expires 0.2 s, expected at least 1 s"),
        ({"max_bytes": 1000}, "max_bytes 1000, expected at least"),
        ({"max_bytes": MEBIBYTE}, "max_bytes 1048576, expected at least"),
        ({"priority_groups": [], "max_expires": 1.0, "max_bytes": 2 * MEBIBYTE}, None),
        ({"max_expires": 0, "max_bytes": 0, "max_batch": 0}, None),
    ],
)
def test_a_consumer_that_refuses_every_pull_request_is_not_usable(
    limits: dict[str, Any], problem: str | None
) -> None:
    with pytest.raises(ConfigurationError, match=problem) if problem else nullcontext():
        check_usable(SETTINGS, STARTS, changed(**limits), MEBIBYTE)


@pytest.mark.parametrize(
    ("later", "same"),
    [
        (replace(BINDING, pending=9, ack_pending=9), True),
        (replace(BINDING, delivered=SequenceInfo(10, 80)), True),
        (replace(BINDING, delivered=SequenceInfo(8, 90)), False),
        (replace(BINDING, stream=replace(STREAM, created_at="2026-05-21")), False),
    ],
)
def test_a_reply_means_the_same_message_until_stream_or_deliveries_go_back(
    later: Binding, same: bool
) -> None:
    assert later.follows(BINDING) == same


@pytest.mark.parametrize(("received", "same"), [(8, True), (9, True), (10, False)])
def test_a_consumer_that_has_delivered_less_than_came_here_is_another_one(
    received: int, same: bool
) -> None:
    assert BINDING.follows(BINDING, received) == same


class Stream:
    """Answers how far the stream is by now."""

    def __init__(self, last: int) -> None:
        self._last = last

    async def ask(self, subject: str, _body: object = None) -> dict[str, Any]:
        assert subject == "$JS.API.STREAM.INFO.EVENTS"
        state = {"messages": 0, "bytes": 0, "first_seq": 1, "last_seq": self._last}
        return {"created": "2026-05-20T00:00:00Z", "config": {}, "state": state}


def delivered(sequence: int) -> Info:
    position = SequenceInfo(sequence, sequence)
    info = Info(name="c", stream_name="EVENTS", config=WANTED, created=datetime.now(UTC))
    info.delivered = position
    return info


@pytest.mark.parametrize(
    ("last", "by_now", "is_ahead", "handed_out"),
    [(91, 91, False, 90), (90, 90, False, 90), (89, 90, False, 89), (89, 89, True, 89)],
)
def test_a_consumer_above_the_streams_end_is_ahead_unless_the_stream_has_grown_since(
    last: int, by_now: int, is_ahead: bool, handed_out: int
) -> None:
    stream = replace(STREAM, last_sequence=last)
    connection = cast(Connection, Stream(by_now))
    binding = asyncio.run(read_binding(connection, "EVENTS", delivered(90), stream))
    assert (binding.is_ahead, binding.handed_out) == (is_ahead, handed_out)


@pytest.mark.parametrize(
    ("reached", "last", "by_now", "went_back"),
    [(90, 90, 90, False), (90, 89, 90, False), (90, 89, 89, True), (90, 91, 91, False)],
)
def test_a_stream_that_ends_below_the_checkpoint_went_back_unless_it_has_grown_since(
    reached: int, last: int, by_now: int, went_back: bool
) -> None:
    stream = replace(STREAM, last_sequence=last)
    checkpoint = Checkpoint(stream.created_at, reached)
    connection = cast(Connection, Stream(by_now))
    found = asyncio.run(has_gone_back(connection, "EVENTS", checkpoint, stream))
    assert found == went_back


def test_figures_that_a_server_leaves_out_are_zero() -> None:
    info = Info(name="c", stream_name="EVENTS", config=WANTED, created=datetime.now(UTC))
    binding = as_binding(info, STREAM)
    assert (binding.not_acked, binding.pull_requests, binding.redelivered) == (0, 0, 0)
    assert (binding.delivered.stream_seq, binding.ack_floor.consumer_seq) == (0, 0)


def test_the_ack_pending_limit_of_the_fleets_own_client_is_not_a_difference() -> None:
    assert differences(WANTED, changed(max_ack_pending=1000)) == {}
    assert "max_ack_pending" in differences(WANTED, changed(max_ack_pending=1001))
