"""The record that every contestant carries, how it is made, and the check of what arrived.

64 bytes: the fabric's head of 32 (the intended and the actual time of sending are in it), a number and three values.
Larger ones have more whole numbers behind. Everything but the times follows from the number, so that a receiver can
check each byte.
"""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
import numpy.typing as npt

from fabric.records import Records, RecordType

TIMES = struct.Struct("<qq")
"""The intended and the actual time of sending, CLOCK_MONOTONIC ns, at the beginning of a record."""

WHOLE = struct.Struct("<qqqIIQddd")
"""A record of 64 bytes."""

BYTES = WHOLE.size
_BODY = [("number", "<u8"), ("bid", "<f8"), ("ask", "<f8"), ("quantity", "<f8")]


@cache
def record_type(size_bytes: int) -> RecordType:
    """``size_bytes``: 64, or a larger multiple of 8."""
    from fabric.records import HEAD

    more: list[tuple[str, str, tuple[int, ...]]] = []
    if size_bytes > BYTES:
        more = [("more", "<u8", ((size_bytes - BYTES) // 8,))]
    return RecordType(f"bench{size_bytes}", np.dtype([*HEAD, *_BODY, *more]))


def make(count: int, size_bytes: int, channels: int = 1, seed: int = 0) -> Records:
    """Records numbered from 0, by turns on ``channels`` channels. ``seed`` changes what they contain."""
    records = record_type(size_bytes).zeros(count)
    numbers = np.arange(count, dtype=np.uint64)
    records["instrument"] = numbers % channels
    records["flags"] = 1  # an event of its own, as the fabric marks one
    _fill(records, numbers, seed)
    return records


def _fill(records: Records, numbers: npt.NDArray[np.uint64], seed: int) -> None:
    records["number"] = numbers
    records["bid"] = numbers * 0.5 + seed
    records["ask"] = numbers * 0.5 + seed + 0.25
    records["quantity"] = numbers % 1000 + 1.0
    if "more" in (records.dtype.names or ()):
        words = records["more"].shape[1]
        records["more"] = numbers[:, None] + np.arange(words, dtype=np.uint64)[None, :]


def problem_of(records: Records, count: int, size_bytes: int, channels: int = 1, seed: int = 0) -> str:
    """Why these are not exactly the records that ``make`` gave, each once, in order on each channel; "" if they are."""
    if len(records) != count:
        return f"{len(records)} records arrived, {count} were sent"
    expected = make(count, size_bytes, channels, seed)
    if channels > 1:
        records = records[np.argsort(records["instrument"], kind="stable")]
        expected = expected[np.argsort(expected["instrument"], kind="stable")]
    if records.dtype.itemsize != size_bytes:
        return f"records of {records.dtype.itemsize} bytes arrived, {size_bytes} were sent"
    for field in expected.dtype.names or ():
        if field.startswith("ts_") or field == "flags" or (field == "instrument" and channels == 1):
            continue  # times are what is measured; flags and instrument may be left out where values are sent
        wrong = records[field] != expected[field]
        if wrong.any():
            at = int(np.argmax(wrong.reshape(count, -1).any(axis=1)))
            return f"record {at}: {field} is {records[field][at]}, not {expected[field][at]}"
    return ""
