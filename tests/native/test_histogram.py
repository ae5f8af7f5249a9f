"""The histogram against sorted values and against HdrHistogram's own bucket formula."""

from __future__ import annotations

import mmap
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native.histogram import BYTES, Histogram

HIGHEST = 2**42 - 1
HEAD_WORDS = 4
NANOSECONDS = st.one_of(
    st.integers(0, HIGHEST), st.integers(0, 42).flatmap(lambda bits: st.integers(0, 2**bits)), st.integers(0, 300)
).map(lambda value: min(value, HIGHEST))


def hdr_index(value: int) -> int:
    """counts_index_for of HdrHistogram (AbstractHistogram.java): unit magnitude 0, two significant digits."""
    sub_bucket_count = 256  # the power of two not below 2 * 10^2
    half_count = sub_bucket_count // 2
    half_count_magnitude = 7
    leading_zero_count_base = 64 - (half_count_magnitude + 1)
    leading_zeros = 64 - (value | (sub_bucket_count - 1)).bit_length()
    bucket = leading_zero_count_base - leading_zeros
    sub_bucket = value >> bucket
    return ((bucket + 1) << half_count_magnitude) + (sub_bucket - half_count)


def hdr_highest(index: int) -> int:
    """highest_equivalent_value of the values of a bucket."""
    bucket = (index >> 7) - 1
    sub_bucket = (index & 127) + 128
    if bucket < 0:
        bucket, sub_bucket = 0, sub_bucket - 128
    return ((sub_bucket + 1) << bucket) - 1


def new():
    words = np.zeros(BYTES // 8, "<u8")
    return Histogram(words), words[HEAD_WORDS:]


def rank_value(values: list[int], percent: float) -> int:
    ordered = sorted(values)
    return ordered[max(1, int(percent / 100 * len(ordered) + 0.5)) - 1]


def test_size():
    assert (BYTES // 8 - HEAD_WORDS) == hdr_index(HIGHEST) + 1 == 36 * 128


@settings(max_examples=200, deadline=None)
@given(st.lists(NANOSECONDS, max_size=80))
def test_counts_stand_where_hdrhistogram_puts_them(values):
    histogram, counts = new()
    expected = [0] * len(counts)
    for value in values:
        histogram.record(value)
        expected[hdr_index(value)] += 1
    assert counts.tolist() == expected


def test_counts_at_every_bucket_edge():
    edges = {0, HIGHEST}
    for index in range(36 * 128):
        highest = hdr_highest(index)
        assert hdr_index(highest) == index
        edges |= {highest, min(highest + 1, HIGHEST)}
    for value in sorted(edges):
        histogram, counts = new()
        histogram.record(value)
        assert np.flatnonzero(counts).tolist() == [hdr_index(value)], value
        assert (histogram.percentile_ns(50), histogram.min_ns, histogram.max_ns) == (value, value, value)
    for value in range(256):  # below 256 ns each value has a bucket of its own
        assert hdr_highest(hdr_index(value)) == value


@settings(max_examples=150, deadline=None)
@given(st.lists(NANOSECONDS, min_size=1, max_size=200), st.floats(0, 100))
def test_percentiles_are_never_below_and_within_one_part_in_128(values, percent):
    histogram, _ = new()
    for value in values:
        histogram.record(value)
    exact = rank_value(values, percent)
    told = histogram.percentile_ns(percent)
    assert exact <= told <= exact * (1 + 1 / 128)
    assert (histogram.count, histogram.min_ns, histogram.max_ns) == (len(values), min(values), max(values))
    assert histogram.mean_ns == pytest.approx(sum(values) / len(values), rel=1e-12)
    assert histogram.percentile_ns(100) == max(values)


def test_empty():
    histogram, _ = new()
    assert (histogram.count, histogram.mean_ns, histogram.min_ns, histogram.max_ns) == (0, 0.0, 0, 0)
    assert histogram.percentile_ns(99) == 0


def test_values_out_of_range_are_kept_at_the_ends():
    histogram, counts = new()
    for value in (-1, -(2**63), HIGHEST + 1, 2**63 - 1):
        histogram.record(value)
    assert (int(counts[0]), int(counts[-1])) == (2, 2)
    assert (histogram.min_ns, histogram.max_ns) == (0, HIGHEST)


def test_record_since_takes_stamps_a_stride_apart_and_leaves_out_zeros():
    dtype = np.dtype({"names": ["stamp"], "formats": ["<i8"], "offsets": [16], "itemsize": 56})
    generator = random.Random(3)
    records = np.zeros(50, dtype)
    records["stamp"] = [generator.choice([0, generator.randrange(1, 10**9)]) for _ in range(50)]
    now_ns = 2 * 10**9
    histogram, counts = new()
    raw = records.tobytes()
    for shift in (0, 1, 4):  # received bytes are often not aligned
        histogram.record_since(now_ns, memoryview(bytes(shift) + raw)[shift + 16 :], 56, 50)
    expected, expected_counts = new()
    for stamp in records["stamp"].tolist() * 3:
        if stamp:
            expected.record(now_ns - stamp)
    assert counts.tolist() == expected_counts.tolist()
    assert histogram.mean_ns == expected.mean_ns


def test_record_since_of_stamps_from_the_future_counts_zero():
    histogram, counts = new()
    histogram.record_since(10, struct.pack("<q", 11), 8, 1)
    assert (histogram.count, int(counts[0])) == (1, 1)


@pytest.mark.parametrize(
    ("stride", "count"), [(8, 5), (9, 4), (-8, 4), (-8, 2), (2**62, 3), (33, 2), (8, 2**62)], ids=str
)
def test_record_since_never_reaches_past_the_buffer(stride, count):
    histogram, _ = new()
    with pytest.raises(ValueError, match="past the buffer"):
        histogram.record_since(10, bytes(32), stride, count)
    assert histogram.count == 0


def test_record_since_of_nothing():
    histogram, _ = new()
    histogram.record_since(10, b"", 8, 0)
    histogram.record_since(10, bytes(8), 8, -1)
    assert histogram.count == 0


def test_counts_outlive_the_histogram_in_a_shared_page(tmp_path):
    path = tmp_path / "page"
    path.write_bytes(bytes(BYTES))
    for turn in (1, 2):
        with path.open("r+b") as file, mmap.mmap(file.fileno(), BYTES) as page:
            histogram = Histogram(page)
            histogram.record(1000 * turn)
            assert (histogram.count, histogram.max_ns, histogram.min_ns) == (turn, 1000 * turn, 1000)
            del histogram


@settings(max_examples=50, deadline=None)
@given(st.lists(NANOSECONDS, max_size=40), st.lists(NANOSECONDS, max_size=40))
def test_adding_another_is_recording_its_values(left, right):
    one, one_counts = new()
    other, _ = new()
    both, both_counts = new()
    for value in left:
        one.record(value)
        both.record(value)
    for value in right:
        other.record(value)
        both.record(value)
    one.add(other)
    assert one_counts.tolist() == both_counts.tolist()
    assert (one.count, one.mean_ns, one.min_ns, one.max_ns) == (both.count, both.mean_ns, both.min_ns, both.max_ns)


def test_a_buffer_too_small_or_read_only_is_refused():
    with pytest.raises(ValueError, match="needs"):
        Histogram(bytearray(BYTES - 1))
    with pytest.raises(BufferError):
        Histogram(bytes(BYTES))
