"""Ports of this host that nobody listens on at the moment; whoever wants them binds them a moment later."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below the range from which Linux, macOS and Windows take the ports of outgoing connections by default: one of those may
# be taken by any connection of any process between this moment and the bind, or while a publisher is restarted.
_FIRST, _END = 12_000, 32_000


def free_ports(count: int) -> list[int]:
    """All different. Raises OSError where none can be found."""
    drawn = random.SystemRandom()  # processes that ask at one time are not to be given the same
    found: list[int] = []
    with ExitStack() as held:
        for _ in range(1000):
            if len(found) == count:
                return found
            probe = held.enter_context(socket.socket())
            port = drawn.randrange(_FIRST, _END)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    raise OSError(f"no {count} free ports of 127.0.0.1 between {_FIRST} and {_END}")


def free_endpoints(count: int) -> list[str]:
    """The same, for ZeroMQ."""
    return [f"tcp://127.0.0.1:{port}" for port in free_ports(count)]
