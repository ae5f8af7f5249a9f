"""Times as people give them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest

from fabric.errors import UserMistake
from fabric.times import to_ns

LAST_NS = 2**63 - 1


def test_times_are_taken_exactly() -> None:
    assert to_ns(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert to_ns(datetime(2026, 3, 2, 9, 0, 0, 123456, tzinfo=UTC)) == 1_772_442_000_123_456_000
    assert to_ns(datetime(2026, 3, 2, 10, tzinfo=timezone(timedelta(hours=1)))) == 1_772_442_000 * 10**9
    assert to_ns(np.uint64(5)) == to_ns(5) == 5
    assert to_ns(np.datetime64("2026-03-02T09:00:00.123456789")) == 1_772_442_000_123_456_789
    assert to_ns(np.datetime64("2026-03-02")) == to_ns(datetime(2026, 3, 2, tzinfo=UTC))
    assert to_ns(np.datetime64(LAST_NS, "ns")) == LAST_NS


def test_pandas_timestamps_keep_their_nanoseconds() -> None:
    pd = pytest.importorskip("pandas")
    stamp = pd.Timestamp("2026-03-02T10:00:00.123456789+01:00")
    assert to_ns(stamp) == 1_772_442_000_123_456_789
    assert to_ns(stamp.as_unit("s")) == 1_772_442_000 * 10**9
    with pytest.raises(UserMistake, match="no time zone"):
        to_ns(pd.Timestamp("2026-03-02"))
    with pytest.raises(UserMistake, match="no time zone"):
        to_ns(pd.NaT)
    with pytest.raises(UserMistake, match="out of range"):
        to_ns(pd.Timestamp("1960-01-01", tz="UTC"))
    far = pd.Timestamp(np.datetime64("2600-01-01", "s")).tz_localize("UTC")
    with pytest.raises(UserMistake, match="out of range"):
        to_ns(far)


@pytest.mark.parametrize(
    "time",
    [
        *(datetime(year, 1, 1, tzinfo=UTC) for year in (1, 1969, 2263, 2600, 9999)),
        datetime(2262, 4, 12, tzinfo=UTC),
        *(
            np.datetime64(text)
            for text in ("0001", "1969-12-31", "2263-01-01", "2262-04-12", "9999-01-01T00:00", "NaT")
        ),
        np.datetime64("2262-04-11T23:47:16.999999"),
        np.datetime64(10**15, "Y"),
        np.datetime64(-1, "ns"),
        -1,
        2**63,
    ],
)
def test_times_out_of_range_are_refused(time: datetime | np.datetime64 | int) -> None:
    with pytest.raises(UserMistake, match=r"is out of range .times go from 1970-01-01 to 2262-04-11"):
        to_ns(time)


@pytest.mark.parametrize("time", [True, np.True_, 1.5, "2026-01-01", None, date(2026, 1, 1), np.timedelta64(1, "s")])
def test_what_is_no_time_is_refused(time: object) -> None:
    with pytest.raises(UserMistake, match="is not a time"):
        to_ns(time)  # type: ignore[arg-type]
