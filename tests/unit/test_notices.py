"""When the bucket of the manifests counts as unchanged since it was looked at."""

import asyncio
from collections.abc import Callable
from typing import Any

import nats.errors
import pytest

from worker.jetstream import notices
from worker.jetstream.bucket import State
from worker.jetstream.notices import Notices

PUT = "$KV.jobs.>"
PURGE, DELETE = "$JS.API.STREAM.PURGE.KV_jobs", "$JS.API.STREAM.MSG.DELETE.KV_jobs"
DELETE_BUCKET = "$JS.API.STREAM.DELETE.KV_jobs"
CHANGED = "$JS.EVENT.ADVISORY.STREAM.*.KV_jobs"
CREATED = "$JS.EVENT.ADVISORY.CONSUMER.CREATED.KV_jobs.*"


class FakeConnection:
    """Stands for the connection, as far as notices need one."""

    other_domain: str | None = None
    notices_denied_at = float("-inf")
    is_direct = True

    def __init__(self) -> None:
        self.stats = {"reconnects": 0}
        self.heard: dict[str, Callable[[], None]] = {}

    async def listen(self, subject: str, notice: Callable[[], None]) -> bool:
        self.heard[subject] = notice
        return self.is_direct


class Bucket:
    """A bucket that is looked at, with a clock that only this test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(notices.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]
        self.connection = FakeConnection()
        self.notices = Notices("jobs")
        self.last = 10

    def listen(self) -> None:
        connection: Any = self.connection
        asyncio.run(self.notices.listen(connection))
        if CREATED in self.connection.heard:
            self.notice(CREATED)

    def notice(self, subject: str = PUT) -> None:
        self.connection.heard[subject]()

    def look(self, **different: Any) -> bool:
        """Look at the bucket a moment later; returns whether it is quiet then."""
        self.now += 0.01
        begun = self.notices.begin_look()
        self.now += 0.01
        state = State("2026", 1, self.last, 0, 5, 1, is_announced=True)._replace(**different)
        self.notices.looked(begun, state)
        return self.notices.is_quiet


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = Bucket(monkeypatch)
    bucket.listen()
    assert not bucket.notices.is_quiet
    assert bucket.look()
    return bucket


def test_a_put_is_waited_for_until_a_look_shows_it(bucket: Bucket) -> None:
    bucket.notice()
    assert not bucket.notices.is_quiet
    assert not bucket.look()
    bucket.last += 1
    assert bucket.look()


def test_each_of_several_puts_is_waited_for(bucket: Bucket) -> None:
    for _ in range(3):
        bucket.notice()
    bucket.last += 2
    assert not bucket.look()
    bucket.last += 1
    assert bucket.look()


@pytest.mark.parametrize("subject", [PUT, PURGE, DELETE, DELETE_BUCKET])
def test_what_adds_no_message_counts_as_done_after_ten_seconds(
    bucket: Bucket, subject: str
) -> None:
    bucket.notice(subject)
    bucket.now += 9.9
    assert not bucket.look()
    bucket.now += 0.1
    assert bucket.look()


def test_a_look_that_began_before_a_change_of_the_stream_does_not_show_it(bucket: Bucket) -> None:
    begun = bucket.notices.begin_look()
    bucket.now += 0.01
    bucket.notice(CHANGED)
    bucket.notices.looked(begun, None)
    assert not bucket.notices.is_quiet
    assert bucket.look(created_at="2027")


def test_a_put_whose_notice_comes_after_the_look_is_not_waited_for(bucket: Bucket) -> None:
    bucket.last += 1
    assert not bucket.look()
    bucket.notice()
    assert bucket.notices.is_quiet
    assert bucket.look()


def test_after_a_put_without_a_notice_nothing_is_trusted_for_a_minute(bucket: Bucket) -> None:
    bucket.last += 1
    bucket.look()
    assert not bucket.look()
    bucket.now += 59
    assert not bucket.look()
    bucket.now += 1
    assert bucket.look()


def test_puts_that_were_missed_while_disconnected_are_no_reason_for_distrust(
    bucket: Bucket,
) -> None:
    bucket.connection.stats["reconnects"] += 1
    bucket.last += 7
    assert bucket.look()
    assert bucket.look()


def test_nothing_is_quiet_from_a_reconnect_to_the_next_look(bucket: Bucket) -> None:
    begun = bucket.notices.begin_look()
    bucket.connection.stats["reconnects"] += 1
    assert not bucket.notices.is_quiet
    bucket.notices.looked(begun, None)
    assert not bucket.notices.is_quiet
    assert bucket.look()


def test_a_bucket_that_is_created_again_is_compared_anew(bucket: Bucket) -> None:
    bucket.notice()
    bucket.last = 1
    assert not bucket.look(created_at="2027")
    bucket.now += 10
    assert bucket.look(created_at="2027")


def test_a_bucket_that_does_not_exist_is_quiet_until_it_is_created(bucket: Bucket) -> None:
    bucket.now += 0.01
    bucket.notices.looked(bucket.notices.begin_look(), None)
    assert bucket.notices.is_quiet
    bucket.notice(CHANGED)
    assert not bucket.notices.is_quiet


def test_a_bucket_whose_messages_come_or_go_unasked_is_never_quiet(bucket: Bucket) -> None:
    assert not bucket.look(is_announced=False)


def test_without_the_right_to_listen_nothing_is_quiet(bucket: Bucket) -> None:
    bucket.connection.notices_denied_at = bucket.now
    assert not bucket.look()


def test_where_no_reading_of_the_bucket_is_heard_only_a_missing_one_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = Bucket(monkeypatch)
    monkeypatch.setattr(bucket, "notice", lambda *_: None)
    bucket.listen()
    bucket.now += 0.01
    bucket.notices.looked(bucket.notices.begin_look(), None)
    assert bucket.notices.is_quiet
    assert not bucket.look()


def test_messages_that_come_through_a_queue_are_no_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(monkeypatch)
    bucket.connection.is_direct = False
    bucket.listen()
    assert not bucket.look()


def test_in_another_domain_nothing_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(monkeypatch)
    bucket.connection.other_domain = "hub"
    bucket.listen()
    assert bucket.connection.heard == {}
    assert not bucket.look()


def test_where_subscribing_fails_nothing_is_quiet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> bool:
        raise nats.errors.ConnectionClosedError

    bucket = Bucket(monkeypatch)
    vars(bucket.connection)["listen"] = fail
    bucket.listen()
    assert not bucket.look()
    assert [record.message for record in caplog.records] == ["manifests.not_announced"]
