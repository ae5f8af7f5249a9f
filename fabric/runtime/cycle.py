"""One cycle of a node: the plan of what it is given, and carrying it out. The same code live, in resume and playback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabric.errors import LogError, NodeFailed
from fabric.protocol.events import LOST_REASONS, Diverged, Ended, Event, Lost, Session, Skipped
from fabric.protocol.types import Origin, Run
from fabric.records import Records
from fabric.runtime.journal import STALE, Cycle, Entry, Kind
from fabric.runtime.node import Node, Source
from fabric.runtime.ports import InputPort

_WITHOUT_PORT = (Kind.TIMER, Kind.POLL, Kind.RECEIVED)
_DATA, _SNAPSHOT = Kind.DATA, Kind.SNAPSHOT  # a lookup in an enum costs more than its use


@dataclass(slots=True)
class Step:
    """One thing that a node is given. ``port`` is None for timers, polls and what a source received."""

    entry: Entry
    port: InputPort | None = None
    records: Records | None = None
    event: Event | None = None


@dataclass(slots=True)
class InputAccount:
    """What an input was given so far, by the journal: exact whatever was killed when."""

    session: int = 0
    delivered: int = 0
    received: int = 0
    skipped: int = 0
    lost: int = 0
    snapshot_records: int = 0
    ended: bool = False


class CycleRunner:
    """Carries out cycles of one node and keeps the accounts that its checkpoint holds."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.inputs = [port for port in node.input_ports.values() if port.connected]
        self.outputs = [port for port in node.output_ports.values() if port.connected]
        self.accounts = {port.name: InputAccount() for port in self.inputs}
        self.number = 0
        """Of the last cycle carried out."""
        self.last_ns = 0
        self.next_timer_ns = 0
        self.outputs_ended = False

    # Planning (live)

    def data_step(self, position: int, runs: list[Run], *, stale: bool) -> Step:
        """Contiguous runs of one session as one call."""
        port, head = self.inputs[position], runs[0]
        records = head.records if len(runs) == 1 else np.concatenate([run.records for run in runs])
        kind = _SNAPSHOT if head.origin is Origin.SNAPSHOT else _DATA
        first = head.last if kind is _SNAPSHOT else head.first
        return Step(Entry(kind, position, head.session, first, len(records), STALE if stale else 0), port, records)

    def event_step(self, position: int, event: Event) -> Step:
        """An event of the stream as one call."""
        entry = Entry(Kind.SESSION, position)
        match event:
            case Lost():
                code = LOST_REASONS.index(event.reason) if event.reason in LOST_REASONS else 0
                entry = Entry(Kind.LOST, position, event.session, event.first, event.count, code << 8)
            case Skipped():
                entry = Entry(Kind.SKIPPED, position, event.session, event.first, event.count)
            case Session():
                entry = Entry(Kind.SESSION, position, event.new, event.old)
            case Diverged():
                entry = Entry(Kind.DIVERGED, position, 0, event.first, event.delivered)
            case Ended():
                entry = Entry(Kind.ENDED, position, event.session, event.last)
        return Step(entry, self.inputs[position], event=event)

    def timer_due(self, now_ns: int) -> bool:
        timer_ns = self.node.timer_ns
        if timer_ns <= 0:
            return False
        if self.next_timer_ns == 0:
            self.next_timer_ns = now_ns + timer_ns
        return now_ns >= self.next_timer_ns

    # Planning (from the journal)

    def steps_again(self, cycle: Cycle, fetch: Callable[[InputPort, Entry], Records]) -> list[Step]:
        """The steps of a journaled cycle; ``fetch`` brings the records of its DATA and SNAPSHOT entries."""
        steps = []
        for entry in cycle.entries:
            if entry.kind == Kind.OUTPUT:
                continue
            port = self.inputs[entry.port] if entry.kind not in _WITHOUT_PORT else None
            event: Event | None = None
            records: Records | None = None
            last = entry.first + entry.count - 1
            if entry.kind in (Kind.DATA, Kind.SNAPSHOT):
                assert port is not None
                records = fetch(port, entry)
            elif entry.kind == Kind.LOST:
                event = Lost(entry.session, entry.first, last, LOST_REASONS[entry.detail >> 8])
            elif entry.kind == Kind.SKIPPED:
                event = Skipped(entry.session, entry.first, last)
            elif entry.kind == Kind.SESSION:
                event = Session(entry.first, entry.session)
            elif entry.kind == Kind.DIVERGED:
                event = Diverged(entry.first, entry.count)
            elif entry.kind == Kind.ENDED:
                event = Ended(entry.session, entry.first)
            steps.append(Step(entry, port, records, event))
        return steps

    # Carrying out

    def run(self, number: int, now_ns: int, steps: list[Step]) -> None:
        """Make the calls, then flush every output once. Raises NodeFailed with the node's own error as its cause, and
        LogError where a source's recording is not what it should be: that is no fault of the node's code."""
        self.number, self.last_ns = number, now_ns
        try:
            for step in steps:
                self._call(step, now_ns)
        except LogError:
            raise
        except Exception as error:
            raise NodeFailed(f"node {self.node.name!r} failed in cycle {number}: {error!r}") from error
        for output in self.outputs:
            output.flush(now_ns)

    def _call(self, step: Step, now_ns: int) -> None:
        node, entry, port = self.node, step.entry, step.port
        if port is None:
            if entry.kind == Kind.POLL:
                assert isinstance(node, Source)
                node.on_poll(now_ns)
            elif entry.kind == Kind.RECEIVED:
                assert isinstance(node, Source)
                node.on_received(entry.first, entry.count, now_ns)
            else:
                # From where it was due, so that timers do not drift; one that is late is not made up for.
                self.next_timer_ns = max(self.next_timer_ns + node.timer_ns, now_ns + 1)
                node.on_timer(now_ns)
            return
        self.account(entry)
        if step.records is not None:
            port.stale = bool(entry.detail & STALE)
            port.from_snapshot = entry.kind is _SNAPSHOT
            node.on_records(port, step.records, now_ns)
        elif isinstance(step.event, Lost | Skipped):
            node.on_lost(port, step.event)
        elif isinstance(step.event, Ended):
            node.on_ended(port, now_ns)

    def account(self, entry: Entry) -> None:
        """What an input was given, by one entry of the journal."""
        if entry.kind is _DATA:
            account = self.accounts[self.inputs[entry.port].name]
            account.session, account.delivered = entry.session, entry.first + entry.count - 1
            account.received += entry.count
            return
        if entry.kind in _WITHOUT_PORT or entry.kind == Kind.OUTPUT:
            return
        account = self.accounts[self.inputs[entry.port].name]
        match entry.kind:
            case Kind.SNAPSHOT:
                account.session, account.delivered = entry.session, entry.first
                account.snapshot_records += entry.count
            case Kind.LOST:
                account.delivered = max(account.delivered, entry.first + entry.count - 1)
                account.lost += entry.count
            case Kind.SKIPPED:
                account.delivered = entry.first + entry.count - 1
                account.skipped += entry.count
            case Kind.SESSION if entry.session != account.session:
                # Not the first one of a subscription (old 0), which names the session that is being followed already.
                account.session, account.delivered = entry.session, 0
            case Kind.ENDED:
                account.ended = True

    # State

    def checkpoint(self) -> dict[str, Any]:
        return {
            "cycle": self.number,
            "last_ns": self.last_ns,
            "next_timer_ns": self.next_timer_ns,
            "accounts": {
                name: [getattr(account, field) for field in InputAccount.__slots__]
                for name, account in self.accounts.items()
            },
            "node": self.node.checkpoint(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.number = state["cycle"]
        self.last_ns = state["last_ns"]
        self.next_timer_ns = state["next_timer_ns"]
        self.restore_accounts(state)
        self.node.restore(state["node"])

    def restore_accounts(self, state: dict[str, Any]) -> None:
        for name, values in state["accounts"].items():
            if name in self.accounts:
                self.accounts[name] = InputAccount(*values)
