"""Connecting a receiver's sockets: their keys, how the handshakes went, and trying again where libzmq would not.

After a handshake that failed for its keys libzmq gives the connection up, or (a wrong server key) tries fifty times a
second. Here each is tried again after half a second, so that keys can be mended on either side while both run.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

import zmq

from fabric.transport.handshakes import HandshakeWatch, Outcome, client_problem
from fabric.transport.security import CurveClient, use_client_keys
from fabric.transport.sockets import Context, Socket

_log = logging.getLogger("fabric.receiver")
_AGAIN_NS = 500_000_000
Peer = tuple[str, CurveClient | None]
"""An endpoint, and our keys there."""


@dataclass(slots=True)
class _Connection:
    socket: Socket
    peer: Peer
    watch: HandshakeWatch
    again_at_ns: int | None = None
    """Not connected until then."""


class Dialer:
    """The tcp connections of one receiver; used by the receiver's thread, but for ``problem_of``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_watch: dict[Socket, _Connection] = {}
        self._given_up: list[_Connection] = []
        self._problems: dict[Peer, str] = {}

    def connect(self, socket: Socket, endpoint: str, curve: CurveClient | None) -> Socket | None:
        """Connect; returns the socket that tells of its handshakes, to be polled (None over ipc)."""
        if not endpoint.startswith("tcp://"):
            socket.connect(endpoint)
            return None
        use_client_keys(socket, curve)
        watch = HandshakeWatch(self._context, socket)
        self._by_watch[watch.socket] = _Connection(socket, (endpoint, curve), watch)
        socket.connect(endpoint)
        return watch.socket

    def watch_of(self, socket: Socket) -> Socket | None:
        """The socket that tells of the handshakes of another."""
        return next((told for told, each in self._by_watch.items() if each.socket is socket), None)

    def forget(self, watch: Socket) -> None:
        """The connection is not wanted any more: close what told of it."""
        connection = self._by_watch.pop(watch)
        if connection in self._given_up:
            self._given_up.remove(connection)
        connection.watch.close()

    def watches(self) -> list[Socket]:
        return list(self._by_watch)

    def is_watch(self, socket: Socket) -> bool:
        return socket in self._by_watch

    def problem_of(self, endpoint: str, curve: CurveClient | None) -> str:
        """Why the server there does not talk to us, by its last handshake; "" if it does, or if that is not known."""
        return self._problems.get((endpoint, curve), "")

    def take(self, watch: Socket, now_ns: int) -> None:
        """Take in how handshakes went; ``now_ns`` is monotonic."""
        connection = self._by_watch[watch]
        peer = connection.peer
        for outcome, endpoint in connection.watch.read():
            if outcome == Outcome.SUCCEEDED:
                self._problems.pop(peer, None)
                continue
            problem = client_problem(outcome, endpoint, peer[1])
            if not problem:
                continue
            if self._problems.get(peer) != problem:
                self._problems[peer] = problem
                _log.warning("%s", problem)
            if connection.again_at_ns is None:
                with contextlib.suppress(zmq.ZMQError):  # libzmq may have ended the connection by itself
                    connection.socket.disconnect(peer[0])
                connection.again_at_ns = now_ns + _AGAIN_NS
                self._given_up.append(connection)

    def dial_again(self, now_ns: int) -> None:
        """Connect again what is due; ``now_ns`` is monotonic."""
        for connection in list(self._given_up):
            if connection.again_at_ns is not None and now_ns >= connection.again_at_ns:
                self._given_up.remove(connection)
                connection.again_at_ns = None
                connection.socket.connect(connection.peer[0])
