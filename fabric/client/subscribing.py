"""``fabric.subscribe``: an iterator of batches, fed by one receiver thread."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from fabric.client.batch import Batch
from fabric.client.endpoints import Endpoints, find_endpoints, find_topology, why_unreachable
from fabric.client.symbols import SymbolFilter
from fabric.errors import Closed, ConfigError, NotConnected, RecordsLost, RecordTypeError, UserMistake
from fabric.protocol.events import Diverged, Ended, Event, Lost
from fabric.protocol.types import Counters, Limits, Run, Start, State
from fabric.records import RecordType
from fabric.transport.receiver import ChannelReceiver, Receiver, WireCounters

_POLL_NS = 20_000_000
_DEFINITIONS_WAIT_S = 1.0
_JOIN_S = 5.0
_QUEUE_RECORDS = 262_144


def subscribe(
    channel: str,
    *,
    config: str | Path | None = None,
    data: str | None = None,
    replay: str | None = None,
    record: RecordType | None = None,
    symbols: str | tuple[str, ...] | list[str] | None = None,
    start: str | int | Start = "snapshot",
    on_lost: Callable[[Lost], None] | None = None,
    limits: Limits | None = None,
) -> ChannelSubscription:
    """Subscribe to one channel; returns at once, and receives in a thread of its own.

    Where it is comes from ``config`` (a TOML file or a run's directory; default ``$FABRIC_CONFIG``), or from ``data=``
    and ``replay=`` endpoints. ``start``: ``"snapshot"`` (an image, then every record), ``"first"``, ``"live"``, or a
    sequence. ``symbols`` takes globs such as ``"BTC-*"`` (needs ``config``). ``record`` states the type you expect;
    without it, it is learnt. ``on_lost`` is called in place of raising RecordsLost.

    Raises ConfigError, UnknownChannel.
    """
    endpoints = find_endpoints(channel, config, data, replay)
    patterns = (symbols,) if isinstance(symbols, str) else tuple(symbols or ())
    definitions: list[tuple[str, Endpoints]] = []
    if patterns:
        if data is not None:
            raise ConfigError("symbols= needs a config, to find the instrument definitions", key=channel)
        topology = find_topology(config)
        for node in topology.nodes.values():
            if "instrument" in node.outputs:
                name = node.outputs["instrument"]
                definitions.append((name, find_endpoints(name, config, None, None)))
    if isinstance(start, str):
        if start not in ("snapshot", "first", "live"):
            raise ConfigError(f"start={start!r}", key=channel, remedy='"snapshot", "first", "live" or a sequence')
        start = Start(start)
    elif isinstance(start, int):
        if isinstance(start, bool) or not 0 < start < 1 << 63:
            raise ConfigError(f"start={start} is not a sequence", key=channel, remedy="sequences are from 1")
        start = Start.at(start)
    limits = limits or Limits(stale_ns=endpoints.stale_ns)
    return ChannelSubscription(channel, endpoints, record, start, limits, patterns, definitions, on_lost)


class ChannelSubscription:
    """An open subscription. Iterate it, or call ``poll``; use it in ``with``, or ``close`` it.

    Iteration blocks until there is something, ends when the source has ended or ``close`` was called, and raises
    RecordsLost exactly where records are missing for good; iterating again goes on after the hole.
    """

    def __init__(
        self,
        channel: str,
        endpoints: Endpoints,
        record: RecordType | None,
        start: Start,
        limits: Limits,
        patterns: tuple[str, ...],
        definitions: list[tuple[str, Endpoints]],
        on_lost: Callable[[Lost], None] | None,
    ) -> None:
        self.channel = channel
        self._endpoints = endpoints
        self._on_lost = on_lost
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._ready: deque[tuple[Run | Event, bool]] = deque()
        self._ready_records = 0
        self._ended = False
        self._closing = False
        self._error: BaseException | None = None
        self._receiver = Receiver()
        self._target = self._receiver.subscribe(
            channel, start, data=endpoints.data, replay=endpoints.replay, record=record, limits=limits
        )
        self._filter = SymbolFilter(patterns) if patterns else None
        self._definitions: list[ChannelReceiver] = [
            self._receiver.subscribe(name, Start.snapshot(), data=where.data, replay=where.replay, limits=limits)
            for name, where in definitions
        ]
        # The thread holds the receiver, not this object: dropping the last reference ends it.
        self._thread = threading.Thread(
            target=_receive, args=(weakref.ref(self), self._receiver), name=f"fabric-{channel}", daemon=True
        )
        self._thread.start()

    # State

    @property
    def state(self) -> State:
        """JOINING, LIVE, RECOVERING, ENDED or FAILED."""
        return self._target.machine.state

    @property
    def stale(self) -> bool:
        """No packet or heartbeat in time."""
        return self._target.machine.stale

    @property
    def counters(self) -> Counters:
        """What was received, missed, recovered, lost ... so far."""
        return self._target.machine.counters

    @property
    def wire(self) -> WireCounters:
        """What arrived and was no packet of ours."""
        return self._receiver.counters

    @property
    def record(self) -> RecordType | None:
        """The record type, once known."""
        return self._target.record

    @property
    def session(self) -> int:
        return self._target.machine.session

    @property
    def last(self) -> int:
        """The last sequence that was taken in (not necessarily read yet)."""
        return self._target.machine.delivered

    # Reading

    def wait_live(self, timeout: float | None = None) -> None:
        """Block until the subscription is LIVE (or ENDED). Raises NotConnected with the reason after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                self._check()
                if self.state in (State.LIVE, State.ENDED) or self._ended:
                    return
                left = _POLL_NS / 1e9 if deadline is None else min(_POLL_NS / 1e9, deadline - time.monotonic())
                if left <= 0:
                    break
                self._changed.wait(left)
        raise self._not_connected()

    def poll(self, max_records: int | None = None, timeout: float | None = 0.0) -> Batch | None:
        """The next batch, at most ``max_records`` long (a snapshot comes whole); None if there is none within
        ``timeout`` seconds (None: wait), or at the end. Raises RecordsLost at a hole, Closed after ``close``."""
        if max_records is not None and max_records < 1:
            raise UserMistake(f"max_records={max_records}", remedy="at least 1, or None for no limit")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            item = self._take(max_records, deadline)
            if item is None:
                return None
            run, stale = item
            if isinstance(run, Run):
                batch = self._batch(run, stale)
                if batch is not None:
                    return batch
            elif isinstance(run, Lost):
                if self._on_lost is None:
                    raise RecordsLost(self.channel, run.first, run.last, run.reason)
                self._on_lost(run)
            elif isinstance(run, Diverged):
                raise RecordsLost(self.channel, run.first, run.delivered, "the new session forked off before them")
            elif isinstance(run, Ended):
                self._ended = True

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._closing and self._pid == os.getpid():
            raise StopIteration
        try:
            batch = self.poll(timeout=None)
        except Closed:
            if self._pid == os.getpid():
                raise StopIteration from None  # closed by another thread while waiting
            raise
        if batch is None:
            raise StopIteration
        return batch

    def close(self) -> None:
        """Stop receiving and end iteration; batches already read stay valid. From any thread, any number of times."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._pid == os.getpid() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ChannelSubscription {self.channel} {self.state} at {self.last}>"

    # Inside

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise Closed("this subscription belongs to the parent of this process: make a new one after fork")
        if self._closing:
            raise Closed(f"the subscription to {self.channel!r} is closed")
        if self._error is not None:
            raise self._error
        machine = self._target.machine
        if machine.failure:
            raise RecordTypeError(f"channel {self.channel!r}: {machine.failure}")

    def _take(self, max_records: int | None, deadline: float | None) -> tuple[Run | Event, bool] | None:
        with self._changed:
            while not self._ready:
                if self._ended:
                    return None
                self._check()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                # Bounded, so that Ctrl-C and a failed receiver thread are noticed.
                self._changed.wait(0.5 if left is None else min(left, 0.5))
            self._check()
            item, stale = self._ready.popleft()
            if isinstance(item, Run):
                if max_records is not None and len(item.records) > max_records and not item.sequences:
                    rest = Run(
                        item.origin, item.session, item.first + max_records, item.last, item.records[max_records:]
                    )
                    self._ready.appendleft((rest, stale))
                    item = Run(item.origin, item.session, item.first, rest.first - 1, item.records[:max_records])
                self._ready_records -= len(item.records)
            return item, stale

    def _batch(self, run: Run, stale: bool) -> Batch | None:
        if self._filter is None:
            return Batch(self.channel, run, stale=stale)
        # Definitions travel in a channel of their own: give one that is on its way a moment.
        deadline = time.monotonic() + _DEFINITIONS_WAIT_S
        with self._changed:
            while self._filter.unknown(run.records) and time.monotonic() < deadline:
                self._changed.wait(_POLL_NS / 1e9)
            chosen = self._filter.choose(run.records)
        return Batch(self.channel, run, stale=stale, chosen=chosen) if len(chosen) else None

    def _not_connected(self) -> NotConnected:
        for endpoint in (self._endpoints.data, self._endpoints.replay):
            reason = why_unreachable(endpoint)
            if reason:
                return NotConnected(self.channel, reason, remedy="is the fabric running, with the same config?")
        machine = self._target.machine
        reason = machine.problem if machine.state == State.JOINING else f"still {machine.state.lower()}"
        return NotConnected(self.channel, reason)

    def _move(self) -> bool:
        moved = False
        machine = self._target.machine
        # Bounded: what the reader does not take stays in the machine, which then drops live packets and replays them.
        while self._ready_records < _QUEUE_RECORDS and (item := machine.take()) is not None:
            self._ready.append((item, machine.stale))
            if isinstance(item, Run):
                self._ready_records += len(item.records)
            moved = True
        for definitions in self._definitions:
            while (item := definitions.take()) is not None:
                if isinstance(item, Run) and self._filter is not None:
                    self._filter.learn(item.records)
                    moved = True
        return moved


def _receive(reference: weakref.ref[ChannelSubscription], receiver: Receiver) -> None:
    """The receiver thread: the only one that touches the sockets. Ends when its subscription is closed or dropped."""
    state = None
    try:
        while True:
            receiver.poll(_POLL_NS)
            owner = reference()
            if owner is None or owner._closing:
                return
            with owner._changed:
                if owner._move() or owner.state != state:
                    state = owner.state
                    owner._changed.notify_all()
            del owner
    except zmq.ContextTerminated:
        pass
    except BaseException as error:
        if (owner := reference()) is not None:
            owner._error = error
    finally:
        receiver.close()
        if (owner := reference()) is not None:
            with owner._changed:
                owner._changed.notify_all()
