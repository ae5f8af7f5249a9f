"""What drives a client: one receiver, the things that its channels feed, and a thread or an event loop that turns it."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Protocol, TypeVar

import zmq

from fabric.client.endpoints import Endpoints
from fabric.errors import Closed
from fabric.protocol.types import Limits, Start
from fabric.records import RecordType
from fabric.transport.receiver import ChannelReceiver, Receiver
from native.follow import Idle, LogCursor
from native.reader import Turn
from native.wire import Lane

BUSY_POLL_NS = 20_000_000
IDLE_POLL_NS = 100_000_000
"""The machines need the time now and then; packets end a wait at once."""

_JOIN_S = 5.0
_LEAD_NS = 20_000_000
"""Without a reader for this long, the hub's thread turns it again."""
_log = logging.getLogger("fabric.client")
T = TypeVar("T")


class Sink(Protocol):
    """What takes in runs and events: a subscription, a table, the definitions."""

    @property
    def restless(self) -> bool:
        """To be moved in every turn."""

    def move(self, channels: Collection[ChannelReceiver]) -> None:
        """Take what these have, or what else is new of them; called by whatever drives the hub."""

    def ripen(self, channels: Collection[ChannelReceiver]) -> None:
        """Of these nothing is new but that there are next records to be taken."""

    def fail(self, error: BaseException) -> None:
        """The hub is broken, or closed (Closed)."""

    def abandon(self) -> None:
        """In a forked child, before anything else: no lock may be waited for."""


class Driver(Protocol):
    """Something other than the hub's own thread that turns it, such as an event loop."""

    def wake(self) -> None: ...

    def check(self) -> None:
        """Raises Closed if it can't turn anything any more."""

    def stop(self) -> None:
        """Turn it no longer, and shut it."""


class Hub:
    """One Receiver and its sinks. Only one thread at a time turns it; everything else goes through ``call``."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.receiver = Receiver()
        _hubs.add(self)
        self.error: BaseException | None = None
        self.closing = False
        self._sinks: list[weakref.ref[Sink]] = []
        self._sink_of: dict[ChannelReceiver, weakref.ref[Sink]] = {}
        self._machines: dict[ChannelReceiver, None] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self.turn = Turn()
        """Held by whoever turns it: its thread, or a reader in the thread's place. Not in an event loop."""
        self.turn.led_ns = -_LEAD_NS
        self._parked = threading.Event()
        self._thread: threading.Thread | None = None
        self._driver: Driver | None = None
        self._handed_over = False

    # From any thread

    @property
    def owner(self) -> int | None:
        """Identity of the thread that turns it at this moment."""
        return self.turn.owner

    def check(self) -> None:
        """Raises Closed in a forked child, and the receiver's own error if it failed."""
        if self.pid != os.getpid():
            raise Closed("this client belongs to the parent of this process: make a new one after fork")
        if self.error is not None:
            raise self.error
        if self.closing:
            raise Closed("the client is closed")
        if self._driver is not None:
            self._driver.check()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function where the sockets are used; returns its result, or raises what it raised."""
        self.check()
        done = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def command() -> None:
            try:
                if self.closing:
                    raise Closed("the client is closed")
                results.append(function())
            except BaseException as error:
                errors.append(error)
            done.set()

        if self.owner == threading.get_ident():
            command()
        elif self._driver is None and self.turn.acquire():  # nobody turns it at this moment
            try:
                command()
            finally:
                self.turn.release()
        else:
            self._commands.append(command)
            self.wake()
            while not done.wait(0.5):
                self.check()
        if errors:
            raise errors[0]
        return results[0]

    def subscribe(
        self,
        channel: str,
        start: Start,
        endpoints: Endpoints,
        record: RecordType | None,
        limits: Limits,
        *,
        pulled: bool = False,
    ) -> ChannelReceiver:
        """Begin to receive a channel. ``pulled``: its sink waits for a mapped log by itself."""

        def begin() -> ChannelReceiver:
            made = self.receiver.subscribe(
                channel,
                start,
                data=endpoints.data,
                replay=endpoints.rungs,
                record=record,
                limits=limits,
                curve=endpoints.curve,
                standbys=endpoints.standbys,
                path=endpoints.path,
                pulled=pulled,
            )
            self._machines[made] = None
            return made

        return self.call(begin)

    def unsubscribe(self, channels: list[ChannelReceiver]) -> None:
        """Stop to receive them. Nothing happens where the hub is closed already."""

        try:
            self.call(lambda: self._drop(channels))
        except Closed:
            return

    def forget(self, channels: list[ChannelReceiver]) -> None:
        """As ``unsubscribe``, without waiting: what the garbage collector calls, from whatever thread and moment."""

        if self.pid == os.getpid() and not self.closing:
            self._commands.append(lambda: self._drop(channels))
            self.wake()

    def abandon(self) -> None:
        """In a forked child: whoever held a lock at the fork is not there any more, so they are made anew, and nothing waits."""
        self._lock, self.turn = threading.Lock(), Turn()
        for channel in self._machines:
            channel.abandon()
        for reference in self._sinks:
            if (sink := reference()) is not None:
                sink.abandon()

    def _drop(self, channels: list[ChannelReceiver]) -> None:
        """Where the sockets are used."""
        for channel in channels:
            if channel in self._machines and not self.closing:
                self.receiver.unsubscribe(channel)
                del self._machines[channel]
                self._sink_of.pop(channel, None)

    def add(self, sink: Sink, channels: Iterable[ChannelReceiver]) -> None:
        """Feed it what these channels bring. Held weakly: what nobody uses any more is not fed."""

        def begin() -> None:
            reference = weakref.ref(sink)
            self._sinks.append(reference)
            self._sink_of.update(dict.fromkeys(channels, reference))
            self._call(sink, sink.move, list(channels))

        self.call(begin)

    def wake(self) -> None:
        """There is room, or something to do."""
        if self._driver is not None:
            self._driver.wake()
        elif self.owner != threading.get_ident():
            self.receiver.wake()

    def rearm(self, cursors: Iterable[LogCursor]) -> None:
        """A reader has taken all there was of these logs: whoever turns the hub is to be woken when there is more."""
        if not self.receiver.logs.rings_pulled:
            self.receiver.logs.ring_for_pulled()
            self.wake()
        self.receiver.logs.rearm(cursors)

    def stop(self) -> None:
        """Close the sockets and end the thread. Any number of times, from any thread; nothing in a forked child."""
        if self.pid != os.getpid():
            return
        with self._lock:
            if self.closing and self._thread is None:
                return
            self.closing = True
            driver, thread = self._driver, self._thread
        if driver is not None:
            driver.stop()
        elif thread is None:
            self.shut()
        else:
            self._parked.set()
            self.receiver.wake()
            if thread is not threading.current_thread() and self.owner != threading.get_ident():
                thread.join(_JOIN_S)

    # A thread that turns it

    def start_thread(self, name: str) -> None:
        """Turn the hub from a daemon thread, if nothing turns it yet."""
        with self._lock:
            if self._thread is not None or self._handed_over or self.closing:
                return
            self._thread = threading.Thread(target=self._keep_turning, name=name, daemon=True)
            self._thread.start()
        self.call(lambda: self.receiver.pump(on=True))

    def turn_here(self, until: Callable[[], bool], seconds: float) -> None:
        """Turn the hub in the calling thread, which is the one that turns it, until something holds or time is up."""
        deadline_s = time.monotonic() + seconds
        while not until() and not self.closing and time.monotonic() < deadline_s:
            self.receiver.poll(BUSY_POLL_NS)
            self.pump()

    def take_over(self, driver: Driver) -> None:
        """End the thread without closing anything: ``driver``, in the calling thread, turns the hub from now on."""
        self._driver = None  # an event loop that has ended turns nothing
        self.check()
        with self._lock:
            self._handed_over = True
            thread = self._thread
        if thread is not None:
            self._parked.set()
            self.receiver.wake()
            thread.join(_JOIN_S)
        self.receiver.pump(on=False)
        with self._lock:
            self._thread = None
            self._driver = driver
            self.turn.owner = threading.get_ident()

    def lead(self, timeout_ns: int, idle: Idle, has_items: Callable[[], bool] | None = None) -> bool:
        """Turn the hub in a reader's own thread, in place of the hub's, until something arrives: no hand-over between threads.
        ``has_items``: whether there is something to read by now, which is not waited for then. False if it can't be
        turned."""
        if self._driver is not None or self._thread is None or self.closing:
            return False
        turn = self.turn
        turn.readers += 1  # the hub's thread lets go, and stays away for a while
        try:
            if not turn.acquire():
                self.receiver.wake()
                if not turn.acquire(_LEAD_NS / 1e9):
                    return False
            try:
                if self.closing or self._handed_over:
                    return False
                self.receiver.poll(0 if has_items is not None and has_items() else timeout_ns, idle)
                self.pump()
                return True
            except zmq.ContextTerminated:
                self.error = Closed("the ZeroMQ context was terminated")
                return True
            finally:
                turn.release()
        finally:
            turn.readers -= 1
            turn.led_ns = time.monotonic_ns()

    def lane_to_take(self, channel: ChannelReceiver) -> Lane | None:
        """For a reader that has the turn: the lane to wait for, once all else is done that is to be done now."""
        if self._driver is not None or self._thread is None or self.closing or self._handed_over:
            return None
        lane = None if self._commands else self.receiver.lane_to_take(channel)
        if lane is None:
            self.receiver.poll(0)
            self.pump()
            lane = self.receiver.lane_to_take(channel)
        return lane

    def glance(self) -> None:
        """Hand out what has come in meanwhile, if nobody else is about to."""
        if self._driver is None and self.turn.acquire():
            try:
                self.hand_out()
            finally:
                self.turn.release()

    def _keep_turning(self) -> None:
        try:
            while not self.closing and not self._handed_over:
                if self.turn.readers or time.monotonic_ns() - self.turn.led_ns < _LEAD_NS:
                    self._parked.wait(_LEAD_NS / 1e9)
                    continue
                self.turn.acquire(-1)
                try:
                    self.receiver.poll(self.patience_ns())
                    self.pump()
                finally:
                    self.turn.release()
        except zmq.ContextTerminated:
            self.error = Closed("the ZeroMQ context was terminated")
        except BaseException as error:
            self.error = error
        if not self._handed_over or self.closing:
            self.turn.acquire(-1)  # a reader may still lead
            try:
                self.shut()
            finally:
                self.turn.release()

    # Where it is turned

    @property
    def has_commands(self) -> bool:
        """Something is to be run where it is turned."""
        return bool(self._commands)

    def patience_ns(self) -> int:
        """How long a turn may wait for packets."""
        return IDLE_POLL_NS if self.receiver.rests and not self._commands else BUSY_POLL_NS

    def pump(self) -> None:
        """Run what was asked for, then let every sink take what came for it."""
        while self._commands:
            self._commands.popleft()()
        self.hand_out()

    def hand_out(self) -> None:
        """Let every sink take what came for it."""
        changed, ripe = self._by_sink(self.receiver.take_changed()), self._by_sink(self.receiver.take_ripe())
        gone = False
        for reference in self._sinks:
            sink = reference()
            if sink is None:
                gone = True
                continue
            if reference in changed or sink.restless:
                self._call(sink, sink.move, changed.get(reference, ()))
            if reference in ripe:
                self._call(sink, sink.ripen, ripe[reference])
        if gone:
            self._sinks = [reference for reference in self._sinks if reference() is not None]

    def ripen(self, channels: Iterable[ChannelReceiver]) -> None:
        """Tell their sinks of next records; where nothing else is new."""
        for reference, ripe in self._by_sink(channels).items():
            if (sink := reference()) is not None:
                self._call(sink, sink.ripen, ripe)

    def _by_sink(self, channels: Iterable[ChannelReceiver]) -> dict[weakref.ref[Sink], list[ChannelReceiver]]:
        found: dict[weakref.ref[Sink], list[ChannelReceiver]] = {}
        for channel in channels:
            if (reference := self._sink_of.get(channel)) is not None:
                found.setdefault(reference, []).append(channel)
        return found

    def _call(
        self, sink: Sink, method: Callable[[Collection[ChannelReceiver]], None], channels: Collection[ChannelReceiver]
    ) -> None:
        """One sink's own trouble (a callback of the user's that raises, above all) is no other's."""
        try:
            method(channels)
        except Exception as error:
            _log.exception("%r failed and is not fed any more", sink)
            sink.fail(error)
            self._sinks = [reference for reference in self._sinks if reference() is not sink]

    def shut(self) -> None:
        """Close the sockets and tell every sink."""
        self.closing = True
        self.receiver.close()
        while self._commands:
            self._commands.popleft()()
        for reference in self._sinks:
            if (sink := reference()) is not None:
                sink.fail(self.error or Closed("the client is closed"))


_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()


def _leave_in_child() -> None:
    """After a fork: the mapped logs would still give records, uncounted; every call in the child is to raise Closed."""
    for hub in list(_hubs):
        hub.abandon()


os.register_at_fork(after_in_child=_leave_in_child)
