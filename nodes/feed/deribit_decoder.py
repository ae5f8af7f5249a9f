"""Deribit messages to records: bytes and a time in, rows out. No I/O and no clock, so a live transport can use it too.

A message is one event. All of it is parsed and checked before the first change of state, so that a message which raises
leaves no trace but the count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fabric.records import Flags, Records
from nodes.feed.definitions import Definition, Definitions, Row, counters_from
from nodes.feed.deribit_listing import listed
from nodes.feed.deribit_messages import (
    Book,
    DecodeError,
    Greeks,
    Listings,
    Other,
    StateChange,
    Ticker,
    Trade,
    parse,
)
from nodes.feed.deribit_names import define, underlying_symbol
from nodes.feed.instruments import InstrumentIds
from nodes.feed.last_quotes import LastQuotes
from nodes.records import Action, InstrumentState, Side

__all__ = ["ChainBreak", "DecodeError", "DeribitDecoder", "Event"]

RECORD_KINDS = ("quote", "book", "trade", "instrument", "underlying", "mark", "stale")
_NS_PER_MS = 1_000_000
_PER_CENT = 0.01
_ACTIONS = {"new": int(Action.NEW), "change": int(Action.CHANGE), "delete": int(Action.DELETE)}
_SIDES = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_TRAILING_DIGITS = re.compile(r"[0-9]{1,20}\Z")
_LISTED_KINDS = ("option", "future", "spot")
_NO_GREEKS = Greeks()
_STALE = int(Flags.STALE)


class ChainBreak(NamedTuple):
    """A book change whose ``prev_change_id`` is not the change that was seen last (None: no snapshot yet)."""

    instrument: str
    last_change_id: int | None
    prev_change_id: int


@dataclass(slots=True)
class Event:
    """The rows of one message, by output, and the breaks that it showed."""

    instrument: list[Row] = field(default_factory=list)
    quote: list[Row] = field(default_factory=list)
    trade: list[Row] = field(default_factory=list)
    book: list[Row] = field(default_factory=list)
    mark: list[Row] = field(default_factory=list)
    breaks: list[ChainBreak] = field(default_factory=list)


class DeribitDecoder:
    """State: ids and definitions published, the last change id of each book, the last quote of each
    instrument and price of each underlying."""

    def __init__(self, ids: InstrumentIds) -> None:
        self._definitions = Definitions(ids)
        self._change_ids: dict[str, int] = {}
        self._underlying_prices: dict[str, float] = {}
        self._last_quotes = LastQuotes()
        self._listed: dict[str, list[str]] = {}
        """By currency/kind: what the venue listed when it was asked last, sorted."""
        self.broken: set[str] = set()
        """Instruments whose book lacks a change; until their next snapshot, their records are STALE."""
        self.resubscribe: list[str] = []
        """Channels to subscribe to anew for a snapshot; the transport takes them out when it has asked."""
        self.messages = 0
        self.malformed = 0
        self.chain_breaks = 0
        self.disconnects = 0
        self.kinds: dict[str, int] = {}
        self.records = dict.fromkeys(RECORD_KINDS, 0)

    def adopt(self, records: Records) -> None:
        """Take over ids and definitions that this feed published before."""
        self._definitions.adopt(records)

    def on_mark(self, ts_origin_ns: int) -> Event:
        """The connection began or ended here: nobody knows what the books missed, until their next snapshots, nor whether
        the last quotes still hold: they are published again, STALE, with their own event times. A quote's next ticker
        is fresh."""
        event = Event()
        event.quote += self._last_quotes.all_stale(ts_origin_ns)
        self.records["stale"] += len(event.quote)
        self._underlying_prices.clear()  # the same price again is news now
        self.disconnects += bool(self._change_ids)
        self.broken.update(self._change_ids)
        self._change_ids.clear()
        self.resubscribe.clear()  # a new connection subscribes to everything
        return event

    def decode(self, payload: bytes, ts_origin_ns: int) -> Event:
        """The rows of one message. Raises DecodeError, and then nothing has changed but ``malformed``."""
        event = Event()
        try:
            message = parse(payload)
            match message:
                case Ticker():
                    kind = "ticker"
                    self._ticker(message, ts_origin_ns, event)
                case Book():
                    kind = "book"
                    self._book(message, ts_origin_ns, event)
                case Other():
                    kind = message.kind
                case Listings():
                    kind = "instruments"
                    self._listings(message, ts_origin_ns, event)
                case StateChange():
                    kind = "instrument_state"
                    self._state_change(message, ts_origin_ns, event)
                case _:
                    kind = "trades"
                    self._trades(message, ts_origin_ns, event)
        except DecodeError:
            self.malformed += 1
            raise
        self.messages += 1
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.records["instrument"] += len(event.instrument)
        return event

    def _new_definitions(self, names: Iterable[str]) -> list[Definition]:
        """Those of ``names`` that were not published yet, from the name alone. Changes nothing."""
        try:
            return [define(name) for name in dict.fromkeys(names) if name not in self._definitions]
        except ValueError as error:
            raise DecodeError(str(error)) from None

    def _publish(self, definitions: Iterable[Definition], ts_event_ns: int, ts_origin_ns: int, event: Event) -> None:
        for definition in definitions:
            row = self._definitions.publish(definition, ts_event_ns, ts_origin_ns)
            if row is not None:
                event.instrument.append(row)

    def _ticker(self, ticker: Ticker, ts_origin_ns: int, event: Event) -> None:
        name, price = ticker.instrument_name, ticker.underlying_price
        underlying = ""
        if ticker.underlying_index and price is not None and price > 0:
            underlying = underlying_symbol(ticker.underlying_index, name)
        new = self._new_definitions([name, underlying] if underlying else [name])
        ts_event_ns = ticker.timestamp * _NS_PER_MS
        self._publish(new, ts_event_ns, ts_origin_ns, event)
        if underlying and price is not None and self._underlying_prices.get(underlying) != price:
            self._underlying_prices[underlying] = price
            number = self._definitions.id_of(underlying)
            self._quote((ts_event_ns, ts_origin_ns, 0, number, 0, price, price, 0.0, 0.0), event)
            self.records["underlying"] += 1
        number = self._definitions.id_of(name)
        head = (ts_event_ns, ts_origin_ns, 0, number, 0)
        bid, ask = ticker.best_bid_price or 0.0, ticker.best_ask_price or 0.0
        bid_size = (ticker.best_bid_amount or 0.0) if bid else 0.0
        ask_size = (ticker.best_ask_amount or 0.0) if ask else 0.0
        self._quote((*head, bid, ask, bid_size, ask_size), event)
        self.records["quote"] += 1
        greeks = ticker.greeks or _NO_GREEKS
        event.mark.append(
            (
                *head,
                _or_nan(price),
                _or_nan(ticker.mark_price),
                _or_nan(ticker.mark_iv) * _PER_CENT,
                _or_nan(greeks.delta),
                _or_nan(greeks.gamma),
                _or_nan(greeks.vega),
                _or_nan(greeks.theta),
                _or_nan(greeks.rho),
                _or_nan(ticker.index_price),
                _or_nan(ticker.open_interest),
                _or_nan(ticker.bid_iv) * _PER_CENT,
                _or_nan(ticker.ask_iv) * _PER_CENT,
            )
        )
        self.records["mark"] += 1

    def _quote(self, row: Row, event: Event) -> None:
        self._last_quotes.keep(row)
        event.quote.append(row)

    def _book(self, book: Book, ts_origin_ns: int, event: Event) -> None:
        name = book.instrument_name
        snapshot = book.type == "snapshot"
        if not snapshot and book.prev_change_id is None:
            raise DecodeError("a book change without prev_change_id")
        new = self._new_definitions([name])
        ts_event_ns = book.timestamp * _NS_PER_MS
        self._publish(new, ts_event_ns, ts_origin_ns, event)
        if snapshot:
            self.broken.discard(name)
        elif book.prev_change_id is not None and self._change_ids.get(name) != book.prev_change_id:
            self._break(ChainBreak(name, self._change_ids.get(name), book.prev_change_id), book.channel, event)
        self._change_ids[name] = book.change_id
        flags = _STALE if name in self.broken else 0
        head = (ts_event_ns, ts_origin_ns, 0, self._definitions.id_of(name), flags, 0)
        rows = event.book
        if snapshot:
            rows.append((*head, 0.0, 0.0, int(Action.CLEAR), int(Side.NONE), 0))
        for side, levels in ((int(Side.BID), book.bids), (int(Side.ASK), book.asks)):
            for action, price, amount in levels:
                rows.append((*head, price, amount, _ACTIONS["new" if snapshot else action], side, 0))
        self.records["book"] += len(rows)

    def _break(self, found: ChainBreak, channel: str, event: Event) -> None:
        event.breaks.append(found)
        self.chain_breaks += 1
        if found.instrument not in self.broken:
            self.broken.add(found.instrument)
            if channel not in self.resubscribe:
                self.resubscribe.append(channel)

    def _trades(self, trades: list[Trade], ts_origin_ns: int, event: Event) -> None:
        if not trades:
            return
        new = self._new_definitions(trade.instrument_name for trade in trades)
        numbers = [_trade_number(trade.trade_id) for trade in trades]
        self._publish(new, trades[0].timestamp * _NS_PER_MS, ts_origin_ns, event)
        for trade, number in zip(trades, numbers, strict=True):
            head = (trade.timestamp * _NS_PER_MS, ts_origin_ns, 0, self._definitions.id_of(trade.instrument_name), 0)
            event.trade.append((*head, trade.price, trade.amount, number, _SIDES[trade.direction]))
        self.records["trade"] += len(trades)

    def _listings(self, listings: Listings, ts_origin_ns: int, event: Event) -> None:
        """Combinations, and names of a form that is not known, are left out: nothing of theirs is subscribed to. What
        has expired by the venue's clock is closed, and what the same list had before."""
        definitions = []
        for listing in listings.items:
            if listing.kind in _LISTED_KINDS:
                try:
                    definitions.append(listed(listing))
                except ValueError:
                    self.kinds["unsupported"] = self.kinds.get("unsupported", 0) + 1
        self._publish(definitions, 0, ts_origin_ns, event)
        names = {listing.instrument_name for listing in listings.items}
        closed = [item for item in self._definitions.expired(listings.at_ns) if item.symbol not in names]
        if listings.group:
            before = set(self._listed.get(listings.group, ()))
            gone = [self._definitions.of(name) for name in sorted(before - names)] if listings.whole else []
            closed += [definition for definition in gone if definition is not None]
            self._listed[listings.group] = sorted(names if listings.whole else before | names)
        self._close(closed, listings.at_ns, ts_origin_ns, event)

    def _state_change(self, change: StateChange, ts_origin_ns: int, event: Event) -> None:
        definition = self._definitions.of(change.instrument_name)
        if change.gone and definition is not None:
            self._close([definition], change.timestamp * _NS_PER_MS, ts_origin_ns, event)

    def _close(self, definitions: list[Definition], ts_event_ns: int, ts_origin_ns: int, event: Event) -> None:
        for definition in definitions:
            self._change_ids.pop(definition.symbol, None)
            self._last_quotes.drop(self._definitions.id_of(definition.symbol))
            self.broken.discard(definition.symbol)
        closed = (definition._replace(state=InstrumentState.CLOSED) for definition in definitions)
        self._publish(closed, ts_event_ns, ts_origin_ns, event)

    def checkpoint(self) -> dict[str, Any]:
        """Plain data and two arrays; ``restore`` takes it."""
        return {
            "definitions": self._definitions.checkpoint(),
            "change_ids": dict(self._change_ids),
            "underlying_prices": dict(self._underlying_prices),
            "last_quotes": self._last_quotes.checkpoint(),
            "listed": {group: list(names) for group, names in self._listed.items()},
            "broken": sorted(self.broken),
            "resubscribe": list(self.resubscribe),
            "messages": self.messages,
            "malformed": self.malformed,
            "chain_breaks": self.chain_breaks,
            "disconnects": self.disconnects,
            "kinds": dict(self.kinds),
            "records": dict(self.records),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be what ``checkpoint`` described."""
        self._definitions.restore(state["definitions"])
        self._change_ids = counters_from(state["change_ids"])
        self._underlying_prices = {str(name): float(price) for name, price in state["underlying_prices"].items()}
        self._last_quotes.restore(state["last_quotes"])
        self._listed = {str(group): list(names) for group, names in state["listed"].items()}
        self.broken = set(state["broken"])
        self.resubscribe = list(state["resubscribe"])
        self.messages = int(state["messages"])
        self.malformed = int(state["malformed"])
        self.chain_breaks = int(state["chain_breaks"])
        self.disconnects = int(state["disconnects"])
        self.kinds = counters_from(state["kinds"])
        self.records = counters_from(state["records"])


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number


def _trade_number(trade_id: str) -> int:
    """The digits of "48079573" or "ETH-2696083"."""
    match = _TRAILING_DIGITS.search(trade_id)
    number = int(match[0]) if match else 2**64
    if number >= 2**64:
        raise DecodeError(f"trade_id {trade_id!r} has no number of 64 bits")
    return number
