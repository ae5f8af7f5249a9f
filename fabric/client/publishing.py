"""``fabric.publish``: a channel written by a program of one's own, with its log and log server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

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
from fabric.transport.security import CurveServer
from fabric.transport.sockets import check_endpoint
from native.publication import DirectWriter, Publication

_TMPFS = Path("/dev/shm")


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
    fault: str = "",
    clock: Clock | None = None,
) -> ChannelWriter:
    """Open a channel for writing, with its log, live endpoint and log server.

    Endpoints are given (``listen`` for live packets, several where readers are to join them as lines, ``replay`` for
    recovery, ``curve`` keys for tcp), or come from the
    channel's ``connect``, ``replay`` and ``curve`` in ``config``, where it stands as a channel that no node writes. The log
    is kept in ``log_dir`` (default: a directory of yours on tmpfs) and goes on in the same session when you open it again.

    Raises ConfigError, AddressInUse, LogLocked (a channel has one writer), LogFull.
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
    if log_dir is None:
        base = _TMPFS if _TMPFS.is_dir() and os.access(_TMPFS, os.W_OK) else Path(tempfile.gettempdir())
        log_dir = base / f"zmf-{os.getuid()}" / "published" / channel
    return ChannelWriter(
        channel, record, lines, replay, Path(log_dir), options or LogOptions(), curve, fault, clock or SystemClock()
    )


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
        self._writer = LogWriter(log_dir, channel, identity, record, options, now_ns=clock.now_ns(), epoch_file=epochs)
        try:
            self._server = LogServer([replay], {identity: log_dir}.get, curve=curve, offers_logs=not fault).start()
            try:
                injector = FaultPlan.parse(fault).injector(channel) if fault else None
                self._publisher = Publisher(listen, clock=clock, fault=injector, curve=curve)
            except BaseException:
                self._server.close()
                raise
        except BaseException:
            self._writer.close()
            raise
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
            if not self._writer.ended:
                self.flush()
        finally:
            # Also where the flush failed: the lock, the sockets and the threads must not outlive this object's use.
            self._closed = True
            self._stage.clear()
            with ExitStack() as release:
                release.callback(self._writer.close)
                release.callback(self._server.close)
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
