"""Sockets that are none: what a receiver and a log server hold in place of ZeroMQ's."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from fabric.protocol.requests import Request
from fabric.transport.channels import ChannelReceiver
from fabric.transport.dealers import Dealers

Arrive = Callable[[list[bytes]], None]
_identities = itertools.count(1)


class Inbox:
    """What a socket has received and nobody has taken."""

    def __init__(self, line: int = 0) -> None:
        self.line = line
        self.identity = next(_identities).to_bytes(8, "big")
        self.closed = False
        self.frames: deque[list[bytes]] = deque()

    def recv_multipart(self, _flags: int) -> list[bytes]:
        if not self.frames:
            raise zmq.Again
        return self.frames.popleft()


class ModelDealer(Inbox):
    """In place of a DEALER socket."""

    def __init__(self, send: Callable[[ModelDealer, bytes], None]) -> None:
        super().__init__()
        self.rung = 0
        self._send = send

    def setsockopt(self, _option: int, _value: object) -> None:
        """It has none."""

    def send(self, frame: bytes, _flags: int) -> None:
        self._send(self, frame)


class ModelSockets:
    """In place of LiveSockets. ``place``: where it is in the network (``listen``, ``request``)."""

    inlet = None

    def __init__(self, place: Any, _receive_hwm: int, *, native: bool) -> None:
        assert not native, "times are simulated"
        self.place = place
        self.poller = self.dialer = self
        self.touched = True
        self.live_channels = 0
        context: Any = self
        self.dealers = Dealers(context, self._opened, self._closed)
        self._rung_of: dict[str, int] = {}
        self.of_lane: dict[int, ChannelReceiver] = {}
        self.lines: list[Inbox] = []

    def poll(self, _timeout_ms: int) -> list[tuple[Inbox, int]]:
        return [(each, zmq.POLLIN) for each in (*self.lines, *self._dealing()) if each.frames]

    def _dealing(self) -> list[Any]:
        return list(self.dealers.sockets())

    # Live packets

    def add_reader(self, channel: ChannelReceiver) -> None:
        self._rung_of = {rung.endpoint: number for number, rung in enumerate(channel.rungs)}
        self.lines = [Inbox(line) for line in range(len(channel.line_endpoints))]

    def listen(self, channel: ChannelReceiver) -> None:
        channel.subscribed = True
        self.live_channels += 1
        if channel.machine.lines is not None:
            channel.machine.lines.begin()
        self.place.listen(self.lines)

    def line_of(self, channel: ChannelReceiver, socket: Inbox) -> int | None:
        return socket.line

    def make_lane(self, channel: ChannelReceiver) -> None:
        """Packets are parsed by the receiver."""

    # Questions

    def ask(self, channel: ChannelReceiver, request: Request, now_ns: int, rung: int = 0) -> bool:
        return self.dealers.ask(channel, request, rung, now_ns)

    def socket(self, _kind: int) -> ModelDealer:
        """As a context."""
        return ModelDealer(lambda dealer, frame: self.place.request(dealer.rung, dealer, frame))

    def _opened(self, dealer: Any, endpoint: str, _curve: object) -> None:
        dealer.rung = self._rung_of[endpoint]

    def _closed(self, dealer: Any) -> None:
        dealer.closed = True

    # As a dialer

    def is_watch(self, _socket: Inbox) -> bool:
        return False

    def dial_again(self, _now_ns: int) -> None:
        """Every connection is there; what it brings is the network's business."""


class ModelRouter:
    """In place of a log server's ROUTER socket, and of the context that makes it. ``send``: how a peer gets its frames; it
    raises what a ROUTER would."""

    def __init__(self, send: Callable[[bytes, list[bytes]], None]) -> None:
        self.context = self
        self.requests: deque[list[bytes]] = deque()
        self._send = send

    def socket(self, _kind: int) -> ModelRouter:
        return self

    def setsockopt(self, _option: int, _value: object) -> None:
        """It has none."""

    def getsockopt(self, _option: int) -> int:
        return 0

    def bind(self, _endpoint: str) -> None:
        """Nobody else is there."""

    def poll(self, _timeout_ms: int) -> bool:
        return bool(self.requests)

    def recv_multipart(self, _flags: int) -> list[bytes]:
        if not self.requests:
            raise zmq.Again
        return self.requests.popleft()

    def send_multipart(self, frames: list[bytes], _flags: int) -> None:
        self._send(frames[0], frames[1:])
