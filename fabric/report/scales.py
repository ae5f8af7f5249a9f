"""From numbers to places on an axis, and to ticks that people read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fabric.units import format_ns


@dataclass(frozen=True, slots=True)
class Linear:
    """``low`` to ``high`` onto ``start`` to ``end`` (pixels; an axis that points upwards has end < start)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Log:
    """The same with a logarithmic axis; ``low`` must be above 0, and lower values stand there."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = math.log(self.high / self.low)
        share = math.log(max(value, self.low) / self.low) / span if span else 0.5
        return self.start + share * (self.end - self.start)


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within ``low`` to ``high``, about that many."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from the one at or below ``low`` to the one at or above ``high``; at least two."""
    first = math.floor(math.log10(max(low, 1e-300)) + 1e-9)
    last = math.ceil(math.log10(max(high, 1e-300)) - 1e-9)
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def show_time(nanoseconds: float) -> str:
    """As everywhere else in the fabric, with the unit's own letter: "41.3 µs"."""
    return format_ns(nanoseconds).replace(" us", " µs")


def show_tick(nanoseconds: float) -> str:
    """A power of ten: "10 µs"."""
    return show_time(nanoseconds).replace(".0 ", " ").replace(".00 ", " ")


def show_count(count: float) -> str:
    """Whole numbers with separators: "12,345"."""
    return f"{count:,.0f}"
