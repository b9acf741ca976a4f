from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js.api import ConsumerConfig, ConsumerInfo, DeliverPolicy, ReplayPolicy, SequenceInfo

from worker.errors import ConfigurationError
from worker.jetstream.consumer import (
    Binding,
    ConsumerPosition,
    as_binding,
    check_usable,
    differences,
    wanted_consumer,
)
from worker.projections.starts import STARTS
from worker.settings import Settings

SETTINGS = Settings(nats_urls=("nats://127.0.0.1:4222",), database="sqlite:///x.db")
WANTED = wanted_consumer(SETTINGS, STARTS)
STREAM_CREATED_AT = "2026-05-20T00:00:00+00:00"
CREATED = datetime(2026, 5, 20, tzinfo=UTC)
POSITION = ConsumerPosition(STREAM_CREATED_AT, 1, has_delivered=False, ack_floor=0, acked=0)
BINDING = Binding(CREATED, pending=0, position=POSITION, config=WANTED)


def changed(**settings: Any) -> ConsumerConfig:
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
def test_an_equivalent_consumer_does_not_differ(found: ConsumerConfig) -> None:
    assert differences(WANTED, found) == {}


@pytest.mark.parametrize(("start", "differs"), [(1, False), (101, False), (102, True)])
def test_a_consumer_may_skip_committed_messages(start: int, differs: bool) -> None:
    found = changed(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start)
    assert bool(differences(WANTED, found, committed=100)) == differs


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
    check_usable(SETTINGS, STARTS, changed(ack_wait=5.0, max_deliver=3))
    two = [STARTS.filter_subject, "events.finished.>"]
    check_usable(SETTINGS, STARTS, changed(filter_subject=None, filter_subjects=two[:1]))
    with pytest.raises(ConfigurationError, match=f"filters {', '.join(two)}"):
        check_usable(SETTINGS, STARTS, changed(filter_subject=None, filter_subjects=two))


@pytest.mark.parametrize(
    ("later", "same"),
    [
        (replace(BINDING, pending=9, position=replace(POSITION, ack_pending=9)), True),
        # Servers 2.9 move the creation time by less than a millisecond when they restart.
        (replace(BINDING, consumer_created=CREATED + timedelta(milliseconds=1)), True),
        (replace(BINDING, consumer_created=CREATED + timedelta(seconds=1)), False),
        (replace(BINDING, position=replace(POSITION, stream_created_at="2026-05-21")), False),
        (None, False),
    ],
)
def test_a_reply_means_the_same_message_only_in_the_same_stream_and_consumer(
    later: Binding | None, same: bool
) -> None:
    assert BINDING.same_messages(later) == same


def reported(
    delivered: tuple[int, int] | None, ack_floor: tuple[int, int] | None, ack_pending: int | None
) -> ConsumerPosition:
    """Return the position of a consumer with (consumer, stream) sequences and messages pending."""
    info = ConsumerInfo(
        name="c",
        stream_name="EVENTS",
        config=WANTED,
        created=CREATED,
        delivered=SequenceInfo(*delivered) if delivered else None,
        ack_floor=SequenceInfo(*ack_floor) if ack_floor else None,
        num_ack_pending=ack_pending,
        num_pending=4,
    )
    binding = as_binding(info, STREAM_CREATED_AT, 3)
    assert (binding.consumer_created, binding.pending) == (CREATED, 4)
    assert binding.position.ack_pending == (ack_pending or 0)
    assert (binding.position.stream_created_at, binding.position.first_sequence) == (
        STREAM_CREATED_AT,
        3,
    )
    return binding.position


def test_a_new_consumer_has_delivered_nothing() -> None:
    for position in (reported((0, 0), (0, 0), 0), reported(None, None, None)):
        assert (position.has_delivered, position.ack_floor, position.acked) == (False, 0, 0)


def test_a_consumer_that_acked_in_order_has_acked_up_to_its_ack_floor() -> None:
    position = reported((9, 90), (6, 60), 3)
    assert (position.has_delivered, position.delivered) == (True, 90)
    assert (position.ack_floor, position.acked) == (60, 60)


def test_a_consumer_that_acked_out_of_order_may_have_acked_all_that_it_delivered() -> None:
    position = reported((9, 90), (6, 60), 2)
    assert (position.ack_floor, position.acked) == (60, 90)


def test_the_ack_pending_limit_of_the_fleets_own_client_is_not_a_difference() -> None:
    assert differences(WANTED, changed(max_ack_pending=1000)) == {}
    assert "max_ack_pending" in differences(WANTED, changed(max_ack_pending=1001))
