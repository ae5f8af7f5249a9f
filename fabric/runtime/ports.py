"""A node's inputs and outputs, as it sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from fabric.errors import RecordTypeError, UserMistake
from fabric.records import Flags, Records, RecordType, find_record
from native.records import blank as clear_bytes
from native.records import copy as copy_bytes

if TYPE_CHECKING:
    from fabric.runtime.node import Node

_FIRST_STAGE_RECORDS = 64
_MOST_STAGED_BYTES = 1 << 30
"""Of one output in one cycle. Who appends more has lost count; without a bound it would end the host, not the node."""
_LAST_IN_EVENT, _STALE = int(Flags.LAST_IN_EVENT), np.uint32(Flags.STALE)  # a lookup in an enum costs more than its use


class OutputSink(Protocol):
    """Where flushed records go: a channel's publisher, a comparison during exact resume, a list in a test."""

    def write(self, records: Records, now_ns: int) -> object:
        """Take all records of one flush (they end at an event end) and make them visible to readers."""
        ...


class _Declared:
    """What inputs and outputs declare: a record type (or its name) and whether a config may leave it out."""

    def __init__(self, record: str | RecordType, *, optional: bool = False) -> None:
        self._record = record
        self.optional = optional
        self.name = ""

    @property
    def record(self) -> RecordType:
        return find_record(self._record) if isinstance(self._record, str) else self._record

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name


class Input(_Declared):
    """Declares an input: ``greeks = Input("greeks")``; the name is a record type's, checked against the channel's.

    On an instance, the attribute is an ``InputPort``.
    """

    @overload
    def __get__(self, node: None, owner: type) -> Input: ...
    @overload
    def __get__(self, node: Node, owner: type) -> InputPort: ...
    def __get__(self, node: Node | None, owner: type) -> Input | InputPort:
        return self if node is None else node.input_ports[self.name]


class Output(_Declared):
    """Declares an output: ``skew = Output(SKEW)``. On an instance, the attribute is an ``OutputPort``."""

    @overload
    def __get__(self, node: None, owner: type) -> Output: ...
    @overload
    def __get__(self, node: Node, owner: type) -> OutputPort: ...
    def __get__(self, node: Node | None, owner: type) -> Output | OutputPort:
        return self if node is None else node.output_ports[self.name]


class InputPort:
    """One connected input. ``connected`` is False for an optional input that the config leaves out."""

    def __init__(self, name: str, record: RecordType, channel: str = "") -> None:
        self.name = name
        self.record = record
        self.channel = channel
        self.stale = False
        """No packet or heartbeat of the channel arrived in time (as of this cycle)."""
        self.from_snapshot = False
        """The records of this call are an image, not the stream."""

    @property
    def connected(self) -> bool:
        return bool(self.channel)

    def __str__(self) -> str:
        return self.channel

    def __repr__(self) -> str:
        return f"InputPort({self.name!r}, channel={self.channel!r})"


class OutputPort:
    """Records on their way out: appended during a call of the node, committed and sent once after it."""

    def __init__(self, name: str, record: RecordType, channel: str = "") -> None:
        self.name = name
        self.record = record
        self.channel = channel
        self.sink: OutputSink | None = None
        self._stage = record.zeros(_FIRST_STAGE_RECORDS)
        fields = (record.dtype.fields or {}).values()
        self._without_padding = sum(field[0].itemsize for field in fields) == record.dtype.itemsize
        self._count = 0
        self.staged_most = 0
        """Records, of one flush."""

    def __str__(self) -> str:
        return self.channel

    def __repr__(self) -> str:
        return f"OutputPort({self.name!r}, channel={self.channel!r})"

    @property
    def connected(self) -> bool:
        return bool(self.channel)

    @property
    def staged(self) -> int:
        """Records appended and not yet flushed."""
        return self._count

    def reserve(self, count: int, *, cause: Records | None = None, blank: bool = True) -> Records:
        """A writable view of ``count`` new records of zeros, head filled from ``cause``; valid until the next
        ``reserve`` or ``append``. They are published at the end of this call of the node. Without ``blank`` they hold
        whatever was there before, for those who write every byte. Raises UserMistake for more than 1 GiB in one cycle.
        """
        end = self._count + count
        if end > len(self._stage):
            if end * self.record.size > _MOST_STAGED_BYTES:
                raise UserMistake(
                    f"output {self.name!r}: {end:,} records in one cycle are more than {_MOST_STAGED_BYTES >> 20} MiB",
                    remedy="append what one cycle has caused, and no more",
                )
            grown = self.record.zeros(max(end, 2 * len(self._stage)))
            grown[: self._count] = self._stage[: self._count]
            self._stage = grown
        view = self._stage[self._count : end]
        if blank:
            clear_bytes(view)
        self._count = end
        if cause is not None and count:
            inherit(view, cause)
        return view

    def give_back(self, count: int) -> None:
        """The last ``count`` records of ``reserve`` are not needed after all."""
        self._count -= count

    def append(self, records: Records | None = None, *, cause: Records | None = None, **columns: npt.ArrayLike) -> None:
        """Add records, given whole or as columns (scalars and arrays broadcast): one event.

        ``cause`` is what they are derived from: they take over its instrument, ts_event_ns, the oldest ts_origin_ns
        and STALE, element by element where the counts agree (``inherit``). Columns win over ``cause``. The last record
        gets LAST_IN_EVENT.
        """
        if records is not None:
            if records.dtype != self.record.dtype:
                raise RecordTypeError(
                    f"output {self.name!r} takes {self.record!r}, not records of dtype {records.dtype}"
                )
            if self._without_padding and records.flags.c_contiguous:
                view = self.reserve(len(records), blank=False)
                copy_bytes(view, records)
            else:  # what stands in the padding of somebody's records must not be published
                view = self.reserve(len(records))
                view[:] = records
            if cause is not None and len(records):
                inherit(view, cause)
        else:
            arrays: dict[str, npt.NDArray[Any]] = {}
            count = 1
            fields: Mapping[str, Any] = self.record.dtype.fields or {}
            for field, values in columns.items():
                if field not in fields:
                    raise RecordTypeError(
                        f"output {self.name!r}: record {self.record.name!r} has no field {field!r}",
                        remedy=f"fields: {self.record.fields()}",
                    )
                array = np.asarray(values)
                if array.ndim > len(fields[field][0].shape):
                    count = max(count, array.shape[0]) if array.shape[0] else 0
                arrays[field] = array
            view = self.reserve(count, cause=cause)
            for field, array in arrays.items():
                view[field] = array
        if len(view):
            view["flags"][-1] |= _LAST_IN_EVENT

    def flush(self, now_ns: int) -> int:
        """Hand all staged records to the sink; returns how many. Without a sink (not connected) they are dropped."""
        count = self._count
        if count:
            self._count = 0
            if count > self.staged_most:
                self.staged_most = count
            if self.sink is not None:
                self.sink.write(self._stage[:count], now_ns)
        return count


def inherit(view: Records, cause: Records) -> None:
    """Fill the head of ``view`` from its ``cause``.

    Equal counts: element by element. Else the instrument and ts_event_ns of the last cause, the oldest known
    ts_origin_ns of all, and STALE if any cause is stale.
    """
    if not len(cause):
        return
    if len(cause) == len(view):
        for field in ("instrument", "ts_event_ns", "ts_origin_ns"):
            view[field] = cause[field]
        view["flags"] |= cause["flags"] & _STALE
        return
    origins = cause["ts_origin_ns"]
    known = origins[origins > 0]
    view["instrument"] = cause["instrument"][-1]
    view["ts_event_ns"] = cause["ts_event_ns"][-1]
    view["ts_origin_ns"] = known.min() if len(known) else 0
    view["flags"] |= np.bitwise_or.reduce(cause["flags"]) & _STALE
