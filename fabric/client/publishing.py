"""``fabric.publish``: a channel written by a program of one's own, with its log and log server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt

from fabric.channel import channel_id, check_channel_name
from fabric.clock import Clock, SystemClock
from fabric.config.curve import server_curve
from fabric.config.load import load_topology
from fabric.errors import Closed, ConfigError, RecordTypeError, UnknownChannel
from fabric.log.writer import LogOptions, LogWriter
from fabric.records import Flags, Records, RecordType
from fabric.transport.faults import FaultPlan
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import Publisher
from fabric.transport.security import CurveClient, CurveServer
from fabric.transport.sockets import check_endpoint
from fabric.units import Duration
from native.publication import DirectWriter, Publication

if TYPE_CHECKING:  # loaded where there is a standby
    from fabric.protocol.syncgate import Standing, SyncLimits
    from fabric.transport.rival import RivalWatch
    from fabric.transport.syncserver import SyncedLog, SyncServer

_TMPFS = Path("/dev/shm")
LEAST_DEADLINE_NS = 300_000_000
"""A standby that is there is heard each 200 ms."""


def publish(
    channel: str,
    record: RecordType,
    *,
    config: str | Path | None = None,
    listen: str | Sequence[str] | None = None,
    replay: str | None = None,
    log_dir: str | Path | None = None,
    options: LogOptions | None = None,
    curve: CurveServer | None = None,
    standby: Standby | None = None,
    fault: str = "",
    clock: Clock | None = None,
) -> ChannelWriter:
    """Open a channel for writing, with its log, live endpoint and log server.

    Endpoints are given (``listen`` for live packets, several where readers are to join them as lines, ``replay`` for
    recovery, ``curve`` keys for tcp), or come from the
    channel's ``connect``, ``replay`` and ``curve`` in ``config``, where it stands as a channel that no node writes. The log
    is kept in ``log_dir`` (default: a directory of yours on tmpfs) and goes on in the same session when you open it again.

    ``standby``: what is to be known of a standby on another host (``fabric.stand_by``), which takes the channel over where
    this program or its host ends.

    Raises ConfigError, AddressInUse, LogLocked (a channel has one writer), LogFull, Superseded (the standby has taken over).
    """
    check_channel_name(channel)
    if not isinstance(record, RecordType):
        raise RecordTypeError(
            f"channel {channel!r}: {record!r} is no record type", remedy="make one with fabric.record(…)"
        )
    if listen is None or replay is None:
        if listen is not None or replay is not None:
            raise ConfigError("give both listen= and replay=, or a config", key=channel)
        topology = load_topology(config)
        if channel not in topology.channels:
            raise UnknownChannel(channel, sorted(topology.channels), where=str(topology.source.file))
        section = topology.channels[channel]
        if not section.external:
            raise ConfigError(
                "is written by a node of this config", key=f"channels.{channel}", remedy="use another name"
            )
        listen, replay = section.connect, section.replay
        curve = server_curve(topology, channel)
        options = options or LogOptions(
            section.retain_bytes, section.retain_age_ns, section.segment_bytes, section.sync
        )
    lines = [listen] if isinstance(listen, str) else list(listen)
    for endpoint in (*lines, replay):
        check_endpoint(endpoint)
    log_dir = default_log_dir(channel) if log_dir is None else Path(log_dir)
    return ChannelWriter(
        channel, record, lines, replay, log_dir, options or LogOptions(), curve, fault, clock or SystemClock(), standby
    )


def default_log_dir(channel: str) -> Path:
    """A directory of the user's own, on tmpfs where there is one."""
    base = _TMPFS if _TMPFS.is_dir() and os.access(_TMPFS, os.W_OK) else Path(tempfile.gettempdir())
    return base / f"zmf-{os.getuid()}" / "published" / channel


@dataclass(frozen=True, slots=True)
class Standby:
    """What a publisher knows of its standby on another host.

    ``replay``: the standby's log server: asked each second whether it has taken over; then this publisher stops
    (Superseded). ``sync``: an endpoint of our own, at which a standby joins that is to have each record before anybody sees
    it; without it the standby follows like any reader. ``on_lost``: what to do when it has not acknowledged a write for
    ``deadline``: ``"stop"`` (StandbyLost; nobody has seen that write) or ``"go_on"`` without it, until it has joined again.
    ``curve``: our keys to ask the standby, where its endpoint is tcp and encrypted.
    """

    replay: str
    sync: str = ""
    on_lost: Literal["stop", "go_on"] = "stop"
    deadline: str | int = "1s"
    curve: CurveClient | None = None

    def __post_init__(self) -> None:
        check_endpoint(self.replay, listens=False)
        if self.sync:
            check_endpoint(self.sync)
        if self.on_lost not in ("stop", "go_on"):
            raise ConfigError(f"on_lost={self.on_lost!r}", remedy='"stop" or "go_on"')
        try:
            deadline_ns = int(Duration(self.deadline))
        except ValueError as error:
            raise ConfigError(f"deadline: {error}") from None
        if deadline_ns < LEAST_DEADLINE_NS:
            raise ConfigError(
                f"deadline={self.deadline!r} is shorter than 300ms", remedy="the standby is heard every 200ms"
            )

    @property
    def limits(self) -> SyncLimits:
        from fabric.protocol.syncgate import SyncLimits

        return SyncLimits(self.on_lost, int(Duration(self.deadline)))


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a standby hands over to the writer that goes on for it: its sockets, which stand already, and the log's lock."""

    server: LogServer
    publisher: Publisher
    lock: int
    rival: RivalWatch
    """Looks whether the one before has come back with a newer session."""


class ChannelWriter(DirectWriter):
    """An open channel. ``append`` stages records, ``flush`` commits and sends them; ``send`` does both.

    One thread at a time. Use it in ``with``, or ``close`` it: readers then see a last heartbeat; ``end`` says that
    nothing will follow in this session.
    """

    def __init__(
        self,
        channel: str,
        record: RecordType,
        listen: list[str],
        replay: str,
        log_dir: Path,
        options: LogOptions,
        curve: CurveServer | None,
        fault: str,
        clock: Clock,
        standby: Standby | None = None,
        inherited: Inherited | None = None,
    ) -> None:
        self.channel = channel
        self.record = record
        self.log_dir = log_dir
        self._pid = os.getpid()
        self._clock = clock
        self._stage: list[Records] = []
        identity = channel_id(channel)
        # Beside the log, not in it: a log that is removed and made anew must still get a higher epoch.
        epochs = log_dir.with_name(f"{log_dir.name}.epochs")
        self._sync: SyncedLog | None = None
        self._sync_server: SyncServer | None = None
        self._rival: RivalWatch | None = None
        with ExitStack() as undo:
            if standby is not None:
                from fabric.transport.rival import RivalWatch

                self._rival = RivalWatch(standby.replay, curve=standby.curve)
                undo.callback(self._rival.close)
                self._rival.check({channel: log_dir})
            self._writer = LogWriter(
                log_dir, channel, identity, record, options, now_ns=clock.now_ns(), epoch_file=epochs,
                lock=inherited.lock if inherited is not None else None,
                only_if_closed=standby is not None and bool(standby.sync),
            )  # fmt: skip
            undo.callback(self._writer.close)
            if inherited is not None:
                self._server, self._publisher, self._rival = inherited.server, inherited.publisher, inherited.rival
            else:
                self._server = LogServer([replay], {identity: log_dir}.get, curve=curve, offers_logs=not fault).start()
                undo.callback(self._server.close)
                injector = FaultPlan.parse(fault).injector(channel) if fault else None
                self._publisher = Publisher(listen, clock=clock, fault=injector, curve=curve)
                undo.callback(self._publisher.close)
            if standby is not None and standby.sync:
                from fabric.transport.syncserver import SyncServer

                self._sync_server = SyncServer(standby.sync, limits=standby.limits, curve=curve, clock=clock)
                undo.callback(self._sync_server.close)
                self._sync = self._sync_server.add(self._writer)
            if self._rival is not None:
                self._rival.watch([self._writer])
            undo.pop_all()
        self.data_endpoint = self._publisher.endpoints[0]
        self.line_endpoints = tuple(self._publisher.endpoints)
        """All that it listens on; subscribers may join several as lines."""
        self.replay_endpoint = self._server.endpoints[0]
        self._channel = self._publisher.add(self._writer, crc=any(each.startswith("tcp://") for each in listen))
        self._fast = self._channel.fast
        self.write_directly(self._fast, self._stage, None if isinstance(clock, SystemClock) else clock.now_ns)
        self._closed = False

    @property
    def publication(self) -> Publication:
        """For native code that publishes by itself (``native/publication.pxd``); in the thread that uses this channel."""
        return self._fast

    @property
    def standing(self) -> Standing | None:
        """How it stands to its `sync` standby; None without one."""
        return self._sync.state if self._sync is not None else None

    @property
    def superseded(self) -> bool:
        """Another writer has taken the channel over: what is sent raises Superseded."""
        return self._writer.superseded

    @property
    def session(self) -> int:
        return self._writer.session

    @property
    def next(self) -> int:
        """The sequence of the next record to be committed."""
        return self._writer.next

    def append(self, records: Records | None = None, **columns: npt.ArrayLike) -> None:
        """Stage records, given whole or as columns that broadcast: one event. Raises RecordTypeError."""
        if records is not None and columns:
            raise RecordTypeError(
                f"channel {self.channel!r}: records are given whole, or as columns ({', '.join(columns)})"
            )
        built = self.record.build(None, **columns) if records is None else records
        if built.dtype != self.record.dtype:
            raise RecordTypeError(f"channel {self.channel!r} takes {self.record!r}, not dtype {built.dtype}")
        if len(built):
            # By bytes, so that padding is what it was (zero, where built here).
            staged = np.frombuffer(bytearray(built.tobytes()), built.dtype)
            staged["flags"][-1] |= Flags.LAST_IN_EVENT
            self._stage.append(staged)

    def flush(self) -> int:
        """Commit and send what is staged; returns the last committed sequence."""
        self._check()
        if self._stage:
            staged = self._stage[0]
            if len(self._stage) > 1:
                staged = np.frombuffer(bytearray(b"".join(part.tobytes() for part in self._stage)), staged.dtype)
            self._channel.write(staged, self._clock.now_ns())
            self._stage.clear()  # not before: after LogFull the same flush can be tried again
        return self._writer.next - 1

    if TYPE_CHECKING:  # natively, where nothing is staged; else by ``_send``

        def send(self, records: Records | None = None, **columns: npt.ArrayLike) -> int:
            """``append`` and ``flush``; returns the last committed sequence."""

    def _send(self, records: Records | None, columns: dict[str, npt.ArrayLike]) -> int:
        self.append(records, **columns)
        return self.flush()

    def hand_to(self, handler: Callable[[Records, int], object] | None) -> None:
        """Call ``handler(records, first)`` in this thread, for whatever is published from now on (None: no more): after it was
        committed and sent, and before ``send`` returns. ``records`` is a read-only copy with all stamps, shape (n,), its
        first sequence ``first``. What the handler raises comes out of ``send``; the records are published all the same."""
        self._fast.handler = handler

    def end(self) -> None:
        """Nothing will follow in this session; what is staged is flushed first."""
        self.flush()
        self._channel.end()

    def close(self) -> None:
        """Flush, announce, close. The log stays and can be continued. Any number of times.

        Raises LogFull where there is no room for what is staged: that is lost, and everything is closed nevertheless.
        """
        if self._closed or self._pid != os.getpid():
            return
        try:
            if not (self._writer.ended or self._writer.stopped or self._writer.superseded):
                self.flush()
        finally:
            # Also where the flush failed: the lock, the sockets and the threads must not outlive this object's use.
            self._closed = True
            self._stage.clear()
            with ExitStack() as release:
                release.callback(self._writer.close)
                release.callback(self._server.close)
                for each in (self._rival, self._sync_server):
                    if each is not None:
                        release.callback(each.close)
                release.callback(self._publisher.close)  # first: its last heartbeat is taken from the open log

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise Closed("this channel belongs to the parent of this process: open a new one after fork")
        if self._closed:
            raise Closed(f"channel {self.channel!r} is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
