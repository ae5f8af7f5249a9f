"""The listening end of a socket: its endpoints, their keys, and the clients that were refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fabric.transport.handshakes import HandshakeWatch, server_problem
from fabric.transport.loglimit import LogLimit
from fabric.transport.security import ServerKeys, require_curve, server_for, use_server_keys
from fabric.transport.sockets import Context, Socket, bind
from fabric.transport.zap import Domain, open_domain

_log = logging.getLogger("fabric.security")


class Listener:
    """Binds all endpoints of a socket (raises AddressInUse, and UserMistake if libzmq has no CURVE).

    ``endpoints``: as bound, in the order given. ``check`` belongs to the thread that uses the socket.
    """

    def __init__(self, context: Context, socket: Socket, endpoints: Sequence[str], curve: ServerKeys = None) -> None:
        self._socket = socket
        self._refused_keys = 0
        self._refused_handshakes = 0
        self._limit = LogLimit()
        self._domains: list[Domain] = []
        self._encrypted: set[str] = set()
        """Ports: what is told of a connection to a wildcard names the address that was reached."""
        self._watch: HandshakeWatch | None = None
        self.endpoints = list(endpoints)
        try:
            # Options hold for what is bound after them: first all that is not encrypted.
            for number in sorted(
                range(len(endpoints)), key=lambda each: server_for(curve, endpoints[each]) is not None
            ):
                endpoint = endpoints[number]
                keys = server_for(curve, endpoint)
                if keys is not None:
                    require_curve()
                    domain = open_domain(context, keys, endpoint, self._count_refused_key)
                    self._domains.append(domain)
                    use_server_keys(socket, keys, domain.name)
                if self._watch is None and endpoint.startswith("tcp://"):
                    self._watch = HandshakeWatch(context, socket)
                self.endpoints[number] = bind(socket, endpoint)
                if keys is not None:
                    self._encrypted.add(_port(self.endpoints[number]))
        except BaseException:
            self.close()
            self.release()
            raise

    @property
    def refused(self) -> int:
        """Handshakes with clients that were not let in; one that tries again counts again."""
        return self._refused_keys + self._refused_handshakes

    def check(self) -> None:
        """Count and log who was refused since the last time."""
        if self._watch is None:
            return
        for outcome, endpoint in self._watch.read():
            problem = server_problem(outcome, endpoint, encrypted=_port(endpoint) in self._encrypted)
            if problem:
                self._refused_handshakes += 1
                self._limit.warning(_log, problem)

    def close(self) -> None:
        """Before the socket is closed."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def release(self) -> None:
        """After the socket is closed: nobody asks any more."""
        for domain in self._domains:
            domain.release()
        self._domains.clear()

    def _count_refused_key(self) -> None:
        self._refused_keys += 1


def _port(endpoint: str) -> str:
    return endpoint.rpartition(":")[2]
