"""The DEALER sockets of a receiver: one to each log server for short questions, whichever channel asks, and those of
single channels and rungs for replays and snapshots, whose packets are many.

A socket of a channel's own is closed when it has rested, and there are at most MOST_OWN: each costs descriptors here and
at the server, and ZeroMQ has about a thousand sockets for a process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import zmq

from fabric.protocol.requests import Op, Reply, Request
from fabric.transport.channels import ChannelReceiver
from fabric.transport.dialer import Peer
from fabric.transport.security import CurveClient
from fabric.transport.sockets import Context, Socket, new_socket

MOST_OWN = 256
REST_NS = 5_000_000_000
_DEAF_NS = 300_000_000
"""A server that has answered nobody for so long is dialled anew."""

_RUNG_SHIFT, _TAG_SHIFT = 40, 44
"""In the id of a short question, above the machine's own: the rung, and which reader asks."""
_TAGS = 1 << (64 - _TAG_SHIFT)


@dataclass(slots=True)
class _Shared:
    socket: Socket
    waits_since_ns: int = 0
    """When the first question was asked that nothing was heard after; 0: none."""


class Dealers:
    """``opened`` connects a socket and watches it, ``closed`` does the reverse. Used by whoever polls the receiver."""

    def __init__(
        self,
        context: Context,
        opened: Callable[[Socket, str, CurveClient | None], None],
        closed: Callable[[Socket], None],
    ) -> None:
        self._context = context
        self._opened = opened
        self._closed = closed
        self._own: dict[Socket, tuple[ChannelReceiver, int]] = {}
        self._shared: dict[Peer, _Shared] = {}
        self._peer_of: dict[Socket, Peer] = {}
        self._tag_of: dict[ChannelReceiver, int] = {}
        self._of_tag: dict[int, ChannelReceiver] = {}
        self._next_tag = 0

    def ask(self, channel: ChannelReceiver, request: Request, rung: int, now_ns: int) -> bool:
        """Send it, if there is a connection; else it goes unanswered, like any that is lost. False: not now, too many are
        under way."""
        if request.op in (Op.STATUS, Op.FIND):
            shared = self._shared_to(channel, rung)
            shared.waits_since_ns = shared.waits_since_ns or now_ns
            socket = shared.socket
            request = replace(request, id=request.id | rung << _RUNG_SHIFT | self._tag(channel) << _TAG_SHIFT)
        else:
            found = channel.dealers.get(rung) or self._open_own(channel, rung)
            if found is None:
                return False
            socket = found
            channel.asked_ns = now_ns
        with contextlib.suppress(zmq.Again):
            socket.send(request.encode(), zmq.DONTWAIT)
        return True

    def timed_out(self, channel: ChannelReceiver, rung: int, now_ns: int) -> None:
        """What was asked there was not answered: new sockets are made when they are needed."""
        self.drop(channel, rung)
        peer = _peer(channel, rung)
        shared = self._shared.get(peer)
        if shared is not None and shared.waits_since_ns and now_ns - shared.waits_since_ns >= _DEAF_NS:
            self._drop_shared(peer)

    def asked(self, socket: Socket) -> tuple[ChannelReceiver, int] | None:
        """Whose own it is, and of which rung."""
        return self._own.get(socket)

    def whose(self, socket: Socket, reply: Reply) -> tuple[ChannelReceiver, int, Reply] | None:
        """Who asked what this answers, its rung, and the reply with the id that was asked with. None: nobody any more."""
        channel = self._of_tag.get(reply.id >> _TAG_SHIFT)
        rung = reply.id >> _RUNG_SHIFT & (1 << (_TAG_SHIFT - _RUNG_SHIFT)) - 1
        if channel is None or rung >= len(channel.rungs):
            return None
        return channel, rung, replace(reply, id=reply.id & (1 << _RUNG_SHIFT) - 1)

    def heard(self, socket: Socket) -> bool:
        """Something came; whether it is one for short questions."""
        peer = self._peer_of.get(socket)
        if peer is None:
            return False
        self._shared[peer].waits_since_ns = 0
        return True

    def drop(self, channel: ChannelReceiver, rung: int) -> None:
        """Of the channel's own; a new one is made when it is needed. Nothing happens if there is none."""
        if (dealer := channel.dealers.pop(rung, None)) is not None:
            del self._own[dealer]
            self._closed(dealer)

    def let_rest(self, channel: ChannelReceiver, now_ns: int) -> None:
        """Nothing is waited for: close what has not been used for a while."""
        if channel.dealers and now_ns - channel.asked_ns >= REST_NS:
            for rung in list(channel.dealers):
                self.drop(channel, rung)

    def forget(self, channel: ChannelReceiver, left: Iterable[ChannelReceiver]) -> None:
        """The channel is received no longer; ``left`` are those that still are."""
        for rung in list(channel.dealers):
            self.drop(channel, rung)
        if (tag := self._tag_of.pop(channel, None)) is not None:
            del self._of_tag[tag]
        used = {_peer(each, rung) for each in left for rung in range(len(each.rungs))}
        for peer in [each for each in self._shared if each not in used]:
            self._drop_shared(peer)

    def sockets(self) -> list[Socket]:
        return [*self._own, *self._peer_of]

    def close(self) -> None:
        for socket in self.sockets():
            self._closed(socket)
        self._own.clear()
        self._shared.clear()
        self._peer_of.clear()

    def _open_own(self, channel: ChannelReceiver, rung: int) -> Socket | None:
        if len(self._own) >= MOST_OWN:
            return None
        socket = channel.dealers[rung] = new_socket(self._context, zmq.DEALER)
        self._own[socket] = (channel, rung)
        self._opened(socket, *_peer(channel, rung))
        return socket

    def _shared_to(self, channel: ChannelReceiver, rung: int) -> _Shared:
        peer = _peer(channel, rung)
        shared = self._shared.get(peer)
        if shared is None:
            shared = self._shared[peer] = _Shared(new_socket(self._context, zmq.DEALER))
            self._peer_of[shared.socket] = peer
            self._opened(shared.socket, *peer)
        return shared

    def _drop_shared(self, peer: Peer) -> None:
        shared = self._shared.pop(peer)
        del self._peer_of[shared.socket]
        self._closed(shared.socket)

    def _tag(self, channel: ChannelReceiver) -> int:
        tag = self._tag_of.get(channel)
        if tag is None:
            while self._next_tag in self._of_tag:
                self._next_tag = (self._next_tag + 1) % _TAGS
            tag = self._tag_of[channel] = self._next_tag
            self._of_tag[tag] = channel
            self._next_tag = (self._next_tag + 1) % _TAGS
        return tag


def _peer(channel: ChannelReceiver, rung: int) -> Peer:
    return channel.rungs[rung].endpoint, channel.curve
