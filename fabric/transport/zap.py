"""Who may connect: the answer to libzmq's question for each CURVE handshake (ZeroMQ RFC 27, ZAP).

libzmq asks over inproc://zeromq.zap.01, one place for each context. So there is one handler, with a thread of its own,
for each context that has a CURVE server; it ends with the last of them. It knows the servers by their ZAP domain.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

import zmq
from zmq.utils import z85

from fabric.errors import FabricError
from fabric.transport.loglimit import LogLimit
from fabric.transport.security import CurveServer, public_keys_in
from fabric.transport.sockets import Context, Socket

_log = logging.getLogger("fabric.security")
_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_LOOK_AGAIN_S = 1.0
"""How old the list of a directory of keys may be."""


class Domain:
    """One server's clients. ``release`` it when its socket is closed."""

    def __init__(
        self, handler: _Handler, name: bytes, curve: CurveServer, where: str, refused: Callable[[], None]
    ) -> None:
        self.name = name
        self._handler = handler
        self._curve = curve
        self._where = where
        self._refused = refused
        self._limit = LogLimit()
        self._listed: frozenset[str] = frozenset()
        self._listed_s = float("-inf")

    def allows(self, address: str, public_key: str) -> bool:
        """Called by the handler's thread. A refusal is counted, and logged by name."""
        clients = self._curve.clients
        if clients == "any" or public_key in (self._in_directory() if not isinstance(clients, frozenset) else clients):
            return True
        self._refused()
        self._limit.warning(
            _log,
            f"refused client {address} at {self._where}: its public key {public_key} is not among `curve.clients`",
        )
        return False

    def _in_directory(self) -> frozenset[str]:
        now_s = time.monotonic()
        if now_s - self._listed_s >= _LOOK_AGAIN_S:
            try:
                assert not isinstance(self._curve.clients, str | frozenset)
                self._listed = public_keys_in(self._curve.clients)
            except (OSError, ValueError) as error:  # whom we knew before may still come
                self._limit.warning(_log, f"can't read the clients' keys: {error}")
            self._listed_s = now_s
        return self._listed

    def release(self) -> None:
        self._handler.remove(self)


class _Handler:
    """The thread of one context."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.domains: dict[bytes, Domain] = {}
        self._socket: Socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._socket.bind(_ENDPOINT)
        except zmq.ZMQError as error:
            self._socket.close()
            raise FabricError(
                f"can't check the keys of CURVE clients: {error.strerror}",
                remedy="this context has a ZAP handler of another library: give the fabric a zmq.Context of its own",
            ) from None
        self._thread = threading.Thread(target=self._serve, name="fabric-zap", daemon=True)
        self._thread.start()

    def remove(self, domain: Domain) -> None:
        with _lock:
            self.domains.pop(domain.name, None)
            if self.domains or _handlers.get(id(self.context)) is not self:
                return
            del _handlers[id(self.context)]
            self._wake()

    def _wake(self) -> None:
        """A message that is no request makes the thread look whether it is still needed."""
        try:
            with self.context.socket(zmq.DEALER) as waker:
                waker.connect(_ENDPOINT)
                waker.send_multipart([b"", b""])
                self._thread.join()
        except zmq.ZMQError:  # the context ends, and the thread with it
            self._thread.join()

    def _serve(self) -> None:
        try:
            while True:
                frames = self._socket.recv_multipart()
                if not self.domains and len(frames) < 6:
                    return
                try:
                    answer = self._answer(frames)
                except Exception as error:  # nobody gets in by an error of ours
                    _log.error("a request to check a client's key failed: %r", error)
                    answer = [_VERSION, frames[1] if len(frames) > 1 else b"", b"500", b"internal error", b"", b""]
                self._socket.send_multipart(answer)
        except zmq.ZMQError:
            pass  # the context is terminated
        finally:
            with contextlib.suppress(zmq.ZMQError):  # at once; a socket that is closed keeps its place for a moment
                self._socket.unbind(_ENDPOINT)
            self._socket.close()

    def _answer(self, frames: list[bytes]) -> list[bytes]:
        version, request, name, address, _, mechanism, *credentials = frames
        domain = self.domains.get(name)
        user = b""
        if version != _VERSION or mechanism != b"CURVE" or len(credentials) != 1 or domain is None:
            allowed = False
        else:
            user = z85.encode(credentials[0])
            allowed = domain.allows(address.decode("utf-8", "replace"), user.decode())
        code, text = (b"200", b"OK") if allowed else (b"400", b"the client's public key is not among curve.clients")
        return [_VERSION, request, code, text, user if allowed else b"", b""]


_lock = threading.Lock()
_handlers: dict[int, _Handler] = {}
_numbers = itertools.count(1)


def open_domain(context: Context, curve: CurveServer, where: str, refused: Callable[[], None]) -> Domain:
    """A new domain of the context's handler; ``where`` names the server in messages, ``refused`` counts (it is called
    from the handler's thread). Raises FabricError if the context has another library's handler."""
    with _lock:
        handler = _handlers.get(id(context))
        if handler is None:
            handler = _handlers[id(context)] = _Handler(context)
        domain = Domain(handler, b"fabric-%d" % next(_numbers), curve, where, refused)
        handler.domains[domain.name] = domain
        return domain


def _forget_all() -> None:
    """In a forked child there is no handler's thread, and no context of the parent may be used."""
    global _lock
    _lock = threading.Lock()
    _handlers.clear()


os.register_at_fork(after_in_child=_forget_all)
