"""Subjects of the JetStream API in a domain, and subjects in errors."""

import pytest

from worker.jetstream.subjects import PRESENCE_DENIED, in_domain


@pytest.mark.parametrize(
    ("subject", "domain", "expected"),
    [
        ("$JS.API.STREAM.INFO.S", "hub", "$JS.hub.API.STREAM.INFO.S"),
        ("$JS.API.STREAM.INFO.S", None, "$JS.API.STREAM.INFO.S"),
        ("$JS.hub.API.STREAM.INFO.S", "hub", "$JS.hub.API.STREAM.INFO.S"),
        ("$JS.ACK.S.c.1.2.3.4.0", "hub", "$JS.ACK.S.c.1.2.3.4.0"),
        ("$SRV.INFO.projector", "hub", "$SRV.INFO.projector"),
    ],
)
def test_only_the_jetstream_api_is_in_a_domain(
    subject: str, domain: str | None, expected: str
) -> None:
    assert in_domain(subject, domain) == expected


@pytest.mark.parametrize(
    ("denied", "is_presence"),
    [
        ('Publish to "_INBOX.x"', True),
        ('Publish to "_INBOX_of_another_worker.x"', True),
        ('Publish to "$SRV.INFO.projector"', True),
        ('Subscription to "$SRV.PING"', True),
        ('Subscription to "_INBOX.x"', False),
        ('Publish to "$JS.hub.API.STREAM.INFO.S"', False),
        ('Publish to "$JS.ACK.S.c.1.2.3.4.0"', False),
    ],
)
def test_what_is_denied_to_the_announcement_explains_nothing_else(
    denied: str, is_presence: bool
) -> None:
    assert bool(PRESENCE_DENIED.search(f"nats: permissions violation for {denied}")) is is_presence
