"""Requests that are answered: ROUTER and DEALER, an idempotency key in each request, the reply kept for who asks again.

    request  [msgpack: version, key (16 bytes), service, body]
    reply    [msgpack: version, key, outcome, body]      outcome: DONE, FAILED (body says why), UNKNOWN, MALFORMED

A client that hears nothing asks again on a new connection with the same key. The server calls its handler once for each
key, as far back as it keeps replies, and answers the same again: a request is carried out at most once in a server's
life. A server that was restarted knows no earlier keys.
"""

from __future__ import annotations

import enum
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import zmq

from fabric.errors import RequestFailed, RequestTimedOut
from fabric.transport.handshakes import HandshakeWatch, client_problem
from fabric.transport.listener import Listener
from fabric.transport.security import CurveClient, CurveServer, use_client_keys
from fabric.transport.sockets import Context, Socket, new_socket

_log = logging.getLogger("fabric.services")
VERSION = 1
KEY_BYTES = 16
KEPT_REPLIES = 65_536
KEPT_BYTES = 64 << 20
"""Of replies; the oldest go first, whichever limit is met."""

_POLL_MS = 100
_FIRST_TRY_S = 0.5
_MAX_BODY_BYTES = 1 << 20
Handler = Callable[[Any], Any]


class Outcome(enum.IntEnum):
    DONE = 1
    FAILED = 2
    UNKNOWN = 3
    MALFORMED = 4


class ServiceServer:
    """Answers from a thread of its own, one request at a time. Raises AddressInUse."""

    def __init__(
        self,
        endpoint: str,
        handlers: Mapping[str, Handler],
        *,
        curve: CurveServer | None = None,
        context: Context | None = None,
        kept_replies: int = KEPT_REPLIES,
    ) -> None:
        self.requests = 0
        self.repeated = 0
        """Of those, the ones that were answered with a kept reply."""
        self._pid = os.getpid()
        self._handlers = dict(handlers)
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._kept_replies = kept_replies
        context = context or zmq.Context.instance()
        self._socket = new_socket(context, zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_BODY_BYTES)
        try:
            self._listener = Listener(context, self._socket, [endpoint], curve)
        except BaseException:
            self._socket.close()
            raise
        self.endpoint = self._listener.endpoints[0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fabric-services", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the request under way, then answer no more. Nothing in a forked child."""
        if self._stop.is_set() or self._pid != os.getpid():
            return
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                self._listener.check()
                if not self._socket.poll(_POLL_MS):
                    continue
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
                if len(frames) == 2:
                    self._socket.send_multipart([frames[0], self._answer(frames[1])], zmq.DONTWAIT)
        except zmq.ContextTerminated:
            return
        finally:
            self._listener.close()
            self._socket.close(linger=100)
            self._listener.release()

    def _answer(self, frame: bytes) -> bytes:
        self.requests += 1
        try:
            version, key, service, body = msgpack.unpackb(frame)
            if (
                version != VERSION
                or not isinstance(key, bytes)
                or len(key) != KEY_BYTES
                or not isinstance(service, str)
            ):
                raise ValueError("not a request of this version")
        except Exception as error:  # a peer may send anything
            return _reply(bytes(KEY_BYTES), Outcome.MALFORMED, str(error))
        if key in self._kept:
            self.repeated += 1
            return self._kept[key]
        handler = self._handlers.get(service)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return _reply(key, Outcome.UNKNOWN, f"there is no service {service!r} here; there is {known}")
        try:
            reply = _reply(key, Outcome.DONE, handler(body))
        except Exception as error:
            _log.exception("service %r failed", service)
            reply = _reply(key, Outcome.FAILED, f"{type(error).__name__}: {error}")
        self._keep(key, reply)
        return reply

    def _keep(self, key: bytes, reply: bytes) -> None:
        self._kept[key] = reply
        self._kept_bytes += len(reply)
        while len(self._kept) > self._kept_replies or self._kept_bytes > KEPT_BYTES:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= len(old)


class Requester:
    """Asks the services at one endpoint; from any thread, any number at a time."""

    def __init__(self, endpoint: str, *, curve: CurveClient | None = None, context: Context | None = None) -> None:
        self._endpoint = endpoint
        self._curve = curve
        self._context = context or zmq.Context.instance()
        self._idle: list[Socket] = []
        self._lock = threading.Lock()

    def ask(self, service: str, body: Any, *, timeout: float, key: bytes) -> Any:
        """The reply's body. ``timeout`` in seconds. Raises RequestFailed (it was not carried out, or its handler raised),
        RequestTimedOut (whether it was carried out is not known: ask again with the same key)."""
        packed = msgpack.packb([VERSION, key, service, body])
        deadline, patience_s, problem = time.monotonic() + timeout, _FIRST_TRY_S, ""
        while (left := deadline - time.monotonic()) > 0:
            socket, watch = self._socket()
            answered = False
            try:
                # A connection that was refused for its keys takes nothing: then there is no answer either.
                can_send = socket.poll(int(min(patience_s, left) * 1000), zmq.POLLOUT)
                if can_send:
                    socket.send(packed, zmq.DONTWAIT)
                reply = self._wait(socket, key, min(patience_s, left)) if can_send else None
                answered = reply is not None
                if reply is not None:
                    outcome, content = reply
                    if outcome == Outcome.DONE:
                        return content
                    raise RequestFailed(service, str(content))
            finally:
                if watch is not None:
                    for each, endpoint in watch.read():
                        problem = client_problem(each, endpoint, self._curve) or problem
                    watch.close()
                self._give_back(socket, usable=answered)
            patience_s *= 2
        raise RequestTimedOut(service, key, problem)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            for socket in self._idle:
                socket.close()
            self._idle.clear()

    def _socket(self) -> tuple[Socket, HandshakeWatch | None]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), None
        socket = new_socket(self._context, zmq.DEALER)
        watch = None
        if self._endpoint.startswith("tcp://"):
            use_client_keys(socket, self._curve)
            watch = HandshakeWatch(self._context, socket)
        socket.connect(self._endpoint)
        return socket, watch

    def _give_back(self, socket: Socket, *, usable: bool) -> None:
        if usable:
            with self._lock:
                self._idle.append(socket)
        else:
            socket.close()  # a late answer must not be taken for the next one's

    def _wait(self, socket: Socket, key: bytes, seconds: float) -> tuple[int, Any] | None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            # Bounded, so that Ctrl-C is noticed.
            if not socket.poll(max(1, min(200, int(left * 1000)))):
                continue
            try:
                version, echoed, outcome, content = msgpack.unpackb(socket.recv(zmq.DONTWAIT))
            except (ValueError, TypeError, zmq.Again, msgpack.UnpackException):
                continue
            if version == VERSION and echoed in (key, bytes(KEY_BYTES)):
                return outcome, content
        return None


def _reply(key: bytes, outcome: Outcome, body: Any) -> bytes:
    packed: bytes = msgpack.packb([VERSION, key, int(outcome), body])
    return packed
