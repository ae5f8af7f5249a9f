"""Ends a wait of the duty cycle from another thread, so that what came in is not left until the next look."""

from __future__ import annotations

import contextlib
import os
import select
import threading


class Wake:
    """A pipe: one byte in it means "look now". ``set`` may be called by any thread, ``wait`` by one."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._is_set = False
        self._lock = threading.Lock()
        self._closed = False

    def set(self) -> None:
        """End the wait that is under way, or the next one. After ``close`` it does nothing."""
        with self._lock, contextlib.suppress(BlockingIOError):  # full: it is set, then
            if not self._is_set and not self._closed:
                self._is_set = True
                os.write(self._write, b"\0")

    def wait(self, timeout_ns: int) -> None:
        """Until ``set``, at most this long. ``select``, because it waits for less than a millisecond too."""
        ready, _, _ = select.select([self._read], [], [], timeout_ns / 1e9)
        if ready:
            # In this order: a ``set`` in between writes a byte that is taken out, but then this wait is over anyway.
            self._is_set = False
            os.read(self._read, 64)

    def close(self) -> None:
        """Under the lock, or a late ``set`` could write to a descriptor that is another's by then."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read)
                os.close(self._write)
