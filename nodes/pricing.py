"""Implied volatilities and greeks of each option quote, and of whole chains when their forward moves.

Black-76, undiscounted, time to expiry ACT/365 from the record's ts_event_ns (native.black has formulas and sources).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fabric.records import Flags, Records
from fabric.runtime.node import Node
from fabric.runtime.ports import Input, InputPort, Output
from native import black
from native.quotes import Stop
from nodes.chains import Chains, Slots
from nodes.columns import Backlog, Held
from nodes.records import Kind
from nodes.venue_check import YEAR_NS, VenueCheck

Floats = npt.NDArray[np.float64]
# As plain numbers: looking up and combining members of an enum costs more than the rest of a line.
_STALE, _LAST, _CARRIED = int(Flags.STALE), int(Flags.LAST_IN_EVENT), int(Flags.VOL_CARRIED)
_CALL = int(Kind.CALL)
_ALL_TAKEN, _OTHER, _EMPTY, _NO_FORWARD = (
    int(stop) for stop in (Stop.ALL_TAKEN, Stop.NOT_AN_OPEN_OPTION, Stop.EMPTY, Stop.NO_FORWARD)
)


class Pricing(Node):
    """Quotes in, greeks out.

    A quote of a future, perpetual or spot moves a forward (the mid, or the one side present); a quote of an option
    solves the volatilities of its bid and ask, and their mean is its own. A move of the forward keeps each strike's
    volatilities and recomputes the chain's greeks, flagged VOL_CARRIED (``vol_on_move = "sticky_strike"``), or solves
    them again from the last quotes (``"resolve"``). With ``conflate_moves``, the moves of one forward in a batch that
    no quote of its chain lies between are one, and only the last is priced: less work in bursts, but then what is
    published depends on how records came in batches. Without it, it follows from their sequence alone.

    Instruments are defined in another channel, so a quote may come before its definition: it and all quotes after it
    are kept back, in order, until the definition arrives; after five seconds, or 65,536 quotes, only the last one of each
    undefined instrument is held, nothing waits for it again, and the rest goes on. An option's quote before the first
    forward is held too. What could not be priced is counted by reason, and its volatility is dropped. Marks of the
    venue are compared with our own greeks (nodes.venue_check).
    """

    instrument = Input("instrument")
    quote = Input("quote")
    mark = Input("mark", optional=True)
    greeks = Output("greeks")

    vol_on_move: Literal["sticky_strike", "resolve"] = "sticky_strike"
    conflate_moves: bool = False

    def on_start(self) -> None:
        self.timer_ns = 1_000_000_000  # for the age of what is kept back
        self._chains = Chains()
        self._backlog = Backlog()
        self._held_quotes = Held()
        self._held_marks = Held()
        self._venue = VenueCheck()
        self._priced = self._carried = self._conflated = self._unmoved = self._no_forward = 0
        self._unpriced: dict[str, int] = {}
        self._moves: dict[int, int] = {}
        """Of the batch at hand, conflated: chain to row."""

    def on_records(self, channel: InputPort, records: Records, now_ns: int) -> None:
        if channel is self.quote:
            self._take_in_order(records, now_ns)
        elif channel is self.instrument:
            self._take_definitions(records)
            self._take_in_order(None, now_ns)
        else:
            self._take_marks(records)

    def _take_in_order(self, records: Records | None, now_ns: int, *, wait: bool = True) -> None:
        """Quotes up to the first one of an undefined instrument; the rest waits for its definition."""
        backlog = self._backlog
        if records is not None and not len(backlog) and self._chains.pricer().defined(records):  # the usual case
            backlog.cleared()
            self._take_quotes(records)
            return
        joined = backlog.join(records)
        if joined is None:
            return
        ids = joined["instrument"].tolist()
        undefined = [
            row
            for row, slot in enumerate(self._chains.slots_of(joined["instrument"]))
            if slot < 0 and ids[row] not in backlog.given_up
        ]
        known = undefined[0] if undefined else len(ids)
        if undefined and not (wait and backlog.keep(joined[known:], now_ns)):
            backlog.given_up.update(ids[row] for row in undefined)
            known = len(ids)
        if known == len(ids):
            backlog.cleared()
        if known:
            self._take_quotes(joined[:known])

    def on_timer(self, now_ns: int) -> None:
        if self._backlog.too_old(now_ns):
            self._take_in_order(None, now_ns)

    def on_ended(self, channel: InputPort, now_ns: int) -> None:
        if channel is self.instrument:  # no definition will come any more
            self._take_in_order(None, now_ns, wait=False)

    def _take_definitions(self, records: Records) -> None:
        for definition in records:
            self._chains.define(definition)
            instrument = int(definition["instrument"])
            self._backlog.given_up.discard(instrument)
            quote, mark = self._held_quotes.take(instrument), self._held_marks.take(instrument)
            if quote is not None:
                self._take_quotes(quote)
            if mark is not None:
                self._take_marks(mark)

    def _take_marks(self, records: Records) -> None:
        slots = np.array(self._chains.slots_of(records["instrument"]), np.int64)
        for row in np.flatnonzero(slots < 0):
            self._held_marks.keep(records[row : row + 1])
        known = slots >= 0
        columns, slots = self._chains.slots, slots[known]
        kinds = columns["kind"][slots]
        options = (kinds == _CALL) | (kinds == Kind.PUT)
        chosen = slots[options]
        self._venue.compare(
            records[known][options],
            columns["strike"][chosen],
            columns["expiry_ns"][chosen],
            columns["kind"][chosen] == _CALL,
            columns["inverse"][chosen],
        )

    def _take_quotes(self, records: Records) -> None:
        """In sequence order: a native call prices quotes of options up to the first one that it can't."""
        pricer, greeks, row, count = self._chains.pricer(), self.greeks, 0, len(records)
        while row < count:
            end = count
            if self._moves:
                self._follow_conflated(records, row)
                end = row + 1
            room = end - row
            view = greeks.reserve(room, blank=False)
            stop = pricer.take(records, row, end, self.quote.stale, view)
            row, written = pricer.row, pricer.written
            if written < room:
                greeks.give_back(room - written)
            self._priced += written
            if stop == _ALL_TAKEN:
                continue
            if stop == _OTHER:
                self._take_other(records, row, pricer.slot)
                row += 1
            elif stop == _NO_FORWARD:
                self._no_forward += 1
            else:
                self._count("empty" if stop == _EMPTY else black.Status(stop).name.lower())
        if self._moves:
            for row, group in itertools.groupby(self._moves.items(), key=operator.itemgetter(1)):
                self._follow(records, row, tuple(chain for chain, _ in group))
            self._moves = {}

    def _take_other(self, records: Records, row: int, slot: int) -> None:
        """A quote that is not of an open option."""
        if slot < 0:
            self._held_quotes.keep(records[row : row + 1])
        elif self._chains.is_underlying(slot):
            self._move(records, row, slot)
        else:
            self._count("closed" if self._chains.is_option(slot) else "unknown_kind")

    def _follow_conflated(self, records: Records, row: int) -> None:
        """An option's quote finds its chain where the moves before it have left it."""
        chains = self._chains
        slot = chains.slot(records["instrument"].item(row))
        if slot >= 0 and chains.is_option(slot) and chains.slots["open"][slot]:
            chain = int(chains.slots["chain"][slot])
            if chain in self._moves:
                self._follow(records, self._moves.pop(chain), (chain,))

    def _move(self, records: Records, row: int, slot: int) -> None:
        _, _, _, _, flags, bid, ask, *_ = records.item(row)
        if bid > 0 and ask > 0:
            forward = 0.5 * (bid + ask)
        elif bid > 0 or ask > 0:
            forward = bid if bid > 0 else ask
        else:
            self._count("empty_underlying")
            return
        chains = self._chains
        stale = bool(flags & _STALE) or self.quote.stale
        chain = chains.slots.whole("chain").item(slot)
        if not chains.move(chain, forward, stale):
            self._unmoved += 1
            return
        if not self.conflate_moves:
            self._follow(records, row, chains.followers(chain))
            return
        for follower in chains.followers(chain):
            # the last move of a batch is the one that counts, in the order of the last moves
            self._conflated += self._moves.pop(follower, None) is not None
            self._moves[follower] = row

    def _solve(
        self, slots: Slots, bid: Floats, ask: Floats, forward: Floats, now: npt.NDArray[np.int64]
    ) -> tuple[Floats, Floats, Floats]:
        """Volatilities (iv, bid_iv, ask_iv) of one quote for each slot, kept by slot; NaN, and counted, where none."""
        columns = self._chains.slots
        scale = np.where(columns["inverse"][slots], forward, 1.0)
        expiry = (columns["expiry_ns"][slots] - now) / YEAR_NS
        sides = np.stack([bid, ask])
        status = np.empty(sides.shape, np.uint8)
        both = black.implied_vol(
            sides * scale,
            forward,
            columns["strike"][slots],
            expiry,
            columns["kind"][slots] == _CALL,
            status=status,
        )
        present = sides > 0
        both[~present] = np.nan
        bid_iv, ask_iv = both
        iv = np.where(np.isnan(bid_iv), ask_iv, np.where(np.isnan(ask_iv), bid_iv, 0.5 * (bid_iv + ask_iv)))
        columns["iv"][slots], columns["bid_iv"][slots], columns["ask_iv"][slots] = iv, bid_iv, ask_iv
        no_forward = np.isnan(forward) & present.any(axis=0) & (expiry > 0)
        columns["waiting"][slots] = no_forward  # of several quotes of one instrument the last decides, here as above
        self._no_forward += int(no_forward.sum())
        for i in np.flatnonzero(np.isnan(iv) & ~no_forward):
            if expiry[i] <= 0:
                self._count("expired")
            elif not present[:, i].any():
                self._count("empty")
            else:
                self._count(black.Status(int(status[int(present[1, i]), i])).name.lower())
        return iv, bid_iv, ask_iv

    def _follow(self, records: Records, row: int, chains: tuple[int, ...]) -> None:
        """Price the chains whose forward the quote at ``row`` moved: each one is one event."""
        move = records[row : row + 1]
        if chains and (self.vol_on_move != "sticky_strike" or not self._carry(chains, move)):
            for chain in chains:
                self._follow_one(chain, move)

    def _carry(self, chains: tuple[int, ...], move: Records) -> bool:
        """What nearly all moves are: chains of one forward whose options keep their volatilities. False if one of them
        needs more than that."""
        joined, event_ns = self._chains.joined(chains), int(move["ts_event_ns"][0])
        count = joined.carried(event_ns)
        if count > 0:
            forward, stale = self._chains.forward(chains[0])
            joined.carry(
                self.greeks.reserve(count, blank=False),
                forward=forward,
                event_ns=event_ns,
                origin_ns=int(move["ts_origin_ns"][0]),
                flags=_CARRIED | (_STALE if stale else 0),
                last=_LAST,
            )
            self._carried += count
        return count >= 0

    def _follow_one(self, chain: int, move: Records) -> None:
        forward, stale = self._chains.forward(chain)
        members = self._chains.members(chain)
        columns = self._chains.slots
        waiting = columns["waiting"][members]
        again = (
            waiting
            if self.vol_on_move == "sticky_strike"
            else (waiting | (columns["bid"][members] > 0) | (columns["ask"][members] > 0))
        )
        self._reprice(members[again], move, forward, stale, solve=True)
        self._reprice(members[~again & ~np.isnan(columns["iv"][members])], move, forward, stale, solve=False)

    def _reprice(self, slots: Slots, move: Records, forward: float, stale: bool, *, solve: bool) -> None:
        if not len(slots):
            return
        columns, now = self._chains.slots, move["ts_event_ns"][0]
        forwards = np.full(len(slots), forward)
        origins = np.full(len(slots), move["ts_origin_ns"][0])
        if solve:
            self._solve(slots, columns["bid"][slots], columns["ask"][slots], forwards, np.full(len(slots), now))
            known = columns["origin_ns"][slots]
            origins = np.where((known > 0) & ((known < origins) | (origins == 0)), known, origins)
        elif (late := columns["expiry_ns"][slots] <= now).any():
            self._count("expired", int(late.sum()))
            self._chains.drop(slots[late])
        alive = ~np.isnan(columns["iv"][slots])
        slots, forwards = slots[alive], forwards[alive]
        flags = np.where(columns["stale"][slots] | stale, _STALE, 0) | (0 if solve else _CARRIED)
        vols = (columns["iv"][slots], columns["bid_iv"][slots], columns["ask_iv"][slots])
        self._publish(slots, forwards, vols, move, flags, origins[alive])
        if solve:
            self._priced += len(slots)
        else:
            self._carried += len(slots)

    def _publish(
        self,
        slots: Slots,
        forward: Floats,
        vols: tuple[Floats, Floats, Floats],
        cause: Records,
        flags: npt.NDArray[Any],
        origin_ns: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """One kernel call, one event (unless ``flags`` end more of them)."""
        if not len(slots):
            return
        columns = self._chains.slots
        iv, bid_iv, ask_iv = vols
        expiry = (columns["expiry_ns"][slots] - cause["ts_event_ns"]) / YEAR_NS
        values = black.greeks2(forward, columns["strike"][slots], expiry, iv, columns["kind"][slots] == _CALL)
        view = self.greeks.reserve(len(slots), cause=cause)
        view["instrument"] = columns["instrument"][slots]
        view["flags"] = flags
        view["flags"][-1] |= _LAST
        if origin_ns is not None:
            view["ts_origin_ns"] = origin_ns
        view["forward"], view["iv"], view["bid_iv"], view["ask_iv"] = forward, iv, bid_iv, ask_iv
        for name in ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga"):
            view[name] = getattr(values, name)

    def _count(self, reason: str, count: int = 1) -> None:
        self._unpriced[reason] = self._unpriced.get(reason, 0) + count

    def report(self) -> dict[str, Any]:
        """Counts; ``held`` quotes came before their definition, ``held_no_forward`` before the first forward."""
        report: dict[str, Any] = {
            "priced": self._priced,
            "carried": self._carried,
            "conflated_moves": self._conflated,
            "unchanged_forwards": self._unmoved,
            "unpriced": dict(self._unpriced),
            "held": self._held_quotes.held,
            "held_replaced": self._held_quotes.replaced,
            "awaiting_definition": len(self._held_quotes) + len(self._backlog),
            "held_no_forward": self._no_forward,
            "awaiting_forward": int(self._chains.slots["waiting"].sum()),
        }
        if self.mark.connected:
            report["held_marks"] = self._held_marks.held
            report["top"] = {"venue_check": self._venue.report()}
        return report

    def checkpoint(self) -> dict[str, Any]:
        return {
            "chains": self._chains.checkpoint(),
            "backlog": self._backlog.checkpoint(),
            "held_quotes": self._held_quotes.checkpoint(),
            "held_marks": self._held_marks.checkpoint(),
            "venue": self._venue.checkpoint(),
            "counts": [self._priced, self._carried, self._conflated, self._unmoved, self._no_forward],
            "unpriced": dict(self._unpriced),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._chains.restore(state["chains"])
        self._backlog.restore(state["backlog"], self.quote.record.dtype)
        self._held_quotes.restore(state["held_quotes"], self.quote.record.dtype)
        self._held_marks.restore(state["held_marks"], self.mark.record.dtype)
        self._venue.restore(state["venue"])
        self._priced, self._carried, self._conflated, self._unmoved, self._no_forward = state["counts"]
        self._unpriced = dict(state["unpriced"])
