"""Where a `sync` standby joins a primary: one ROUTER for all channels of a publisher.

The publishing thread sends each write and waits for its acknowledgement before the commit (``SyncedLog``); a thread of its own
hears who joins and who has fallen silent while nothing is written. The socket has one holder at a time, under a lock that
the publishing thread keeps for a round trip.
"""

from __future__ import annotations

import logging
import secrets
import threading

import zmq

from fabric.clock import Clock, SystemClock
from fabric.errors import StandbyLost, Superseded
from fabric.log.writer import LogWriter
from fabric.protocol.requests import MalformedMessage
from fabric.protocol.syncgate import Standing, SyncGate, SyncLimits, Verdict
from fabric.protocol.syncmessages import FromPrimary, FromStandby, Kind
from fabric.records import Records
from fabric.transport.listener import Listener
from fabric.transport.security import CurveServer
from fabric.transport.sockets import Context, new_socket
from fabric.units import format_ns

_log = logging.getLogger("fabric.standby")
_TEND_S = 0.01
_ALIVE_EVERY_NS = 50_000_000
_LONGEST_POLL_MS = 50
STANDBY_JOINS, STANDBY_LOST = 4, 5
"""Indexes of the log's counters: how often a standby was in sync, and how often one that had joined was given up."""


class SyncedLog:
    """One channel: its log's commits wait here. ``state`` and the counters of ``gate`` may be read from any thread."""

    def __init__(self, server: SyncServer, writer: LogWriter, limits: SyncLimits) -> None:
        self.gate = SyncGate(limits)
        self.writer = writer
        self.peer = b""
        self.waiting: tuple[int, bytes] | None = None
        """First sequence and bytes of the write that waits."""
        self.sent = writer.next
        """The sequence after the last record that was sent, or that is committed."""
        self._server = server

    @property
    def state(self) -> Standing:
        return self.gate.state

    def __call__(self, first: int, records: Records) -> None:
        """Return once ``records`` may be committed. Raises StandbyLost, Superseded: they may not, and nothing after them."""
        self._server.hold(self, first, records)

    def message(self, kind: Kind, life: int) -> bytes:
        """What the standby is told, with where the log stands."""
        writer, gate = self.writer, self.gate
        gated = gate.state is Standing.IN_SYNC or gate.limits.on_lost == "stop"
        return FromPrimary(
            kind, writer.channel_id, writer.session, life, writer.next, gated=gated, ended=writer.ended
        ).encode()


class SyncServer:
    """Binds ``endpoint`` (raises AddressInUse). Close it, after the last write."""

    def __init__(
        self,
        endpoint: str,
        *,
        limits: SyncLimits,
        curve: CurveServer | None = None,
        clock: Clock | None = None,
        context: Context | None = None,
    ) -> None:
        self.life = secrets.randbits(63) or 1
        self.malformed = 0
        self._limits = limits
        self._clock = clock or SystemClock()
        self._logs: dict[int, SyncedLog] = {}
        self._lock = threading.Lock()
        context = context or zmq.Context.instance()
        self._socket = new_socket(context, zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # what can't be sent is to be known
        try:
            self._listener = Listener(context, self._socket, [endpoint], curve)
        except BaseException:
            self._socket.close()
            raise
        self.endpoint = self._listener.endpoints[0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="fabric-sync", daemon=True)
        self._thread.start()

    def add(self, writer: LogWriter) -> SyncedLog:
        """Let this log's commits wait for the standby from now on."""
        log = SyncedLog(self, writer, self._limits)
        with self._lock:
            self._logs[writer.channel_id] = log
        writer.hold_back(log)
        return log

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        with self._lock:
            for log in self._logs.values():
                self._send(log, log.message(Kind.ALIVE, self.life))
            self._listener.close()
            self._socket.close(linger=100)
        self._listener.release()

    # The publishing thread

    def hold(self, log: SyncedLog, first: int, records: Records) -> None:
        """Send them, and wait until the gate opens."""
        gate, end = log.gate, first + len(records)
        with self._lock:
            self._take_all()
            log.waiting, log.sent = (first, records.tobytes()), end
            since_ns = now_ns = self._clock.monotonic_ns()
            try:
                self._send_waiting(log)
                while (verdict := gate.verdict(end, since_ns, now_ns)) is Verdict.WAIT:
                    self._socket.poll(_LONGEST_POLL_MS)
                    self._take_all()
                    now_ns = self._clock.monotonic_ns()
            finally:
                log.waiting = None
            if verdict is Verdict.TAKEN_OVER:
                log.writer.fence(gate.taken_by)
                raise Superseded(log.writer.channel, gate.taken_by, path=log.writer.directory)
            if verdict is Verdict.LOST:
                self._lose(log)
                if self._limits.on_lost == "stop":
                    raise StandbyLost(
                        log.writer.channel, format_ns(now_ns - since_ns), path=log.writer.session_directory
                    )

    def _send_waiting(self, log: SyncedLog) -> None:
        if log.waiting is not None:
            self._send(log, log.message(Kind.WRITE, self.life), log.waiting[1])

    def _lose(self, log: SyncedLog) -> None:
        log.gate.drop()
        log.writer.control.count(STANDBY_LOST)
        what = "nothing is published without it" if self._limits.on_lost == "stop" else "publishing GOES ON WITHOUT IT"
        _log.warning(
            "channel %r: its standby has not answered for %s: %s",
            log.writer.channel, format_ns(self._limits.deadline_ns), what,
        )  # fmt: skip

    # Both threads, under the lock

    def _take_all(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                if len(frames) != 2:
                    raise MalformedMessage("frames")
                message = FromStandby.decode(frames[1])
            except MalformedMessage:
                self.malformed += 1
                continue
            if (log := self._logs.get(message.channel)) is not None:
                self._take(log, frames[0], message)

    def _take(self, log: SyncedLog, peer: bytes, message: FromStandby) -> None:
        gate, writer, now_ns = log.gate, log.writer, self._clock.monotonic_ns()
        if message.kind is Kind.TAKEN:
            if message.session >> 32 > writer.session >> 32 and not gate.taken_by:
                _log.error("channel %r was taken over by its standby: publishing stops", writer.channel)
                gate.taken_over(message.session)
                writer.fence(message.session)
            return
        if message.session != writer.session:
            self._answer(peer, log, Kind.OTHER)
        elif message.kind is Kind.ACK:
            if peer == log.peer and message.life == self.life:
                self._note(log, lambda: gate.ack(message.who, message.next, now_ns))
        elif not gate.may_join(message.who, now_ns):
            self._answer(peer, log, Kind.BUSY)
        elif message.life != self.life or message.next > max(log.sent, writer.next):
            self._answer(peer, log, Kind.CUT)
        else:
            log.peer = peer
            self._answer(peer, log, Kind.JOINED)
            sent = max(log.sent if log.waiting is not None else 0, writer.next)
            self._note(log, lambda: gate.join(message.who, message.next, sent, now_ns, flushes=message.flushes))
            self._send_waiting(log)

    def _note(self, log: SyncedLog, step: object) -> None:
        """Carry out a step of the gate's, and tell what it has changed."""
        before = log.gate.state
        step()  # type: ignore[operator]
        now = log.gate.state
        if now is Standing.IN_SYNC and before is not now:
            log.writer.control.count(STANDBY_JOINS)
        if now is not before:
            _log.warning("channel %r: the standby is %s", log.writer.channel, now.replace("_", " ").lower())

    def _answer(self, peer: bytes, log: SyncedLog, kind: Kind) -> None:
        self._send_to(peer, log.message(kind, self.life))

    def _send(self, log: SyncedLog, *frames: bytes) -> None:
        """To who has joined. What can't be sent it does not acknowledge, and so it is dropped in time."""
        if log.peer and log.gate.state in (Standing.CATCHING_UP, Standing.IN_SYNC):
            self._send_to(log.peer, *frames)

    def _send_to(self, peer: bytes, *frames: bytes) -> None:
        try:
            self._socket.send_multipart([peer, *frames], zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            _log.debug("the standby could not be sent anything: %s", error)

    # Its own thread

    def _tend(self) -> None:
        told_ns = 0
        while not self._stop.wait(_TEND_S):
            if not self._lock.acquire(blocking=False):
                continue  # the publishing thread looks itself
            try:
                self._listener.check()
                self._take_all()
                now_ns = self._clock.monotonic_ns()
                for log in self._logs.values():
                    if log.gate.silent(now_ns):
                        self._lose(log)
                    if now_ns - told_ns >= _ALIVE_EVERY_NS:
                        self._send(log, log.message(Kind.ALIVE, self.life))
                if now_ns - told_ns >= _ALIVE_EVERY_NS:
                    told_ns = now_ns
            except Exception:  # it has to go on: without it nobody joins
                _log.exception("looking after the standby failed")
            finally:
                self._lock.release()
