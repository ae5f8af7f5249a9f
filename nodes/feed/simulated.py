"""The node ``feed.simulated``: a deterministic, seeded options market at a settable rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fabric.errors import ConfigError
from fabric.records import Records
from fabric.runtime.node import Source
from fabric.runtime.ports import Output, OutputPort
from nodes.feed.definitions import records_of
from nodes.feed.instruments import InstrumentIds
from nodes.feed.market import BLOCK_RECORDS, Block, Market, MarketState, Shares
from nodes.feed.universe import QuoteStyle, Universe, universe_problem
from nodes.records import INSTRUMENT

_DEFAULT_UNDERLYINGS = ["BTC", "ETH"]


class SimulatedFeed(Source):
    """Record i (a quote or a trade) happens at start + i / rate, and is the same whenever and however it is asked for.

    All definitions come first, at the first poll, whose time is the start; then a quote of each future. Each record is
    an event of its own. A mark goes with each option quote, if that output is connected.
    """

    finite = False

    instrument = Output("instrument")
    quote = Output("quote")
    trade = Output("trade", optional=True)
    mark = Output("mark", optional=True)

    underlyings: list[str] = _DEFAULT_UNDERLYINGS
    records_per_second: float = 5000.0
    seed: int = 7
    expiries: int = 4
    strikes: int = 15
    """Per expiry; a call and a put of each."""
    records: int = 0
    """How many quotes and trades there are; 0: endless."""
    style: QuoteStyle = "linear"
    """``"linear"``: options quoted in USD; ``"inverse"``: in the coin."""
    trade_share: float = 0.02
    """Of all records."""
    future_share: float = 0.05
    """Of all records: quotes of futures."""
    one_sided_share: float = 0.05
    """Of the option quotes."""
    empty_share: float = 0.02
    """Of the option quotes."""
    burst: int = 1
    """Records that come together, when the last of them is due."""
    max_burst: int = 1024
    """Records a poll, at most, when catching up."""

    def on_start(self) -> None:
        self._check_config()
        self.finite = self.records > 0
        self._universe = Universe(tuple(self.underlyings), self.expiries, self.strikes, self.style)
        self._first_id = InstrumentIds.lease(self.name, self.state_dir).first
        self._index = 0
        """Records produced so far."""
        self._market: Market | None = None
        self._start_ns = 0
        self._state: MarketState | None = None
        """Before the block that holds record ``_index``."""
        self._block: Block | None = None
        self._counts = dict.fromkeys(("quote", "book", "trade", "instrument", "underlying", "mark"), 0)

    def _check_config(self) -> None:
        problem = universe_problem(self.underlyings, self.expiries, self.strikes)
        shares = ("trade_share", "future_share", "one_sided_share", "empty_share")
        if problem is None and not (math.isfinite(self.records_per_second) and 0 < self.records_per_second <= 1e9):
            problem = "records_per_second", "must be above 0, at most 1e9"
        if problem is None and not 0 <= self.seed < 2**64:
            problem = "seed", "must be 0 to 2**64 - 1"
        if problem is None and self.records < 0:
            problem = "records", "must be 0 (endless) or more"
        if problem is None and self.max_burst < 1:
            problem = "max_burst", "must be at least 1"
        if problem is None and not 1 <= self.burst <= self.max_burst:
            problem = "burst", "must be 1 to max_burst"
        if problem is None and self.style not in ("linear", "inverse"):
            problem = "style", 'must be "linear" or "inverse"'
        for share in shares:
            if problem is None and not 0.0 <= getattr(self, share) <= 1.0:
                problem = share, "must be 0 to 1"
        if problem is None and self.trade_share + self.future_share > 1.0:
            problem = "trade_share", "must be at most 1 together with future_share"
        if problem is None and self.one_sided_share + self.empty_share > 1.0:
            problem = "one_sided_share", "must be at most 1 together with empty_share"
        if problem is not None:
            key, text = problem
            raise ConfigError(f"{getattr(self, key)!r}: {text}", key=f"nodes.{self.name}.{key}")

    def _begin(self, start_ns: int) -> Market:
        self._start_ns = start_ns
        self._market = Market(
            self._universe,
            Shares(self.trade_share, self.future_share, self.one_sided_share, self.empty_share),
            seed=self.seed,
            rate=self.records_per_second,
            first_id=self._first_id,
            start_ns=start_ns,
        )
        return self._market

    def next_due_ns(self, now_ns: int) -> int | None:
        if self._market is None:
            return now_ns
        if self.finite and self._index >= self.records:
            return None
        last = self._index + self.burst - 1
        return self._market.time_ns(min(last, self.records - 1) if self.finite else last)

    def on_poll(self, now_ns: int) -> None:
        market = self._market
        if market is None:
            market = self._begin(now_ns)
            self._state = market.first_state()
            self._define(now_ns)
        end = self._index + self.max_burst
        if self.finite:
            end = min(end, self.records)
        end = market.due_count(now_ns, end)
        while self._index < end:
            number, first = divmod(self._index, BLOCK_RECORDS)
            last = min(BLOCK_RECORDS, first + end - self._index)
            self._produce(self._current_block(market, number), first, last, now_ns)
            self._index += last - first
            if last == BLOCK_RECORDS:
                assert self._block is not None
                self._state, self._block = self._block.after, None

    def _current_block(self, market: Market, number: int) -> Block:
        if self._block is None:
            assert self._state is not None
            self._block = market.block(number, self._state, marks=self.mark.connected)
        return self._block

    def _define(self, now_ns: int) -> None:
        definitions = self._universe.definitions(now_ns)
        rows = [(now_ns, now_ns, 0, self._first_id + place, 0, *item) for place, item in enumerate(definitions)]
        self.instrument.append(records_of(INSTRUMENT, rows))
        self._counts["instrument"] += len(rows)

    def _produce(self, block: Block, first: int, last: int, now_ns: int) -> None:
        """Records ``first`` to ``last`` (exclusive) of the block, each on its channel."""
        quotes_from, quotes_to = int(block.quotes_before[first]), int(block.quotes_before[last])
        marks_from, marks_to = int(block.marks_before[first]), int(block.marks_before[last])
        _append(self.quote, block.quotes[quotes_from:quotes_to], now_ns)
        _append(self.trade, block.trades[first - quotes_from : last - quotes_to], now_ns)
        option_quotes = marks_to - marks_from
        self._counts["quote"] += option_quotes
        self._counts["underlying"] += quotes_to - quotes_from - option_quotes
        self._counts["trade"] += last - first - (quotes_to - quotes_from)
        if self.mark.connected:
            _append(self.mark, block.marks[marks_from:marks_to], now_ns)
            self._counts["mark"] += option_quotes

    def report(self) -> dict[str, Any]:
        return {"messages": self._index, "malformed": 0, "records": dict(self._counts)}

    def checkpoint(self) -> dict[str, Any]:
        return {
            "begun": self._market is not None,
            "start_ns": self._start_ns,
            "first_id": self._first_id,
            "index": self._index,
            "market": None if self._state is None else self._state.checkpoint(),
            "counts": dict(self._counts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._first_id = int(state["first_id"])
        self._index = int(state["index"])
        self._counts = {str(name): int(count) for name, count in state["counts"].items()}
        self._block = None
        self._market = self._state = None
        if state["begun"]:
            self._begin(int(state["start_ns"]))
            self._state = MarketState.restored(state["market"])


def _append(port: OutputPort, records: Records, now_ns: int) -> None:
    if port.connected and len(records):
        records["ts_origin_ns"] = now_ns
        port.append(records)
