"""Starts every process of a fabric, keeps them running, and stops them from the feed down."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from fabric.config.curve import look_up_curves, warnings_of
from fabric.config.fault import LOG_SERVER
from fabric.config.plan import Plan
from fabric.config.saved import save_source
from fabric.errors import ConfigError, UserMistake
from fabric.log.paths import hold_lock, write_atomically
from fabric.rundir import RunDirectory, create_run, drop_old_logs
from fabric.runtime.journal import OPTIONS as JOURNAL_OPTIONS
from fabric.runtime.node import Source
from fabric.runtime.page import NodeState
from fabric.standby.node import following_pid
from fabric.supervise.children import Child
from fabric.supervise.lives import Lives
from fabric.supervise.report import build_report, open_pages
from fabric.supervise.watchdog import LOOK_NS, progress_of
from fabric.transport.faultpage import FaultPage
from fabric.transport.faults import FaultPlan

ARCHIVE = "archive"
_STEP_S = 0.05
_GATE_DEADLINE_NS = 15_000_000_000
_STOP_DEADLINE_NS = 10_000_000_000
_STOP_TRIES = 3
_LOG_SERVER_WATCHDOG_NS = 5_000_000_000


class AlreadyRunning(UserMistake):
    """Another ``fabric up`` runs this fabric."""


class Supervisor:
    """``run()`` does everything and returns the report. ``say(name, line)`` gets the processes' output."""

    def __init__(
        self,
        plan: Plan,
        *,
        for_ns: int = 0,
        until_done: bool = False,
        fault: FaultPlan | None = None,
        keep_journals: bool = False,
        say: Callable[[str, str], None],
        show: Callable[[Supervisor], None] | None = None,
    ) -> None:
        self.plan = plan
        self.fault = fault
        self._keep_journals = keep_journals
        self.children: dict[str, Child] = {}
        """By node; nodes of one process have the same one. And the log server's, the archive's."""
        self.standbys: dict[str, Child] = {}
        """By node."""
        self.failure = ""
        self.exit_code = 0
        self._for_ns = for_ns
        self._until_done = until_done
        self._say = say
        self._show = show
        self._stop_asked = False
        self._gate_open = False
        self._look_at_ns = 0
        self._archive_given_up = False
        self._started_ns = time.monotonic_ns()
        if until_done and (endless := [name for name in plan.sources() if not _finite(plan, name)]):
            raise ConfigError(
                f"source {endless[0]!r} never ends", key="--until-done", remedy="use --for 20s, or make it finite"
            )
        if until_done and not plan.sources():
            raise ConfigError("there is no source that could end", key="--until-done", remedy="use --for 20s")
        look_up_curves(plan.topology)
        for line in warnings_of(plan.topology):
            say("up", f"warning: {line}")
        self._lock = self._take_lock()
        self.run_directory = self._make_run()
        self._lives = Lives(self.run_directory.path)

    @property
    def seconds(self) -> float:
        return (time.monotonic_ns() - self._started_ns) / 1e9

    def stop(self) -> None:
        """Ask for an orderly end (from a signal handler)."""
        self._stop_asked = True

    def run(self) -> dict[str, Any]:
        """Until the time is over, everything is done, stop was asked for, or something failed for good."""
        ended = "failed"
        try:
            self._start()
            ended = self._watch()
        finally:
            self._stop_all()
            os.close(self._lock)
        if self.failure:
            ended = "failed"
        fault = str(self.fault) if self.fault else ""
        report = build_report(
            self.plan, self.run_directory, self.children, ended=ended, seconds=self.seconds, fault=fault
        )
        report["failure"] = self.failure
        try:
            write_atomically(self.run_directory.path / "report.json", json.dumps(report, indent=2).encode())
        except OSError as error:
            self._say("up", f"can't keep the report in {self.run_directory.path}: {error.strerror}")
        return report

    # Starting

    def _take_lock(self) -> int:
        directory = self.plan.topology.directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor, holder = hold_lock(directory / "up.lock")
        except OSError as error:
            raise ConfigError(
                f"can't write to {directory}: {error.strerror}", key="data_dir", remedy="set another data_dir"
            ) from None
        if descriptor is None:
            raise AlreadyRunning(
                f"fabric {self.plan.topology.fabric!r} is running already (pid {holder})",
                remedy="stop it first, or use another data_dir",
            )
        return descriptor

    def _make_run(self) -> RunDirectory:
        topology = self.plan.topology
        drop_old_logs(topology.directory)
        written = [section for name, section in topology.channels.items() if topology.writer(name)]
        # Retention may be exceeded by the segment being filled and the one prepared ahead.
        needed = sum(section.retain_bytes + 2 * section.segment_bytes for section in written)
        needed += len(topology.nodes) * (JOURNAL_OPTIONS.retain_bytes + 2 * JOURNAL_OPTIONS.segment_bytes)
        manifest = {
            "fabric": topology.fabric,
            "config": str(topology.source.file.resolve()),
            "started_ns": time.time_ns(),
            "fault": str(self.fault) if self.fault else "",
            "nodes": {name: node.section.use for name, node in self.plan.nodes.items()},
            "channels": {name: record.describe() for name, record in self.plan.records.items()},
        }
        run = create_run(topology.directory, topology.log_dir, needed, manifest, now_ns=time.time_ns())
        save_source(run.path, topology.source)
        if self.fault is not None:
            FaultPage.create(run.path, list(topology.nodes))
        topology.make_sockets_dir()
        return run

    def _start(self) -> None:
        run = str(self.run_directory.path)
        fault = ["--fault", str(self.fault)] if self.fault else []
        self._add([LOG_SERVER], [run, "--log-server", *fault])
        keep = ["--keep-journal"] if self._keep_journals else []
        for name in self.plan.upstream_first():
            if name in self.children:
                continue
            together = self.plan.topology.together_with(name)
            self._add(together, [run, *(word for each in together for word in ("--node", each)), *fault, *keep])
            if self.plan.nodes[name].section.standby:
                standby = self._child([name], f"{name}.standby", [run, "--node", name, "--standby", *fault, *keep])
                self.children[name].standby = self.standbys[name] = standby

        if self.plan.topology.archive is not None:
            self._add([ARCHIVE], [run, "--archive", *fault])

    def _add(self, names: list[str], arguments: list[str]) -> None:
        process = self.plan.nodes[names[0]].section.process if len(names) > 1 else names[0]
        child = self._child(names, process, arguments)
        self.children.update(dict.fromkeys(names, child))
        child.start()

    def _child(self, names: list[str], process: str, arguments: list[str]) -> Child:
        log_file = self.run_directory.node(names[0]) / "output.log"
        nodes = self.plan.nodes
        watchdogs_ns = {
            name: nodes[name].section.watchdog_ns if name in nodes else _LOG_SERVER_WATCHDOG_NS for name in names
        }
        return Child(process, arguments, log_file, self._say, self._lives, watchdogs_ns=watchdogs_ns)

    def _processes(self) -> list[Child]:
        """Each once."""
        return list(dict.fromkeys(self.children.values()))

    # Watching

    def _watch(self) -> str:
        while True:
            now_ns = time.monotonic_ns()
            for child in self._processes():
                child.step(now_ns, stopping=False)
                if child.gave_up and child.name == ARCHIVE:
                    self._without_archive(child)
                elif child.gave_up:
                    self.failure = f"{child.name} {child.gave_up}"
                    self.exit_code = 2 if child.exit_code == 2 else 1
                    return "failed"
            self._step_standbys(now_ns)
            self._watch_progress(now_ns)
            self._open_gate(now_ns)
            if self._show is not None:
                self._show(self)
            if self._stop_asked:
                return "stopped"
            if self._until_done and self._all_done():
                return "done"
            if self._for_ns and now_ns - self._started_ns >= self._for_ns:
                return "stopped"
            time.sleep(_STEP_S)

    def _without_archive(self, child: Child) -> None:
        """Losing it alone loses nothing: the fabric goes on, and says so."""
        if not self._archive_given_up:
            self._archive_given_up = True
            self._say(ARCHIVE, f"{child.gave_up}: nothing is archived any more in this run")

    def _step_standbys(self, now_ns: int) -> None:
        """A standby is started when its node is at work: before that it might get the node's lock first."""
        for name, standby in self.standbys.items():
            gave_up = standby.gave_up
            standby.step(now_ns, stopping=False, may_start=not standby.running and self._at_work(self.children[name]))
            if standby.gave_up and not gave_up:
                self._say(standby.name, f"there is none any more: a restart of {name} takes its place")

    def _watch_progress(self, now_ns: int) -> None:
        """Look from time to time whether each process gets on, and kill the one that hangs."""
        if now_ns < self._look_at_ns:
            return
        self._look_at_ns = now_ns + LOOK_NS
        pages = open_pages(self.plan, self.run_directory)
        for name, child in self.children.items():
            page, progress, factor = pages.get(name), None, 1
            if page is not None and page.get("pid") == child.pid:
                progress, factor = progress_of(page.get("pid"), page.get("state"), page.get("passes"))
            child.watch(name, progress, now_ns, factor=factor)
        for name, standby in self.standbys.items():
            standby.watch(name, None, now_ns)

    def _at_work(self, child: Child) -> bool:
        """All of its nodes are."""
        if not child.running:
            return False
        pages = open_pages(self.plan, self.run_directory)
        return all(
            (page := pages.get(name)) is not None
            and page.get("pid") == child.pid
            and page.get("state") >= NodeState.RUNNING
            for name in child.nodes
        )

    def _has_stopped(self, node: str, child: Child) -> bool:
        """In a process that goes on for others."""
        page = open_pages(self.plan, self.run_directory).get(node)
        return page is not None and page.get("pid") == child.pid and page.get("state") == NodeState.STOPPED

    def _open_gate(self, now_ns: int) -> None:
        """Let the sources start once every other node runs and hears all of its inputs."""
        gate = self.run_directory.gate
        if self._gate_open:
            return
        late = now_ns - self._started_ns > _GATE_DEADLINE_NS
        if not late:
            pages = open_pages(self.plan, self.run_directory)
            for name, node in self.plan.nodes.items():
                if following_pid(self.run_directory.node(name)):
                    continue  # it stands by for a node of another host
                page = pages.get(name)
                if page is None or page.get("state") < NodeState.RUNNING:
                    return
                for port, channel in node.section.inputs.items():
                    if self.plan.topology.writer(channel) is not None and not page.get(f"in.{port}.active"):
                        return
        else:
            self._say("up", "not every node hears its inputs yet; the sources start all the same")
        gate.touch()
        self._gate_open = True

    def states(self) -> dict[str, NodeState]:
        pages = open_pages(self.plan, self.run_directory)
        return {
            name: NodeState(pages[name].get("state")) if name in pages else NodeState.NEW for name in self.plan.nodes
        }

    def _all_done(self) -> bool:
        return all(state == NodeState.DONE for state in self.states().values())

    # Stopping

    def _stop_all(self) -> None:
        """From the feed down, each node after what it reads from, so that it can take in all that was published."""
        self._end_standbys()
        server = self.children.get(LOG_SERVER)
        if server is not None and not server.running and not self.failure:
            server.start()  # what is missing somewhere comes from it
        for name in [*self.plan.upstream_first(), ARCHIVE, LOG_SERVER]:
            child = self.children.get(name)
            if child is not None:
                self._stop(name, child)

    def _end_standbys(self) -> None:
        """Before any node is stopped: nobody is to go on for it. One that just took over ends in order, as a node."""
        for standby in self.standbys.values():
            standby.signal(signal.SIGTERM)
        deadline_ns = time.monotonic_ns() + _STOP_DEADLINE_NS
        while any(standby.running for standby in self.standbys.values()):
            self._step_children()
            if time.monotonic_ns() > deadline_ns:
                for standby in self.standbys.values():
                    standby.signal(signal.SIGKILL)
            time.sleep(_STEP_S / 5)
        for child in self.children.values():
            child.standby = None

    def _stop(self, name: str, child: Child) -> None:
        """One process, or one node of it, in order. One that is dead, or dies meanwhile, is started once more to finish what
        it owes."""
        requests = [self.run_directory.stop_request(each) for each in child.nodes]
        if len(child.nodes) > 1:
            self.run_directory.stop_request(name).touch()
        last = len(child.nodes) == 1 or all(each.exists() for each in requests)
        for _ in range(_STOP_TRIES):
            if not child.running:
                if child.gave_up or self.failure:
                    return
                child.restarts += 1
                child.start()
            self._await_running(child)
            child.signal(signal.SIGTERM)
            deadline_ns = time.monotonic_ns() + _STOP_DEADLINE_NS
            while child.pid is not None and (last or not self._has_stopped(name, child)):
                self._step_children()
                if time.monotonic_ns() > deadline_ns:
                    self._say(child.name, "does not stop: killed")
                    self.failure = self.failure or f"{child.name} did not stop when asked"
                    self.exit_code = self.exit_code or 1
                    child.signal(signal.SIGKILL)
                    deadline_ns += _STOP_DEADLINE_NS
                time.sleep(_STEP_S / 5)
            if child.exit_code == 0 or child.pid is not None:
                return
        self.failure = self.failure or f"{child.name} ended with exit code {child.exit_code} while stopping"
        self.exit_code = self.exit_code or 1

    def _await_running(self, child: Child) -> None:
        """A process that is just starting would miss the signal, or end without having caught up."""
        deadline_ns = time.monotonic_ns() + _STOP_DEADLINE_NS
        of_nodes = child.nodes[0] in self.plan.nodes
        while of_nodes and child.running and time.monotonic_ns() < deadline_ns and not self.failure:
            if self._at_work(child) or following_pid(self.run_directory.node(child.nodes[0])) == child.pid:
                return
            self._step_children()
            time.sleep(_STEP_S / 5)

    def _step_children(self) -> None:
        for other in (*self._processes(), *self.standbys.values()):
            other.step(time.monotonic_ns(), stopping=True)


def _finite(plan: Plan, name: str) -> bool:
    """Whether a source ends by itself, asked of the node itself (its config may decide)."""
    node = plan.nodes[name].make()
    assert isinstance(node, Source)
    node.on_start()
    return node.finite
