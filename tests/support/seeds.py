"""Chance that can be had again: a seed is printed with a failing test, and TEST_SEED repeats it."""

import os
import random


def new_seed() -> int:
    """Return the seed of TEST_SEED, or a new one, and print it."""
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"TEST_SEED={seed}")
    return seed
