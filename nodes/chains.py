"""The instruments that pricing knows, by dense local slot, and the option chains and forwards that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.records import Flags, Records
from native.chain import Carrier, ChainGroup
from native.quotes import QuotePricer
from nodes.columns import Columns
from nodes.records import InstrumentState, Kind, Style

Slots = npt.NDArray[np.int64]
_MOST_JOINED = 256
# As plain numbers: comparing members of an enum costs more than the rest of a line.
_OPTIONS = (int(Kind.CALL), int(Kind.PUT))
_UNDERLYINGS = (int(Kind.FUTURE), int(Kind.SPOT), int(Kind.PERPETUAL))


class Chains:
    """Definitions, last quotes and carried volatilities by slot; forwards by chain.

    A chain is one (underlying, expiry); expiry 0 is the spot or perpetual, whose price is the forward of each chain of
    its underlying that has had no quote of a future of its own.
    """

    def __init__(self) -> None:
        self.slots = Columns(
            instrument="u4",
            kind="u1",
            inverse="?",
            open="?",
            chain="i8",
            expiry_ns="i8",
            strike="f8",
            bid="f8",
            ask="f8",
            iv="f8",
            bid_iv="f8",
            ask_iv="f8",
            origin_ns="i8",
            stale="?",
            waiting="?",
        )
        self.forwards = Columns(expiry_ns="i8", fallback="i8", own="f8", stale="?")
        self._underlyings: list[str] = []
        """By chain."""
        self._slot_of: dict[int, int] = {}
        self._chain_of: dict[tuple[str, int], int] = {}
        # What follows from definitions and from who has a forward of its own, until one of those changes:
        self._members: dict[int, Slots] = {}
        self._followers: dict[int, tuple[int, ...]] = {}
        self._joined: dict[tuple[int, ...], ChainGroup] = {}
        self._columns_seen = -1
        self._pricer: QuotePricer | None = None
        self._pricer_seen = (-1, -1)

    def slot(self, instrument: int) -> int:
        """-1 if it is not defined."""
        return self._slot_of.get(instrument, -1)

    def slots_of(self, instruments: npt.NDArray[Any]) -> list[int]:
        """The same for an array of ids."""
        get = self._slot_of.get
        return [get(instrument, -1) for instrument in instruments.tolist()]

    def define(self, definition: Records) -> int:
        """Take one definition (0-dimensional record), new or changed. Returns the slot."""
        instrument = int(definition["instrument"])
        kind = int(definition["kind"])
        underlying = bytes(definition["underlying"]).decode("ascii", "replace")
        expiry = int(definition["expiry_ns"]) if kind in (*_OPTIONS, Kind.FUTURE) else 0
        chain = self._chain(underlying, expiry)
        values: dict[str, Any] = {
            "kind": kind,
            "inverse": int(definition["style"]) == Style.INVERSE,
            "open": int(definition["state"]) == InstrumentState.OPEN,
            "chain": chain,
            "expiry_ns": expiry,
            "strike": float(definition["strike"]),
        }
        slot = self._slot_of.get(instrument)
        if slot is None:
            unknown = {"iv": np.nan, "bid_iv": np.nan, "ask_iv": np.nan}
            slot = self._slot_of[instrument] = self.slots.add(instrument=instrument, **unknown, **values)
        else:
            if any(self.slots[name][slot] != value for name, value in values.items()):
                self.drop(np.array([slot]))
            for name, value in values.items():
                self.slots[name][slot] = value
        self._forget()
        return slot

    def _forget(self) -> None:
        self._members.clear()
        self._followers.clear()
        self._joined.clear()

    def _chain(self, underlying: str, expiry: int) -> int:
        chain = self._chain_of.get((underlying, expiry))
        if chain is None:
            fallback = self._chain(underlying, 0) if expiry else self.forwards.count
            chain = self.forwards.add(expiry_ns=expiry, fallback=fallback, own=np.nan)
            self._chain_of[underlying, expiry] = chain
            self._underlyings.append(underlying)
        return chain

    def is_underlying(self, slot: int) -> bool:
        return self.slots.whole("kind").item(slot) in _UNDERLYINGS

    def is_option(self, slot: int) -> bool:
        return self.slots.whole("kind").item(slot) in _OPTIONS

    def members(self, chain: int) -> Slots:
        """Slots of the chain's open options, ascending."""
        if chain not in self._members:
            slots = self.slots
            options = (slots["kind"] == Kind.CALL) | (slots["kind"] == Kind.PUT)
            self._members[chain] = np.flatnonzero((slots["chain"] == chain) & options & slots["open"])
        return self._members[chain]

    def joined(self, chains: tuple[int, ...]) -> ChainGroup:
        """The members of several chains of one forward, to be priced together."""
        if self._columns_seen != self.slots.replaced:
            columns = {name: self.slots.whole(name) for name in Carrier.columns}
            self._carrier = Carrier(int(Kind.CALL), int(Flags.STALE), **columns)
            self._columns_seen = self.slots.replaced
            self._joined.clear()
        found = self._joined.get(chains)
        if found is None:
            if len(self._joined) >= _MOST_JOINED:  # conflated moves can leave out any chains
                self._joined.clear()
            members = [self.members(one) for one in chains]
            bounds = np.cumsum([0, *(len(slots) for slots in members)], dtype=np.int64)
            found = self._joined[chains] = self._carrier.chains(np.concatenate(members), bounds)
        return found

    def pricer(self) -> QuotePricer:
        """Prices quotes of single options from these columns, and into them."""
        seen = (self.slots.replaced, self.forwards.replaced)
        if self._pricer is None or self._pricer_seen != seen:
            self._pricer = QuotePricer(
                self._slot_of,
                {name: self.slots.whole(name) for name in QuotePricer.columns},
                {name: self.forwards.whole(name) for name in QuotePricer.forward_columns},
                call=int(Kind.CALL),
                put=int(Kind.PUT),
                stale_flag=int(Flags.STALE),
                last=int(Flags.LAST_IN_EVENT),
            )
            self._pricer_seen = seen
        return self._pricer

    def followers(self, chain: int) -> tuple[int, ...]:
        """The chains whose forward a quote of ``chain``'s own future, spot or perpetual is."""
        found = self._followers.get(chain)
        if found is None:
            if self.forwards["expiry_ns"][chain]:
                found = (chain,)
            else:
                rest = (self.forwards["fallback"] == chain) & np.isnan(self.forwards["own"])
                rest[chain] = False
                found = tuple(np.flatnonzero(rest).tolist())
            self._followers[chain] = found
        return found

    def move(self, chain: int, forward: float, stale: bool) -> bool:
        """Give the chain a forward of its own; False if it is the one that it has."""
        own, staleness = self.forwards.whole("own"), self.forwards.whole("stale")
        before = own.item(chain)
        if before == forward and staleness.item(chain) == stale:
            return False
        if before != before:  # it had none: from now on it follows no other
            self._forget()
        own[chain] = forward
        staleness[chain] = stale
        return True

    def forward(self, chain: int) -> tuple[float, bool]:
        """The chain's forward (NaN: none yet) and whether it is stale."""
        own = self.forwards.whole("own")
        found: float = own.item(chain)
        if found != found:
            chain = self.forwards.whole("fallback").item(chain)
            found = own.item(chain)
        return found, self.forwards.whole("stale").item(chain)

    def drop(self, slots: Slots) -> None:
        """An empty market carries nothing: forget volatilities (the last quote stays for ``resolve``)."""
        for name in ("iv", "bid_iv", "ask_iv"):
            self.slots[name][slots] = np.nan
        self.slots["waiting"][slots] = False

    def checkpoint(self) -> dict[str, Any]:
        return {
            "slots": self.slots.checkpoint(),
            "forwards": self.forwards.checkpoint(),
            "underlyings": list(self._underlyings),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.slots.restore(state["slots"])
        self.forwards.restore(state["forwards"])
        self._underlyings = list(state["underlyings"])
        self._slot_of = {instrument: slot for slot, instrument in enumerate(self.slots["instrument"].tolist())}
        expiries = self.forwards["expiry_ns"].tolist()
        self._chain_of = {key: chain for chain, key in enumerate(zip(self._underlyings, expiries, strict=True))}
        self._forget()
