"""A subscription: what a reader holds. Iterate it, poll it, ``async for`` it, or let it call a function."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from fabric.client.batch import Batch
from fabric.client.bell import AsyncWaiter, Bell, Waiter
from fabric.client.feed import Feed
from fabric.client.hub import Hub
from fabric.errors import Closed, NotConnected, RecordsLost, UserMistake
from fabric.protocol.events import Diverged, Ended, Event, Lost
from fabric.protocol.types import Counters, Origin, Run, State
from fabric.records import RecordType
from fabric.transport.receiver import WireCounters
from native.follow import Found, Idle, LogCursor

if TYPE_CHECKING:
    from fabric.client.connection import Client
    from fabric.client.instruments import SymbolFilter

QUEUE_RECORDS = 262_144
"""Records that wait for the reader, beside those in the machines. What is above stays on the wire, then in the log."""

_DEFINITIONS_WAIT_S = 1.0
_WAIT_S = 0.5
_LONG_S = 3600.0
_BATCHES_A_TURN = 64
_ITEMS_A_ROUND = 64
_log = logging.getLogger("fabric.client")


class StateChange(NamedTuple):
    """What ``on_state`` is called with."""

    channel: str
    state: State
    stale: bool
    """No packet or heartbeat in time."""
    problem: str
    """Why it is not live, where that is known; else empty."""


class Subscription:
    """Records of one or more channels, each in order, each record once.

    Iteration (``for`` and ``async for``) waits until there is something, ends when every source has ended or ``close`` was
    called, and raises RecordsLost exactly where records are missing for good; iterating again goes on after the hole.
    One reader at a time. Between channels there is no order.
    """

    def __init__(
        self,
        client: Client,
        hub: Hub,
        feeds: list[Feed],
        chosen: SymbolFilter | None,
        on_lost: Callable[[Lost], object] | None,
        on_state: Callable[[StateChange], object] | None,
        *,
        owns_client: bool,
        idle: Idle = Idle.BLOCK,
    ) -> None:
        self.client = client
        self.feeds = {feed.channel: feed for feed in feeds}
        """By channel."""
        self._feeds = feeds
        self.error: BaseException | None = None
        """What ended ``start``: the callback's own error, or RecordsLost."""
        self._hub = hub
        self._chosen = chosen
        self._on_lost = on_lost
        self._on_state = on_state
        self._owns_client = owns_client
        self._bell = Bell(idle)
        self._pulls: dict[str, LogCursor] = {}
        self._cursor: LogCursor | None = None
        """Of the one channel, where nothing stands between its mapped log and the reader."""
        self._ready: deque[tuple[Feed, Run | Event, bool]] = deque()
        self._ready_records = 0
        self._full = False
        self._turn = 0
        self._closing = False
        self._failure: BaseException | None = None
        self._definitions_by_s: float | None = None
        self._worker: threading.Thread | None = None
        hub.add(self)
        # Dropping the last reference ends it, as close() does.
        weakref.finalize(self, hub.forget, [feed.receiver for feed in feeds]).atexit = False

    # State

    @property
    def state(self) -> State:
        """JOINING, LIVE, RECOVERING, ENDED or FAILED; of several channels the one that is worst off."""
        states = [feed.state for feed in self.feeds.values()]
        worst = (State.FAILED, State.CLOSED, State.JOINING, State.RECOVERING, State.LIVE)
        return next((state for state in worst if state in states), State.ENDED)

    @property
    def stale(self) -> bool:
        """No packet or heartbeat in time, of any of the channels."""
        return any(feed.stale for feed in self.feeds.values())

    @property
    def counters(self) -> Counters:
        """What was received, missed, recovered, lost ... so far, of all channels together."""
        counters = [feed.counters for feed in self.feeds.values()]
        if len(counters) == 1:
            return counters[0]
        return Counters(*(sum(getattr(each, name) for each in counters) for name in Counters.__slots__))

    @property
    def wire(self) -> WireCounters:
        """What arrived at the client and was no packet of ours."""
        return self._hub.receiver.counters

    @property
    def behind(self) -> int:
        """Records that have been received and wait to be read."""
        return self._ready_records + sum(feed.waiting_records for feed in self.feeds.values())

    @property
    def channel(self) -> str:
        """The channel's name; several are joined by commas."""
        return ",".join(self.feeds)

    @property
    def path(self) -> str:
        """How records come: ``local`` (the mapped log of this host), ``ipc`` or ``tcp``; several are joined by commas."""
        return ",".join(sorted({feed.path for feed in self.feeds.values()}))

    @property
    def record(self) -> RecordType | None:
        """The record type, once known."""
        return self._only().record

    @property
    def session(self) -> int:
        return self._only().session

    @property
    def last(self) -> int:
        """The last sequence that was taken in (not necessarily read yet)."""
        return self._only().last

    def _only(self) -> Feed:
        if len(self.feeds) > 1:
            raise UserMistake("this subscription has several channels", remedy="ask subscription.feeds[channel]")
        return next(iter(self.feeds.values()))

    # Reading

    def wait_live(self, timeout: float | None = None) -> None:
        """Block until every channel is LIVE (or ENDED). Raises NotConnected with the reason after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._bell.lock:
                if self._live():
                    return
                waiter = self._bell.waiter()
            if not self._wait(waiter, deadline):
                raise self._not_connected()

    def poll(self, max_records: int | None = None, timeout: float | None = 0.0) -> Batch | None:
        """The next batch, at most ``max_records`` long (a snapshot comes whole); None if there is none within
        ``timeout`` seconds (None: wait), or at the end. Raises RecordsLost at a hole, Closed after ``close``."""
        _check_max(max_records)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if (view := self._take_view(max_records)) is not None:
                return view
            with self._bell.lock:
                item = self._pop(max_records)
                if item is None:
                    if self._over():
                        return None
                    waiter = self._bell.waiter()
            if item is not None:
                batch = self._interpret(*item)
                if batch is not None:
                    return batch
            elif not self._wait(waiter, deadline):
                return None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._closing and self._hub.pid == os.getpid():
            raise StopIteration
        try:
            batch = self.poll(timeout=None)
        except Closed:
            if self._closing and self._hub.pid == os.getpid():
                raise StopIteration from None  # closed by another thread while waiting
            raise
        if batch is None:
            raise StopIteration
        return batch

    # Reading in an event loop

    async def wait_live_async(self, timeout: float | None = None) -> None:
        """As ``wait_live``, for coroutines."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._bell.lock:
                if self._live():
                    return
                waiter = self._bell.async_waiter()
            if not await self._woken(waiter, deadline):
                raise self._not_connected()

    async def poll_async(self, max_records: int | None = None, timeout: float | None = None) -> Batch | None:
        """As ``poll``, for coroutines (and ``timeout`` is None by default). A cancelled call has taken nothing."""
        _check_max(max_records)
        if self._owns_client:
            self.client.drive_by_loop()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if (view := self._take_view(max_records)) is not None:
                return view
            with self._bell.lock:
                item = self._pop(max_records)
                if item is None:
                    if self._over():
                        return None
                    waiter = self._bell.async_waiter()
            if item is not None:
                batch = self._interpret(*item)
                if batch is not None:
                    return batch
            elif not await self._woken(waiter, deadline):
                return None

    def __aiter__(self) -> Self:
        if self._owns_client:
            self.client.drive_by_loop()
        return self

    async def __anext__(self) -> Batch:
        if self._closing and self._hub.pid == os.getpid():
            raise StopAsyncIteration
        self._turn += 1
        if self._turn % _BATCHES_A_TURN == 0:  # other tasks, also where there is always more to read
            import asyncio

            await asyncio.sleep(0)
        try:
            batch = await self.poll_async()
        except Closed:
            if self._closing and self._hub.pid == os.getpid():
                raise StopAsyncIteration from None
            raise
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def __aenter__(self) -> Self:
        if self._owns_client:
            self.client.drive_by_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Being called

    def start(self, callback: Callable[[Batch], object]) -> Self:
        """Call ``callback(batch)`` from a thread of its own, until ``close``, the end, or an error.

        An error that the callback raises, or RecordsLost where no ``on_lost`` was given, ends the calls: it is logged,
        kept in ``error``, and raised by ``join``."""
        if self._worker is not None:
            raise UserMistake("this subscription calls a function already", remedy="make another subscription")
        self._worker = threading.Thread(
            target=self._call, args=(callback,), name=f"fabric-calls-{self.channel}", daemon=True
        )
        self._worker.start()
        return self

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the calls that ``start`` began have ended; False after ``timeout`` seconds. Raises what ended them."""
        if self._worker is not None:
            self._worker.join(timeout)
            if self._worker.is_alive():
                return False
        if self.error is not None:
            raise self.error
        return True

    def _call(self, callback: Callable[[Batch], object]) -> None:
        try:
            for batch in self:
                callback(batch)
        except Closed:
            pass
        except BaseException as error:
            self.error = error
            _log.error("calls for %s have ended: %r", self.channel, error, exc_info=not isinstance(error, RecordsLost))

    # The end

    def close(self) -> None:
        """Stop receiving and end iteration; batches already read stay valid. From any thread, any number of times."""
        if self._hub.pid != os.getpid():
            return
        with self._bell.lock:
            first, self._closing = not self._closing, True
            self._bell.ring()
        if not first:
            return
        for feed in self._feeds:
            feed.gone = feed.gone or Closed(f"the subscription to {self.channel!r} is closed")
            feed.receiver.leave(time.monotonic_ns())
        if self._owns_client:
            self.client.close()
        else:
            self._hub.unsubscribe([feed.receiver for feed in self.feeds.values()])
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join(_WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = f" at {self.last}" if len(self.feeds) == 1 else ""
        return f"<Subscription {self.channel} {self.state}{where}>"

    # What the hub calls

    def move(self) -> None:
        changes = None
        for feed in self._feeds:
            if feed.state_changed():
                changes = [*(changes or ()), feed]
        if changes is None and not self._anything_to_take():
            return  # most turns of an idle client
        with self._bell.lock:
            if self._take_in() or changes or self._anything_to_pull():
                self._bell.ring()
        if self._on_state is not None and not self._closing:
            for feed in changes or ():
                self._on_state(StateChange(feed.channel, feed.state, feed.stale, feed.problem))

    def _anything_to_take(self) -> bool:
        if self._definitions_by_s is not None or any(feed.receiver.machine.out for feed in self._feeds):
            return True
        return self._anything_to_pull()

    def _anything_to_pull(self) -> bool:
        return any(feed.receiver.closed_cursor or feed.receiver.behind for feed in self._feeds)

    def abandon(self) -> None:
        self._bell.abandon()

    def fail(self, error: BaseException) -> None:
        with self._bell.lock:
            if isinstance(error, Closed):
                self._closing = True
            for feed in self._feeds:
                feed.gone = feed.gone or error
            self._failure = self._failure or error
            self._bell.ring()

    def _take_in(self) -> bool:
        moved = self._chosen is not None and self._definitions_by_s is not None
        # Bounded: what the reader does not take stays in the machines, which then pass over live packets and replay them.
        taking = list(self._feeds)
        while taking and self._ready_records < QUEUE_RECORDS:
            feed = taking.pop(0)
            for _ in range(_ITEMS_A_ROUND):  # by turns: a busy channel keeps no other one waiting
                if self._ready_records >= QUEUE_RECORDS or (item := feed.receiver.take()) is None:
                    break
                self._ready.append((feed, item, feed.stale))
                if isinstance(item, Run):
                    self._ready_records += len(item.records)
                moved = True
            else:
                taking.append(feed)
        full = self._ready_records >= QUEUE_RECORDS
        if full and not self._full:
            _log.warning(
                "the reader of %s does not keep up: %d records wait for it; when as many again do, live packets are passed "
                "over, and replayed when it reads on",
                self.channel,
                self.behind,
            )
        self._full = full
        return moved

    # Inside; the bell's lock is held

    def _check(self) -> None:
        if self._hub.pid != os.getpid():
            self._hub.check()
        if self._closing:
            raise Closed(f"the subscription to {self.channel!r} is closed")
        if self._failure is not None:
            raise self._failure
        self._hub.check()
        for feed in self.feeds.values():
            feed.check()

    def _live(self) -> bool:
        self._check()
        return all(feed.state in (State.LIVE, State.ENDED) or feed.ended for feed in self.feeds.values())

    def _over(self) -> bool:
        return all(feed.ended for feed in self.feeds.values())

    def _pop(self, max_records: int | None) -> tuple[Feed, Run | Event, bool] | None:
        """The next item, if it can be handed out now."""
        if not self._ready and not self._pull(max_records):
            if not self._over():
                self._check()
            return None
        if self._closing or self._hub.pid != os.getpid():
            self._check()
        feed, item, stale = self._ready[0]
        if not isinstance(item, Run):
            return self._ready.popleft()
        if not self._definitions_known(item):
            return None
        self._ready.popleft()
        if max_records is not None and len(item.records) > max_records and not item.sequences:
            rest = Run(item.origin, item.session, item.first + max_records, item.last, item.records[max_records:])
            self._ready.appendleft((feed, rest, stale))
            item = Run(item.origin, item.session, item.first, rest.first - 1, item.records[:max_records])
        before = self._ready_records
        self._ready_records -= len(item.records)
        if self._full and self._ready_records < QUEUE_RECORDS // 2 <= before:
            self._hub.wake()  # there is room again
        return feed, item, stale

    def _pull(self, max_records: int | None) -> bool:
        """Take the next records of a mapped log, or of packets that came in order; False if there are none."""
        if self._closing:
            return False
        for _ in self._feeds:
            self._feeds.append(self._feeds.pop(0))  # by turns
            feed = self._feeds[-1]
            if feed.receiver.mapped is None:
                run = feed.receiver.pull_lane(QUEUE_RECORDS if max_records is None else max_records)
            else:
                run = self._pull_log(feed, -1 if max_records is None else max_records)
            if run is not None:
                self._ready.append((feed, run, feed.stale))
                self._ready_records += len(run.records)
                return True
        return False

    def _pull_log(self, feed: Feed, max_records: int) -> Run | None:
        cursor = feed.receiver.open_cursor()
        if cursor is None:
            return None
        if self._pulls.get(feed.channel) is not cursor:
            self._wait_for(feed.channel, cursor)
        first = cursor.next
        records = cursor.take(max_records)
        if records is not None:
            return Run(Origin.LIVE, cursor.session, first, first + len(records) - 1, records)
        if cursor.overrun:
            self._hub.wake()
        return None

    @property
    def _by_packets(self) -> bool:
        """Some of it comes by socket: then a reader waits for the sockets itself."""
        return any(feed.receiver.mapped is None for feed in self._feeds)

    def _wait_for(self, channel: str, cursor: LogCursor) -> None:
        """Records that this cursor gives end a reader's wait."""
        if (before := self._pulls.get(channel)) is not None:
            self._bell.logs.remove(before)
        self._bell.logs.add(cursor)
        self._pulls[channel] = cursor
        if len(self._feeds) == 1 and self._chosen is None:
            self._cursor = cursor

    def _take_view(self, max_records: int | None) -> Batch | None:
        """The next records of the one channel's mapped log, if nothing stands between it and the reader."""
        cursor = self._cursor
        if cursor is None or (records := cursor.take(-1 if max_records is None else max_records)) is None:
            return None
        receiver = self._feeds[0].receiver
        last = cursor.next - 1
        assert receiver.record is not None
        return Batch(
            receiver.name,
            receiver.record,
            records,
            Origin.LIVE,
            cursor.session,
            last - len(records) + 1,
            last,
            receiver.machine.stale,
            client=self.client,
        )

    def _definitions_known(self, run: Run) -> bool:
        """Definitions travel in a channel of their own: give one that is on its way a moment."""
        if self._chosen is None or not self._chosen.unknown(run.records):
            self._definitions_by_s = None
            return True
        now_s = time.monotonic()
        if self._definitions_by_s is None:
            self._definitions_by_s = now_s + _DEFINITIONS_WAIT_S
        if now_s < self._definitions_by_s:
            return False
        self._definitions_by_s = None
        self._chosen.give_up(run.records)
        return True

    # Inside

    def _interpret(self, feed: Feed, item: Run | Event, stale: bool) -> Batch | None:
        if isinstance(item, Run):
            chosen = None if self._chosen is None else self._chosen.choose(item.records)
            if chosen is not None and not len(chosen):
                return None
            assert feed.record is not None
            return Batch.of(feed.channel, item, feed.record, stale=stale, chosen=chosen, client=self.client)
        if isinstance(item, Lost):
            if self._on_lost is None:
                raise RecordsLost(feed.channel, item.first, item.last, item.reason)
            self._on_lost(item)
        elif isinstance(item, Diverged):
            raise RecordsLost(feed.channel, item.first, item.delivered, "the new session forked off before them")
        elif isinstance(item, Ended):
            feed.ended = True
        return None

    def _not_connected(self) -> NotConnected:
        feed = next((each for each in self.feeds.values() if each.state not in (State.LIVE, State.ENDED)), None)
        assert feed is not None
        return feed.not_connected()

    def _wait(self, waiter: Waiter, deadline: float | None) -> bool:
        """Wait for a change; False when the deadline has passed."""
        if self._hub.owner == threading.get_ident():
            raise UserMistake(
                "waiting here would stop the thread that receives: the event loop, or on_state's",
                remedy="use async for, or await poll_async()",
            )
        left = _WAIT_S if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        if self._by_packets and self._hub.lead(int(min(left, self._patience_s(), _WAIT_S) * 1e9), self._bell.idle):
            return True
        found = waiter.wait(min(left, self._patience_s(), _WAIT_S))  # bounded, so that Ctrl-C is noticed everywhere
        if found == Found.STATE or (found == Found.RECORDS and any(each.overrun for each in self._pulls.values())):
            self._hub.wake()  # the log has ended, or goes on elsewhere; or it was faster
        return True

    async def _woken(self, waiter: AsyncWaiter, deadline: float | None) -> bool:
        """Wait for a change; False when the deadline has passed."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            self._bell.forget(waiter)
            return False
        patience_s = self._patience_s()
        self._hub.rearm()
        await waiter.wait(min(patience_s, left) if left is not None else patience_s)
        return True

    def _patience_s(self) -> float:
        """How long to wait at most: definitions that are on their way are not waited for longer."""
        if self._definitions_by_s is None:
            return _LONG_S
        return max(0.001, self._definitions_by_s - time.monotonic())


def _check_max(max_records: int | None) -> None:
    if max_records is not None and max_records < 1:
        raise UserMistake(f"max_records={max_records}", remedy="at least 1, or None for no limit")
