"""The sending side of one process: one XPUB socket, any number of channels, one helper thread.

The publishing thread commits to the log and then sends, inline. The helper answers each new subscription with a
heartbeat, sends heartbeats while a channel is quiet, and looks after the logs. The socket has one holder at a time,
under a lock that is never kept while waiting.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from functools import partial

import zmq

from fabric.channel import channel_prefix
from fabric.clock import Clock, SystemClock
from fabric.errors import Closed
from fabric.log.writer import LogWriter
from fabric.records import Records
from fabric.transport.exit import Faults, open_exits
from fabric.transport.faults import Fault
from fabric.transport.security import ServerKeys
from fabric.transport.sockets import HIGH_WATER_PACKETS, Context, native_wire
from native.packet import HEADER_BYTES, MAX_BYTES, Kind, encode
from native.publication import Publication, SocketLock
from native.wire import Outlet

_log = logging.getLogger("fabric.publisher")

PACKETS, HEARTBEATS, DROPPED_ON_PURPOSE, REFUSED_CLIENTS = 0, 1, 2, 3
"""Indexes of the log's counters that a publisher keeps."""

FAULT_COUNTERS = {
    Fault.DROPPED: DROPPED_ON_PURPOSE,
    Fault.DUPLICATED: 8,
    Fault.REORDERED: 9,
    Fault.DELAYED: 10,
    Fault.CORRUPTED: 11,
    Fault.CUT: 12,
}
"""Those of packets that met a fault on purpose."""

_HELPER_PAUSE_S = 0.02
_HELPER_PAUSE_UNDER_FAULTS_S = 0.001
"""What is held back on purpose is to leave in time, also where nothing further is published."""
_MAINTAIN_EVERY_NS = 50_000_000


class ChannelPublisher:
    """One channel of a publisher. ``write`` is what a node's output flushes to."""

    def __init__(self, publisher: Publisher, writer: LogWriter, *, crc: bool) -> None:
        self.writer = writer
        self.prefix = channel_prefix(writer.channel_id)
        self._publisher = publisher
        self._crc = crc
        self._packet_records = (MAX_BYTES - HEADER_BYTES) // writer.record.size
        # What an earlier life committed and perhaps never sent is announced, not sent: readers fetch it by replay.
        self.fast = Publication(
            writer.fast,
            publisher.outlet,
            publisher.lock,
            channel=writer.channel_id,
            session=writer.session,
            schema=writer.record.schema,
            crc=crc,
        )
        """Publishes what is plain in one call; returns 0 for what ``write`` has to do."""
        self._heartbeat_ns = 0
        self._announced = 0

    def write(self, records: Records, now_ns: int) -> int:
        """Commit the records (they end an event), then send them; returns the first one's sequence."""
        if last := self.fast.write(records, now_ns):
            return last - len(records) + 1
        first = self.writer.write(records, now_ns)
        if not self.fast.send_committed(records, first):
            self._send(records, first)
        if self.fast.handler is not None:
            copied = records.copy()
            copied.flags.writeable = False
            self.fast.handler(copied, first)
        return first

    def _send(self, records: Records, first: int) -> None:
        """By pyzmq: where libzmq can't be called natively, and under fault injection."""
        publisher = self._publisher
        size, total, done = self.writer.record.size, len(records), 0
        with publisher.lock:
            while done < total:
                count = min(self._packet_records, total - done)
                packet = encode(
                    Kind.DATA,
                    self.writer.channel_id,
                    self.writer.session,
                    first + done,
                    publisher.clock.now_ns(),
                    self.writer.record.schema,
                    size,
                    count,
                    records[done : done + count],
                    self._crc,
                )
                publisher.send(packet, self.writer)
                self.writer.control.count(PACKETS)
                done += count
            self.fast.announced = first + total

    def end(self) -> None:
        """The source is finished: seal the log and say so; END is repeated like a heartbeat."""
        self.writer.end()
        with self._publisher.lock:
            self.announce()

    def announce(self) -> None:
        """Send a HEARTBEAT or END that carries the next sequence. The caller holds the publisher's lock. One that was
        superseded is silent: its readers become stale, ask, and are told."""
        if self.writer.superseded:
            return
        packet = encode(
            Kind.END if self.writer.ended else Kind.HEARTBEAT,
            self.writer.channel_id,
            self.writer.session,
            self.fast.announced,
            self._publisher.clock.now_ns(),
            self.writer.record.schema,
            self.writer.record.size,
            0,
            None,
            self._crc,
        )
        self._publisher.send(packet, self.writer)
        self.writer.control.count(HEARTBEATS)
        self._heartbeat_ns = self._publisher.clock.monotonic_ns()

    def quiet(self, monotonic_ns: int, heartbeat_ns: int) -> bool:
        if self.fast.announced != self._announced:  # something was sent since: as good as a heartbeat
            self._announced = self.fast.announced
            self._heartbeat_ns = monotonic_ns
        return monotonic_ns - self._heartbeat_ns >= heartbeat_ns


class Publisher:
    """Binds ``endpoints`` (raises AddressInUse) and starts the helper thread. Close it, or use it in ``with``.

    Subscribers may join several of the endpoints: as lines, each of which brings the same packets. ``curve``: keys of tcp
    endpoints, for all of them or by endpoint. ``fault``: faults on purpose on all endpoints, or on single ones, which then
    have sockets of their own.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        heartbeat_ns: int = 100_000_000,
        clock: Clock | None = None,
        fault: Faults = None,
        context: Context | None = None,
        send_hwm: int = HIGH_WATER_PACKETS,
        curve: ServerKeys = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.lock = SocketLock()
        self._pid = os.getpid()
        self._heartbeat_ns = heartbeat_ns
        self._channels: dict[bytes, ChannelPublisher] = {}
        self._other_logs: list[LogWriter] = []
        self._exits, self.endpoints = open_exits(
            context or zmq.Context.instance(), endpoints, faults=fault, send_hwm=send_hwm, curve=curve
        )
        self._faults = [each.fault for each in self._exits if each.fault is not None]
        self.outlet = None if self._faults or not native_wire() else Outlet(self._exits[0].socket.underlying)
        """Sends natively; None: by pyzmq."""
        self.unknown_subscriptions = 0
        self._told: set[str] = set()
        self._refused_before = 0
        self._stop = threading.Event()
        self._due = threading.Event()
        self._helper = threading.Thread(target=self._help, name="fabric-publisher", daemon=True)
        self._helper.start()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, writer: LogWriter, *, crc: bool = False, never_crc: bool = False) -> ChannelPublisher:
        """Publish the channel of this log from now on; announces at once what it already holds. ``crc``: a CRC-32C in each
        packet; where faults on purpose corrupt packets there is one in any case, but for ``never_crc``."""
        crc = crc or (any(fault.plan.corrupt > 0 for fault in self._faults) and not never_crc)
        channel = ChannelPublisher(self, writer, crc=crc)
        writer.on_roll = self._due.set  # the next segment is wanted soon
        writer.control.alive_ns = self.clock.monotonic_ns()  # from the first moment: readers on this host look at it
        with self.lock:
            self._channels[channel.prefix] = channel
            channel.fast.wanted = any(channel.prefix in each.wanted for each in self._exits)  # before it was published
            channel.announce()
        return channel

    @property
    def refused_clients(self) -> int:
        """Handshakes with clients that were not let in: a wrong key, or none. One that tries again counts again."""
        return sum(each.listener.refused for each in self._exits)

    def look_after(self, writer: LogWriter) -> None:
        """Let the helper thread prepare segments and apply retention for a log that is not published."""
        with self.lock:
            self._other_logs.append(writer)

    def send(self, packet: bytes, writer: LogWriter) -> None:
        """Hand a packet to ZeroMQ. The caller holds the lock."""
        if self._pid != os.getpid():
            raise Closed("this publisher belongs to the parent of this process: make a new one after fork")
        now_ns, tally = self.clock.monotonic_ns() if self._faults else 0, partial(_count_fault, writer)
        for each in self._exits:
            each.send(packet, now_ns, tally)

    def close(self) -> None:
        """A last heartbeat, then the socket closes. The logs stay open: they are their owner's."""
        if self._stop.is_set() or self._pid != os.getpid():
            return
        self._stop.set()
        self._due.set()
        self._helper.join()
        with self.lock:
            for channel in self._channels.values():
                channel.announce()
            for each in self._exits:
                each.close()
        for each in self._exits:
            each.release()

    # The helper thread

    def _help(self) -> None:
        # Woken by time alone: ZeroMQ's descriptor is signalled by every send as well, and each wake-up takes the GIL.
        maintained_ns = 0
        pause_s = _HELPER_PAUSE_UNDER_FAULTS_S if self._faults else _HELPER_PAUSE_S
        while not self._stop.is_set():
            rolled = self._due.wait(pause_s)
            self._due.clear()
            now_ns = self.clock.monotonic_ns()
            try:
                with self.lock:
                    for each in self._exits:
                        each.send_due(now_ns)
                    wanted = self._new_subscriptions()
                    self._check_refused()
                    for prefix, channel in self._channels.items():
                        if prefix in wanted or channel.quiet(now_ns, self._heartbeat_ns):
                            channel.announce()
                    logs = [*(channel.writer for channel in self._channels.values()), *self._other_logs]
                if rolled or now_ns - maintained_ns >= _MAINTAIN_EVERY_NS:
                    maintained_ns = now_ns
                    for log in logs:
                        self._maintain(log, now_ns)
            except Exception as error:
                self._tell(error, "the publisher's helper failed; heartbeats go on")

    def _maintain(self, log: LogWriter, monotonic_ns: int) -> None:
        """One log that can't be looked after keeps no other from it."""
        superseded = log.superseded
        try:
            log.maintain(self.clock.now_ns(), monotonic_ns)
            if log.superseded and not superseded:
                _log.error("channel %r was taken over by a newer session: publishing stops", log.channel)
        except Exception as error:
            self._tell(error, f"looking after the log of {log.channel!r} failed; its publisher goes on")

    def _tell(self, error: Exception, what: str) -> None:
        if repr(error) not in self._told:  # not twenty times a second
            self._told.add(repr(error))
            _log.error("%s", what, exc_info=error)

    def _check_refused(self) -> None:
        for each in self._exits:
            each.listener.check()
        refused = self.refused_clients
        if refused > self._refused_before:
            for channel in self._channels.values():
                channel.writer.control.count(REFUSED_CLIENTS, refused - self._refused_before)
            self._refused_before = refused

    def _new_subscriptions(self) -> set[bytes]:
        wanted: set[bytes] = set()
        for begins, prefix in [told for each in self._exits for told in each.new_subscriptions()]:
            channel = self._channels.get(prefix)
            if channel is not None:
                channel.fast.wanted = any(prefix in each.wanted for each in self._exits)
            if begins and channel is not None:
                wanted.add(prefix)
            elif begins:
                self.unknown_subscriptions += 1
        return wanted


def _count_fault(writer: LogWriter, fault: Fault) -> None:
    writer.control.count(FAULT_COUNTERS[fault])
