"""One channel of a subscription or table: its state machine seen from the reader's side."""

from __future__ import annotations

import dataclasses
import logging
import time

from fabric.client.condition import Condition, condition
from fabric.client.endpoints import Endpoints, why_unreachable
from fabric.errors import Closed, NotConnected, RecordTypeError
from fabric.protocol.channellines import LineCounts
from fabric.protocol.events import Event, Lost, Session
from fabric.protocol.progress import CatchUp, CaughtUp, Progress
from fabric.protocol.types import Counters, Origin, Run, State
from fabric.records import RecordType
from fabric.transport.climb import RungCounts
from fabric.transport.receiver import ChannelReceiver, Receiver

_log = logging.getLogger("fabric.client")


class Feed:
    """A channel as its reader sees it."""

    def __init__(self, receiver: ChannelReceiver, endpoints: Endpoints, wire: Receiver) -> None:
        self.receiver = receiver
        self._wire = wire
        self.endpoints = endpoints
        self.ended = False
        """The reader has been told so."""
        self.gone: BaseException | None = None
        """Why it is not kept current any more: closed, or the client's receiver failed."""
        self.lost_through = 0
        """The last sequence that was lost since the last snapshot or newer session; 0: none."""
        self.conflates = False
        self.conflated = 0
        """Records that a reader who wants the newest was not given."""
        self.handed = 0
        """Records of the stream that the reader was given by its intake."""
        self._told: tuple[State, bool] = (State.JOINING, False)
        self._catch_up = CatchUp()

    @property
    def channel(self) -> str:
        return self.receiver.name

    @property
    def state(self) -> State:
        if self.gone is not None:
            return State.CLOSED if isinstance(self.gone, Closed) else State.FAILED
        if self.receiver.path_wanted == "local" and self.receiver.mapped is None:
            return State.JOINING
        return self.receiver.machine.state

    @property
    def stale(self) -> bool:
        """No packet or heartbeat in time, or not kept current any more."""
        return self.gone is not None or self.receiver.machine.stale

    @property
    def condition(self) -> Condition:
        """Of the channel as a whole: LOST from a loss on until a snapshot or a newer session."""
        return condition(self.state, stale=self.stale, lost=self.lost_through > 0)

    def note(self, item: Run | Event) -> None:
        """The reader is given this: what it says of losses."""
        if isinstance(item, Lost):
            self.lost_through = max(self.lost_through, item.last, 1)
        elif isinstance(item, Session) or (isinstance(item, Run) and item.origin == Origin.SNAPSHOT):
            self.lost_through = 0

    @property
    def path(self) -> str:
        """How records come: ``local`` (the mapped log of this host), ``ipc`` or ``tcp``."""
        return self.receiver.path

    @property
    def counters(self) -> Counters:
        self.receiver.settle(time.monotonic_ns())
        counters = self.receiver.machine.counters
        if self.conflates:
            return dataclasses.replace(counters, received=self.handed, conflated=self.conflated)
        return counters

    @property
    def lines(self) -> list[LineCounts]:
        """States and accounts of its lines, where it has several."""
        self.receiver.settle(time.monotonic_ns())
        lines = self.receiver.machine.lines
        return lines.counts() if lines is not None else []

    @property
    def rungs(self) -> list[RungCounts]:
        """Who replays, where there are several: what each did, and whether it answers."""
        return self.receiver.climb.counts() if self.receiver.climb is not None else []

    @property
    def record(self) -> RecordType | None:
        """The record type, once known."""
        return self.receiver.record

    @property
    def session(self) -> int:
        return self.receiver.machine.session

    @property
    def last(self) -> int:
        """The last sequence that was taken in (not necessarily read yet)."""
        return self.receiver.last

    @property
    def newest(self) -> int:
        """The last sequence that is known to exist, here or not."""
        return max(self.receiver.last, self.receiver.machine.seen)

    @property
    def waiting_records(self) -> int:
        """Received, and not handed out yet."""
        machine, lane = self.receiver.machine, self.receiver.lane
        fed = lane.waiting if lane is not None and not self.receiver.pulled else 0
        return machine.queued_records + machine.held_records + self.receiver.behind + fed

    @property
    def problem(self) -> str:
        """Why it is not live; empty where it is."""
        machine = self.receiver.machine
        if machine.failure:
            return machine.failure
        if refused := self._wire.problem_of(self.receiver):
            return refused
        return machine.problem if self.state == State.JOINING else ""

    def check(self) -> None:
        """Raises RecordTypeError where the channel carries another dtype, and what ended it."""
        if self.gone is not None:
            raise self.gone
        failure = self.receiver.machine.failure
        if failure:
            raise RecordTypeError(f"channel {self.channel!r}: {failure}")

    def not_connected(self) -> NotConnected:
        """Why it is not LIVE, as an error."""
        if refused := self._wire.problem_of(self.receiver):
            return NotConnected(self.channel, refused)
        lines = [why_unreachable(endpoint) for endpoint in self.endpoints.data]  # one of them will do
        for reason in ("" if "" in lines else lines[0], why_unreachable(self.endpoints.replay)):
            if reason:
                return NotConnected(self.channel, reason, remedy="is the fabric running, with the same config?")
        return NotConnected(self.channel, self.problem or f"still {self.state.lower()}")

    @property
    def progress(self) -> Progress | None:
        """How far its catching up has come; None while there is nothing to catch up with."""
        return self._catch_up.progress

    def state_changed(self) -> bool:
        """True once after its state or staleness has changed. For who drives the hub, in each turn that brings it something."""
        now = (self.state, self.stale)
        if now[0] is State.RECOVERING or self._catch_up.progress is not None:
            self._note_progress(under_way=now[0] is State.RECOVERING)
        if now == self._told:
            return False
        self._told = now
        return True

    def _note_progress(self, *, under_way: bool) -> None:
        machine = self.receiver.machine
        told = self._catch_up.note(
            machine.session, machine.delivered, self.newest, time.monotonic_ns(), under_way=under_way
        )
        if isinstance(told, CaughtUp):
            _log.info("channel %r: caught up: %s", self.channel, told)
        elif told is not None:
            _log.info("channel %r: catching up with %d records: %s", self.channel, told.remaining, told)
