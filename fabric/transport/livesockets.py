"""The sockets of a receiver: SUB for live packets, natively where that goes (native.wire), and DEALERs for
questions (``dealers``); one wait for all of them.

They belong to whoever polls the receiver. Nothing here knows what a packet says.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import zmq

from fabric.channel import channel_prefix
from fabric.protocol.requests import Request
from fabric.transport.channels import ChannelReceiver
from fabric.transport.dealers import Dealers
from fabric.transport.dialer import Dialer, Peer
from fabric.transport.security import CurveClient
from fabric.transport.sockets import Context, Socket, native_wire, new_socket
from native.wire import Inlet

_LEAST_RING_BYTES = 65_536
_MOST_RING_BYTES = 4 << 20


class LiveSockets:
    """``native``: packets are received without the GIL, if libzmq can be called directly; else ``poll`` tells of them."""

    def __init__(self, context: Context, receive_hwm: int, *, native: bool) -> None:
        self._context = context
        self._receive_hwm = receive_hwm
        self.inlet: Final = Inlet() if native and native_wire() else None
        self.poller = zmq.Poller()
        """Of all that is not the inlet's."""
        self.touched = True
        """A socket beside the inlet was used since they were looked at: its descriptor may have been signalled already."""
        self.on_descriptor: Callable[[int, bool], None] | None = None
        """Called with a descriptor after it was opened (True) and before it is closed (False)."""
        self.dialer: Final = Dialer(context)
        self.dealers: Final = Dealers(context, self._open, self._discard)
        self.of_lane: dict[int, ChannelReceiver] = {}
        self.live_channels = 0
        """Channels that packets are asked for of."""
        self._subs: dict[Peer, Socket] = {}
        self._readers: dict[Peer, int] = {}
        self._pumped = False
        self._wake_lock = threading.RLock()  # a finalizer may wake from anywhere
        self.wake_read, self._wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.watch_descriptor(self.wake_read, tell=False)

    # Live packets

    def listen(self, channel: ChannelReceiver) -> None:
        """Ask for live packets."""
        if channel.subscribed:
            return
        for key in _peers(channel):
            if key not in self._subs:
                # Send HWM 0: with the default, a SUB loses every subscription past the thousandth without a word.
                self._subs[key] = new_socket(self._context, zmq.SUB, receive_hwm=self._receive_hwm, send_hwm=0)
                self._open(self._subs[key], *key)
        self.make_lane(channel)
        if self._pumped and self.inlet is not None:
            self.inlet.start_pump()
        if channel.machine.lines is not None:
            channel.machine.lines.begin()
        with self._quiet_inlet():
            for key in _peers(channel):
                self._subs[key].setsockopt(zmq.SUBSCRIBE, channel_prefix(channel.machine.channel))
        channel.subscribed = True
        self.live_channels += 1

    def listen_no_more(self, channel: ChannelReceiver) -> None:
        """Ask for live packets no longer; the connection stays, for when they are wanted again."""
        if channel.subscribed:
            with self._quiet_inlet():
                for key in _peers(channel):
                    self._subs[key].setsockopt(
                        zmq.UNSUBSCRIBE, channel_prefix(channel.machine.channel)
                    )  # libzmq counts
            channel.subscribed = False
            self.live_channels -= 1

    def add_reader(self, channel: ChannelReceiver) -> None:
        """The channel's connections are needed."""
        for key in _peers(channel):
            self._readers[key] = self._readers.get(key, 0) + 1

    def remove_reader(self, channel: ChannelReceiver, left: Iterable[ChannelReceiver]) -> None:
        """The channel is received no longer; the last one of a connection closes it. ``left`` are those that still are."""
        self.dealers.forget(channel, left)
        self.listen_no_more(channel)
        self.drop_lane(channel)
        for key in _peers(channel):
            self._readers[key] -= 1
            if not self._readers[key]:
                del self._readers[key]
                if key in self._subs:
                    self._discard(self._subs.pop(key))

    def line_of(self, channel: ChannelReceiver, socket: Socket) -> int | None:
        """On which of the channel's lines this socket brings packets; None: on none."""
        if channel.machine.lines is None:
            return 0
        return next((line for line, key in enumerate(_peers(channel)) if self._subs.get(key) is socket), None)

    def make_lane(self, channel: ChannelReceiver) -> None:
        """Where the channel's packets come in. Until its record type is known, all of them come to us as frames."""
        if self.inlet is None:
            return
        self.drop_lane(channel)
        machine, record = channel.machine, channel.record
        size = record.size if record else 1
        ring_bytes = max(_LEAST_RING_BYTES, min(machine.limits.max_queued_records * size, _MOST_RING_BYTES))
        lane = self.inlet.add_lane(
            machine.channel,
            record.schema if record else 0,
            size,
            machine.tracker,
            ring_bytes,
            record.dtype if record else None,
            machine.lines.accounts if machine.lines is not None else None,
            [self._subs[key].underlying for key in _peers(channel)] if machine.lines is not None else (),
        )
        channel.use_lane(lane)
        self.of_lane[lane.id] = channel

    def drop_lane(self, channel: ChannelReceiver) -> None:
        lane = channel.lane
        if self.inlet is not None and lane is not None and self.of_lane.pop(lane.id, None) is not None:
            with channel.lock:
                channel.stop_lane()
            self.inlet.remove_lane(lane)

    def ready_channels(self) -> list[ChannelReceiver]:
        """Those whose lanes got records since this was asked last."""
        if self.inlet is None:
            return []
        lanes = self.inlet.ready_lanes()
        return [self.of_lane[lane.id] for lane in lanes if lane.id in self.of_lane]

    def pump(self, *, on: bool) -> None:
        """Whether a thread without the GIL takes in packets while nobody waits for them."""
        self._pumped = on
        if self.inlet is not None and not on:
            self.inlet.stop_pump()
        elif self.inlet is not None and self.live_channels:
            self.inlet.start_pump()

    @contextlib.contextmanager
    def _quiet_inlet(self) -> Iterator[None]:
        """While one of its sockets is used here."""
        if self.inlet is None:
            yield
            return
        self.inlet.hold()
        try:
            yield
        finally:
            self.inlet.release()

    # Questions

    def ask(self, channel: ChannelReceiver, request: Request, now_ns: int, rung: int = 0) -> bool:
        """As ``Dealers.ask``."""
        self.touched = True
        return self.dealers.ask(channel, request, rung, now_ns)

    # Descriptors

    def watch_descriptor(self, descriptor: int, *, tell: bool = True) -> None:
        """Let waits end when this is readable too."""
        self.poller.register(descriptor, zmq.POLLIN)
        if self.inlet is not None:
            self.inlet.add_fd(descriptor)
        if tell and self.on_descriptor is not None:
            self.on_descriptor(descriptor, True)

    def unwatch_descriptor(self, descriptor: int, *, tell: bool = True) -> None:
        self.poller.unregister(descriptor)
        if self.inlet is not None:
            self.inlet.remove_fd(descriptor)
        if tell and self.on_descriptor is not None:
            self.on_descriptor(descriptor, False)

    def descriptors(self) -> list[int]:
        """Of all sockets now open, for an event loop: signalled by edge, so drain until nothing comes."""
        return [int(socket.FD) for socket in (*self._subs.values(), *self.dealers.sockets(), *self.dialer.watches())]

    def wake(self) -> None:
        """End a wait, from any thread."""
        with self._wake_lock, contextlib.suppress(BlockingIOError):  # full: it wakes anyway
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x")

    def woken(self) -> None:
        """The wake-up was seen."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 4096)

    def close(self) -> None:
        if self.inlet is not None:
            self.inlet.stop_pump()
        for socket in self._subs.values():
            self._discard(socket)
        self._subs.clear()
        self.dealers.close()
        with self._wake_lock:  # after it nobody writes to a descriptor that may be another's by then
            if self.wake_read >= 0:
                self.unwatch_descriptor(self.wake_read, tell=False)
                os.close(self.wake_read)
                os.close(self._wake_write)
                self.wake_read = self._wake_write = -1

    def _open(self, socket: Socket, endpoint: str, curve: CurveClient | None) -> None:
        told = self.dialer.connect(socket, endpoint, curve)
        for each in (socket, told):
            if each is not None:
                self._watch(each)

    def _watch(self, socket: Socket) -> None:
        self.touched = True
        if self.inlet is not None and socket.type == zmq.SUB:
            self.inlet.add_socket(socket.underlying, int(socket.FD))
        else:
            self.poller.register(socket, zmq.POLLIN)
            if self.inlet is not None:
                self.inlet.add_fd(int(socket.FD))
        if self.on_descriptor is not None:
            self.on_descriptor(int(socket.FD), True)

    def _unwatch(self, socket: Socket) -> None:
        if self.on_descriptor is not None:
            self.on_descriptor(int(socket.FD), False)
        if self.inlet is not None and socket.type == zmq.SUB:
            self.inlet.remove_socket(socket.underlying)
        else:
            self.poller.unregister(socket)
            if self.inlet is not None:
                self.inlet.remove_fd(int(socket.FD))

    def _discard(self, socket: Socket) -> None:
        if (told := self.dialer.watch_of(socket)) is not None:
            self._unwatch(told)
            self.dialer.forget(told)
        self._unwatch(socket)
        socket.close()


def _peers(channel: ChannelReceiver) -> list[Peer]:
    """Where its live packets come from, line by line; then the standbys, which bring the first line's."""
    return [(endpoint, channel.curve) for endpoint in (*channel.line_endpoints, *channel.standby_endpoints)]
