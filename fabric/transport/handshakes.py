"""How connections begin, from libzmq's socket monitor: without it, a wrong key looks like a server that is not there."""

from __future__ import annotations

import errno
import itertools
import struct
from enum import Enum, auto

import zmq

from fabric.transport.security import CurveClient
from fabric.transport.sockets import Context, Socket, plain_address

_EVENT = struct.Struct("=HI")
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_numbers = itertools.count(1)


class Outcome(Enum):
    """What became of a handshake."""

    SUCCEEDED = auto()
    NOT_ALLOWED = auto()
    """The server's check of the client's key said no; both sides are told."""
    WRONG_SERVER_KEY = auto()
    """The client used another server key than the server has; only the server is told, and hangs up."""
    OTHER_MECHANISM = auto()
    """One side has CURVE, the other has not; both sides are told."""
    HUNG_UP = auto()
    """The other side closed the connection, or said nothing for 30 s."""
    GARBLED = auto()
    """The other side did not keep to ZeroMQ's protocol."""


class HandshakeWatch:
    """The handshakes of one socket's tcp connections. To be polled and read by the thread that uses the socket."""

    def __init__(self, context: Context, watched: Socket) -> None:
        address = f"inproc://fabric.handshakes.{next(_numbers)}"
        self._watched = watched
        watched.monitor(address, _EVENTS)
        self.socket: Socket = context.socket(zmq.PAIR)
        self.socket.setsockopt(zmq.LINGER, 0)
        # Without a limit: at one, libzmq's I/O thread, which writes these, would wait for us.
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.connect(address)

    def read(self) -> list[tuple[Outcome, str]]:
        """What happened since the last time: outcomes and the endpoints that they were at."""
        found: list[tuple[Outcome, str]] = []
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return found
            number, value = _EVENT.unpack(frames[0])
            if (outcome := _outcome(number, value)) is not None:
                found.append((outcome, plain_address(frames[1].decode("utf-8", "replace"))))

    def close(self) -> None:
        if not self._watched.closed:
            self._watched.disable_monitor()
        self.socket.close()


def _outcome(number: int, value: int) -> Outcome | None:
    if number == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        return Outcome.SUCCEEDED
    if number == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return Outcome.NOT_ALLOWED
    if number == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return Outcome.HUNG_UP if value in (errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT) else Outcome.GARBLED
    if number == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        if value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
            return Outcome.WRONG_SERVER_KEY
        if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return Outcome.OTHER_MECHANISM
        return Outcome.GARBLED
    return None


def client_problem(outcome: Outcome, endpoint: str, curve: CurveClient | None) -> str:
    """Why the connecting side is not connected; "" if it is, or if there is nothing that it could change."""
    if outcome == Outcome.OTHER_MECHANISM and curve is not None:
        return f"the server {endpoint} does not speak CURVE: give it keys, or leave ours out"
    if outcome == Outcome.OTHER_MECHANISM:
        return (
            f"the server {endpoint} wants CURVE, and we have no keys: give the channel a `curve` with `server_key` and "
            "`secret_key`"
        )
    if curve is None:
        return f"the server {endpoint} does not speak ZeroMQ as we do" if outcome == Outcome.GARBLED else ""
    if outcome == Outcome.NOT_ALLOWED:
        return (
            f"wrong key: the server {endpoint} did not accept our public key {curve.public_key}; add it to the server's "
            "`curve.clients`"
        )
    if outcome == Outcome.HUNG_UP:
        return (
            f"wrong server key: the server {endpoint} hung up on the server_key {curve.server_key} of our config; its own "
            "is another one (or it is no ZeroMQ server)"
        )
    if outcome in (Outcome.GARBLED, Outcome.WRONG_SERVER_KEY):
        return f"the server {endpoint} failed the CURVE handshake: is it one of ours?"
    return ""


def server_problem(outcome: Outcome, endpoint: str, *, encrypted: bool) -> str:
    """What the listening side has to say of a client that it refused; "" for what is told elsewhere, or is none."""
    if outcome == Outcome.OTHER_MECHANISM and encrypted:
        return f"refused a client at {endpoint}: it has no CURVE keys"
    if outcome == Outcome.OTHER_MECHANISM:
        return f"refused a client at {endpoint}: it wants CURVE, and this endpoint has no `curve`"
    if outcome == Outcome.WRONG_SERVER_KEY:
        return f"refused a client at {endpoint}: its `server_key` is not our public key"
    if outcome == Outcome.GARBLED:
        return f"refused a client at {endpoint}: it does not speak ZeroMQ as we do"
    return ""
