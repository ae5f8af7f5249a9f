"""The shape of a fabric, as far as it can be told without loading any node's code: enough for a client."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fabric.channel import channel_id
from fabric.config.source import Source
from fabric.protocol.ladder import Rung
from fabric.protocol.types import Limits
from fabric.transport.faults import FaultPlan


@dataclass(frozen=True, slots=True)
class CurveSection:
    """``curve``: for each key that is given, where in the config it stands. Looked up where a socket needs it, so that a
    reader needs no key but its own."""

    where: dict[str, tuple[str, ...]]


@dataclass(slots=True)
class ChannelSection:
    """``[channels."name"]``: everything has a default. Sizes in bytes, times in nanoseconds."""

    name: str
    retain_bytes: int = 128 << 20
    rate: float | None = None
    """Records a second that are expected."""
    outage_ns: int = 0
    """How long a reader is to be away and lose nothing."""
    retain_age_ns: int = 0
    segment_bytes: int = 8 << 20
    sync: bool = False
    crc: bool | None = None
    path: Literal["auto", "local", "ipc", "tcp"] = "auto"
    listen: list[str] = field(default_factory=list)
    connect: list[str] = field(default_factory=list)
    """Several: lines."""
    reorder_ns: int = 10_000_000
    replay: str = ""
    archive: str = ""
    recovery: tuple[str, ...] = ("log", "archive", "snapshot")
    recovery_deadline_ns: int = 30_000_000_000
    buffer_records: int = 262_144
    curve: CurveSection | None = None
    """Keys for its tcp endpoints; None: not encrypted."""
    standby_connect: str = ""
    """Where a standby on another host publishes once it has taken over."""
    standby_replay: str = ""

    @property
    def external(self) -> bool:
        """Published by another fabric: ``connect`` and ``replay`` say where."""
        return bool(self.connect)


@dataclass(slots=True)
class ServiceSection:
    """``[services."name"]``: where requests are answered."""

    name: str
    endpoint: str = ""
    curve: CurveSection | None = None


@dataclass(slots=True)
class ArchiveSection:
    """``[archive]``: what is kept beyond the logs' retention, where and for how long."""

    channels: list[str]
    directory: Path
    keep_ns: int
    keep_bytes: int
    segment_bytes: int
    listen: list[str]
    curve: CurveSection | None = None
    """Keys for its tcp endpoints."""


@dataclass(slots=True)
class StandbySection:
    """``[standby.NODE]``: whom a node of this config stands by for."""

    node: str
    connect: str
    replay: str
    sync: str
    takeover_after_ns: int
    """0: by command."""
    curve: CurveSection | None = None


@dataclass(slots=True)
class NodeSection:
    """``[nodes.name]``: what every node has, and under ``settings`` the keys of its class."""

    name: str
    use: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    resume: Literal["exact", "fresh"]
    idle: Literal["block", "yield", "spin"]
    checkpoint_every_ns: int
    settings: dict[str, Any]
    cpus: tuple[int, ...] = ()
    """The processors that its process may run on; none: any."""
    standby: bool = False
    """A second process waits for the first one to end."""
    process: str = ""
    """Nodes of the same one run in one process, each in a thread; empty: in one of its own."""
    sync: str = ""
    """Where a standby on another host joins."""
    on_standby_lost: Literal["stop", "go_on"] = "stop"
    standby_deadline_ns: int = 1_000_000_000
    watchdog_ns: int = 5_000_000_000
    """Without progress for so long it is killed; 0: never."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done to whole processes, once or over and over. Times in nanoseconds, from the start of the
    sources; ``every_ns`` 0: once."""

    name: str
    do: Literal["kill", "pause", "stall", "partition"]
    nodes: tuple[str, ...]
    """One of these each time."""
    at_ns: int
    every_ns: int = 0
    for_ns: int = 0
    jitter_ns: int = 0


@dataclass(frozen=True, slots=True)
class FaultSection:
    """``[fault]``: what is done to packets, and to processes."""

    plan: FaultPlan = field(default_factory=FaultPlan)
    actions: tuple[Action, ...] = ()

    @property
    def touches_packets(self) -> bool:
        """Else only processes are killed and stopped, and readers may map the logs as ever."""
        return self.plan.touches_packets or any(action.do == "partition" for action in self.actions)


@dataclass(slots=True)
class Topology:
    """All nodes and channels by name, and where their sockets and files are."""

    fabric: str
    source: Source
    data_dir: Path
    log_dir: Path | None
    """None: tmpfs if it has the room, else ``data_dir``."""
    heartbeat_ns: int
    stale_after_ns: int
    nodes: dict[str, NodeSection]
    channels: dict[str, ChannelSection]
    curve: CurveSection | None = None
    """What channels without a ``curve`` of their own have."""
    replay_rate_bytes: int = 0
    """A second, that its log server replays; 0: no limit."""
    services: dict[str, ServiceSection] = field(default_factory=dict)
    archive: ArchiveSection | None = None
    standbys: dict[str, StandbySection] = field(default_factory=dict)
    """By node: those that stand by for a node of another host."""
    fault: FaultSection | None = None
    """What ``fabric fault`` does; nothing else looks at it."""

    def together_with(self, node: str) -> list[str]:
        """The nodes of this one's process, itself among them, in the order of the config."""
        process = self.nodes[node].process
        return [name for name, other in self.nodes.items() if name == node or (process and other.process == process)]

    @property
    def directory(self) -> Path:
        """Where the runs of this fabric are."""
        return self.data_dir / self.fabric

    @property
    def sockets_dir(self) -> Path:
        """A short path that is the same for every process of this fabric on this host; mode 0700."""
        digest = hashlib.blake2b(str(self.directory.resolve()).encode(), digest_size=6).hexdigest()
        return Path(tempfile.gettempdir()) / f"zmf-{os.getuid()}" / digest

    def writer(self, channel: str) -> NodeSection | None:
        """The node that publishes the channel."""
        return next((node for node in self.nodes.values() if channel in node.outputs.values()), None)

    def origins(self, channel: str) -> set[str]:
        """The source nodes that a channel's records stem from."""
        writer = self.writer(channel)
        if writer is None:
            return set()
        inputs = writer.inputs.values()
        return set().union(*(self.origins(each) for each in inputs)) if inputs else {writer.name}

    def node_endpoint(self, node: str) -> str:
        digest = hashlib.blake2b(node.encode(), digest_size=6).hexdigest()
        return f"ipc://{self.sockets_dir}/{digest}.data"

    def service_endpoint(self, service: str) -> str:
        """Where a service of this fabric is asked."""
        section = self.services.get(service)
        if section is not None and section.endpoint:
            return section.endpoint
        digest = hashlib.blake2b(service.encode(), digest_size=6).hexdigest()
        return f"ipc://{self.sockets_dir}/{digest}.service"

    @property
    def replay_endpoint(self) -> str:
        return f"ipc://{self.sockets_dir}/replay"

    @property
    def archive_endpoint(self) -> str:
        return f"ipc://{self.sockets_dir}/archive"

    def data_endpoint_of(self, channel: str) -> str:
        """Where a subscriber on this host connects for live packets."""
        section = self.channels[channel]
        writer = self.writer(channel)
        return section.connect[0] if writer is None else self.node_endpoint(writer.name)

    def lines_of(self, channel: str) -> tuple[str, ...]:
        """Where a subscriber on this host connects for live packets, line by line: most channels have one."""
        section = self.channels[channel]
        return tuple(section.connect) if section.connect else (self.data_endpoint_of(channel),)

    def standbys_of(self, channel: str) -> tuple[str, ...]:
        """Where live packets come from once a standby on another host has taken over."""
        section = self.channels[channel]
        return (section.standby_connect,) if section.external and section.standby_connect else ()

    def limits_of(self, channel: str) -> Limits:
        """Of a subscription to the channel."""
        section = self.channels[channel]
        return Limits(
            stale_ns=self.stale_after_ns,
            reorder_ns=section.reorder_ns if len(self.lines_of(channel)) > 1 else 0,
            recovery_deadline_ns=section.recovery_deadline_ns,
            snapshots="snapshot" in section.recovery,
            max_held_records=section.buffer_records,
            max_queued_records=section.buffer_records,
            max_request_records=min(Limits().max_request_records, section.buffer_records),
        )

    def rungs_of(self, channel: str) -> tuple[Rung, ...]:
        """Who is asked for what a reader of the channel lacks, in their order."""
        section = self.channels[channel]
        where = {"log": self.replay_endpoint_of(channel), "archive": section.archive}
        log, *others = [Rung(name, where[name]) for name in section.recovery if where.get(name)]
        told = section.external and section.standby_replay
        standby = [Rung("standby", section.standby_replay)] if told else []
        return (log, *standby, *others)

    def replay_endpoint_of(self, channel: str) -> str:
        section = self.channels[channel]
        return section.replay if section.external else self.replay_endpoint

    def make_sockets_dir(self) -> Path:
        for directory in (self.sockets_dir.parent, self.sockets_dir):
            directory.mkdir(mode=0o700, exist_ok=True)
            if directory.stat().st_uid != os.getuid():
                raise self.source.error(f"the socket directory {directory} belongs to another user")
        return self.sockets_dir

    def channel_ids(self) -> dict[int, str]:
        return {channel_id(name): name for name in self.channels}
