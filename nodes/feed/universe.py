"""Which instruments the simulated market has: a future and a chain of options for every underlying and expiry.

Names do not depend on the date: "BTC-E1" is the future of the first expiry, "BTC-E1-50000-C" a call on it. So positions
and tests can name them. Expiries are 08:00 UTC, a fixed number of days after the day of the first poll.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nodes.feed.definitions import Definition
from nodes.records import InstrumentState, Kind, Style

Floats = npt.NDArray[np.float64]
QuoteStyle = Literal["linear", "inverse"]

EXPIRY_DAYS = (7, 14, 30, 60, 90, 180, 270, 365)
DAY_NS = 86_400 * 10**9
_EXPIRY_HOUR_NS = 8 * 3_600 * 10**9
_COIN_TICK = 0.0001


class Underlying(NamedTuple):
    """Where an underlying starts. Ticks are in USD."""

    spot: float
    strike_step: float
    option_tick: float
    future_tick: float
    lot: float


_UNDERLYINGS = {
    "BTC": Underlying(60_000.0, 2_500.0, 1.0, 0.5, 0.1),
    "ETH": Underlying(3_000.0, 100.0, 0.1, 0.05, 1.0),
    "SOL": Underlying(150.0, 5.0, 0.01, 0.01, 1.0),
}
_OTHER = Underlying(100.0, 2.5, 0.01, 0.01, 1.0)


@dataclass(frozen=True)
class Universe:
    """All instruments, in the order of their ids: futures first, by underlying; then options, chain by chain."""

    names: tuple[str, ...]
    expiries: int
    strikes: int
    style: QuoteStyle

    @property
    def futures(self) -> int:
        return len(self.names) * self.expiries

    @property
    def options_per_future(self) -> int:
        return 2 * self.strikes

    @property
    def instruments(self) -> int:
        return self.futures * (1 + self.options_per_future)

    @property
    def underlyings(self) -> list[Underlying]:
        return [_UNDERLYINGS.get(name, _OTHER) for name in self.names]

    def spots(self) -> Floats:
        """The price of each underlying at the start."""
        return np.array([item.spot for item in self.underlyings])

    def strike_table(self) -> Floats:
        """Strikes by underlying, ascending around the first price; the step is halved until all are positive."""
        rows = []
        for item in self.underlyings:
            below = self.strikes // 2
            step = item.strike_step
            while below * step > 0.9 * item.spot:
                step /= 2
            rows.append(item.spot + step * (np.arange(self.strikes) - below))
        return np.array(rows)

    def option_ticks(self) -> Floats:
        """By underlying, in the currency that options are quoted in."""
        linear = self.style == "linear"
        return np.array([item.option_tick if linear else _COIN_TICK for item in self.underlyings])

    def future_ticks(self) -> Floats:
        """By underlying, in USD."""
        return np.array([item.future_tick for item in self.underlyings])

    def expiries_ns(self, start_ns: int) -> npt.NDArray[np.int64]:
        """08:00 UTC, so many days after the day of ``start_ns``."""
        day_ns = start_ns // DAY_NS * DAY_NS
        return np.array([day_ns + days * DAY_NS + _EXPIRY_HOUR_NS for days in EXPIRY_DAYS[: self.expiries]], np.int64)

    def definitions(self, start_ns: int) -> list[Definition]:
        """One for each instrument, in order."""
        expiries_ns = self.expiries_ns(start_ns).tolist()
        chains = [
            (name, item, expiry)
            for name, item in zip(self.names, self.underlyings, strict=True)
            for expiry in range(self.expiries)
        ]
        state = InstrumentState.OPEN
        futures = [
            Definition(
                f"{name}-E{expiry + 1}",
                name,
                "USD",
                0.0,
                expiries_ns[expiry],
                item.future_tick,
                item.lot,
                1.0,
                Kind.FUTURE,
                Style.LINEAR,
                state,
            )
            for name, item, expiry in chains
        ]
        inverse = self.style == "inverse"
        tables = dict(zip(self.names, self.strike_table().tolist(), strict=True))
        options = [
            Definition(
                f"{name}-E{expiry + 1}-{strike:.10g}-{right}",
                name,
                name if inverse else "USD",
                strike,
                expiries_ns[expiry],
                _COIN_TICK if inverse else item.option_tick,
                item.lot,
                1.0,
                Kind.CALL if right == "C" else Kind.PUT,
                Style.INVERSE if inverse else Style.LINEAR,
                state,
            )
            for name, item, expiry in chains
            for strike in tables[name]
            for right in "CP"
        ]
        return futures + options


def universe_problem(names: Sequence[Any], expiries: int, strikes: int) -> tuple[str, str] | None:
    """(key, what is wrong) of settings that make no market; None if they are right."""
    if not names or len(set(names)) != len(names):
        return "underlyings", "must be different names, at least one"
    for name in names:
        if not (isinstance(name, str) and name.isascii() and name.isalnum() and len(name) <= 8):
            return "underlyings", f"{name!r} must be 1 to 8 letters and digits"
    if not 1 <= expiries <= len(EXPIRY_DAYS):
        return "expiries", f"must be 1 to {len(EXPIRY_DAYS)}"
    if not 1 <= strikes <= 1000:
        return "strikes", "must be 1 to 1000"
    return None
