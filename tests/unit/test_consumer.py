from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js import api
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy

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
BINDING = Binding(CREATED, pending=0, ack_pending=0, position=POSITION, config=WANTED)


def changed(**settings: Any) -> ConsumerConfig:
    return replace(WANTED, **settings)


def test_the_stream_is_the_one_of_the_contract() -> None:
    spec = STARTS.stream
    assert (SETTINGS.stream, spec.name, spec.subjects) == ("EVENTS", "EVENTS", ("events.>",))
    assert (spec.max_age, spec.max_bytes) == (604_800, 268_435_456)


def test_the_consumer_is_the_one_of_the_contract() -> None:
    assert WANTED.durable_name == "backend_events_projector"
    assert WANTED.filter_subject == "events.started.>"
    assert WANTED.ack_policy == AckPolicy.EXPLICIT
    assert WANTED.deliver_policy == DeliverPolicy.ALL
    assert (WANTED.deliver_subject, WANTED.inactive_threshold) == (None, None)
    assert WANTED.max_deliver == -1
    assert WANTED.as_dict()["ack_wait"] == 30 * 10**9


def test_the_consumer_takes_its_name_and_its_ack_wait_from_the_settings() -> None:
    wanted = wanted_consumer(replace(SETTINGS, consumer="other", ack_wait=7.5), STARTS)
    assert (wanted.durable_name, wanted.ack_wait) == ("other", 7.5)


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
def test_a_consumer_that_skips_only_committed_messages_does_not_differ(
    start: int, differs: bool
) -> None:
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
def test_each_difference_is_shown_with_the_wanted_and_the_found_value(
    setting: str, value: object, shown: tuple[object, object]
) -> None:
    assert differences(WANTED, changed(**{setting: value})) == {setting: shown}
    both = differences(WANTED, changed(**{"pause_until": "later", setting: value}))
    assert both == {setting: shown, "pause_until": (None, "later")}


def test_the_ack_pending_limit_of_the_fleets_own_client_is_not_a_difference() -> None:
    assert differences(WANTED, changed(max_ack_pending=1000)) == {}
    assert "max_ack_pending" in differences(WANTED, changed(max_ack_pending=1001))


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (changed(filter_subject="events.>"), "filters events.>, expected events.started.>"),
        (changed(filter_subject=None), "filters nothing"),
        (changed(filter_subject=None, filter_subjects=["a", "b"]), "filters a, b"),
        (changed(ack_policy=AckPolicy.NONE), "ack policy none, expected explicit"),
        (changed(deliver_subject="inbox"), "pushes to inbox, expected a pull consumer"),
        (changed(headers_only=True), "headers only"),
    ],
)
def test_a_consumer_that_would_lose_or_misread_messages_is_a_configuration_error(
    found: ConsumerConfig, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match="backend_events_projector of stream EVENTS") as e:
        check_usable(SETTINGS, STARTS, found)
    assert problem in str(e.value)


def test_a_consumer_with_other_settings_is_usable() -> None:
    check_usable(SETTINGS, STARTS, changed(ack_wait=5.0, max_deliver=3))
    check_usable(
        SETTINGS, STARTS, changed(filter_subject=None, filter_subjects=[STARTS.filter_subject])
    )


@pytest.mark.parametrize(
    ("later", "same"),
    [
        (replace(BINDING, pending=9, ack_pending=9), True),
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


@pytest.mark.parametrize(
    ("delivered", "ack_floor", "ack_pending", "acked"),
    [
        ((0, 0), (0, 0), 0, 0),
        (None, None, None, 0),
        ((9, 90), (6, 60), 3, 60),
        ((9, 90), (6, 60), 2, 90),  # one above the ack floor is acked, perhaps the last one
    ],
)
def test_the_position_of_a_consumer_is_what_the_broker_reports(
    delivered: tuple[int, int] | None,
    ack_floor: tuple[int, int] | None,
    ack_pending: int | None,
    acked: int,
) -> None:
    info = api.ConsumerInfo("consumer", "EVENTS", WANTED, created=CREATED, num_pending=4)
    info.num_ack_pending = ack_pending
    info.delivered = api.SequenceInfo(*delivered) if delivered else None
    info.ack_floor = api.SequenceInfo(*ack_floor) if ack_floor else None
    reported, floor, pending = (delivered or (0, 0))[1], (ack_floor or (0, 0))[1], ack_pending or 0
    assert as_binding(info, STREAM_CREATED_AT, 3) == Binding(
        *(CREATED, 4, pending),
        ConsumerPosition(STREAM_CREATED_AT, 3, reported > 0, floor, acked, reported, pending),
        WANTED,
    )
