"""Requests that are answered: ROUTER and DEALER, an idempotency key in each request, the reply kept for who asks again.

    request  [msgpack: version, key (16 bytes), service, body, life]
    reply    [msgpack: version, key, outcome, body, life]

    body     bytes: msgpack of plain data, at most MAX_BODY_BYTES; in a reply that is not DONE, a text that says why
    life     8 random bytes that a server draws when it starts. In a request: whom it is meant for ("" where that is not
             known yet, with an empty body); in a reply: who sent it
    outcome  DONE, FAILED, UNKNOWN (no such service), MALFORMED (no request), OTHER_LIFE (not meant for this life)

A server carries out only what is meant for its own life; all else it answers with OTHER_LIFE and its own. So on a new
connection a client asks for the life first, and a connection that is used again knows it.

A client that hears nothing asks again on a new connection with the same key, and means the same life as before. A life calls
its handler once for each key among the last KEPT_REPLIES that it carried out, and answers the same again. Another life can't
know what became of the earlier tries: its OTHER_LIFE ends the request with RequestTimedOut. Where there was no earlier try,
OTHER_LIFE shows that nothing was carried out (a message arrives at one server or at none), and the client means the new life
instead. No clock is compared, and it does not matter how long a message lay in a queue.

So one call is carried out at most once, across restarts too, unless KEPT_REPLIES others come between two of its tries. A
second call with the same key is a new decision: it means whichever life it finds. The life that carried the key out answers
with the kept reply; any other carries it out.
"""

from __future__ import annotations

import enum
import logging
import math
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import zmq

from fabric.errors import Closed, RequestFailed, RequestTimedOut, UserMistake
from fabric.transport.handshakes import HandshakeWatch, client_problem
from fabric.transport.listener import Listener
from fabric.transport.security import CurveClient, CurveServer, use_client_keys
from fabric.transport.sockets import Context, Socket, new_socket

_log = logging.getLogger("fabric.services")
VERSION = 2
KEY_BYTES = 16
LIFE_BYTES = 8
MAX_BODY_BYTES = 1 << 20
"""Of a request's body and of a reply's, packed."""

KEPT_REPLIES = 65_536
KEPT_BYTES = 64 << 20
"""Of replies. Beyond the first limit the oldest are forgotten; beyond the second, only that they were carried out is kept."""

_MAX_FRAME_BYTES = MAX_BODY_BYTES + 4_096
"""Room for what is around the body; a peer that sends more is disconnected."""
_MAX_TEXT = 4_096
_POLL_MS = 100
_LAST_REPLY_MS = 300
_FIRST_TRY_S = 0.5
_LONGEST_TRY_S = 10.0
_PLAIN = "plain data: None, bool, int (64 bits), float, str, bytes, and lists and dicts of these, to 500 levels"
Handler = Callable[[Any], Any]


class Outcome(enum.IntEnum):
    DONE = 1
    FAILED = 2
    UNKNOWN = 3
    MALFORMED = 4
    OTHER_LIFE = 5


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
        self.life = os.urandom(LIFE_BYTES)
        self.requests = 0
        """How many came, those that came again included; questions for the life are not counted."""
        self.repeated = 0
        """Of those, the ones that were answered with a kept reply."""
        self._pid = os.getpid()
        self._handlers = dict(handlers)
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._whole: deque[bytes] = deque()
        """Keys whose replies are kept whole, the oldest first."""
        self._kept_bytes = 0
        """Of these."""
        self._kept_replies = kept_replies
        context = context or zmq.Context.instance()
        self._socket = new_socket(context, zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_FRAME_BYTES)
        try:
            self._listener = Listener(context, self._socket, [endpoint], curve)
        except BaseException:
            self._socket.close()
            raise
        self.endpoint = self._listener.endpoints[0]
        self._by_handler = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fabric-services", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the request under way, then answer no more. A handler may call it: then it returns at once, and the
        handler's own reply is the last one. Any number of times; nothing in a forked child."""
        if self._pid != os.getpid():
            return
        self._by_handler = threading.current_thread() is self._thread
        self._stop.set()
        if not self._by_handler:
            self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._serve_one()
                except zmq.ContextTerminated:
                    return
                except Exception:  # one request must not end the service for all that follow
                    _log.exception("services at %s: a request could not be answered", self.endpoint)
                    if self._socket.closed:
                        _log.error("services at %s: the socket was closed from outside; no more answers", self.endpoint)
                        return
                    self._stop.wait(_POLL_MS / 1000)  # a lasting error must not take a processor
            if self._by_handler:
                self._socket.poll(_LAST_REPLY_MS)  # its reply was handed to libzmq a moment ago: let it get away
        finally:
            self._listener.close()
            self._socket.close(linger=2000)  # the last reply, on a busy machine; nobody waits for it here
            self._listener.release()

    def _serve_one(self) -> None:
        self._listener.check()
        if not self._socket.poll(_POLL_MS):
            return
        frames = self._socket.recv_multipart(zmq.DONTWAIT)
        if len(frames) == 2:
            self._socket.send_multipart([frames[0], self._answer(frames[1])], zmq.DONTWAIT)

    def _answer(self, frame: bytes) -> bytes:
        try:
            version, key, service, packed, life = msgpack.unpackb(frame, strict_map_key=False)
            if (
                version != VERSION
                or not isinstance(key, bytes)
                or len(key) != KEY_BYTES
                or not isinstance(service, str)
                or not isinstance(packed, bytes)
                or not isinstance(life, bytes)
            ):
                raise ValueError(f"not a request of version {VERSION}")
        except Exception as error:  # a peer may send anything
            self.requests += 1
            return self._refusal(bytes(KEY_BYTES), Outcome.MALFORMED, str(error))
        kept = self._kept.get(key)
        if kept is None and life != self.life:
            return self._refusal(key, Outcome.OTHER_LIFE, "this server was started after the one that was meant")
        self.requests += 1
        if kept is not None:
            self.repeated += 1
            return kept
        handler = self._handlers.get(service)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return self._refusal(key, Outcome.UNKNOWN, f"there is no service {service!r} here; there is {known}")
        reply = self._carry_out(key, service, handler, packed)
        self._keep(key, reply)
        return reply

    def _carry_out(self, key: bytes, service: str, handler: Handler, packed: bytes) -> bytes:
        try:
            body = _unpack(packed)
        except Exception as error:
            return self._refusal(key, Outcome.FAILED, f"the request's body can't be read: {_describe(error)}")
        try:
            result = handler(body)
        except BaseException as error:  # also SystemExit: a request is not to end the service
            _log.exception("service %r failed", service)
            return self._refusal(key, Outcome.FAILED, _describe(error))
        try:
            content = _pack(result)
        except Exception as error:
            problem = f"it was carried out, but its reply is not {_PLAIN} ({_describe(error)})"
            _log.error("service %r: %s", service, problem)
            return self._refusal(key, Outcome.FAILED, problem)
        if len(content) > MAX_BODY_BYTES:
            problem = f"it was carried out, but its reply of {len(content)} bytes is more than {MAX_BODY_BYTES}"
            _log.error("service %r: %s", service, problem)
            return self._refusal(key, Outcome.FAILED, problem)
        return self._reply(key, Outcome.DONE, content)

    def _refusal(self, key: bytes, outcome: Outcome, why: str) -> bytes:
        # Whatever is in an error's text: it has to fit, and to be UTF-8.
        text = why[:_MAX_TEXT].encode("utf-8", "backslashreplace").decode()
        return self._reply(key, outcome, _pack(text))

    def _reply(self, key: bytes, outcome: Outcome, content: bytes) -> bytes:
        packed: bytes = msgpack.packb([VERSION, key, int(outcome), content, self.life])
        return packed

    def _keep(self, key: bytes, reply: bytes) -> None:
        self._kept[key] = reply
        self._whole.append(key)
        self._kept_bytes += len(reply)
        if len(self._kept) > self._kept_replies:
            oldest, _ = next(iter(self._kept.items()))
            if self._whole[0] == oldest:
                self._shorten_oldest()
            del self._kept[oldest]
        while self._kept_bytes > KEPT_BYTES:
            self._shorten_oldest()

    def _shorten_oldest(self) -> None:
        # The key stays: who asks again must not have it carried out again.
        key = self._whole.popleft()
        size = len(self._kept[key])
        self._kept_bytes -= size
        self._kept[key] = self._refusal(
            key, Outcome.FAILED, f"it was carried out before, and its reply of {size} bytes is no longer kept"
        )


class Requester:
    """Asks the services at one endpoint; from any thread, any number at a time."""

    def __init__(self, endpoint: str, *, curve: CurveClient | None = None, context: Context | None = None) -> None:
        self._endpoint = endpoint
        self._curve = curve
        self._context = context or zmq.Context.instance()
        self._idle: list[tuple[Socket, bytes]] = []
        """Connections, and the life that answered there last."""
        self._lock = threading.Lock()
        self._closed = False

    def ask(
        self,
        service: str,
        body: Any,
        *,
        timeout: float | None,
        key: bytes | None = None,
        abandoned: threading.Event | None = None,
    ) -> Any:
        """The reply's body. ``timeout`` in seconds; None waits without limit. ``key``: see above; made where it is None.
        ``abandoned`` ends it early, with RequestTimedOut.

        Raises UserMistake (nothing was sent), RequestFailed (it was not carried out, its handler raised, or its reply can't
        be brought here), RequestTimedOut (whether it was carried out is not known), Closed.
        """
        key = _check_key(key)
        packed = _check_body(service, body)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        patience_s, problem = _FIRST_TRY_S, ""
        meant = b""
        """The life that earlier tries were meant for, and that may have carried them out."""
        while time.monotonic() < deadline:
            until = min(deadline, time.monotonic() + patience_s)
            socket, watch, life = self._socket()
            answered = False
            try:
                while self._poll(socket, zmq.POLLOUT, until, abandoned):
                    target = meant or life
                    frame = msgpack.packb([VERSION, key, service, packed if target else b"", target])
                    try:
                        socket.send(frame, zmq.DONTWAIT)
                    except zmq.Again:  # the connection ended just now, and nothing was sent
                        continue
                    reply = self._wait(socket, key, until, abandoned)
                    if reply is None:
                        meant = target
                        break
                    outcome, content, life = reply
                    answered = True
                    if outcome == Outcome.DONE:
                        return _read(service, content)
                    if meant and life != meant and outcome != Outcome.FAILED:
                        raise RequestTimedOut(
                            service,
                            key,
                            "the server was restarted: whether it was done is not known",
                            remedy=_AFTER_RESTART,
                        )
                    if outcome != Outcome.OTHER_LIFE:
                        raise RequestFailed(service, str(_read(service, content)))
                    answered = False
            finally:
                if watch is not None:
                    for each, endpoint in watch.read():
                        problem = client_problem(each, endpoint, self._curve) or problem
                    watch.close()
                self._give_back(socket, life, usable=answered)
            if abandoned is not None and abandoned.is_set():
                break
            patience_s = min(2 * patience_s, _LONGEST_TRY_S)
        raise RequestTimedOut(service, key, problem, remedy=_WITHOUT_ANSWER)

    def close(self) -> None:
        """Close the connections: idle ones now, others when they become idle. Who waits for an answer gets Closed."""
        with self._lock:
            self._closed = True
            for socket, _ in self._idle:
                socket.close()
            self._idle.clear()

    def _socket(self) -> tuple[Socket, HandshakeWatch | None, bytes]:
        with self._lock:
            if self._idle:
                socket, life = self._idle.pop()
                return socket, None, life
        socket = new_socket(self._context, zmq.DEALER)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_FRAME_BYTES)
        # Only a connection that stands takes requests: one that waited for the next server would count as a try.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        watch = None
        if self._endpoint.startswith("tcp://"):
            use_client_keys(socket, self._curve)
            watch = HandshakeWatch(self._context, socket)
        socket.connect(self._endpoint)
        return socket, watch, b""

    def _give_back(self, socket: Socket, life: bytes, *, usable: bool) -> None:
        with self._lock:
            if usable and not self._closed:
                self._idle.append((socket, life))
                return
        socket.close()  # a late answer must not be taken for the next one's

    def _poll(self, socket: Socket, event: int, until: float, abandoned: threading.Event | None) -> bool:
        """Whether the socket became ready before ``until`` (monotonic, s). Raises Closed."""
        while (left := until - time.monotonic()) > 0:
            if self._closed:
                raise Closed("the client was closed while a request was under way: whether it was done is not known")
            if abandoned is not None and abandoned.is_set():
                return False
            # Bounded, so that Ctrl-C, close and cancelling are noticed.
            if socket.poll(max(1, min(_POLL_MS, int(left * 1000))), event):
                return True
        return False

    def _wait(
        self, socket: Socket, key: bytes, until: float, abandoned: threading.Event | None
    ) -> tuple[int, bytes, bytes] | None:
        while self._poll(socket, zmq.POLLIN, until, abandoned):
            try:
                version, echoed, outcome, content, life = msgpack.unpackb(socket.recv(zmq.DONTWAIT))
            except (ValueError, TypeError, zmq.Again, msgpack.UnpackException):
                continue
            if version == VERSION and echoed in (key, bytes(KEY_BYTES)) and isinstance(life, bytes):
                return outcome, content, life
        return None


_AFTER_RESTART = "find out before you ask again: a new request, with the same key too, is carried out by the new server"
_WITHOUT_ANSWER = "is it running? Ask again with key=error.key: what the same server did already is not done twice"


def _check_key(key: object) -> bytes:
    if key is None:
        return os.urandom(KEY_BYTES)
    if not isinstance(key, bytes):
        raise UserMistake(f"a key is {KEY_BYTES} bytes, not {type(key).__name__}")
    if len(key) != KEY_BYTES:
        raise UserMistake(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return key


def _check_body(service: str, body: Any) -> bytes:
    try:
        packed = _pack(body)
    except Exception as error:
        raise UserMistake(
            f"service {service!r}: the request's body can't be packed: {_describe(error)}", remedy=f"send {_PLAIN}"
        ) from None
    if len(packed) > MAX_BODY_BYTES:
        raise UserMistake(
            f"service {service!r}: the request's body of {len(packed)} bytes is more than {MAX_BODY_BYTES}",
            remedy="send less, or where to find it",
        )
    return packed


def _read(service: str, content: bytes) -> Any:
    try:
        return _unpack(content)
    except Exception as error:
        raise RequestFailed(service, f"it was answered, but the reply can't be read: {_describe(error)}") from None


def _pack(body: Any) -> bytes:
    packed: bytes = msgpack.packb(body)
    return packed


def _unpack(packed: bytes) -> Any:
    return msgpack.unpackb(packed, strict_map_key=False)


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # an error of the user's own, whose __str__ fails
        text = "(its text can't be had)"
    return f"{type(error).__name__}: {text}"
