from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy

from worker.jetstream.consumer import (
    FILTER,
    MAX_AGE,
    MAX_BYTES,
    SUBJECTS,
    Binding,
    differences,
    wanted_consumer,
)
from worker.jetstream.reconciliation import Footing
from worker.settings import Settings

SETTINGS = Settings(nats_urls=("nats://127.0.0.1:4222",), database="sqlite:///x.db")
WANTED = wanted_consumer(SETTINGS)
CREATED = datetime(2026, 5, 20, tzinfo=UTC)
FOOTING = Footing(
    "2026-05-20T00:00:00+00:00", first_sequence=1, has_delivered=False, floor=0, settled=0
)
BINDING = Binding(CREATED, pending=0, ack_pending=0, footing=FOOTING, config=WANTED)


def test_the_stream_is_the_one_of_the_contract() -> None:
    assert SETTINGS.stream == "EVENTS"
    assert (SUBJECTS, MAX_AGE, MAX_BYTES) == ("events.>", 604_800, 268_435_456)


def test_the_durable_is_the_one_of_the_contract() -> None:
    assert WANTED.durable_name == "backend_events_projector"
    assert WANTED.filter_subject == FILTER == "events.started.>"
    assert WANTED.ack_policy == AckPolicy.EXPLICIT
    assert WANTED.deliver_policy == DeliverPolicy.ALL
    assert WANTED.deliver_subject is None


def test_a_message_is_delivered_again_for_ever_until_it_is_acked() -> None:
    assert WANTED.max_deliver == -1
    assert WANTED.inactive_threshold is None


def test_the_durable_takes_its_name_and_its_ack_wait_from_the_settings() -> None:
    wanted = wanted_consumer(replace(SETTINGS, consumer="other", ack_wait=7.5))
    assert (wanted.durable_name, wanted.ack_wait) == ("other", 7.5)


def test_a_durable_as_this_worker_makes_it_differs_in_nothing() -> None:
    assert differences(WANTED, WANTED) == {}


@pytest.mark.parametrize(("start", "differs"), [(1, False), (101, False), (102, True)])
def test_a_durable_that_skips_only_what_is_committed_differs_in_nothing(
    start: int, differs: bool
) -> None:
    found = replace(WANTED, deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start)
    assert bool(differences(WANTED, found, committed=100)) == differs


def test_what_the_server_fills_in_is_no_difference() -> None:
    found = replace(
        WANTED,
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
    )
    assert differences(WANTED, found) == {}


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("deliver_policy", DeliverPolicy.NEW, ("all", "new")),
        ("ack_wait", 5.0, (30.0, 5.0)),
        ("max_deliver", 3, (-1, 3)),
        ("replay_policy", ReplayPolicy.ORIGINAL, ("instant", "original")),
        ("max_ack_pending", 1, (WANTED.max_ack_pending, 1)),
        ("backoff", [1.0, 2.0], (None, [1.0, 2.0])),
        ("rate_limit_bps", 1000, (None, 1000)),
        ("inactive_threshold", 60.0, (None, 60.0)),
        ("mem_storage", True, (None, True)),
    ],
)
def test_a_difference_is_told_with_both_values(
    setting: str, value: object, shown: tuple[object, object]
) -> None:
    changes: dict[str, Any] = {setting: value}
    assert differences(WANTED, replace(WANTED, **changes)) == {setting: shown}


def test_all_differences_are_told() -> None:
    found = replace(WANTED, ack_wait=5.0, max_deliver=3)
    assert set(differences(WANTED, found)) == {"ack_wait", "max_deliver"}


def test_an_unlimited_durable_may_say_so_in_more_than_one_way() -> None:
    assert differences(WANTED, replace(WANTED, max_deliver=0)) == {}
    assert differences(WANTED, replace(WANTED, max_deliver=None)) == {}


def test_a_durable_that_takes_too_few_requests_at_once_differs() -> None:
    assert "max_waiting" in differences(WANTED, replace(WANTED, max_waiting=1))


def test_a_reply_means_the_same_message_only_in_the_same_stream_and_durable() -> None:
    later = CREATED + timedelta(seconds=1)
    restarted = CREATED + timedelta(milliseconds=1)  # as servers 2.9 have it after a restart
    assert BINDING.same_messages(replace(BINDING, pending=9, ack_pending=9))
    assert BINDING.same_messages(replace(BINDING, consumer_created=restarted))
    assert not BINDING.same_messages(
        replace(BINDING, footing=replace(FOOTING, stream_created_at=later.isoformat()))
    )
    assert not BINDING.same_messages(replace(BINDING, consumer_created=later))
    assert not BINDING.same_messages(None)


def test_a_configuration_is_a_plain_value_of_the_library() -> None:
    assert isinstance(WANTED, ConsumerConfig)
    assert WANTED.as_dict()["ack_wait"] == 30 * 10**9
