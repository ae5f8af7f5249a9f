"""A stand-in venue in a thread of its own, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from nodes.testing.deribit_venue import DeribitVenue

Result = TypeVar("Result")


class RunningVenue:
    """``with RunningVenue(venue) as running: running.url``: the venue in a thread of its own."""

    def __init__(self, venue: DeribitVenue, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.venue = venue
        self._tls = tls
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="stand-in-venue", daemon=True)

    @property
    def url(self) -> str:
        return self.venue.url

    def call(self, function: Callable[[], Result]) -> Result:
        """Call it in the venue's thread, and wait for what it returns."""

        async def wrapped() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(30)

    def __enter__(self) -> RunningVenue:
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self.venue.start("127.0.0.1", self._port, self._tls))
            self._task = self._loop.create_task(self.venue.run())
            self._started.set()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
            self._loop.run_until_complete(self.venue.close())
            self._loop.run_until_complete(asyncio.sleep(0.05))
        except BaseException as found:
            self._error = found
            self._started.set()
        finally:
            self._loop.close()
