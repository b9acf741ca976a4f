"""What another program answers to the question for other workers."""

import pytest

from worker.jetstream.presence import Peer


@pytest.mark.parametrize(
    "answer",
    [b"", b"no JSON", b"[]", b'"text"', b'{"metadata": 1}', b'{"metadata": {}}', b"[" * 100_000],
    ids=lambda answer: ascii(answer[:20]),
)
def test_an_answer_that_describes_no_worker_is_none(answer: bytes) -> None:
    assert Peer.read(answer) is None
