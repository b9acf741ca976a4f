"""What another program answers to the question for other workers."""

import json

import pytest

from worker.jetstream.presence import SERVICE, Peer


@pytest.mark.parametrize(
    "answer",
    [b"", b"no JSON", b"[]", b'"text"', b'{"metadata": 1}', b'{"metadata": {}}', b"[" * 100_000],
    ids=lambda answer: ascii(answer[:20]),
)
def test_an_answer_that_describes_no_worker_is_none(answer: bytes) -> None:
    assert Peer.read(answer) is None


NAMES = ("domain", "stream", "consumer", "place", "database", "host", "version", "started")
METADATA = {**dict.fromkeys(NAMES, "x"), "state": "idle", "pid": "7"}


def answer(**metadata: str) -> bytes:
    document = {"name": SERVICE, "id": "i", "metadata": {**METADATA, **metadata}}
    return json.dumps(document).encode()


def test_a_worker_of_a_version_without_health_is_known_by_its_state_alone() -> None:
    peer = Peer.read(answer())
    assert peer is not None
    assert (peer.state, peer.restart_helps, peer.per_second) == ("idle", None, None)


def test_what_a_client_says_of_a_worker_is_bounded() -> None:
    health = {
        "reason": "r" * 10_000,
        "restart_helps": 1,
        "per_second": 1,
        "errors": [["x" * 9_999] * 4] * 50,
    }
    peer = Peer.read(answer(health=json.dumps(health), version="v" * 9_999))
    assert peer is not None
    assert (len(peer.reason), len(peer.version), len(peer.errors)) == (500, 500, 3)
    assert {len(text) for error in peer.errors for text in error} == {500}


@pytest.mark.parametrize(
    "health",
    [
        *("", "no JSON", "[]", "{}", '{"per_second": "fast"}'),
        *(
            f'{{"reason": "", "restart_helps": 1, "per_second": {rate}, "errors": []}}'
            for rate in ("1e999", '"nan"', "-5")
        ),
    ],
)
def test_health_that_cannot_be_read_makes_no_worker(health: str) -> None:
    assert Peer.read(answer(health=health)) is None
