"""The shortcuts for plain payloads find in a large corpus what the exact way finds."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.mutations import RESULT, START, mutated
from tests.support.scale import new_seed, short_and_long
from tests.support.shortcuts import assert_same
from worker.projections.base import MalformedEvent
from worker.projections.results import decode_result, read_result
from worker.projections.starts import decode_start, read_start

Decode = Callable[[bytes], object]


@pytest.mark.parametrize(
    ("members", "decode", "exact"),
    [(START, decode_start, read_start), (RESULT, decode_result, read_result)],
    ids=["start", "result"],
)
@short_and_long("payloads", short=3_000, long=500_000, timeout=900)
def test_mutated_payloads_mean_the_same_with_and_without_the_shortcut(
    members: dict[str, Any], decode: Decode, exact: Decode, payloads: int
) -> None:
    decoded = 0
    for payload in mutated(members, payloads, random.Random(new_seed())):
        assert_same(decode, exact, payload)
        try:
            exact(payload)
        except MalformedEvent:
            continue
        decoded += 1
    # Neither all plain nor all broken, or nothing would have been compared.
    assert payloads // 20 < decoded < payloads * 19 // 20
