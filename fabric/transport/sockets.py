"""Making ZeroMQ sockets with the options that the fabric relies on."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import zmq

from fabric.errors import AddressInUse, ConfigError
from native.packet import MAX_BYTES
from native.wire import load

MAX_IPC_PATH_BYTES = 107
"""sizeof(sockaddr_un.sun_path) - 1 on Linux."""

MAX_SUBSCRIPTION_BYTES = 512
"""Room for a security handshake; a peer that sends more is disconnected."""

HIGH_WATER_PACKETS = 8_192
"""For each peer. What a stalled reader makes libzmq drop beyond it is replayed; more would only hide how late it is."""

_CLOSING_S = 2.0

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


def native_wire() -> bool:
    """Packets can be sent and received by calling pyzmq's libzmq natively; else by pyzmq. ``FABRIC_WIRE=pyzmq`` forces the
    latter."""
    if os.environ.get("FABRIC_WIRE", "") == "pyzmq":
        return False
    try:
        from zmq.backend.cython import _zmq
    except ImportError:  # another backend, as on PyPy
        return False
    return load(_zmq.__file__, zmq.zmq_version())


def check_endpoint(endpoint: str, *, listens: bool = True, file: str = "", key: str = "") -> str:
    """Returns the endpoint. Raises ConfigError for what ZeroMQ could not use; ``*`` is only for listening."""
    if not endpoint.startswith(("tcp://", "ipc://")):
        raise ConfigError(
            f"{endpoint!r} is not an endpoint", file=file, key=key, remedy="write tcp://HOST:PORT or ipc://PATH"
        )
    if endpoint.startswith("ipc://") and len(endpoint[6:].encode()) > MAX_IPC_PATH_BYTES:
        raise ConfigError(
            f"the ipc path is longer than {MAX_IPC_PATH_BYTES} bytes: {endpoint}",
            file=file,
            key=key,
            remedy="use a shorter path",
        )
    if endpoint.startswith("tcp://"):
        host, _, port = endpoint[6:].rpartition(":")
        if not (port.isdecimal() and 0 < int(port) < 65_536) and not (listens and port == "*"):
            raise ConfigError(f"{endpoint!r} names no port", file=file, key=key, remedy="write tcp://HOST:PORT")
        if not host or (host == "*" and not listens):
            raise ConfigError(f"{endpoint!r} names no host", file=file, key=key, remedy="write tcp://HOST:PORT")
    return endpoint


def bind(socket: Socket, endpoint: str) -> str:
    """Bind; returns the endpoint as bound (a port of ``*`` becomes a number). Raises AddressInUse."""
    try:
        if endpoint.startswith("ipc://"):
            _remove_dead_ipc_file(socket.context, endpoint)
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise AddressInUse(endpoint, error.strerror or str(error)) from None
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    return plain_address(bound.rstrip(b"\0").decode()) if isinstance(bound, bytes) else endpoint


def plain_address(endpoint: str) -> str:
    """``tcp://127.0.0.1:7001`` for ``tcp://[::ffff:127.0.0.1]:7001``: an IPv4 address as an IPv6 socket tells it."""
    return re.sub(r"\[::ffff:([0-9.]+)\]", r"\1", endpoint)


def _remove_dead_ipc_file(context: Context, endpoint: str) -> None:
    """libzmq replaces an ipc file even while another process listens on it: look first whether somebody does."""
    import socket as os_socket

    path = Path(endpoint[6:])
    if not path.exists():
        return
    if not path.is_socket():
        raise AddressInUse(endpoint, "there is a file or folder that is not a socket")
    # One that was closed a moment ago may still listen: libzmq closes in a thread of its own.
    deadline_s = time.monotonic() + _CLOSING_S
    while True:
        with os_socket.socket(os_socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
                return
        if time.monotonic() >= deadline_s:
            raise AddressInUse(endpoint, "a process is listening there")
        time.sleep(_CLOSING_S / 20)


def new_socket(
    context: Context, kind: int, *, receive_hwm: int = HIGH_WATER_PACKETS, send_hwm: int = HIGH_WATER_PACKETS
) -> Socket:
    """A socket that never lingers, with high-water marks in packets, and received frames bounded to what may come."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, receive_hwm)
    socket.setsockopt(zmq.SNDHWM, send_hwm)
    # An XPUB only ever takes 8-byte prefixes; libzmq keeps a node for each byte of a longer one.
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES if kind == zmq.XPUB else 64 * MAX_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    socket.setsockopt(zmq.IPV6, 1)
    return socket
