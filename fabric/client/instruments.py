"""Instrument definitions, kept current in the background: symbol ▸ row, globs ▸ ids, option chains."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from fnmatch import fnmatchcase
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from fabric.client.bell import Bell
from fabric.client.feed import Feed
from fabric.client.hub import Hub
from fabric.errors import UserMistake
from fabric.protocol.events import Event, Session
from fabric.protocol.types import Run, State
from fabric.records import Records
from fabric.times import DAY_NS, day_ns, to_ns
from fabric.transport.receiver import ChannelReceiver


class Instruments(Mapping[str, np.void]):
    """Definitions by symbol: ``instruments["BTC-PERPETUAL"]`` is a record (numpy void), read-only.

    A definition channel carries a record with a field ``symbol`` for each instrument; a later one replaces it. All
    methods can be called from any thread; what has not arrived yet is not there: ``wait`` for it.
    """

    __hash__ = object.__hash__  # a hub knows its sinks by what they are, not by what they hold

    def __init__(self, hub: Hub, feeds: list[Feed]) -> None:
        self._hub = hub
        self._feeds = feeds
        self._bell = Bell()
        self._by_symbol: dict[str, np.void] = {}
        self._symbols: dict[int, str] = {}
        self._error: BaseException | None = None
        self.version = 0
        """Grows whenever definitions arrive."""

    @property
    def channels(self) -> list[ChannelReceiver]:
        return [feed.receiver for feed in self._feeds]

    def __getitem__(self, symbol: str) -> np.void:
        return self._by_symbol[symbol]

    def __iter__(self) -> Iterator[str]:
        with self._bell.lock:
            return iter(list(self._by_symbol))

    def __len__(self) -> int:
        return len(self._by_symbol)

    def __repr__(self) -> str:
        return f"<Instruments {len(self)} from {', '.join(feed.channel for feed in self._feeds)}>"

    def wait(self, timeout: float | None = None) -> Instruments:
        """Block until every definition channel is LIVE; returns itself. Raises NotConnected after ``timeout`` seconds."""
        if self._hub.owner == threading.get_ident():
            raise UserMistake("waiting here would stop the event loop that receives", remedy="await wait_async()")
        if not self._bell.until(self._settled, timeout):
            raise self._late().not_connected()
        return self

    async def wait_async(self, timeout: float | None = None) -> Instruments:
        """As ``wait``, for coroutines."""
        if not await self._bell.until_async(self._settled, timeout):
            raise self._late().not_connected()
        return self

    @property
    def complete(self) -> bool:
        """Every definition channel is LIVE, and all that it sent is known."""
        return all(self._ready(feed) for feed in self._feeds)

    def symbol(self, instrument: int) -> str | None:
        """The symbol of an id, or None."""
        return self._symbols.get(instrument)

    def symbols(self) -> dict[int, str]:
        """Every known id ▸ symbol."""
        with self._bell.lock:
            return dict(self._symbols)

    def ids(self, *patterns: str) -> npt.NDArray[np.uint32]:
        """Ids of the instruments whose symbol matches one of the globs (``"BTC-*"``), ascending, shape (n,)."""
        with self._bell.lock:
            found = [each for each, symbol in self._symbols.items() if matches(symbol, patterns)]
        return np.array(sorted(found), np.uint32)

    @property
    def records(self) -> Records:
        """All definitions, by symbol, shape (n,). Raises UserMistake if there is none yet."""
        with self._bell.lock:
            if not self._by_symbol:
                raise UserMistake("no instrument is defined yet", remedy="instruments.wait(timeout) for them")
            rows = [self._by_symbol[symbol] for symbol in sorted(self._by_symbol)]
        return np.array(rows, rows[0].dtype)

    def expiries(self, underlying: str) -> npt.NDArray[np.int64]:
        """Expiry times of an underlying's instruments with a strike, UTC ns, ascending, shape (n,)."""
        rows = self._options(underlying)
        return np.unique(rows["expiry_ns"])

    def chain(self, underlying: str, expiry: SupportsIndex | datetime | date) -> Records:
        """The options of one expiry, by strike and kind (calls first), shape (n,). ``expiry`` is UTC ns, an aware datetime,
        or a date (then all of that UTC day)."""
        rows = self._options(underlying)
        if isinstance(expiry, date) and not isinstance(expiry, datetime):
            begin = day_ns(expiry)
            rows = rows[(rows["expiry_ns"] >= begin) & (rows["expiry_ns"] < begin + DAY_NS)]
        else:
            rows = rows[rows["expiry_ns"] == to_ns(expiry)]
        return rows[np.lexsort((rows["kind"], rows["strike"]))]

    def _options(self, underlying: str) -> Records:
        rows = self.records
        missing = {"underlying", "strike", "expiry_ns", "kind"} - set(rows.dtype.names or ())
        if missing:
            raise UserMistake(f"the definitions have no field {', '.join(sorted(missing))}")
        chosen: Records = rows[(rows["underlying"] == underlying.encode()) & (rows["strike"] > 0)]
        return chosen

    # What the hub calls

    restless = False

    def move(self, channels: Collection[ChannelReceiver]) -> None:
        moved = False
        for feed in (each for each in self._feeds if each.receiver in channels):
            while (item := feed.receiver.take()) is not None:
                if isinstance(item, Session) and item.old:
                    self._forget()
                self._learn(item)
                moved = True
            moved = feed.state_changed() or moved
        if moved:
            with self._bell.lock:
                self._bell.ring()

    def ripen(self, channels: Collection[ChannelReceiver]) -> None:
        self.move(channels)

    def abandon(self) -> None:
        self._bell.abandon()

    def fail(self, error: BaseException) -> None:
        with self._bell.lock:
            self._error = error
            for feed in self._feeds:
                feed.gone = feed.gone or error
            self._bell.ring()

    def _settled(self) -> bool:
        if self._error is not None:
            raise self._error
        return self.complete

    def _late(self) -> Feed:
        """The first one that is waited for."""
        return next((feed for feed in self._feeds if not self._ready(feed)), self._feeds[0])

    def _learn(self, item: Run | Event) -> None:
        if not isinstance(item, Run) or "symbol" not in (item.records.dtype.names or ()):
            return
        rows = np.array(item.records)  # not a view: definitions stay, and must not keep the packet that brought them
        rows.flags.writeable = False
        with self._bell.lock:
            for row, instrument, symbol in zip(rows, rows["instrument"].tolist(), rows["symbol"].tolist(), strict=True):
                name = symbol.decode("ascii", "replace")
                before = self._by_symbol.get(name)
                if before is not None and int(before["instrument"]) != instrument:
                    self._symbols.pop(int(before["instrument"]), None)  # the symbol has another id now
                if (other := self._symbols.get(instrument)) not in (None, name):
                    self._by_symbol.pop(str(other), None)  # the id has another symbol now
                self._symbols[instrument] = name
                self._by_symbol[name] = row
            self.version += 1

    def _forget(self) -> None:
        """Another numbering: what it defines comes anew."""
        with self._bell.lock:
            self._symbols.clear()
            self._by_symbol.clear()
            self.version += 1

    @staticmethod
    def _ready(feed: Feed) -> bool:
        feed.check()
        # LIVE is said before its snapshot has been taken in by ``move``; what is queued still counts as coming.
        return feed.state in (State.LIVE, State.ENDED) and not feed.waiting_records


class SymbolFilter:
    """Chooses records by their instrument's symbol, after gap detection: a filtered wire would see gaps by definition."""

    def __init__(self, patterns: tuple[str, ...], instruments: Instruments) -> None:
        self.patterns = patterns
        self._instruments = instruments
        self._version = -1
        self._wanted: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._known: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._given_up: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)

    def unknown(self, records: Records) -> bool:
        """Is there a record of an instrument that is not defined yet, and worth waiting for? (0 is no instrument.)"""
        self._refresh()
        return bool(len(self._undefined(records)))

    def give_up(self, records: Records) -> None:
        """Nobody defined these: they are not waited for again."""
        self._given_up = np.concatenate([self._given_up, np.unique(self._undefined(records))])

    def _undefined(self, records: Records) -> npt.NDArray[np.uint32]:
        ids = records["instrument"]
        undefined: npt.NDArray[np.uint32] = ids[~np.isin(ids, self._known) & ~np.isin(ids, self._given_up) & (ids != 0)]
        return undefined

    def choose(self, records: Records) -> npt.NDArray[np.intp]:
        """Positions of the records that match, ascending."""
        self._refresh()
        return np.flatnonzero(np.isin(records["instrument"], self._wanted))

    def _refresh(self) -> None:
        if self._version != self._instruments.version:
            self._version = self._instruments.version
            self._wanted = self._instruments.ids(*self.patterns)
            self._known = self._instruments.ids("*")


def matches(symbol: str, patterns: tuple[str, ...]) -> bool:
    """Does the symbol match one of the globs?"""
    return any(fnmatchcase(symbol, pattern) for pattern in patterns)
