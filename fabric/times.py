"""Times as people give them, to UTC nanoseconds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from fabric.errors import UserMistake

DAY_NS = 86_400 * 10**9
Time = datetime | np.datetime64 | SupportsIndex
"""An aware datetime (a ``pandas.Timestamp`` is one), a ``numpy.datetime64`` (UTC by definition), or UTC nanoseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = 2**63 - 1
_LAST_YEAR = 2262


def to_ns(time: Time) -> int:
    """UTC nanoseconds of a time, to the nanosecond; a whole number is taken as such. Raises UserMistake for a naive datetime,
    for a time before 1970-01-01 or after 2262-04-11 (what a signed 64-bit count of nanoseconds can say), and for what is
    no time at all."""
    if isinstance(time, np.datetime64):
        return _checked(time, _datetime64_ns(time))
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise UserMistake(
                f"{time!r} has no time zone",
                remedy="give an aware datetime, such as datetime(..., tzinfo=datetime.UTC)",
            )
        return _checked(time, _datetime_ns(time))
    if isinstance(time, bool | np.bool_) or not hasattr(time, "__index__"):
        raise UserMistake(
            f"{time!r} is not a time", remedy="give an aware datetime, a numpy.datetime64 or whole UTC nanoseconds"
        )
    return _checked(time, index(time))  # numpy's whole numbers too


def day_ns(day: date) -> int:
    """When a UTC day begins, UTC nanoseconds."""
    return (day - date(1970, 1, 1)).days * DAY_NS


def _datetime_ns(time: datetime) -> int | None:
    """None where it can't be said in 64 bits."""
    if not hasattr(time, "nanosecond"):
        return (time - _EPOCH) // timedelta(microseconds=1) * 1000
    stamp: Any = time  # pandas.Timestamp: the arithmetic of datetime would drop its nanoseconds
    try:
        return int(stamp.value)
    except (OverflowError, ValueError):  # one that counts seconds, say, and lies too far away
        return None


def _datetime64_ns(time: np.datetime64) -> int | None:
    """None where it can't be said in 64 bits, and for NaT."""
    # numpy wraps around in silence where a cast to a finer unit overflows; one to years never does.
    if np.isnat(time) or not 1970 <= int(time.astype("M8[Y]").astype(np.int64)) + 1970 <= _LAST_YEAR:
        return None
    if int(time.astype("M8[s]").astype(np.int64)) > _LAST_NS // 10**9:
        return None
    return int(time.astype("M8[ns]").astype(np.int64))  # negative where it wrapped within the very last second


def _checked(time: Time, ns: int | None) -> int:
    if ns is None or not 0 <= ns <= _LAST_NS:
        shown = time.isoformat() if isinstance(time, datetime) else str(time)
        raise UserMistake(f"the time {shown} is out of range", remedy="times go from 1970-01-01 to 2262-04-11, UTC")
    return ns
