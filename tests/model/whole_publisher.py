"""The publisher: what it commits and sends, and how it tells where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from whole_logs import CHANNEL, ModelLog
from whole_network import MS

from native.log import LogState
from native.packet import Kind, encode

if TYPE_CHECKING:
    from whole_world import Reader, World

HEARTBEAT_NS = 20 * MS
PACKET_RECORDS = 4


class Publisher:
    """Commits, then sends; tells by heartbeats where it is. Silent while its process is down."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.alive = True
        self._announced = 1
        self._said_ns = 0
        self._beat()

    def publish(self, count: int, *, send: bool = True) -> None:
        """One event. Without ``send`` its process dies between the commit and the sending."""
        world, log = self._world, self._world.current
        if not self.alive or log.state != LogState.OPEN:
            return
        first, records = log.append(count, world.simulation.clock.now_ns())
        world.committed_ns[log.session].update(dict.fromkeys(range(first, first + count), world.now_ns))
        if not send:
            return
        for begin in range(0, count, PACKET_RECORDS):
            part = records[begin : begin + PACKET_RECORDS]
            self._send(self._packet(log, Kind.DATA, first + begin, len(part), part))
        self._announced = log.next
        self._said_ns = world.now_ns

    def announce(self) -> None:
        log = self._world.current
        kind = Kind.END if log.state == LogState.ENDED else Kind.HEARTBEAT
        self._send(self._packet(log, kind, self._announced))
        self._said_ns = self._world.now_ns

    def subscribed(self, reader: Reader) -> None:
        """Whoever subscribes is told where the log stands."""
        if self.alive:
            log = self._world.current
            kind = Kind.END if log.state == LogState.ENDED else Kind.HEARTBEAT
            reader.send(self._packet(log, kind, self._announced))

    def restart(self) -> None:
        """Its process is there again, if it is not yet."""
        if not self.alive:
            self.come_back()

    def come_back(self) -> None:
        """Its next life: what the one before committed and never sent is announced."""
        self.alive = True
        self._announced = self._world.current.next
        self.announce()

    def zombie(self, log: ModelLog) -> None:
        """A writer that does not know yet that another has taken over."""
        if log.committed and self._world.random.random() < 0.5:
            first = max(1, log.committed - 1)
            records = log.all[first - 1 :]
            packet = self._packet(log, Kind.DATA, first, len(records), records)
        else:
            packet = self._packet(log, Kind.HEARTBEAT, log.committed + 1)
        self._send(packet, lambda reader: reader.channel.machine.session != 0)

    def _beat(self) -> None:
        if self.alive and self._world.now_ns - self._said_ns >= HEARTBEAT_NS:
            self.announce()
        self._world.simulation.after(HEARTBEAT_NS, self._beat)

    def _send(self, packet: bytes, to: Callable[[Reader], bool] = lambda _: True) -> None:
        for reader in self._world.places:
            if to(reader):
                reader.send(packet)

    def _packet(self, log: ModelLog, kind: Kind, sequence: int, count: int = 0, records: Any = None) -> bytes:
        now_ns = self._world.simulation.clock.now_ns()
        kinds = self._world.kind
        return encode(
            kind, CHANNEL, log.session, sequence, now_ns, kinds.schema, kinds.size, count, records, crc=True
        )  # fmt: skip
