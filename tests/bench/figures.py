"""Medians, spread and percentiles. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of repeated measurements, with the least and the greatest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], per_cent: float) -> float:
    """Return the smallest value that so many per cent of all values do not exceed."""
    ordered = sorted(values)
    rank = math.ceil(len(ordered) * per_cent / 100)
    return ordered[max(rank, 1) - 1]


def quantiles(values: Sequence[float], count: int) -> list[float]:
    """Return so many percentiles at equal distances, the last of which is the greatest value."""
    ordered = sorted(values)
    ranks = (math.ceil(len(ordered) * number / count) for number in range(1, count + 1))
    return [ordered[max(rank, 1) - 1] for rank in ranks]
