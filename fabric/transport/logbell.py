"""A descriptor that becomes readable when a mapped log has records: for poll() and event loops.

A thread waits on the logs without ever holding the GIL and writes to an eventfd; it rings once for each, and again after
``rearm``, so that a reader who is slow is not called all the time, and keeps no other one waiting.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Sequence

from native.follow import Followers, LogCursor


class LogBell:
    """Used by one thread. Close it."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.descriptor = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.descriptor, self._write = os.pipe()
            os.set_blocking(self.descriptor, False)
            os.set_blocking(self._write, False)
        self._followers = Followers()
        self._rearm = Followers()
        self._cursors: set[LogCursor] = set()
        self._thread: threading.Thread | None = None

    def tell_of(self, cursors: Sequence[LogCursor]) -> None:
        """Ring for these and no others."""
        if self._cursors == set(cursors):
            return
        self._stop()
        for cursor in self._cursors.difference(cursors):
            self._followers.remove(cursor)
            cursor.bell = None
        for cursor in cursors:
            if cursor not in self._cursors:
                self._followers.add(cursor)
                cursor.bell = self._rearm
        self._cursors = set(cursors)
        if self._cursors:
            ring = (self._write, self._rearm, self._followers.ticket())
            self._thread = threading.Thread(target=self._followers.ring, args=ring, name="fabric-log-bell", daemon=True)
            self._thread.start()

    def remove(self, cursor: LogCursor) -> None:
        """Ring for it no longer."""
        if cursor in self._cursors:
            self.tell_of([each for each in self._cursors if each is not cursor])

    def clear(self) -> None:
        """It has rung, and was heard."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def rearm(self, cursors: Iterable[LogCursor]) -> None:
        """Ring for these again when they have something, or still have."""
        rung = [cursor for cursor in cursors if cursor.rung]
        for cursor in rung:
            cursor.rung = False
        if rung:
            self._rearm.poke()

    def close(self) -> None:
        self._stop()
        os.close(self.descriptor)
        if self._write != self.descriptor:
            os.close(self._write)

    def _stop(self) -> None:
        if self._thread is not None:
            self._followers.poke()
            self._rearm.poke()
            self._thread.join()
            self._thread = None
