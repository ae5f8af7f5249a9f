"""An event loop that turns a hub: asyncio, uvloop, or another that has ``add_reader``.

The sockets' own descriptors are watched and drained where the loop runs: no thread, no hand-over, no zmq.asyncio. A
ZeroMQ descriptor is signalled by edge and for more than messages, so each signal drains until a poll finds nothing; a
long drain gives the loop a turn in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from fabric.client.hub import Hub
from fabric.errors import Closed


class LoopDriver:
    """Turns ``hub`` in the running loop of the calling thread until ``stop``."""

    def __init__(self, hub: Hub) -> None:
        self.loop = asyncio.get_running_loop()
        self._hub = hub
        self._thread = threading.get_ident()
        self._scheduled = False
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._patience_s = 0.0
        hub.take_over(self)
        hub.receiver.logs.ring_for_pulled()
        for descriptor in hub.receiver.descriptors():
            self._descriptor(descriptor, opened=True)
        hub.receiver.sockets.on_descriptor = self._descriptor
        self._turn()

    def wake(self) -> None:
        """Turn the hub soon. From any thread."""
        if threading.get_ident() == self._thread:
            self._turn_soon()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._turn)

    def check(self) -> None:
        """Raises Closed once the loop has ended: nothing arrives any more."""
        if self.loop.is_closed():
            raise Closed(
                "the event loop that received for this client has ended: use a client in one loop, or a new one"
            )

    def stop(self) -> None:
        """Watch nothing any more and shut the hub; from another thread: as soon as the loop turns, or if it can't."""
        if threading.get_ident() != self._thread and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._shut)
                return
        self._shut()

    def _shut(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._hub.shut()

    def _descriptor(self, descriptor: int, opened: bool) -> None:
        if self.loop.is_closed():
            return
        if opened:
            rings = self._hub.receiver.logs.is_bell(descriptor)
            self.loop.add_reader(descriptor, self._logs_have_more if rings else self._sockets_have_more)
        else:
            self.loop.remove_reader(descriptor)

    def _turn_soon(self) -> None:
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _logs_have_more(self) -> None:
        if not self._stopped:
            ready = self._hub.receiver.logs.heard()
            self._hub.ripen(ready)
            if not ready or self._hub.receiver.logs.fed:
                self._turn()

    def _sockets_have_more(self) -> None:
        """Mostly simply the next records: then no more than that is looked at."""
        hub = self._hub
        if self._scheduled or self._stopped or hub.closing or hub.has_commands or not hub.receiver.take_lanes():
            self._turn()
        else:
            hub.ripen(hub.receiver.take_ripe())

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        try:
            more = self._hub.receiver.poll(0)
            self._hub.pump()
        except BaseException as error:
            self._hub.error = error
            self._shut()
            if not isinstance(error, Exception):
                raise
            return
        if more and not self._hub.receiver.drained(more):
            self._turn_soon()
            return
        patience_s = self._hub.patience_ns() / 1e9
        if self._timer is None or patience_s < self._patience_s:
            if self._timer is not None:
                self._timer.cancel()
            self._patience_s = patience_s
            self._timer = self.loop.call_later(patience_s, self._time_passes)

    def _time_passes(self) -> None:
        self._timer = None
        self._turn()
