"""Times as people give them, to UTC nanoseconds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import SupportsIndex

from fabric.errors import UserMistake

DAY_NS = 86_400 * 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ns(time: datetime | SupportsIndex) -> int:
    """UTC nanoseconds of an aware datetime; a whole number is taken as such. Raises UserMistake for a naive datetime."""
    if not isinstance(time, datetime):
        return time.__index__()  # numpy's whole numbers too
    if time.tzinfo is None:
        raise UserMistake(
            f"{time!r} has no time zone", remedy="give an aware datetime, such as datetime(..., tzinfo=datetime.UTC)"
        )
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


def day_ns(day: date) -> int:
    """When a UTC day begins, UTC nanoseconds."""
    return (day - date(1970, 1, 1)).days * DAY_NS
