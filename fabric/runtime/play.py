"""Playback: the nodes of a recorded run make their journaled calls again, and all outputs are compared, byte by byte.

No socket and no clock: records come from the run's logs, times from the cycle journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fabric.config.curve import client_curves
from fabric.config.plan import Plan
from fabric.errors import DivergedReplay
from fabric.log.reader import LogReader
from fabric.rundir import RunDirectory
from fabric.runtime.cycle import CycleRunner
from fabric.runtime.journal import FRESH, Entry
from fabric.runtime.resume import CannotResume, ComparingSink, RangeFetcher, archives_of, run_again


@dataclass(slots=True)
class PlayResult:
    """What playing one node showed. ``difference`` is "" if every record was the same."""

    node: str
    cycles: int = 0
    records: dict[str, int] = field(default_factory=dict)
    """By channel: how many records were made again and found identical."""
    difference: str = ""


def play_node(
    plan: Plan, run: RunDirectory, name: str, elsewhere: Mapping[str, Path] = MappingProxyType({})
) -> PlayResult:
    """Play one node from the beginning of its journal. Never publishes or writes anything. ``elsewhere``: log directories
    of channels that another fabric publishes; without, its log server is asked.

    Raises CannotResume if journal or inputs do not reach back to the beginning of the run, or if the node was started
    fresh in the middle of it (then there is no one history to compare with).
    """
    node = plan.nodes[name].make(plan.topology.directory)  # identities that were leased for the run
    runner = CycleRunner(node)
    result = PlayResult(name)
    journal = LogReader(run.journal(name))
    if journal.first_available > journal.base:
        raise CannotResume(f"node {name!r}: retention has removed the beginning of its journal")
    sinks: dict[str, ComparingSink] = {}
    for port in runner.outputs:
        log = LogReader(run.channel_log(port.channel))
        if log.control.parent_session:
            raise CannotResume(f"channel {port.channel!r} began a new session in the middle of the run")
        sinks[port.channel] = port.sink = ComparingSink(log, None, log.base)
    where: dict[str, Path | str] = {}
    for channel in plan.nodes[name].section.inputs.values():
        external = plan.topology.channels[channel].external
        where[channel] = plan.topology.replay_endpoint_of(channel) if external else run.channel_log(channel)
        where[channel] = elsewhere.get(channel, where[channel])

    def on_start(entry: Entry) -> None:
        if entry.detail & FRESH:
            raise CannotResume(f"node {name!r} was started fresh in the middle of the run")

    node.on_start()
    curves = client_curves(plan.topology, list(where))
    fetcher = RangeFetcher(where, run.node(name) / "snapshots", curves, archives_of(plan.topology, where))
    try:
        result.cycles = run_again(runner, journal, journal.base, fetcher.fetch, on_start)
    except DivergedReplay as error:
        result.difference = error.message
    for channel, sink in sinks.items():
        result.records[channel] = sink.compared
        beyond = LogReader(run.channel_log(channel)).next - sink.position
        if not result.difference and beyond > 0:
            result.difference = f"channel {channel!r} holds {beyond} records more than the journaled cycles give"
    return result
