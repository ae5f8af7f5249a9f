"""One node in one process: logs, sockets, journal and checkpoint around the duty cycle."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fabric.channel import channel_id
from fabric.clock import Clock, SystemClock
from fabric.config.curve import client_curve, client_curves, node_curves, pair_curve, sync_curve
from fabric.config.plan import NodePlan, Plan
from fabric.cpus import pin
from fabric.errors import AddressInUse, DivergedReplay, LogError, RecordTypeError, Superseded
from fabric.log.image import newest_image
from fabric.log.paths import write_atomically
from fabric.log.reader import LogReader
from fabric.log.sessions import take_lock
from fabric.log.writer import LogOptions, LogWriter
from fabric.protocol.events import Ended, Event
from fabric.protocol.syncgate import SyncLimits
from fabric.protocol.types import Origin, Run, Start
from fabric.rundir import RunDirectory
from fabric.runtime.checkpoint import CHECKPOINT, load_checkpoint, seal
from fabric.runtime.cycle import CycleRunner, Step
from fabric.runtime.gauges import Gauges
from fabric.runtime.journal import Cycle, Entry, JournalWriter, Kind, read_cycles
from fabric.runtime.keeper import Keeper
from fabric.runtime.node import Source
from fabric.runtime.page import NodeState
from fabric.runtime.pauses import GcPauses
from fabric.runtime.resume import CannotResume, ComparingSink, RangeFetcher, archives_of, run_again, snapshot_path
from fabric.runtime.standby import Place
from fabric.runtime.wake import Wake
from fabric.secret import Secret
from fabric.standby.node import NodeStandby, TakenOver, follows, image_of_parent
from fabric.transport.faultpage import FaultPage, NodeGate
from fabric.transport.faults import FaultInjector, FaultPlan
from fabric.transport.publisher import ChannelPublisher, Publisher
from fabric.transport.receiver import ChannelReceiver, Receiver
from fabric.transport.rival import RivalWatch
from fabric.transport.security import CurveClient
from fabric.transport.syncserver import SyncServer
from fabric.units import format_ns
from native.follow import Idle

_log = logging.getLogger("fabric.runtime")
_STRATEGIES = {"block": Idle.BLOCK, "yield": Idle.YIELD, "spin": Idle.SPIN}

_MAX_RECORDS_A_CYCLE = 4096
_IDLE_NS = 20_000_000
_GATE_PAUSE_NS = 5_000_000
_DRAIN_DEADLINE_NS = 5_000_000_000
_COUNT_EVERY_NS = 100_000_000
_CHECKPOINT_LEAST_NS = 500_000_000
_KEPT_LATE_NS = 10_000_000_000
_ENDING_S = 2.0
_ENDING_PAUSE_S = 0.002


class NodeProcess:
    """Runs a node until it is told to stop. ``stop()`` may be called from a signal handler or another thread.

    ``place``: that of a standby which goes on for a process that has ended.
    """

    def __init__(
        self,
        plan: Plan,
        name: str,
        run: RunDirectory,
        *,
        fault: FaultPlan | None = None,
        clock: Clock | None = None,
        wait_for_gate: bool = False,
        place: Place | None = None,
        keep_journal: bool = False,
    ) -> None:
        self._plan = plan
        self._node_plan: NodePlan = plan.nodes[name]
        self._section = self._node_plan.section
        self._topology = plan.topology
        self._run = run
        self._directory = run.node(name)
        self._snapshots = self._directory / "snapshots"
        self._fault = fault
        self._keep_journal = keep_journal
        self._clock = clock or SystemClock()
        self._gate_open = not wait_for_gate
        self._place = place
        self._wake = Wake()
        self._connected = False
        self._fresh = False
        self._finished = False
        self._stopping = threading.Event()
        self._stop_at_ns = 0
        self._channels: list[ChannelReceiver] = []
        self._writers: dict[str, LogWriter] = {}
        self._publishers: dict[str, ChannelPublisher] = {}
        self._publisher: Publisher | None = None
        self._taken: TakenOver | None = None
        self._taken_locks: dict[str, int] = {}
        """Of the logs that were followed for another host's node, by channel."""
        self._rivals: list[RivalWatch] = []
        self._sync_server: SyncServer | None = None
        self._keeper = Keeper()
        self._kept_ns = 0
        self._kept_cycle = -1
        self._told_late = False
        self._reported_ns = 0
        self._journal: JournalWriter

        self.node = self._node_plan.make(self._topology.directory)
        self._runner = CycleRunner(self.node)
        self._strategy = _STRATEGIES[self._section.idle]
        self._gauges = Gauges(self._directory / "page", plan, self.node, self._clock)
        self._page = self._gauges.page
        self._pauses = GcPauses(self._page)

    def stop(self) -> None:
        """Finish what is under way and what upstream has published, then end."""
        self._stopping.set()

    def run(self) -> None:
        """The whole life of the process. Raises FabricError; the page says STOPPED or FAILED afterwards."""
        state = NodeState.FAILED
        owns = False
        if self._section.cpus:
            pin(self._section.cpus, f"nodes.{self._section.name}.cpus")  # before there are threads: they inherit it
        try:
            self._lock_journal()  # first: whoever holds it is the node, and its page is not to be touched
            owns = True
            if follows(self._topology, self.node.name, self._run) and not self._stand_by():
                state = NodeState.STOPPED
                self._journal.writer.close()
                return
            self._open()
            try:
                self.node.on_start()
                self._resume_or_start()
                self._subscribe()
                gc.collect()
                gc.freeze()
                self._pauses.start()
                self._page.set("state", NodeState.RUNNING)
                self._tell_takeover()
                self._loop()
                state = NodeState.STOPPED
            finally:
                self._pauses.stop()
                self._close(orderly=state == NodeState.STOPPED)
        finally:
            if owns:
                self._page.add("errors", state == NodeState.FAILED)
                self._page.set("state", state)

    # Opening

    def _lock_journal(self) -> None:
        name, lock = self.node.name, self._place.lock if self._place is not None else None
        self._journal = JournalWriter(self._run.journal(name), name, now_ns=self._clock.now_ns(), lock=lock)
        self._page.set("state", NodeState.STARTING)
        self._page.set("pid", self._journal.writer.control.writer_pid)

    def _stand_by(self) -> bool:
        """Wait until the node of the other host is gone; False: stopped meanwhile. Readers may connect in the meantime."""
        self._topology.make_sockets_dir()
        self._publisher = self._listen(self._endpoints(), 0.0)
        taken = NodeStandby(self._plan, self.node.name, self._run, self._stopping, clock=self._clock).wait()
        if taken is None:
            self._publisher.close()
            return False
        self._taken = taken
        self._taken_locks = dict(taken.locks)
        self._place = Place(-1, taken.since_ns, inherited=True)
        return True

    def _tell_takeover(self) -> None:
        if self._place is None or not self._place.inherited:
            return
        took_ns = time.monotonic_ns() - self._place.since_ns
        self._page.add("takeovers")
        self._page.set("takeover_ns", took_ns)
        _log.info("took over within %s of the end of the process before", format_ns(took_ns))

    def _open(self) -> None:
        now_ns = self._clock.now_ns()
        # A process that ends gives back its locks and sockets one by one, the journal's lock first.
        within_s = _ENDING_S if self._place is not None else 0.0
        self._topology.make_sockets_dir()
        self._look_for_rivals()
        for port, channel in self._section.outputs.items():
            section = self._topology.channels[channel]
            self._writers[port] = LogWriter(
                self._run.channel_log(channel),
                channel,
                channel_id(channel),
                self.node.output_ports[port].record,
                LogOptions(section.retain_bytes, section.retain_age_ns, section.segment_bytes, section.sync),
                now_ns=now_ns,
                epoch_file=self._run.epoch_file,
                reopen_ended=True,
                lock=self._taken_locks.pop(channel, None) or take_lock(self._run.channel_log(channel), within_s),
            )
            if lacks := self._writers[port].cut_off:
                _log.error("channel %r: the last %d records did not reach the disk before a crash", channel, lacks)
        if self._publisher is None:
            self._publisher = self._listen(self._endpoints(), within_s)
        if self._section.sync:
            limits = SyncLimits(self._section.on_standby_lost, self._section.standby_deadline_ns)
            keys = sync_curve(self._topology, self.node.name)
            self._sync_server = SyncServer(self._section.sync, limits=limits, curve=keys, clock=self._clock)
            for writer in self._writers.values():
                self._sync_server.add(writer)
        if self._taken is not None:
            self._taken.announce({writer.channel: writer.session for writer in self._writers.values()})
        for rival in self._rivals:
            rival.watch(list(self._writers.values()))
        self._publisher.look_after(self._journal.writer)
        for port, writer in self._writers.items():
            section = self._topology.channels[writer.channel]
            crc = any(endpoint.startswith("tcp://") for endpoint in section.listen)
            self._publishers[port] = self._publisher.add(
                writer, crc=crc if section.crc is None else section.crc, never_crc=section.crc is False
            )
        self._journal.follow([self._writers[port.name] for port in self._runner.outputs])
        self._receiver = Receiver(clock=self._clock)

    def _look_for_rivals(self) -> None:
        """Raises Superseded where another host's node has taken a channel of ours over: before anything of ours is begun."""
        where: dict[tuple[str, CurveClient | None], dict[str, Path]] = {}
        standby = self._topology.standbys.get(self.node.name)
        for channel in self._section.outputs.values():
            section, log = self._topology.channels[channel], self._run.channel_log(channel)
            if section.standby_replay:
                where.setdefault((section.standby_replay, pair_curve(self._topology, section)), {})[channel] = log
            if standby is not None:
                where.setdefault((standby.replay, pair_curve(self._topology, standby)), {})[channel] = log
        for (endpoint, curve), logs in where.items():
            self._rivals.append(RivalWatch(endpoint, curve=curve))
            if self._taken is None:  # whom we go on for is not asked first
                self._rivals[-1].check(logs)

    def _endpoints(self) -> list[str]:
        """Where it listens for subscribers."""
        sections = [self._topology.channels[channel] for channel in self._section.outputs.values()]
        own = [self._topology.node_endpoint(self.node.name)] if sections else []
        return list(dict.fromkeys([*own, *(endpoint for section in sections for endpoint in section.listen)]))

    def _listen(self, endpoints: list[str], within_s: float) -> Publisher:
        deadline_s = time.monotonic() + within_s
        injector = self._injector()
        while True:
            try:
                return Publisher(
                    endpoints,
                    heartbeat_ns=self._topology.heartbeat_ns,
                    clock=self._clock,
                    fault=injector,
                    curve=node_curves(self._topology, self.node.name),
                )
            except AddressInUse:
                if time.monotonic() >= deadline_s:
                    raise
                time.sleep(_ENDING_PAUSE_S)

    def _injector(self) -> FaultInjector | None:
        """What puts faults between this node and its readers; told from outside what stands on the run's page of faults."""
        if self._fault is None:
            return None
        name = self.node.name
        try:
            page = FaultPage(self._run.path, list(self._topology.nodes))
        except (FileNotFoundError, ValueError):  # the run was not begun with faults, or with another config
            return self._fault.injector(name)
        return self._fault.injector(name, NodeGate(page, name), page.begin_life(name))

    def _resume_or_start(self) -> None:
        """Exact resume if there is a journal of this run and the config asks for it; else a fresh start."""
        journal = LogReader(self._run.journal(self.node.name))
        began = journal.next > journal.base
        if began and self._section.resume == "exact":
            self._page.set("state", NodeState.RESUMING)
            try:
                self._resume(journal)
                return
            except (CannotResume, LogError) as error:
                # Not a divergence: nothing wrong was published, but what happened in between can't be made again.
                _log.error("exact resume is not possible, starting fresh: %s", error)
                self._page.add("errors")
                self.node = self._node_plan.make(self._topology.directory)
                self._runner = CycleRunner(self.node)
                self.node.on_start()
        if began:
            self._take_over_accounts(journal)
        self._start_fresh(again=began)

    def _take_over_accounts(self, journal: LogReader) -> None:
        """A fresh start forgets the node's state, not what its inputs were given: by the checkpoint and the journal."""
        first = journal.first_available
        with contextlib.suppress(LogError):
            if (state := load_checkpoint(self._directory)) is not None:
                self._runner.restore_accounts(state)
                self._runner.number = state["cycle"]
                first = max(first, state["journal"])
        for cycle in read_cycles(journal, first):
            if isinstance(cycle, Cycle):
                self._runner.number = max(self._runner.number, cycle.number)
                for entry in cycle.entries:
                    self._runner.account(entry)

    def _start_fresh(self, *, again: bool) -> None:
        """Begin with an empty state; ``again`` if this run's node has lived before. The checkpoint of this beginning
        replaces the old one before the journal says so: whatever dies in between, resume starts from one of the two.
        """
        for port, writer in self._writers.items():
            inherited = image_of_parent(writer) if self._place is not None and writer.record.image != "none" else None
            if inherited is not None and not again:
                self.node.on_own_image(self.node.output_ports[port], inherited)
        if again:
            self._fresh = True
            self._finished = any(writer.ended for writer in self._writers.values())
            for port, writer in self._writers.items():
                if writer.record.image != "none":
                    image = newest_image(LogReader(writer.session_directory))
                    records = np.frombuffer(image.export()[0], writer.record.dtype)
                    self.node.on_own_image(self.node.output_ports[port], records)
            if self._finished:
                _log.warning("this node had finished: its outputs are sealed and nothing is made again")
        self._keep_now(force=True)
        self._journal.start(self._clock.now_ns(), fresh=again)
        self._attach_sinks()

    def _resume(self, journal: LogReader) -> None:
        state = load_checkpoint(self._directory)
        if state is None and journal.first_available > journal.base:
            raise CannotResume("there is no checkpoint and the journal's beginning is gone")
        positions = {port: writer.control.base for port, writer in self._writers.items()}
        first = journal.base
        if state is not None:
            self._runner.restore(state)
            first = state["journal"]
            positions.update(state["outputs"])
        sinks = {}
        for port, writer in self._writers.items():
            if positions[port] > writer.next:
                raise CannotResume(f"the log of {writer.channel!r} is shorter than the checkpoint says")
            sinks[port] = ComparingSink(LogReader(writer.session_directory), self._publishers[port], positions[port])
            self.node.output_ports[port].sink = sinks[port]
        where = {port.channel: self._log_of(port.channel) for port in self._runner.inputs}
        archive = archives_of(self._topology, where)
        fetcher = RangeFetcher(where, self._snapshots, client_curves(self._topology, list(where)), archive)
        cycles = run_again(self._runner, journal, first, fetcher.fetch, on_cycle=lambda: self._page.add("passes"))
        for port, sink in sinks.items():
            if sink.position < self._writers[port].next:
                raise DivergedReplay(
                    f"channel {self._writers[port].channel!r} holds records {sink.position} to "
                    f"{self._writers[port].next - 1}, which the journaled cycles did not give again",
                    remedy='remove the run or set resume = "fresh"',
                )
        self._page.add("rerun_cycles", cycles)
        compared = sum(sink.compared for sink in sinks.values())
        _log.info("resumed exactly: %d cycles made again, %d records compared", cycles, compared)
        self._attach_sinks()

    def _log_of(self, channel: str) -> Path | str:
        """Where an input's records can be read again: a directory of this run, or another fabric's log server."""
        external = self._topology.channels[channel].external
        return self._topology.replay_endpoint_of(channel) if external else self._run.channel_log(channel)

    def _attach_sinks(self) -> None:
        for port, publisher in self._publishers.items():
            self.node.output_ports[port].sink = publisher

    def _subscribe(self) -> None:
        for port in self._runner.inputs:
            account = self._runner.accounts[port.name]
            start = Start.at(account.delivered + 1, account.session) if account.session else Start.first()
            if self._fresh and account.session and port.record.image != "none":
                start = Start.resync(account.delivered + 1, account.session)
            self._channels.append(
                self._receiver.subscribe(
                    port.channel,
                    start,
                    data=self._topology.lines_of(port.channel),
                    replay=self._topology.rungs_of(port.channel),
                    record=port.record,
                    limits=self._topology.limits_of(port.channel),
                    curve=client_curve(self._topology, port.channel),
                    standbys=self._topology.standbys_of(port.channel),
                    path=self._topology.channels[port.channel].path,
                )
            )
            self._gauges.carry_over(port.name, account, fresh=self._fresh)

    # The duty cycle

    def _loop(self) -> None:
        source = self.node if isinstance(self.node, Source) else None
        # The supervisor sees by this word that the loop turns.
        words, passes, at = self._page.values, self._page.get("passes"), self._page.index["passes"]
        while True:
            words[at] = passes = passes + 1
            now_ns = max(self._clock.now_ns(), self._runner.last_ns)
            steps = self._input_steps()
            due_ns: int | None = now_ns + _IDLE_NS
            if source is not None and not self._finished and not self._stopping.is_set():
                due_ns = self._source_steps(source, steps, now_ns) if self._may_start() else now_ns + _GATE_PAUSE_NS
            if not self._finished and self._runner.timer_due(now_ns):
                steps.append(Step(Entry(Kind.TIMER)))
            if steps:
                self._cycle(now_ns, steps)
            # Inputs that have all ended are seen to in the next pass without work, out of the way of records.
            if not self._finished and (due_ns is None or (source is None and not steps and self._all_inputs_ended())):
                self._finish(now_ns)
            self._keep_house(now_ns)
            if self._stopping.is_set() and self._drained(bool(steps)):
                return
            self._idle(bool(steps), now_ns, now_ns + _IDLE_NS if due_ns is None else due_ns)

    def _source_steps(self, source: Source, steps: list[Step], now_ns: int) -> int | None:
        """What the source has, added to ``steps``; returns when it is due next."""
        if not self._connected:
            self._connected = True
            source.connect(self._receiver.wake if self._channels else self._wake.set)
        first, count = source.received()
        if count:
            steps.append(Step(Entry(Kind.RECEIVED, first=first, count=count)))
        due_ns = source.next_due_ns(now_ns)
        if due_ns is not None and due_ns <= now_ns:
            steps.append(Step(Entry(Kind.POLL)))
        return due_ns

    def _may_start(self) -> bool:
        """A source waits until everyone downstream listens: nobody then has to catch up on what it could have heard."""
        if not self._gate_open:
            self._gate_open = self._run.gate.exists()
        return self._gate_open

    def _input_steps(self) -> list[Step]:
        """What has arrived, as steps: contiguous runs of an input joined, at most so many records a call."""
        steps: list[Step] = []
        for position, channel in enumerate(self._channels):
            machine = channel.machine
            if machine.failure:
                raise RecordTypeError(f"input {channel.name!r}: {machine.failure}")
            item = channel.take()
            if item is None:
                continue
            # Of a mapped log one view a pass: while it is worked on, more gets ready than ever could be joined.
            more = None if channel.mapped is not None and type(item) is Run else channel.take()
            if more is None and type(item) is Run:  # one run, as nearly always
                steps.append(self._runner.data_step(position, [item], stale=machine.stale))
            else:
                self._join(steps, position, channel, item, more)
        return steps

    def _join(
        self, steps: list[Step], position: int, channel: ChannelReceiver, item: Run | Event, more: Run | Event | None
    ) -> None:
        """Several runs and events of one input: ``item``, ``more``, and what can still be taken."""
        waiting: deque[Run | Event] = deque()
        ended = self._runner.accounts[self._runner.inputs[position].name].ended
        following: Run | Event | None = item
        while following is not None:
            if not (ended and isinstance(following, Ended)):  # told in an earlier life
                waiting.append(following)
            following, more = more or channel.take(), None
        while waiting:
            item = waiting.popleft()
            if not isinstance(item, Run):
                steps.append(self._runner.event_step(position, item))
                continue
            runs, count = [item], len(item.records)
            while waiting and count < _MAX_RECORDS_A_CYCLE and _continues(runs[-1], waiting[0]):
                runs.append(waiting.popleft())  # type: ignore[arg-type]  # _continues says that it is a Run
                count += len(runs[-1].records)
            steps.append(self._runner.data_step(position, runs, stale=channel.machine.stale))

    def _cycle(self, now_ns: int, steps: list[Step]) -> None:
        number = self._runner.number + 1
        for step in steps:
            if step.entry.kind is Kind.SNAPSHOT:
                self._keep_snapshot(step)
        self._journal.cycle(now_ns, number, [step.entry for step in steps])
        self._gauges.read(steps, now_ns)
        self._runner.run(number, now_ns, steps)
        self._gauges.made(number, self._clock.now_ns() - now_ns)

    def _keep_snapshot(self, step: Step) -> None:
        """A snapshot can't be asked for again: it is kept beside the journal before the journal names it."""
        assert step.port is not None
        assert step.records is not None
        self._snapshots.mkdir(exist_ok=True)
        write_atomically(snapshot_path(self._snapshots, step.port, step.entry), step.records.tobytes())

    def _all_inputs_ended(self) -> bool:
        accounts = self._runner.accounts
        return bool(accounts) and all(account.ended for account in accounts.values())

    def _finish(self, now_ns: int) -> None:
        """The source is finished, or all inputs are: a last timer, then seal the outputs and stay to answer."""
        if self.node.timer_ns:
            self._cycle(now_ns, [Step(Entry(Kind.TIMER))])
        self._finished = True
        for publisher in self._publishers.values():
            publisher.end()
        self._keep_now()
        self._gauges.count(self._runner, self._channels)
        self._page.set("state", NodeState.DONE)

    def _drained(self, worked: bool) -> bool:
        """While stopping: has everything that upstream published come through? Given up after a deadline. Another fabric goes
        on publishing: what it has published since is for the next life."""
        now_ns = self._clock.monotonic_ns()
        self._stop_at_ns = self._stop_at_ns or now_ns
        if now_ns - self._stop_at_ns > _DRAIN_DEADLINE_NS:
            _log.warning("stopping although not everything published upstream has arrived")
            return True
        ours = [each for each in self._channels if not self._topology.channels[each.name].external]
        if worked and (ours or not self._channels):
            return False
        for channel in ours:
            channel.settle(now_ns)
            machine = channel.machine
            if machine.out:
                return False
            try:
                log = LogReader(self._run.channel_log(channel.name))
            except LogError:
                continue  # nothing was ever published
            if machine.session == 0 and log.next == log.base:
                continue
            if machine.session != log.session or machine.delivered + 1 < log.next:
                return False
        return True

    def _idle(self, worked: bool, now_ns: int, due_ns: int) -> None:
        """Until something arrives, at most until ``due_ns``. Where all inputs are mapped logs the receiver waits as the
        config says; sockets it would sleep on, so without ``idle = "block"`` they are looked at over and over."""
        if worked:
            now_ns = self._clock.now_ns()
        # What a source has next was asked before it worked, so it is asked again.
        wait_ns = 0 if worked and isinstance(self.node, Source) else max(0, min(due_ns - now_ns, _IDLE_NS))
        if self._runner.next_timer_ns:
            wait_ns = max(0, min(wait_ns, self._runner.next_timer_ns - now_ns))
        sleeps = self._strategy is Idle.BLOCK
        if self._channels:
            mapped = sleeps or all(channel.mapped is not None for channel in self._channels)
            self._receiver.poll(wait_ns if mapped else 0, self._strategy)
        else:
            mapped = sleeps
            if wait_ns and sleeps:
                self._wake.wait(wait_ns)
        if wait_ns and not mapped and self._strategy is Idle.YIELD:
            os.sched_yield()

    # Housekeeping

    def _keep_house(self, now_ns: int) -> None:
        # Often at first: the supervisor opens the gate when it sees that all inputs are heard.
        pause_ns = _COUNT_EVERY_NS if self._runner.number else _GATE_PAUSE_NS
        if now_ns - self._reported_ns < pause_ns:
            return
        self._reported_ns = now_ns
        for writer in self._writers.values():
            if writer.superseded:  # what has nothing to write would never notice
                raise Superseded(writer.channel, writer.superseded_by, path=writer.directory)
        self._gauges.count(self._runner, self._channels)
        self._keeper.look()
        due = now_ns - self._kept_ns >= max(self._section.checkpoint_every_ns, _CHECKPOINT_LEAST_NS)
        if due and not self._keeper.busy:
            self._keep(now_ns)
        elif due and now_ns - self._kept_ns > _KEPT_LATE_NS and not self._told_late:
            self._told_late = True
            _log.warning(
                "%s has been taking a checkpoint for %s: the cycle journal is kept until it has it",
                self._directory, format_ns(now_ns - self._kept_ns),
            )  # fmt: skip

    def _keep(self, now_ns: int, *, force: bool = False) -> None:
        """Give the keeper the state, if there were cycles since the last one, and the report."""
        self._kept_ns, self._told_late, files = now_ns, False, {}
        done = self._report_kept
        if force or self._runner.number != self._kept_cycle:
            self._kept_cycle, journal_next = self._runner.number, self._journal.writer.next
            state = {
                **self._runner.checkpoint(),
                "journal": journal_next,
                "outputs": {port: writer.next for port, writer in self._writers.items()},
            }
            files[self._directory / CHECKPOINT] = seal(state)
            done = functools.partial(self._state_kept, journal_next, state["node"])
        files[self._directory / "report.json"] = json.dumps(self.node.report(), default=_plain).encode()
        self._keeper.keep(files, done)

    def _keep_now(self, *, force: bool = False) -> None:
        """The same, and wait until it is done."""
        self._keeper.settle()
        self._keep(self._clock.now_ns(), force=force)
        self._keeper.settle()

    def _state_kept(self, journal_next: int, state: Mapping[str, Any], error: OSError | None) -> None:
        if error is not None:
            # The last one stays, and the journal is kept back to it: nothing is at stake but the time of a resume.
            _log.error("can't write a checkpoint into %s: %s", self._directory, error.strerror)
            self._page.add("errors")
            return
        if not self._keep_journal:
            self._journal.writer.retention_floor = journal_next
        self._page.add("checkpoints")
        if isinstance(self.node, Source):
            self.node.on_checkpointed(state)

    def _report_kept(self, error: OSError | None) -> None:
        """Nothing is lost without it, and the next checkpoint says what is wrong with the disk."""

    def _close(self, *, orderly: bool) -> None:
        if isinstance(self.node, Source):
            self.node.disconnect()
        if orderly:
            self._keep_now()
            self._gauges.count(self._runner, self._channels)
        self._keeper.close()
        self._receiver.close()
        if self._publisher is not None:
            self._publisher.close()
        if self._sync_server is not None:
            self._sync_server.close()
        for rival in self._rivals:
            rival.close()
        for writer in self._writers.values():
            writer.close()
        self._journal.writer.close()
        self._wake.close()


def _continues(before: Run, item: Run | Event) -> bool:
    return (
        isinstance(item, Run)
        and item.origin != Origin.SNAPSHOT
        and before.origin != Origin.SNAPSHOT
        and item.session == before.session
        and item.first == before.last + 1
    )


def _plain(value: object) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    if isinstance(value, Path | Secret):
        return str(value)
    raise TypeError(f"a report can't hold {type(value).__name__}")
