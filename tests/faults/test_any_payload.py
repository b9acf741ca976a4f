"""Whatever is published becomes a run or a rejected event, and the worker continues."""

import json
from typing import Any

from tests.conftest import StartWorker
from tests.support.broker import Broker
from tests.support.payloads import EITHER, MALFORMED, VALID, Payload, Payloads
from tests.support.rows import Rows
from tests.support.scale import new_seed, short_and_long

_PART = 20_000


@short_and_long("number", short=4_000, long=120_000, timeout=900)
def test_any_payload_becomes_either_a_run_or_a_rejected_event(
    stream: Broker, rows: Rows, start_worker: StartWorker, number: int
) -> None:
    worker = start_worker(rows, pulling=True)
    # One huge payload in two thousand keeps the stream well below its max_bytes.
    published = list(Payloads(new_seed()).some(number, huge=number // 2_000))
    first = 0
    for start in range(0, number, _PART):
        part = published[start : start + _PART]
        sequence = stream.publish_many([(_subject(payload), payload.raw) for payload in part])
        first = first or sequence
        worker.until(stream.is_acked, 120)
    assert worker.is_running()
    rejected: dict[int, dict[str, Any]] = {row["stream_sequence"]: row for row in rows.rejected()}
    result_ids = set(rows.result_ids())
    assert len(rejected) == rows.count("rejected_events")
    assert len(result_ids) + len(rejected) == number
    for place, payload in enumerate(published):
        row = rejected.get(first + place)
        if row is not None:
            assert payload.fate != VALID, (row["reason"], payload.raw[:500])
            assert row["payload"] == payload.raw
            assert row["reason"]
        else:
            assert payload.fate != MALFORMED, payload.raw[:500]
            assert _result_id(payload) in result_ids
    # Of the payloads that were changed at random, some are valid and some are not.
    fates = {first + place in rejected for place, p in enumerate(published) if p.fate == EITHER}
    assert fates == {True, False}
    assert stream.delivered().consumer_seq == number
    assert worker.logged("batch.failed") == []
    assert worker.stop() == 0


def _subject(payload: Payload) -> str:
    return f"events.started.{len(payload.raw)}.pc"


def _result_id(payload: Payload) -> str:
    """Return the result_id in a payload, decoded as leniently as possible."""
    if payload.result_id:
        return payload.result_id
    return str(json.loads(payload.raw.decode("utf-8"), strict=False)["result_id"])
