"""``fabric.serve``: answer requests from a program of one's own; the other side is ``Client.request``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fabric.channel import check_channel_name
from fabric.client.endpoints import find_topology
from fabric.config.curve import is_tcp, service_server_curve
from fabric.transport.security import CurveServer
from fabric.transport.services import ServiceServer
from fabric.transport.sockets import check_endpoint


def serve(
    service: str,
    handler: Callable[[Any], Any],
    *,
    config: str | Path | None = None,
    endpoint: str | None = None,
    curve: CurveServer | None = None,
) -> Service:
    """Answer requests for ``service`` until it is closed: ``handler(body)`` returns the reply's body, both plain data
    (what msgpack carries: numbers, text, bytes, lists, dicts), at most 1 MiB packed. It is called from one thread, one
    request at a time, once for each request however often that is sent to this server; one that was started again knows no
    earlier requests. Whatever it raises, SystemExit too, is logged and goes to who asked, as RequestFailed; so does a reply
    that is no plain data or too large, though it was carried out.

    Where: ``endpoint`` (with ``curve`` keys), or as ``config`` says; by default a socket of this host. Raises ConfigError,
    AddressInUse.
    """
    check_channel_name(service)
    if endpoint is None:
        topology = find_topology(config)
        endpoint = topology.service_endpoint(service)
        curve = service_server_curve(topology, service)
        if not is_tcp(endpoint):
            topology.make_sockets_dir()
    return Service(service, ServiceServer(check_endpoint(endpoint), {service: handler}, curve=curve))


class Service:
    """A service that is answered. Use it in ``with``, or ``close`` it."""

    def __init__(self, name: str, server: ServiceServer) -> None:
        self.name = name
        self._server = server

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return self._server.endpoint

    @property
    def requests(self) -> int:
        """How many came, those that came again included."""
        return self._server.requests

    @property
    def repeated(self) -> int:
        """Of those, how many were answered with a kept reply."""
        return self._server.repeated

    def close(self) -> None:
        """Finish the request under way, then answer no more. Called by the handler itself, it returns at once."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Service {self.name} at {self.endpoint}>"
