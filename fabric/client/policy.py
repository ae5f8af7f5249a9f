"""What a subscription does when its reader is slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from fabric.errors import ConfigError, UserMistake
from fabric.records import RecordType
from fabric.units import parse_duration_ns

PolicyWord = Literal["ordered", "latest", "fail"]


@dataclass(frozen=True, slots=True)
class Policy:
    """``ordered``: every record, however late. ``latest``: of what waits, the newest record of each key. ``fail``: SlowReader
    where more than ``max_behind`` records wait, then on as ``ordered``."""

    word: PolicyWord = "ordered"
    max_behind: int = 0
    max_age_ns: int = 0
    """Records published longer ago than this when they are handed out are in batches of their own, which are stale; 0: age
    does not count."""
    clock_ns: Callable[[], int] = time.time_ns
    """UTC, as ts_publish_ns: of another host, the clocks of both are compared."""

    @classmethod
    def of(
        cls, word: str, max_behind: int | None, max_age: str | int | None, clock_ns: Callable[[], int] | None
    ) -> Self:
        """Raises ConfigError for what does not go together."""
        if word not in get_args(PolicyWord):
            raise ConfigError(f"policy={word!r}", remedy=", ".join(map(repr, get_args(PolicyWord))))
        if (word == "fail") != (max_behind is not None):
            raise ConfigError(
                f"policy={word!r} with max_behind={max_behind}",
                remedy='max_behind is the limit of policy="fail", and only of that',
            )
        if max_behind is not None and (isinstance(max_behind, bool) or max_behind < 1):
            raise ConfigError(f"max_behind={max_behind}", remedy="a number of records, at least 1")
        return cls(word, max_behind or 0, _age_ns(max_age), clock_ns or time.time_ns)  # type: ignore[arg-type]

    @property
    def plain(self) -> bool:
        """Whatever comes next is handed out as it is."""
        return self.word == "ordered" and not self.max_age_ns

    def of_one_age(self, published_ns: npt.NDArray[np.int64]) -> tuple[int, bool]:
        """How many of these records are older than ``max_age_ns``, and True; or how many there are, and False. Publish times
        never fall within a session, so the older ones come first."""
        limit_ns = self.clock_ns() - self.max_age_ns
        if published_ns[0] >= limit_ns:
            return len(published_ns), False
        if published_ns[-1] < limit_ns:
            return len(published_ns), True
        return int(np.searchsorted(published_ns, limit_ns, side="left")), True

    def check_record(self, channel: str, record: RecordType) -> None:
        """Raises UserMistake where each record of the type counts, and ``latest`` would pass some over."""
        if self.word == "latest" and not record.conflate:
            what = "is of events" if record.image == "none" else f"has image {record.image!r}, or conflate=False"
            raise UserMistake(
                f'channel {channel!r}: policy="latest" would pass over records of {record.name!r}, of which each one counts '
                f"(its type {what})",
                remedy='policy="ordered" or "fail"; only types with image="last" can be conflated',
            )


ORDERED = Policy()
"""The default."""


def _age_ns(age: str | int | None) -> int:
    if age is None:
        return 0
    try:
        age_ns = parse_duration_ns(age) if isinstance(age, str) else int(age)
    except ValueError as error:
        raise ConfigError(str(error), key="max_age") from None
    if age_ns < 1:
        raise ConfigError(f"max_age={age!r}", remedy='a duration such as "250ms"')
    return age_ns
