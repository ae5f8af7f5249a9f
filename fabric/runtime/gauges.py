"""What a node's process tells of itself on its shared page: accounts of its inputs, latency by hop, use of the machine;
and on its timeline, when its inputs missed something and got it back."""

from __future__ import annotations

import logging
import resource
from pathlib import Path

from fabric.clock import Clock
from fabric.config.plan import Plan
from fabric.protocol.progress import CatchUp, CaughtUp
from fabric.protocol.types import State
from fabric.runtime.cycle import CycleRunner, InputAccount, Step
from fabric.runtime.node import Node
from fabric.runtime.page import INPUT_BUFFERS, LINE_COUNTERS, PATHS, RUNG_COUNTERS, NodePage, page_names
from fabric.runtime.timeline import COUNTS, STALE_BIT, TIMELINE, Timeline
from fabric.transport.receiver import ChannelReceiver

STATES = ("JOINING", "LIVE", "RECOVERING", "ENDED", "FAILED")
"""Of a subscription, by the number that stands on the page."""
LINE_STATES = ("SILENT", "LIVE", "LOST")
"""Of a line, likewise."""
BREAKER_STATES = ("CLOSED", "OPEN", "HALF_OPEN")
"""Of a rung, likewise."""

_log = logging.getLogger("fabric.runtime")
_OF_THE_MACHINE = ("gaps", "missed", "recovered", "duplicates", "replayed")
_OF_THE_ACCOUNT = ("received", "skipped", "lost", "snapshot_records", "session", "delivered")


def hops_of(plan: Plan, name: str) -> dict[str, list[tuple[str, str]]]:
    """Latency hops that end at a node: input port to (hop, stamp) pairs.

    ``writer>node`` is from a record's commit to the node's hands; ``source>node`` from the moment the source read the
    bytes that caused it.
    """
    hops: dict[str, list[tuple[str, str]]] = {}
    for port, channel in plan.topology.nodes[name].inputs.items():
        writer = plan.topology.writer(channel)
        if writer is None:
            hops[port] = [(f"{channel}>{name}", "ts_publish_ns")]
            continue
        hops[port] = [(f"{writer.name}>{name}", "ts_publish_ns")]
        for origin in sorted(plan.topology.origins(channel) - {writer.name}):
            hops[port].append((f"{origin}>{name}", "ts_origin_ns"))
    return hops


class Gauges:
    """The page and the timeline of one node, kept by its process. Those of an earlier life go on. Raises OSError."""

    def __init__(self, path: Path, plan: Plan, node: Node, clock: Clock) -> None:
        self._clock = clock
        hops = hops_of(plan, node.name)
        names = sorted({hop for pairs in hops.values() for hop, _ in pairs})
        inputs = plan.topology.nodes[node.name].inputs
        lines = {port: len(plan.topology.lines_of(channel)) for port, channel in inputs.items()}
        rungs = {port: [rung.name for rung in plan.topology.rungs_of(channel)] for port, channel in inputs.items()}
        lines = {port: count for port, count in lines.items() if count > 1}
        rungs = {port: each for port, each in rungs.items() if len(each) > 1}
        self.page = NodePage(path, *page_names(list(inputs), names, lines, rungs))
        self._calls = self.page.histograms["call"]
        self._ports = [port.name for port in node.input_ports.values() if port.connected]
        self._timeline = Timeline(path.with_name(TIMELINE), [(port, inputs[port]) for port in self._ports])
        self._timeline.start_from(self._totals())
        self._base: dict[str, int] = {}
        self._catch_ups = {port: CatchUp() for port in self._ports}
        self._hops = {
            port: [(self.page.histograms[hop], _offset(node, port, stamp)) for hop, stamp in pairs]
            for port, pairs in hops.items()
        }

    def carry_over(self, port: str, account: InputAccount, *, fresh: bool) -> None:
        """Go on where a killed process left the counters. What it had missed and not yet recovered comes with the
        catching up that begins now, so it is counted as recovered (not on a ``fresh`` start, which may skip it)."""
        base = self._base
        for name in _OF_THE_MACHINE:
            base[f"{port}.{name}"] = self.page.get(f"in.{port}.{name}")
        if not fresh:
            accounted = base[f"{port}.recovered"] + account.lost + account.skipped
            base[f"{port}.recovered"] += max(0, base[f"{port}.missed"] - accounted)

    def read(self, steps: list[Step], now_ns: int) -> None:
        """The records of these steps were taken in hand at ``now_ns``."""
        for step in steps:
            if step.records is not None and step.port is not None:
                for histogram, offset in self._hops.get(step.port.name, ()):
                    histogram.record_field(now_ns, step.records, offset)

    def made(self, number: int, took_ns: int) -> None:
        """A cycle was carried out."""
        self._calls.record(took_ns)
        self.page.set("cycles", number)

    def count(self, runner: CycleRunner, channels: list[ChannelReceiver]) -> None:
        """Bring the page up to date, and note on the timeline what is new since the last time."""
        page = self.page
        usage = resource.getrusage(resource.RUSAGE_SELF)
        page.set("cpu_ns", int((usage.ru_utime + usage.ru_stime) * 1e9))
        page.set("peak_rss_bytes", usage.ru_maxrss * 1024)
        page.set("staged_most", max((output.staged_most for output in runner.outputs), default=0))
        for port, channel in zip(runner.inputs, channels, strict=True):
            prefix, machine, account = f"in.{port.name}", channel.machine, runner.accounts[port.name]
            for name in _OF_THE_MACHINE:
                page.set(f"{prefix}.{name}", self._base[f"{port.name}.{name}"] + getattr(machine.counters, name))
            for name in _OF_THE_ACCOUNT:
                page.set(f"{prefix}.{name}", getattr(account, name))
            page.set(f"{prefix}.state", STATES.index(machine.state))
            page.set(f"{prefix}.active", machine.active)
            page.set(f"{prefix}.stale", machine.stale)
            page.set(f"{prefix}.path", PATHS.index(channel.path))
            page.set(f"{prefix}.refused", machine.counters.refused)
            page.set(f"{prefix}.overflow", channel.lane.overflow if channel.lane is not None else 0)
            self._note_buffers(prefix, channel)
            self._note_progress(port.name, channel, account)
            for line in machine.lines.counts() if machine.lines is not None else ():
                page.set(f"{prefix}.{line.name}.state", LINE_STATES.index(line.state))
                for name in LINE_COUNTERS[1:]:
                    page.set(f"{prefix}.{line.name}.{name}", getattr(line, name))
            for rung in channel.climb.counts() if channel.climb is not None else ():
                page.set(f"{prefix}.{rung.name}.state", BREAKER_STATES.index(rung.state))
                for name in RUNG_COUNTERS[1:]:
                    page.set(f"{prefix}.{rung.name}.{name}", getattr(rung, name))
        if channels:
            states = [1 << STATES.index(each.machine.state) | STALE_BIT * each.machine.stale for each in channels]
            self._timeline.note(self._clock.now_ns(), self._totals(), states)

    def _note_buffers(self, prefix: str, channel: ChannelReceiver) -> None:
        machine, lane = channel.machine, channel.lane
        waiting = lane.waiting if lane is not None else 0
        now = (waiting, machine.queued_records, machine.held_records, machine.newer_records, machine.holes)
        for name, value in zip(INPUT_BUFFERS, now, strict=True):
            self.page.set(f"{prefix}.{name}", value)
            if value > self.page.get(f"{prefix}.{name}_most"):
                self.page.set(f"{prefix}.{name}_most", value)

    def _note_progress(self, port: str, channel: ChannelReceiver, account: InputAccount) -> None:
        """One line when a large catch-up begins, and one when it is over."""
        machine = channel.machine
        under_way = machine.state is State.RECOVERING and account.session == machine.session
        told = self._catch_ups[port].note(
            account.session, account.delivered, machine.seen, self._clock.monotonic_ns(), under_way=under_way
        )
        if isinstance(told, CaughtUp):
            _log.info("input %r (channel %r): caught up: %s", port, channel.name, told)
        elif told is not None:
            _log.info("input %r (channel %r): catching up with %d records", port, channel.name, told.remaining)

    def _totals(self) -> list[tuple[int, ...]]:
        return [tuple(self.page.get(f"in.{port}.{name}") for name in COUNTS) for port in self._ports]


def _offset(node: Node, port: str, stamp: str) -> int:
    fields = node.input_ports[port].record.dtype.fields
    assert fields is not None
    return int(fields[stamp][1])
