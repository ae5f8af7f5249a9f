"""Where time comes from: a parameter everywhere, read from a clock only at the top of a duty cycle."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for stamps, monotonic time for timeouts; both int64 nanoseconds."""

    def now_ns(self) -> int:
        """UTC, nanoseconds since 1970-01-01."""
        ...

    def monotonic_ns(self) -> int:
        """Never runs backwards; has no meaning outside this boot."""
        ...


class SystemClock:
    """The machine's clocks."""

    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)
