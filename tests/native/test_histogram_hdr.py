"""The histogram against HdrHistogram's Python port: the same values, lowest, highest and digits, the same percentiles."""

from __future__ import annotations

import numpy as np
import pytest

from native.histogram import BYTES, Histogram

hdrh = pytest.importorskip("hdrh.histogram", reason="hdrhistogram is not installed")
HIGHEST = 2**42 - 1
PERCENTS = (0.0, 0.1, 1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["small", "latencies", "all sizes", "one value"])
def test_the_same_percentiles(kind, seed):
    rng = np.random.default_rng(seed)
    values = {
        "small": rng.integers(0, 300, 3000),
        "latencies": rng.lognormal(11.0, 1.5, 3000).astype(np.int64),
        "all sizes": (2.0 ** rng.uniform(0.0, 41.9, 3000)).astype(np.int64),
        "one value": np.full(7, int(rng.integers(1, HIGHEST))),
    }[kind]
    ours, theirs = Histogram(bytearray(BYTES)), hdrh.HdrHistogram(1, HIGHEST, 2)
    for value in values.tolist():
        ours.record(value)
        assert theirs.record_value(value)
    assert ours.count == theirs.get_total_count()
    for percent in PERCENTS:
        # Theirs is the upper edge of a bucket; ours no more than the largest value that there was.
        expected = min(theirs.get_highest_equivalent_value(theirs.get_value_at_percentile(percent)), int(values.max()))
        assert ours.percentile_ns(percent) == expected, percent
