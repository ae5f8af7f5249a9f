"""Exact percentiles, medians of rounds, and ratios of pairs with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from native.histogram import BYTES, Histogram

RESAMPLES = 5000
SEED = 20240229
PERCENTS = (50.0, 90.0, 99.0, 99.9)


def percentile(ordered: npt.NDArray[Any], percent: float) -> float:
    """The smallest value that at least ``percent`` of them do not exceed; of sorted values, NaN for none."""
    if not len(ordered):
        return math.nan
    rank = math.ceil(round(percent / 100.0 * len(ordered), 9))
    return float(ordered[min(len(ordered), max(1, rank)) - 1])


def percentiles(values: npt.NDArray[Any]) -> dict[str, float]:
    """By name: "50", "90", "99", "99.9", and "max"."""
    ordered = np.sort(values)
    found = {f"{percent:g}": percentile(ordered, percent) for percent in PERCENTS}
    return {**found, "max": float(ordered[-1]) if len(ordered) else math.nan}


def histogram_of(values_ns: npt.NDArray[np.int64], into: Histogram | None = None) -> Histogram:
    """Counts values, in a histogram of two significant digits."""
    made = into or Histogram(bytearray(BYTES))
    stamps = np.ascontiguousarray(-values_ns)  # as the time since a moment: 0 - stamp
    made.record_since(0, stamps, 8, len(stamps))
    return made


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median over pairs, with a 95 % interval. Above 1: ours is better."""

    median: float
    low: float
    high: float
    pairs: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def ratio_of_pairs(numerators: Sequence[float], denominators: Sequence[float], seed: int = SEED) -> Ratio:
    """Of values measured beside each other, one pair a round. The interval is a bootstrap's: rounds drawn with replacement,
    always the same for the same values. Raises ValueError for pairs that are not there."""
    if len(numerators) != len(denominators) or not numerators:
        raise ValueError(f"{len(numerators)} values beside {len(denominators)}: there must be pairs")
    ratios = np.asarray(numerators, float) / np.asarray(denominators, float)
    random = np.random.default_rng(seed)
    drawn = ratios[random.integers(0, len(ratios), (RESAMPLES, len(ratios)))]
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))
