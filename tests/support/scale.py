"""Tests in a short and a long form, and random numbers that a failing test can repeat."""

import os
import random

import pytest


def short_and_long(name: str, *, short: int, long: int, timeout: int) -> pytest.MarkDecorator:
    """Parametrize `name` with both numbers; the long form has a mark and a timeout of its own."""
    marks = (pytest.mark.long, pytest.mark.timeout(timeout))
    return pytest.mark.parametrize(
        name, [pytest.param(short, id="short"), pytest.param(long, id="long", marks=marks)]
    )


def new_seed() -> int:
    """Return the seed of TEST_SEED, or a new one. pytest shows it where the test fails."""
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"TEST_SEED={seed}")
    return seed
