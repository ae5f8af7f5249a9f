"""The simulated market: blocks of records, each a function of the seed, the block's number and the state before it.

Spots are random walks. Implied volatility is level + skew x + curvature x^2, x = ln(strike / forward) / sqrt(time);
its parameters, by expiry, wander and are drawn back to their means. Options are quoted around their Black-76 value,
about two volatility points and a tick wide. Draws are counter-based (Philox, the counter's top word is the block's
number): no generator has a state that must be kept, and no draw depends on how many records anyone asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.records import Flags, Records
from nodes.feed.universe import Floats, Universe
from nodes.records import MARK, QUOTE, TRADE, Side

BLOCK_RECORDS = 512
YEAR_NS = 365 * 86_400 * 10**9
_SPOT_VOLATILITY = 0.6
_CARRY = 0.03
_MIN_YEARS = 1e-4
_IV_RANGE = (0.05, 3.0)
_SMILE_MEANS = (0.65, -0.08, 0.06)
_SMILE_NOISE = (0.4, 0.15, 0.1)
"""Per square root of a day."""
_SMILE_RETURN_PER_DAY = 5.0
_SPREAD_VOLATILITY = 0.01

Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shares:
    """Of all records, the trades and futures; of all option quotes, those without one side, and those without both."""

    trade: float
    future: float
    one_sided: float
    empty: float


@dataclass
class MarketState:
    """What one block hands to the next."""

    log_spots: Floats
    """By underlying."""
    smile: Floats
    """[level, skew, curvature] by future."""
    trades: int
    """So far; the last trade's id."""

    def checkpoint(self) -> dict[str, Any]:
        return {"log_spots": self.log_spots.copy(), "smile": self.smile.copy(), "trades": self.trades}

    @staticmethod
    def restored(state: Any) -> MarketState:
        smile = np.array(state["smile"], np.float64).reshape(3, -1)
        return MarketState(np.array(state["log_spots"], np.float64), smile, int(state["trades"]))


@dataclass(frozen=True)
class Block:
    """Records of one block; ``quotes_before[k]`` is how many of its first k records are quotes, and so on."""

    quotes: Records
    trades: Records
    marks: Records
    quotes_before: Integers
    marks_before: Integers
    after: MarketState


class Market:
    """Makes blocks. ``start_ns`` is the time of record 0, ``rate`` the records a second.

    ``first_id`` is the first future's id; the others follow in the order of the universe.
    """

    def __init__(
        self, universe: Universe, shares: Shares, *, seed: int, rate: float, first_id: int, start_ns: int
    ) -> None:
        self._universe = universe
        self._shares = shares
        self._seed = seed
        self._period_ns = 1e9 / rate
        self._first_id = first_id
        self._start_ns = start_ns
        self._strikes = universe.strike_table()
        self._option_ticks = universe.option_ticks()
        self._future_ticks = universe.future_ticks()
        self._expiries_ns = universe.expiries_ns(start_ns)
        self._inverse = universe.style == "inverse"
        means = np.array(_SMILE_MEANS)[:, None]
        self._smile_means: Floats = np.repeat(means, universe.futures, axis=1)

    def first_state(self) -> MarketState:
        return MarketState(np.log(self._universe.spots()), self._smile_means.copy(), 0)

    def time_ns(self, index: int) -> int:
        """When record ``index`` happens."""
        return self._start_ns + int(index * self._period_ns)

    def due_count(self, now_ns: int, at_most: int) -> int:
        """How many records have happened at ``now_ns``, up to ``at_most``."""
        count = max(0, min(at_most, int((now_ns - self._start_ns) / self._period_ns) + 1))
        while count < at_most and self.time_ns(count) <= now_ns:
            count += 1
        while count and self.time_ns(count - 1) > now_ns:
            count -= 1
        return count

    def block(self, number: int, before: MarketState, *, marks: bool) -> Block:
        """Records number * 512 and the 511 after it."""
        count, universe = BLOCK_RECORDS, self._universe
        draws = np.random.Generator(np.random.Philox(key=self._seed, counter=number << 192))
        steps = draws.standard_normal((count, len(universe.names)))
        smile_steps = draws.standard_normal(before.smile.shape)
        kind, chain, option, sided, width, bid_draw, ask_draw, part = draws.random((8, count))
        index = number * count + np.arange(count)
        ts_event_ns = self._start_ns + (index * self._period_ns).astype(np.int64)

        years = self._period_ns / YEAR_NS
        scale = _SPOT_VOLATILITY * np.sqrt(years)
        walk = before.log_spots + np.cumsum(steps * scale - 0.5 * scale * scale, axis=0)
        smile = self._moved_smile(before.smile, smile_steps)

        # The first record of a block quotes a future, so a trade always has a quote before it; so do the first records
        # of all, one for each future: every chain has its forward before its options.
        future = (chain * universe.futures).astype(np.int64)
        opening = index < universe.futures
        future = np.where(opening, index, future)
        is_future = (kind < self._shares.future) | opening
        is_future[0] = True
        is_trade = ~is_future & (kind < self._shares.future + self._shares.trade)
        underlying, expiry = np.divmod(future, universe.expiries)
        expiry_years = np.maximum((self._expiries_ns[expiry] - ts_event_ns) / YEAR_NS, _MIN_YEARS)
        forward = np.exp(walk[np.arange(count), underlying] + _CARRY * expiry_years)

        slot = (option * universe.options_per_future).astype(np.int64)
        strike = self._strikes[underlying, slot // 2]
        value = black76(forward, strike, expiry_years, smile[:, future], is_call=slot % 2 == 0)
        unit = forward if self._inverse else np.ones(count)
        middle = np.where(is_future, forward, value.price / unit)
        tick = np.where(is_future, self._future_ticks[underlying], self._option_ticks[underlying])
        half = np.where(is_future, 0.0, _SPREAD_VOLATILITY * (0.5 + width) * value.vega / unit) + 0.5 * tick
        bid = np.maximum(_on_ticks(np.floor((middle - half) / tick), tick), 0.0)
        ask = _on_ticks(np.ceil((middle + half) / tick), tick)
        no_both = ~is_future & (sided < self._shares.empty)
        one = ~is_future & ~no_both & (sided < self._shares.empty + self._shares.one_sided)
        bid[no_both | (one & (part < 0.5))] = 0.0
        ask[no_both | (one & (part >= 0.5))] = 0.0
        bid_size = np.where(bid > 0, (1.0 + np.floor(100.0 * bid_draw**2)) / 10.0, 0.0)
        ask_size = np.where(ask > 0, (1.0 + np.floor(100.0 * ask_draw**2)) / 10.0, 0.0)
        instrument = self._first_id + np.where(
            is_future, future, universe.futures + future * universe.options_per_future + slot
        )

        is_quote = ~is_trade
        quotes = QUOTE.build(
            int(is_quote.sum()),
            ts_event_ns=ts_event_ns[is_quote],
            instrument=instrument[is_quote],
            flags=int(Flags.LAST_IN_EVENT),
            bid=bid[is_quote],
            ask=ask[is_quote],
            bid_size=bid_size[is_quote],
            ask_size=ask_size[is_quote],
        )
        # A trade is at the touch of the quote before it that has a side to trade with.
        tradable = np.maximum.accumulate(np.where(is_quote & ((bid > 0) | (ask > 0)), np.arange(count), 0))[is_trade]
        buys = (ask[tradable] > 0) & ((bid[tradable] == 0) | (part[is_trade] < 0.5))
        touch_size = np.where(buys, ask_size[tradable], bid_size[tradable])
        trade_count = int(is_trade.sum())
        trades = TRADE.build(
            trade_count,
            ts_event_ns=ts_event_ns[is_trade],
            instrument=instrument[tradable],
            flags=int(Flags.LAST_IN_EVENT),
            price=np.where(buys, ask[tradable], bid[tradable]),
            size=np.ceil(10.0 * touch_size * (1.0 - width[is_trade])) / 10.0,
            id=before.trades + 1 + np.arange(trade_count),
            side=np.where(buys, int(Side.BID), int(Side.ASK)),
        )
        is_mark = is_quote & ~is_future
        built = MARK.zeros(0)
        if marks:
            spot = np.exp(walk[np.arange(count), underlying])
            built = MARK.build(
                int(is_mark.sum()),
                ts_event_ns=ts_event_ns[is_mark],
                instrument=instrument[is_mark],
                flags=int(Flags.LAST_IN_EVENT),
                forward=forward[is_mark],
                mark_price=middle[is_mark],
                mark_iv=value.iv[is_mark],
                delta=value.delta[is_mark],
                gamma=value.gamma[is_mark],
                vega=0.01 * value.vega[is_mark],
                theta=value.theta[is_mark] / 365.0,
                rho=0.01 * value.rho[is_mark],
                index_price=spot[is_mark],
                bid_iv=np.nan,
                ask_iv=np.nan,
            )
        after = MarketState(walk[-1].copy(), smile, before.trades + trade_count)
        return Block(quotes, trades, built, _before(is_quote), _before(is_mark), after)

    def _moved_smile(self, smile: Floats, steps: Floats) -> Floats:
        """A step of each parameter for the time of one block: back towards its mean, and noise."""
        days = min(1.0, BLOCK_RECORDS * self._period_ns / (YEAR_NS / 365))
        pulled = smile + (self._smile_means - smile) * -np.expm1(-_SMILE_RETURN_PER_DAY * days)
        return np.asarray(pulled + np.array(_SMILE_NOISE)[:, None] * np.sqrt(days) * steps)


@dataclass(frozen=True)
class Value:
    """Undiscounted, in USD: vega and rho per 1.00, theta a year."""

    iv: Floats
    price: Floats
    delta: Floats
    gamma: Floats
    vega: Floats
    theta: Floats
    rho: Floats


def black76(forward: Floats, strike: Floats, years: Floats, smile: Floats, *, is_call: Bools) -> Value:
    """Values and greeks on a smile; probabilities to 1e-7, which is far below a tick."""
    root = np.sqrt(years)
    log_moneyness = np.log(strike / forward)
    x = log_moneyness / root
    iv = np.clip(smile[0] + x * (smile[1] + x * smile[2]), *_IV_RANGE)
    deviation = iv * root
    d1 = 0.5 * deviation - log_moneyness / deviation
    sign = np.where(is_call, 1.0, -1.0)
    probability = normal_cdf(np.concatenate((sign * d1, sign * (d1 - deviation))))
    in_forward, in_strike = probability[: len(d1)], probability[len(d1) :]
    price = np.maximum(sign * (forward * in_forward - strike * in_strike), 0.0)
    density = np.exp(-0.5 * d1 * d1) / np.sqrt(2.0 * np.pi)
    vega = forward * density * root
    return Value(
        iv, price, sign * in_forward, density / (forward * deviation), vega, -0.5 * vega * iv / years, -years * price
    )


def normal_cdf(x: Floats) -> Floats:
    """The standard normal distribution function; largest error 7.5e-8 (Abramowitz and Stegun, 26.2.17)."""
    size = np.abs(x)
    t = 1.0 / (1.0 + 0.2316419 * size)
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = np.exp(-0.5 * size * size) / np.sqrt(2.0 * np.pi) * series
    return np.asarray(np.where(x >= 0, 1.0 - tail, tail))


def _on_ticks(count: Floats, tick: Floats) -> Floats:
    """Multiples of a tick below 1 by division, so that they are the nearest floats to their decimals."""
    return np.asarray(np.where(tick < 1.0, count / np.rint(1.0 / tick), count * tick))


def _before(chosen: Bools) -> Integers:
    """How many of the first k are chosen, for k from 0 to all."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(chosen)))
