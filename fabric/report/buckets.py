"""The buckets of a latency histogram as arrays, and as fewer, wider bins for drawing.

The layout is native/histogram.pyx's: words count, sum, max, min + 1, then one count for each bucket; 128 buckets for each
doubling, so that a bucket is less than 1 % wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_HEAD_WORDS = 4
_HALF_BITS = 7
_HALF = 1 << _HALF_BITS
BINS_A_DECADE = 20

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets that hold anything: values from ``low_ns`` to ``high_ns``, both inclusive."""

    low_ns: Integers
    high_ns: Integers
    counts: Integers
    min_ns: int
    max_ns: int

    @property
    def total(self) -> int:
        return int(self.counts.sum())


def read_buckets(words: npt.NDArray[Any]) -> Buckets:
    """From the words of a histogram."""
    counts = words[_HEAD_WORDS:].astype(np.int64)
    index = np.flatnonzero(counts)
    doubling = np.maximum((index >> _HALF_BITS) - 1, 0)
    part = np.where(index < _HALF, index, (index & (_HALF - 1)) + _HALF)
    low, high = part << doubling, ((part + 1) << doubling) - 1
    return Buckets(low, high, counts[index], max(0, int(words[3]) - 1), int(words[2]))


def rebin(buckets: Buckets, low_ns: float, high_ns: float) -> tuple[npt.NDArray[np.float64], Integers]:
    """(edges, counts) of logarithmic bins, BINS_A_DECADE for each power of ten from ``low_ns`` (a power of ten) to
    ``high_ns``. Each bucket goes whole to the bin of its middle; what lies outside goes to the first or last bin."""
    bins = max(1, round(np.log10(high_ns / low_ns) * BINS_A_DECADE))
    edges = low_ns * 10.0 ** (np.arange(bins + 1) / BINS_A_DECADE)
    middle = np.maximum((buckets.low_ns + buckets.high_ns) / 2.0, low_ns)
    place = np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, bins - 1)
    return edges, np.bincount(place, weights=buckets.counts, minlength=bins).astype(np.int64)
