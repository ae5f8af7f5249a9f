"""A subscription: what a reader holds. Iterate it, poll it, ``async for`` it, or let it call a function."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from fabric.client.batch import Batch
from fabric.client.bell import AsyncWaiter
from fabric.client.condition import Condition
from fabric.client.feed import Feed
from fabric.client.hub import Hub
from fabric.client.intake import Intake
from fabric.client.policy import ORDERED, Policy
from fabric.errors import Closed, NotConnected, RecordsLost, SlowReader, UserMistake
from fabric.protocol.events import Diverged, Ended, Event, Lost
from fabric.protocol.progress import Progress
from fabric.protocol.types import Counters, Origin, Run, State
from fabric.records import RecordType
from fabric.transport.receiver import ChannelReceiver, WireCounters
from native.follow import Idle, LogCursor
from native.reader import DirectReader
from native.wire import Lane

if TYPE_CHECKING:
    from fabric.client.connection import Client
    from fabric.client.instruments import SymbolFilter

_WAIT_S = 0.5
_BATCHES_A_TURN = 64
_log = logging.getLogger("fabric.client")


class StateChange(NamedTuple):
    """What ``on_state`` is called with."""

    channel: str
    state: State
    stale: bool
    """No packet or heartbeat in time."""
    problem: str
    """Why it is not live, where that is known; else empty."""


class Subscription(DirectReader):
    """Records of one or more channels, each in order, each record once.

    Iteration (``for`` and ``async for``) waits until there is something, ends when every source has ended or ``close`` was
    called, and raises RecordsLost exactly where records are missing for good; iterating again goes on after the hole.
    SlowReader is raised in the same way, with ``policy="fail"``; nothing is missing then. One reader at a time. Between
    channels there is no order.
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
        policy: Policy = ORDERED,
    ) -> None:
        for feed in feeds:
            feed.conflates = policy.word == "latest"
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
        self._intake = Intake(client, hub, feeds, chosen, idle, policy)
        self._bell = self._intake.bell
        self._known_cursor: LogCursor | None = None
        self._turns = 0
        self._worker: threading.Thread | None = None
        channels = [feed.receiver for feed in feeds]
        self._feed_of = dict(zip(channels, feeds, strict=True))
        hub.add(self, channels)
        if len(feeds) == 1 and chosen is None and policy.plain:
            self.read_directly(int(idle), Batch, channels[0], Origin.LIVE, client, hub.turn)
            self.read_lane(hub.receiver.sockets.inlet)
        elif chosen is None and policy.plain:
            self.read_directly(int(idle), Batch, None, Origin.LIVE, client, hub.turn)
            self.read_logs(self._intake.channel_of, self._bell.logs)
        # Dropping the last reference ends it, as close() does.
        weakref.finalize(self, hub.forget, channels).atexit = False

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
    def condition(self) -> Condition:
        """LIVE, RECOVERING, STALE, or LOST: from a loss on that the reader was told of, until a snapshot or a newer
        session. Of several channels the one that is worst off; ``feeds[channel].condition`` has each one's."""
        found = {feed.condition for feed in self.feeds.values()}
        return next(each for each in Condition if each in found)

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
        return self._intake.behind

    @property
    def progress(self) -> Progress | None:
        """How far a catch-up has come (position, target, rate, left_s), as of a moment ago; None while there is none. Of several
        channels the one that has most before it."""
        under_way = [each for feed in self.feeds.values() if (each := feed.progress) is not None]
        return max(under_way, key=lambda each: each.remaining, default=None)

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
            if not self._intake.wait(waiter, deadline, for_items=False):
                raise self._not_connected()

    if TYPE_CHECKING:  # natively, where nothing stands before the records of a mapped log; else by ``_poll``

        def poll(self, max_records: int | None = None, timeout: float | None = 0.0) -> Batch | None:
            """The next batch, at most ``max_records`` long (a snapshot comes whole); None if there is none within
            ``timeout`` seconds (None: wait), or at the end. Raises RecordsLost at a hole, SlowReader (``policy="fail"``), Closed
            after ``close``."""

        def __next__(self) -> Batch: ...

    def _poll(self, max_records: int | None, timeout: float | None) -> Batch | None:
        _check_max(max_records)
        deadline = None if timeout is None else time.monotonic() + timeout
        intake = self._intake
        while True:
            with self._bell.lock:
                item = intake.pop(max_records)
                if intake.cursor is not self._known_cursor:
                    self._know_cursor()
                if item is None:
                    if intake.over:
                        return None
                    waiter = self._bell.waiter()
            if item is not None:
                batch = self._interpret(*item)
                if batch is not None:
                    return batch
            elif not intake.wait(waiter, deadline):
                return None

    def _know_cursor(self) -> None:
        self._known_cursor = self._intake.cursor
        self.read_log(self._known_cursor, self._bell.logs)

    def _lane_to_take(self) -> Lane | None:
        """For who waits natively and has the turn: what to wait for; None: ``_poll`` has to look."""
        only = self._intake.alone
        lane = None if only is None else self._hub.lane_to_take(only)
        return lane if self._intake.alone is not None else None

    def _lane_now(self) -> Lane | None:
        """For the thread that turns the hub: the lane whose next records are what comes next; else None."""
        only = self._intake.alone
        if only is None or only.mapped is not None or only.gone or only.machine.out:
            return None
        return only.lane

    def _hand_out(self) -> None:
        self._hub.hand_out()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def _next(self) -> Batch:
        if self._intake.closing and self._hub.pid == os.getpid():
            raise StopIteration
        try:
            batch = self._poll(None, None)
        except Closed:
            if self._intake.closing and self._hub.pid == os.getpid():
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
            taken = self.take_now(max_records)
            if isinstance(taken, Batch):
                return taken
            with self._bell.lock:
                item = None if taken is False and self._intake.rests else self._intake.pop(max_records)
                if self._intake.cursor is not self._known_cursor:
                    self._know_cursor()
                if item is None:
                    if self._intake.over:
                        return None
                    waiter = self._bell.async_waiter()
            if item is not None:
                found = self._interpret(*item)
                if found is not None:
                    return found
            elif not await self._woken(waiter, deadline):
                return None

    def __aiter__(self) -> Self:
        if self._owns_client:
            self.client.drive_by_loop()
        return self

    async def __anext__(self) -> Batch:
        if self._intake.closing and self._hub.pid == os.getpid():
            raise StopAsyncIteration
        self._turns += 1
        if self._turns % _BATCHES_A_TURN == 0:  # other tasks, also where there is always more to read
            import asyncio

            await asyncio.sleep(0)
        try:
            batch = await self.poll_async()
        except Closed:
            if self._intake.closing and self._hub.pid == os.getpid():
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

        An error that the callback raises, RecordsLost where no ``on_lost`` was given, or SlowReader ends the calls: it is
        logged, kept in ``error``, and raised by ``join``."""
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
            told = isinstance(error, RecordsLost | SlowReader)
            _log.error("calls for %s have ended: %r", self.channel, error, exc_info=not told)

    # The end

    def close(self) -> None:
        """Stop receiving and end iteration; batches already read stay valid. From any thread, any number of times."""
        if self._hub.pid != os.getpid():
            return
        with self._bell.lock:
            first, self._intake.closing = not self._intake.closing, True
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

    @property
    def restless(self) -> bool:
        return self._intake.waits_for_definitions

    def move(self, channels: Collection[ChannelReceiver]) -> None:
        changes = [feed for each in channels if (feed := self._feed_of[each]).state_changed()]
        with self._bell.lock:
            if self._intake.hand_over(channels) or changes:
                self._bell.ring()
        if self._on_state is not None and not self._intake.closing:
            for feed in changes:
                self._on_state(StateChange(feed.channel, feed.state, feed.stale, feed.problem))

    def ripen(self, channels: Collection[ChannelReceiver]) -> None:
        with self._bell.lock:
            self._intake.ripen(channels)
            self._bell.ring()

    def abandon(self) -> None:
        self.read_lane(None)
        self._bell.abandon()

    def fail(self, error: BaseException) -> None:
        with self._bell.lock:
            if isinstance(error, Closed):
                self._intake.closing = True
            for feed in self._feeds:
                feed.gone = feed.gone or error
                feed.receiver.leave(time.monotonic_ns())  # nobody looks after its log any more
            self._intake.failure = self._intake.failure or error
            self._bell.ring()

    # Inside

    def _live(self) -> bool:
        self._intake.check()
        return all(feed.state in (State.LIVE, State.ENDED) or feed.ended for feed in self.feeds.values())

    def _interpret(self, feed: Feed, item: Run | Event, stale: bool) -> Batch | None:
        feed.note(item)
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
            self._intake.end(feed)
        return None

    def _not_connected(self) -> NotConnected:
        feed = next((each for each in self.feeds.values() if each.state not in (State.LIVE, State.ENDED)), None)
        assert feed is not None
        return feed.not_connected()

    async def _woken(self, waiter: AsyncWaiter, deadline: float | None) -> bool:
        """Wait for a change; False when the deadline has passed."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            self._bell.forget(waiter)
            return False
        self._hub.rearm(self._intake.cursors)
        if self._intake.waits_for_definitions:
            left = min(self._intake.patience_s(), 3600.0 if left is None else left)
        await waiter.wait(left)
        return True


def _check_max(max_records: int | None) -> None:
    if max_records is not None and max_records < 1:
        raise UserMistake(f"max_records={max_records}", remedy="at least 1, or None for no limit")
