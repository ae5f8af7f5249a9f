"""The market of a stand-in venue: instruments, their books with change ids, and what happens next, from a seed.

It is the truth that a feed is compared with: ``books`` are the levels as they stand after all that was drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nodes.feed.capture import CaptureReader
from nodes.feed.deribit_messages import Book, DecodeError, Ticker, Trade, parse
from nodes.feed.deribit_names import define
from nodes.records import Kind

Levels = dict[float, float]
"""Price to amount."""
_LEVELS_KEPT = 12
_EXPIRIES = ("27DEC30", "26DEC31")
_SPOTS = {"BTC": 60_000.0, "ETH": 3_000.0}
_KINDS = {Kind.CALL: "option", Kind.PUT: "option", Kind.SPOT: "spot"}


class Happening(NamedTuple):
    """Something to tell those who subscribed: ``topic`` is ticker, book or trades; of a book, ``data`` has no ids."""

    topic: str
    name: str
    data: Any


@dataclass(slots=True)
class VenueBook:
    """One book; ``change_id`` is of the last change, ``previous_id`` of the one before it."""

    change_id: int
    previous_id: int = 0
    bids: Levels = field(default_factory=dict)
    asks: Levels = field(default_factory=dict)

    def apply(self, side: str, action: str, price: float, amount: float) -> None:
        levels = self.bids if side == "bids" else self.asks
        if action == "delete":
            levels.pop(price, None)
        else:
            levels[price] = amount

    def snapshot(self) -> dict[str, Any]:
        """``bids`` and ``asks`` as a snapshot has them."""
        return {
            "bids": [["new", *level] for level in sorted(self.bids.items(), reverse=True)],
            "asks": [["new", *level] for level in sorted(self.asks.items())],
        }


class VenueMarket:
    """Instruments of BTC and ETH with invented prices, or (``capture``) those of a recording, whose messages come again
    and again in their order."""

    def __init__(self, seed: int, *, strikes: int = 4, capture: Path | None = None) -> None:
        self.random = random.Random(seed)
        self.books: dict[str, VenueBook] = {}
        """Of all instruments that are listed."""
        self._trade_id = 1_000
        self._next_strike = 0
        self._recorded: list[Happening] = []
        self._position = 0
        if capture is not None:
            self._recorded = list(_happenings(capture))
            names = list(dict.fromkeys(item.name for item in self._recorded))
        else:
            names = [name for currency in _SPOTS for name in _universe(currency, strikes)]
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """List an instrument."""
        self.books[name] = VenueBook(self.random.randrange(10**9))

    def remove(self, name: str) -> None:
        """It has expired."""
        del self.books[name]

    def new_strike(self) -> str:
        """A name that is not listed yet."""
        self._next_strike += 1
        currency = self.random.choice(list(_SPOTS))
        strike = round(_SPOTS[currency] * 2) + 10 * self._next_strike
        return f"{currency}-{self.random.choice(_EXPIRIES)}-{strike}-{self.random.choice('CP')}"

    def options(self) -> list[str]:
        """Names of the options that are listed."""
        return [name for name in self.books if kind_of(name) == "option"]

    def listing(self, name: str) -> dict[str, Any]:
        """As public/get_instruments has it."""
        definition = define(name)
        listing: dict[str, Any] = {
            "instrument_name": name,
            "kind": kind_of(name),
            "is_active": True,
            "base_currency": definition.underlying,
            "quote_currency": definition.currency,
            "tick_size": definition.tick,
            "min_trade_amount": definition.lot,
            "contract_size": definition.multiplier,
            "expiration_timestamp": definition.expiry_ns // 1_000_000 or 32_503_708_800_000,
        }
        if definition.kind in (Kind.CALL, Kind.PUT):
            listing["strike"] = definition.strike
            listing["option_type"] = "call" if definition.kind == Kind.CALL else "put"
        return listing

    def next(self) -> Happening | None:
        """What happens next; a change of a book is in ``books`` from now on. None if it concerns nobody."""
        if self._recorded:
            happening = self._recorded[self._position % len(self._recorded)]
            self._position += 1
            if happening.name not in self.books:
                return None
        else:
            happening = self._invent(self.random.choice(list(self.books)))
        if happening.topic == "book":
            self._apply(happening)
        return happening

    def change(self, name: str) -> Happening:
        """A change of this book."""
        happening = self._invent_change(name)
        self._apply(happening)
        return happening

    def _apply(self, happening: Happening) -> None:
        book = self.books[happening.name]
        book.previous_id = book.change_id
        book.change_id += self.random.randint(1, 9)
        for side in ("bids", "asks"):
            for action, price, amount in happening.data[side]:
                book.apply(side, action, price, amount)

    def _invent(self, name: str) -> Happening:
        draw = self.random.random()
        if draw < 0.45:
            return Happening("ticker", name, self._ticker(name))
        if draw < 0.95:
            return self._invent_change(name)
        self._trade_id += 1
        trade = {
            "instrument_name": name,
            "trade_id": str(self._trade_id),
            "price": self._price(name),
            "amount": float(self.random.randint(1, 20)),
            "direction": self.random.choice(("buy", "sell")),
        }
        return Happening("trades", name, [trade])

    def _invent_change(self, name: str) -> Happening:
        book, side = self.books[name], self.random.choice(("bids", "asks"))
        levels = book.bids if side == "bids" else book.asks
        if levels and (len(levels) >= _LEVELS_KEPT or self.random.random() < 0.4):
            price = self.random.choice(list(levels))
            action = self.random.choice(("change", "delete"))
        else:
            price, action = self._price(name), "new"
            action = "change" if price in levels else "new"
        amount = 0.0 if action == "delete" else float(self.random.randint(1, 500)) / 10
        other = "asks" if side == "bids" else "bids"
        return Happening("book", name, {side: [[action, price, amount]], other: []})

    def _ticker(self, name: str) -> dict[str, Any]:
        definition = define(name)
        spot = _SPOTS.get(definition.underlying, 100.0) * (1 + self.random.randint(-50, 50) / 10_000)
        bid = self._price(name)
        data = {
            "instrument_name": name,
            "best_bid_price": bid,
            "best_bid_amount": float(self.random.randint(1, 100)),
            "best_ask_price": bid + definition.tick,
            "best_ask_amount": float(self.random.randint(1, 100)),
            "index_price": spot,
            "mark_price": bid,
            "open_interest": 10.0,
            "state": "open",
        }
        if kind_of(name) == "option":
            greeks = {"delta": 0.5, "gamma": 0.0001, "vega": 10.0, "theta": -5.0, "rho": 1.0}
            index = name.rpartition("-")[0].rpartition("-")[0]
            data |= {"underlying_index": index, "underlying_price": spot, "mark_iv": 60.0, "greeks": greeks}
        return data

    def _price(self, name: str) -> float:
        definition = define(name)
        if kind_of(name) == "option":
            return round(self.random.randint(40, 120) * 0.0005, 4)
        return float(round(_SPOTS.get(definition.underlying, 100.0)) + self.random.randint(-40, 40))


def kind_of(name: str) -> str:
    """``kind`` of an instrument, by its name."""
    return _KINDS.get(Kind(define(name).kind), "future")


def _universe(currency: str, strikes: int) -> list[str]:
    spot = int(_SPOTS[currency])
    step = spot // 20
    ladder = [spot + step * (place - strikes // 2) for place in range(strikes)]
    options = [f"{currency}-{expiry}-{strike}-{right}" for expiry in _EXPIRIES for strike in ladder for right in "CP"]
    return [f"{currency}-PERPETUAL", *(f"{currency}-{expiry}" for expiry in _EXPIRIES), *options]


def _happenings(capture: Path) -> Iterator[Happening]:
    reader = CaptureReader(capture)
    while (line := reader.take()) is not None:
        try:
            message = parse(line.payload) if line.payload else None
        except DecodeError:
            continue
        match message:
            case Ticker():
                data = {name: value for name, value in _plain(message).items() if value is not None}
                yield Happening("ticker", message.instrument_name, data)
            case Book():
                yield Happening("book", message.instrument_name, {"bids": message.bids, "asks": message.asks})
            case [Trade(), *_]:
                for trade in message:
                    yield Happening("trades", trade.instrument_name, [_plain(trade)])
            case _:
                pass


def _plain(message: Any) -> dict[str, Any]:
    import msgspec

    content: dict[str, Any] = msgspec.to_builtins(message)
    return content
