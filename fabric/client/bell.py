"""Waking whoever waits for a change: threads and coroutines alike.

    with bell.lock:
        if something: return
        waiter = bell.waiter()          # from now on no ring is missed
    waiter.wait(0.5)                    # outside the lock

Threads wait for mapped logs at the same time (native.follow). Not a threading.Condition: when Ctrl-C hits one while it
waits, its lock may be left released inside a ``with`` that releases it again, and RuntimeError takes the place of
KeyboardInterrupt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from native.follow import Followers, Idle

if TYPE_CHECKING:
    import asyncio

_LOOK_S = 0.1
"""``until`` looks this often also where nothing rang: not every change does."""


class Bell:
    """``lock`` guards whatever the waiters look at; it may be taken again by its holder, as a signal handler does."""

    def __init__(self, idle: Idle = Idle.BLOCK) -> None:
        self.lock = threading.RLock()
        self.logs = Followers()
        """Cursors of mapped logs whose records end a thread's wait as well."""
        self.idle = idle
        self._waiters: list[AsyncWaiter] = []

    def abandon(self) -> None:
        """In a forked child: whoever held the lock, or waited, is not there any more."""
        self.lock = threading.RLock()
        self._waiters = []

    def waiter(self) -> Waiter:
        """A waiter for the calling thread. The caller holds the lock."""
        return Waiter(self.logs, self.idle)

    def async_waiter(self) -> AsyncWaiter:
        """A waiter for the running coroutine. The caller holds the lock."""
        import asyncio

        waiter = AsyncWaiter(self, asyncio.get_running_loop())
        self._waiters.append(waiter)
        return waiter

    def ring(self) -> None:
        """Wake all that wait now. The caller holds the lock."""
        self.logs.poke()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()

    def until(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Block until ``ready()``, which is asked under the lock; False after ``timeout`` seconds (None: no limit)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.lock:
                if ready():
                    return True
                waiter = self.waiter()
            left = _LOOK_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            waiter.wait(min(left, _LOOK_S))

    async def until_async(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """As ``until``, for coroutines."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.lock:
                if ready():
                    return True
                waiter = self.async_waiter()
            left = _LOOK_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                self.forget(waiter)
                return False
            await waiter.wait(min(left, _LOOK_S))

    def forget(self, waiter: AsyncWaiter) -> None:
        with self.lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)


class Waiter:
    """One thread's wait."""

    def __init__(self, logs: Followers, idle: Idle) -> None:
        self._logs = logs
        self._idle = int(idle)
        self._ticket = logs.ticket()

    def wait(self, seconds: float) -> int:
        """A Found: what ended it; Found.NOTHING after ``seconds``, or a signal. Ctrl-C ends it."""
        return self._logs.wait(self._ticket, int(max(0.0, seconds) * 1e9), self._idle)


class AsyncWaiter:
    """One coroutine's wait."""

    def __init__(self, bell: Bell, loop: asyncio.AbstractEventLoop) -> None:
        self._bell = bell
        self._loop = loop
        self._thread = threading.get_ident()
        self._future: asyncio.Future[None] = loop.create_future()
        self._woken = False
        """The bell has forgotten it."""

    def wake(self) -> None:
        self._woken = True
        if threading.get_ident() == self._thread:
            self._resolve()
            return
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # that loop is closed: nobody waits in it
            return

    async def wait(self, seconds: float | None) -> None:
        """Until it is woken, or for ``seconds``. Can be cancelled at any moment."""
        alarm = None if seconds is None else self._loop.call_later(max(0.0, seconds), self._resolve)
        try:
            await self._future
        finally:
            if alarm is not None:
                alarm.cancel()
            if not self._woken:
                self._bell.forget(self)

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
