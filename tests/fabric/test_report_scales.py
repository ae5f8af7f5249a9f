"""Axes, ticks, formats and histogram buckets of the page, by known answers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from fabric.report.buckets import BINS_A_DECADE, read_buckets, rebin
from fabric.report.scales import Linear, Log, decades, linear_ticks, show_tick, show_time
from fabric.report.tables import level, show
from native.histogram import BYTES, Histogram


@pytest.mark.parametrize(
    ("low", "high", "about", "ticks"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (0.61, 1.3, 4, [0.8, 1.0, 1.2]),
        (-0.35, 0.35, 5, [-0.2, 0.0, 0.2]),
        (0, 1, 4, [0, 0.5, 1]),
        (3, 3, 4, [3]),
        (0, math.nan, 4, [0]),
        (12_000, 61_000, 4, [20_000, 40_000, 60_000]),
    ],
)
def test_linear_ticks(low: float, high: float, about: int, ticks: list[float]) -> None:
    assert linear_ticks(low, high, about) == ticks


def test_decades_enclose_what_is_shown() -> None:
    assert decades(12_000, 45e6) == [1e4, 1e5, 1e6, 1e7, 1e8]
    assert decades(1000, 1000) == [1e3, 1e4]
    assert decades(1, 999) == [1, 10, 100, 1000]


def test_places_on_an_axis() -> None:
    across, up = Linear(0, 10, 100, 200), Linear(0, 10, 50, 0)
    assert [across(0), across(5), across(10)] == [100, 150, 200]
    assert [up(0), up(10)] == [50, 0]
    assert Linear(3, 3, 0, 100)(3) == 50
    axis = Log(1e3, 1e6, 0, 300)
    assert [round(axis(value), 9) for value in (1e3, 1e4, 1e5, 1e6)] == [0, 100, 200, 300]
    assert axis(0) == axis(1) == 0


def test_formats() -> None:
    assert [show_tick(10.0**power) for power in range(2, 11)] == [
        "100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s",
    ]  # fmt: skip
    assert show_time(41_311) == "41.3 µs"
    assert [show(value, ",.1f") for value in (-1234.56, 0.0, math.nan, -math.inf, None)] == [
        "−1,234.6", "0.0", "–", "−∞", "",
    ]  # fmt: skip
    assert show("-x", ",.1f") == "-x"


def test_the_palettes_steps() -> None:
    assert [level(value, 60.0) for value in (60, 30, 4, 0, -5, -60, math.nan)] == ["p6", "p3", "o", "o", "o", "n6", "o"]
    assert level(1.0, 0.0) == "o"


def test_every_value_is_in_the_bucket_that_is_read() -> None:
    generator = random.Random(5)
    for value in [0, 1, 127, 128, 255, 256, 257, 511, 512, 2**42 - 1] + [
        generator.randrange(2**40) for _ in range(300)
    ]:
        memory = bytearray(BYTES)
        histogram = Histogram(memory)
        histogram.record(value)
        buckets = read_buckets(np.frombuffer(memory, "<u8"))
        assert buckets.counts.tolist() == [1]
        assert buckets.low_ns[0] <= value <= buckets.high_ns[0], value
        assert buckets.high_ns[0] - buckets.low_ns[0] <= max(0, value / 128), value
        assert (buckets.min_ns, buckets.max_ns) == (value, value)
        assert min(int(buckets.high_ns[0]), value) == histogram.percentile_ns(50)


def test_wider_bins_keep_every_count_and_stand_where_the_values_are() -> None:
    memory = bytearray(BYTES)
    histogram = Histogram(memory)
    for value, count in ((15_000, 7), (150_000, 5), (2_000_000, 3), (50, 1), (9_000_000_000, 2)):
        for _ in range(count):
            histogram.record(value)
    buckets = read_buckets(np.frombuffer(memory, "<u8"))
    edges, counts = rebin(buckets, 1e4, 1e9)
    assert len(counts) == 5 * BINS_A_DECADE == len(edges) - 1
    assert counts.sum() == buckets.total == 18
    for value, count in ((15_000, 7), (150_000, 5), (2_000_000, 3)):
        place = int(np.searchsorted(edges, value, side="right")) - 1
        assert counts[place] == count, value
    assert (counts[0], counts[-1]) == (1, 2), "what lies outside stands at the ends"
