"""One socket of a publisher: its endpoints, who listens to what there, and what is done to its packets on purpose.

A publisher has one for all its endpoints; where faults are for single endpoints, those have one of their own each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import zmq

from fabric.transport.faults import Fault, FaultInjector
from fabric.transport.listener import Listener
from fabric.transport.security import ServerKeys
from fabric.transport.sockets import Context, new_socket

Faults = FaultInjector | Mapping[str, FaultInjector] | None
"""On all endpoints, on some of them, or none."""


class Exit:
    """Binds ``endpoints`` (raises AddressInUse). Its user sees to it that one thread at a time calls it."""

    def __init__(
        self,
        context: Context,
        endpoints: Sequence[str],
        *,
        fault: FaultInjector | None,
        send_hwm: int,
        curve: ServerKeys,
    ) -> None:
        self.fault = fault
        self.wanted: set[bytes] = set()
        """Prefixes that somebody subscribes to here."""
        self.socket = new_socket(context, zmq.XPUB, send_hwm=send_hwm)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        try:
            self.listener = Listener(context, self.socket, endpoints, curve)
        except BaseException:
            self.socket.close()
            raise

    def send(self, packet: bytes, now_ns: int, tally: Callable[[Fault], None]) -> None:
        """Hand a packet to ZeroMQ, or to what puts faults in between. ``now_ns`` is CLOCK_MONOTONIC."""
        self._hand_over([packet] if self.fault is None else self.fault.offer(packet, now_ns, tally))

    def send_due(self, now_ns: int) -> None:
        """What was held back on purpose, for long enough."""
        if self.fault is not None:
            self._hand_over(self.fault.due(now_ns))

    def new_subscriptions(self) -> list[tuple[bool, bytes]]:
        """(whether wanted, prefix) since this was asked last: each subscription, and the last one of a prefix that ended."""
        told = []
        while self.socket.poll(0):
            message = self.socket.recv(zmq.DONTWAIT)
            if message[:1] == b"\x01":
                self.wanted.add(message[1:])
                told.append((True, message[1:]))
            elif message[:1] == b"\x00":
                self.wanted.discard(message[1:])
                told.append((False, message[1:]))
        return told

    def close(self) -> None:
        """After the last packet. ``release`` follows."""
        if self.fault is not None:
            self._hand_over(self.fault.release())
        self.listener.close()
        self.socket.close(linger=100)

    def release(self) -> None:
        """Nobody asks for its keys any more."""
        self.listener.release()

    def _hand_over(self, packets: list[bytes]) -> None:
        for packet in packets:
            self.socket.send(packet, zmq.DONTWAIT)  # XPUB never blocks: a full pipe drops, and the log has it


def open_exits(
    context: Context, endpoints: Sequence[str], *, faults: Faults, send_hwm: int, curve: ServerKeys
) -> tuple[list[Exit], list[str]]:
    """The sockets of a publisher, and its endpoints as bound, in their order. Raises AddressInUse, and ValueError for
    faults on an endpoint that is none of them."""
    single = faults if isinstance(faults, Mapping) else {}
    if unknown := set(single) - set(endpoints):
        raise ValueError(f"faults for {', '.join(sorted(unknown))}, which is not listened on")
    common = [number for number, endpoint in enumerate(endpoints) if endpoint not in single]
    groups = [[number] for number, endpoint in enumerate(endpoints) if endpoint in single]
    bound, exits = list(endpoints), []
    try:
        for group in ([common] if common or not groups else []) + groups:
            fault = faults if not isinstance(faults, Mapping) else single.get(endpoints[group[0]]) if group else None
            chosen = [endpoints[number] for number in group]
            exits.append(Exit(context, chosen, fault=fault, send_hwm=send_hwm, curve=curve))
            for number, endpoint in zip(group, exits[-1].listener.endpoints, strict=True):
                bound[number] = endpoint
    except BaseException:
        for each in exits:
            each.close()
            each.release()
        raise
    return exits, bound
