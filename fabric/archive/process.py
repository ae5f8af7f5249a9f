"""The archive's process: one receiver, a follower's log for each channel, and a log server of its own."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from fabric.archive.channel import ArchivedChannel
from fabric.channel import channel_id
from fabric.clock import Clock, SystemClock
from fabric.config.curve import archive_curves, client_curve
from fabric.config.topology import ArchiveSection, Topology
from fabric.errors import LogError, RecordTypeError
from fabric.log.reader import LogReader
from fabric.log.writer import LogOptions
from fabric.rundir import RunDirectory
from fabric.transport.channels import ChannelReceiver
from fabric.transport.logserver import LogServer
from fabric.transport.receiver import Receiver

_log = logging.getLogger("fabric.archive")
_POLL_NS = 20_000_000
_MAINTAIN_EVERY_NS = 50_000_000
_DRAIN_S = 5.0
_TELL_EVERY_NS = 1_000_000_000


def archived_logs(section: ArchiveSection) -> dict[int, Path]:
    """Channel id to directory of all that is archived."""
    return {channel_id(name): section.directory / name for name in section.channels}


class Archive:
    """Runs until it is told to stop. ``stop()`` may be called from a signal handler. Raises FabricError."""

    def __init__(self, topology: Topology, run: RunDirectory, *, clock: Clock | None = None) -> None:
        assert topology.archive is not None
        self._topology = topology
        self._section = topology.archive
        self._run = run
        self._clock = clock or SystemClock()
        self._stopping = threading.Event()
        self._maintained_ns = self._told_ns = 0
        self._most: dict[str, dict[str, int]] = {}
        """By channel, what it buffered at most."""
        self._channels: list[tuple[ArchivedChannel, ChannelReceiver]] = []

    def stop(self) -> None:
        """Take in what has been published, then end."""
        self._stopping.set()

    def run(self) -> None:
        section, receiver = self._section, Receiver(clock=self._clock)
        options = LogOptions(section.keep_bytes, section.keep_ns, section.segment_bytes)
        server = None
        try:
            for name in section.channels:
                archived = ArchivedChannel(name, section.directory / name, options)
                start = archived.start(self._clock.now_ns())
                channel = receiver.subscribe(
                    name,
                    start,
                    data=self._topology.lines_of(name),
                    replay=[rung for rung in self._topology.rungs_of(name) if rung.name != "archive"],
                    limits=self._topology.limits_of(name),
                    curve=client_curve(self._topology, name),
                    standbys=self._topology.standbys_of(name),
                    path=self._topology.channels[name].path,
                )
                self._channels.append((archived, channel))
            server = LogServer(
                [self._topology.archive_endpoint, *section.listen],
                archived_logs(section).get,
                clock=self._clock,
                curve=archive_curves(self._topology),
                offers_logs=False,
            ).start()
            self._loop(receiver)
        finally:
            if server is not None:
                server.close()
            receiver.close()
            for archived, _ in self._channels:
                archived.close()

    def _loop(self, receiver: Receiver) -> None:
        stop_at_s = 0.0
        while True:
            receiver.poll(_POLL_NS)
            took = False
            for archived, channel in self._channels:
                took = self._take(archived, channel) or took
            monotonic_ns = self._clock.monotonic_ns()
            if monotonic_ns - self._maintained_ns >= _MAINTAIN_EVERY_NS:
                self._maintained_ns = monotonic_ns
                for archived, channel in self._channels:
                    archived.maintain(self._clock.now_ns(), monotonic_ns)
                    self._note(archived, channel)
            if monotonic_ns - self._told_ns >= _TELL_EVERY_NS:
                self._told_ns = monotonic_ns
                self._run.tell_gauges("archive", self._most)
            if self._stopping.is_set():
                stop_at_s = stop_at_s or time.monotonic() + _DRAIN_S
                if time.monotonic() > stop_at_s:
                    _log.warning("stopping although not everything published has been archived")
                    return
                if not took and all(self._complete(archived) for archived, _ in self._channels):
                    return

    def _note(self, archived: ArchivedChannel, channel: ChannelReceiver) -> None:
        machine, lane = channel.machine, channel.lane
        now = {
            "lane": lane.waiting if lane is not None else 0,
            "queued": machine.queued_records,
            "held": machine.held_records,
            "newer": machine.newer_records,
            "holes": machine.holes,
            "partial": archived.counters.partial_most,
        }
        before = self._most.get(archived.name, now)
        self._most[archived.name] = {name: max(value, before[name]) for name, value in now.items()}

    def _take(self, archived: ArchivedChannel, channel: ChannelReceiver) -> bool:
        if channel.machine.failure:
            raise RecordTypeError(f"channel {channel.name!r}: {channel.machine.failure}")
        took = False
        while (item := channel.take()) is not None:
            assert channel.record is not None
            archived.take(item, channel.record, channel.machine.info, self._clock.now_ns())
            took = True
        return took

    def _complete(self, archived: ArchivedChannel) -> bool:
        """All that is in the publisher's log is here; nothing is known of another fabric's."""
        if self._topology.writer(archived.name) is None:
            return True
        try:
            published = LogReader(self._run.channel_log(archived.name))
        except LogError:
            return True  # nothing was ever published
        if archived.log is None:
            return published.next == published.base
        return archived.log.session == published.session and archived.log.next >= published.next
