"""A node that stands by for one of another host: it follows the channels that it would write, until that one is gone.

Then the node begins here, afresh, in new sessions that say what they go on from.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fabric.clock import Clock, SystemClock
from fabric.config.curve import pair_curve
from fabric.config.plan import Plan
from fabric.config.topology import Topology
from fabric.errors import LogError
from fabric.log.holes import load_holes
from fabric.log.image import empty_image
from fabric.log.paths import CURRENT, HOLES, write_atomically
from fabric.log.reader import LogReader
from fabric.log.writer import LogOptions, LogWriter
from fabric.protocol.ladder import Rung
from fabric.records import Records
from fabric.rundir import RunDirectory
from fabric.standby.following import Following, Source, attentive

_log = logging.getLogger("fabric.standby")
FOLLOWS = "follows"
"""Beside a node's page: what it follows, as JSON; gone once it has taken over."""
TAKE_OVER = "take-over"
"""Beside it too: a command to take over."""
_TURN_NS = 20_000_000
_TELL_EVERY_NS = 500_000_000


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What the node goes on with: the locks of its channels' logs, and since when (CLOCK_MONOTONIC). ``announce`` tells the
    primary, if it hears us, which sessions (by channel) have taken its channels over."""

    locks: dict[str, int]
    since_ns: int
    announce: Callable[[dict[str, int]], None]


class NodeStandby:
    """For one node, in its process, which has the lock of the node's cycle journal. ``stopping``: set to give up waiting."""

    def __init__(
        self, plan: Plan, node: str, run: RunDirectory, stopping: threading.Event, *, clock: Clock | None = None
    ) -> None:
        self._plan = plan
        self._section = plan.topology.standbys[node]
        self._node = plan.nodes[node]
        self._topology = plan.topology
        self._run = run
        self._clock = clock or SystemClock()
        self._stopping = stopping
        self._sign = run.node(node) / FOLLOWS
        self._command = run.node(node) / TAKE_OVER
        self._told_ns = 0
        self._warned = False

    def wait(self) -> TakenOver | None:
        """Follow until the other node is gone, or it is commanded; None if stopped meanwhile. Raises FabricError."""
        following = Following(self._sources(), sync=self._section.sync, clock=self._clock)
        taken = None
        try:
            while taken is None and not self._stopping.is_set():
                following.turn(_TURN_NS)
                now_ns = self._clock.monotonic_ns()
                self._tell(following, now_ns)
                if self._due(following, now_ns):
                    taken = self._take_over(following)
            return taken
        finally:
            with contextlib.suppress(OSError):
                self._sign.unlink()
            if taken is None:
                following.close()

    def _due(self, following: Following, now_ns: int) -> bool:
        commanded, after_ns = self._command.exists(), self._section.takeover_after_ns
        if not commanded and (not after_ns or following.silent_ns(now_ns) < after_ns):
            return False
        if following.ready():
            return True
        if not self._warned:
            self._warned = True
            _log.warning("nothing was followed yet of all that is to be taken over: it waits on")
        return False

    def _take_over(self, following: Following) -> TakenOver:
        since_ns = time.monotonic_ns()
        locks = {}
        for each in following.end():
            locks[each.source.name] = each.lock
            _log.warning(
                "channel %r: taken over; it goes on from record %d of session %016x%s",
                each.source.name, each.last, each.session,
                "" if each.in_sync else ", which was not in sync: readers that have more are told",
            )  # fmt: skip
        with contextlib.suppress(OSError):
            self._command.unlink()

        def announce(sessions: dict[str, int]) -> None:
            following.tell(sessions)
            following.close()

        return TakenOver(locks, since_ns, announce)

    def _sources(self) -> list[Source]:
        section, curve = self._section, pair_curve(self._topology, self._section)
        sources = []
        for name in self._node.section.outputs.values():
            channel = self._topology.channels[name]
            options = LogOptions(channel.retain_bytes, channel.retain_age_ns, channel.segment_bytes, channel.sync)
            limits = attentive(self._topology.limits_of(name), section.takeover_after_ns)
            sources.append(
                Source(
                    name, self._run.channel_log(name), (section.connect,), (Rung("log", section.replay),), options,
                    self._plan.records[name], limits, curve,
                )
            )  # fmt: skip
        return sources

    def _tell(self, following: Following, now_ns: int) -> None:
        if self._told_ns and now_ns - self._told_ns < _TELL_EVERY_NS:
            return
        self._told_ns = now_ns
        positions = following.positions()
        channels = {
            name: {"state": state, "session": positions[name][0], "last": positions[name][1]}
            for name, state in following.states().items()
        }
        with contextlib.suppress(OSError):  # a full disk: it is only not seen
            write_atomically(self._sign, json.dumps({"pid": os.getpid(), "channels": channels}).encode())


def follows(topology: Topology, node: str, run: RunDirectory) -> bool:
    """Whether the node is (still) to follow the one that it stands by for: nothing of its own was begun in this run."""
    if node not in topology.standbys:
        return False
    logs = [run.channel_log(name) / CURRENT for name in topology.nodes[node].outputs.values()]
    return not any(log.exists() and not (log / HOLES).exists() for log in logs)


def following_pid(node_directory: Path) -> int:
    """The process that said it follows; 0 if there is none. It may have ended since."""
    try:
        return int(json.loads((node_directory / FOLLOWS).read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def image_of_parent(writer: LogWriter) -> Records | None:
    """The image of what a new session goes on from, for a node that keeps identities; None where that is not all there."""
    parent = writer.control.parent_session
    directory = writer.session_directory.parent / f"{parent:016x}"
    try:
        if not parent or (holes := load_holes(directory)) is None:
            return None
        log = LogReader(directory)
        if holes.ranges or log.first_available > log.base:
            _log.warning("channel %r: its beginning is not here, so what it told of is not known", writer.channel)
            return None
        image = empty_image(log.record)
        for first, records in log.read_range(log.base, log.next - 1):
            image.update(records, first)
        return np.frombuffer(image.export()[0], writer.record.dtype)
    except LogError as error:
        _log.warning("channel %r: what it goes on from can't be read: %s", writer.channel, error)
        return None
