"""A live table: the last record of each instrument, kept current in the background, read from any thread."""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fabric.client.bell import Bell
from fabric.client.condition import Condition, condition
from fabric.client.feed import Feed
from fabric.client.hub import Hub
from fabric.errors import Closed, NotConnected, UserMistake
from fabric.frames import Tabular
from fabric.protocol.events import Diverged, Lost, Session
from fabric.protocol.types import Counters, Origin, Run, State
from fabric.records import Flags, Records, RecordType
from fabric.transport.receiver import ChannelReceiver
from native.image import KeyedImage

if TYPE_CHECKING:
    from fabric.client.connection import Client

_INSTRUMENT = ("instrument",)


class Table(Tabular):
    """The last record for each key of a channel: its instrument, or what the record type declares as ``key``.

    ``table["BTC-PERPETUAL"]``, ``table[7]`` (an instrument's id) or ``table["BTC"]`` (where the key is a name) is a record,
    never half of one, however many threads read and write. Reading takes no lock and no socket. What was lost on the way
    is in ``counters``; a record that could not be had is simply older here.
    """

    def __init__(self, client: Client, hub: Hub, feed: Feed) -> None:
        self.client = client
        self.feed = feed
        self._hub = hub
        self._bell = Bell()
        self._image: KeyedImage | None = None
        self._moving = False
        hub.add(self, [feed.receiver])
        weakref.finalize(self, hub.forget, [feed.receiver]).atexit = False

    @property
    def channel(self) -> str:
        return self.feed.channel

    @property
    def state(self) -> State:
        """JOINING, LIVE, RECOVERING, ENDED, FAILED or CLOSED (then what it holds is kept current no longer)."""
        return self.feed.state

    @property
    def stale(self) -> bool:
        """No packet or heartbeat in time, or kept current no longer."""
        return self.feed.stale

    @property
    def counters(self) -> Counters:
        return self.feed.counters

    @property
    def record(self) -> RecordType:
        """The record type. Raises NotConnected while it is not known."""
        record = self.feed.record
        if record is None:
            raise NotConnected(
                self.channel, "its record type is not known yet", remedy="table.wait_live(timeout) first"
            )
        return record

    @property
    def key(self) -> tuple[str, ...]:
        """The fields that make a record's key."""
        return self.record.key if self.record.image != "none" else _INSTRUMENT

    @property
    def as_of(self) -> int:
        """Every record up to this sequence is in it, but those that ``counters`` says are lost; 0 before the first."""
        return 0 if self._image is None else self._image.as_of

    def __len__(self) -> int:
        return 0 if self._image is None else self._image.count

    def __contains__(self, key: object) -> bool:
        try:
            return self.get(key) is not None  # type: ignore[arg-type]
        except (UserMistake, TypeError, ValueError):
            return False

    def __iter__(self) -> Iterator[np.void]:
        return iter(self.records)

    def __getitem__(self, key: str | int | tuple[Any, ...]) -> np.void:
        """The key's last record. Raises KeyError."""
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def get(self, key: str | int | tuple[Any, ...]) -> np.void | None:
        """The key's last record (numpy void, read-only), or None. A key of several fields is a tuple."""
        if self._image is None:
            return None
        packed = self._pack(key)
        found = None if packed is None else self._image.get(packed)
        if found is None:
            return None
        row: np.void = np.frombuffer(found[0], self.record.dtype)[0]
        return row

    def state_of(self, key: str | int | tuple[Any, ...]) -> Condition | None:
        """How far the key's record can be relied on; None where there is none. LOST: records were lost since, until a newer
        record of this key. STALE: the record says so, or the channel is. RECOVERING: records are missing that will come."""
        if self._image is None:
            return None
        packed = self._pack(key)
        found = None if packed is None else self._image.get(packed)
        if found is None:
            return None
        record, sequence = found
        stale = self.stale or bool(np.frombuffer(record, self.record.dtype)["flags"][0] & Flags.STALE)
        return condition(self.state, stale=stale, lost=sequence < self.feed.lost_through)

    @property
    def condition(self) -> Condition:
        """Of the channel: LOST while any record of the table is older than what was lost."""
        lost_through = self.feed.lost_through
        lost = lost_through > 0 and bool((self.sequences < lost_through).any())
        return condition(self.state, stale=self.stale, lost=lost)

    @property
    def records(self) -> Records:
        """A copy of all records, in order of sequence, shape (len(self),), read-only."""
        if self._image is None:
            return self.feed.record.zeros(0) if self.feed.record else np.zeros(0, np.void)
        return np.frombuffer(self._image.export()[0], self.record.dtype)

    @property
    def sequences(self) -> npt.NDArray[np.uint64]:
        """Each record's sequence, in the same order; read ``snapshot()`` for both at once."""
        return self.snapshot()[1]

    def snapshot(self) -> tuple[Records, npt.NDArray[np.uint64]]:
        """All records and their sequences, both of shape (n,), read-only."""
        if self._image is None:
            return self.records, np.zeros(0, np.uint64)
        records, sequences = self._image.export()
        return np.frombuffer(records, self.record.dtype), np.frombuffer(sequences, np.uint64)

    def wait_live(self, timeout: float | None = None) -> None:
        """Block until the channel is LIVE (or ENDED) and all that was received stands in the table. Raises NotConnected
        after ``timeout`` seconds."""
        if self._hub.owner == threading.get_ident():
            raise UserMistake("waiting here would stop the event loop that receives", remedy="await wait_live_async()")
        if not self._bell.until(self._settled, timeout):
            raise self.feed.not_connected()

    async def wait_live_async(self, timeout: float | None = None) -> None:
        """As ``wait_live``, for coroutines."""
        if not await self._bell.until_async(self._settled, timeout):
            raise self.feed.not_connected()

    def close(self) -> None:
        """Keep it current no longer; what it holds stays readable, and ``state`` is CLOSED. Any number of times."""
        self.feed.gone = self.feed.gone or Closed(f"the table of {self.channel!r} is closed")
        self._hub.unsubscribe([self.feed.receiver])

    def __repr__(self) -> str:
        return f"<Table {self.channel} {self.state} {len(self)} records as of {self.as_of}>"

    def _rows(self) -> Iterator[Records]:
        yield self.records

    def _symbols(self) -> Mapping[int, str] | None:
        return self.client.known_symbols()

    # What the hub calls

    restless = False

    def move(self, channels: Collection[ChannelReceiver]) -> None:
        moved = self.feed.state_changed()
        self._moving = True  # what was taken is not in the table yet
        while (item := self.feed.receiver.take()) is not None:
            moved = True
            self.feed.note(item)
            if isinstance(item, Run):
                self._apply(item)
            elif isinstance(item, Session | Diverged) and self._image is not None:
                self._image = self._new_image()  # another numbering: what it says of each instrument comes anew
            elif isinstance(item, Lost) and self._image is not None:
                self._image.advance(item.last)
        self._moving = False
        if moved:
            with self._bell.lock:
                self._bell.ring()

    def ripen(self, channels: Collection[ChannelReceiver]) -> None:
        self.move(channels)

    def abandon(self) -> None:
        self._bell.abandon()

    def fail(self, error: BaseException) -> None:
        with self._bell.lock:
            self.feed.gone = self.feed.gone or error
            self._bell.ring()

    def _apply(self, run: Run) -> None:
        snapshot = run.origin == Origin.SNAPSHOT
        # A snapshot is all there is: what it does not hold was removed. Readers see the old image, or the new one whole.
        image = self._new_image() if snapshot or self._image is None else self._image
        image.update(run.records, max(run.first, 1), run.sequences)
        image.advance(run.last)
        self._image = image

    def _new_image(self) -> KeyedImage:
        fields = self.record.dtype.fields
        assert fields is not None
        offsets = [(fields[name][1], fields[name][0].itemsize) for name in self.key]
        action = fields["action"][1] if self.record.image == "book" else -1
        return KeyedImage(self.record.size, offsets, action)

    # Inside

    def _settled(self) -> bool:
        self._hub.check()
        self.feed.check()
        return self.state in (State.LIVE, State.ENDED) and not self.feed.waiting_records and not self._moving

    def _pack(self, key: str | int | tuple[Any, ...]) -> bytes | None:
        """The key's bytes; None for a symbol that is not defined (yet)."""
        values = key if isinstance(key, tuple) else (key,)
        if len(values) != len(self.key):
            raise UserMistake(f"a key of {self.channel!r} is ({', '.join(self.key)}), not {key!r}")
        parts = []
        for name, value in zip(self.key, values, strict=True):
            if name == "instrument" and isinstance(value, str):
                definition = self.client.instruments.get(value)
                if definition is None:
                    return None
                value = int(definition["instrument"])
            part = _key_bytes(value, self.record.dtype[name])
            if part is None:
                return None  # no record can have it
            parts.append(part)
        return b"".join(parts)


def _key_bytes(value: Any, dtype: np.dtype[Any]) -> bytes | None:
    """A key field's bytes; None for a value that the field can't hold. Raises UserMistake for one of another kind."""
    if dtype.kind == "S":
        text = value.encode() if isinstance(value, str) else value
        if not isinstance(text, bytes):
            raise UserMistake(f"{value!r} is no name")
        return text.ljust(dtype.itemsize, b"\0") if len(text) <= dtype.itemsize and not text.endswith(b"\0") else None
    if dtype.kind in "iu":
        try:
            number = operator.index(value)
        except TypeError:
            raise UserMistake(f"{value!r} is no whole number") from None
        limits = np.iinfo(dtype)
        return np.array(number, dtype).tobytes() if limits.min <= number <= limits.max else None
    return np.array(value, dtype).tobytes()
