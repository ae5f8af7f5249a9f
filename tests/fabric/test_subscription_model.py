"""Random histories of one publisher, one lossy line and one log server against the subscription machine.

What must hold at the end of every history, after the world has healed: for each session, in order, every record above
the starting point was delivered exactly once with the right content, or announced as lost or skipped; nothing twice.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fabric.protocol.events import Ended, Lost, Session, Skipped
from fabric.protocol.requests import Op, Reply, Request, Status
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, Origin, Run, Start, State
from native.log import LogState

MS = 1_000_000
LIMITS = Limits(
    stale_ns=100 * MS,
    request_timeout_ns=50 * MS,
    backoff_min_ns=5 * MS,
    backoff_max_ns=50 * MS,
    recovery_deadline_ns=10_000 * MS,
    session_deadline_ns=2_000 * MS,
    max_held_records=64,
    max_queued_records=96,
    max_request_records=40,
)


def content(session: int, sequence: int) -> tuple[int, int]:
    return (session, sequence)


@dataclass
class Log:
    session: int
    parent: int
    fork: int
    next: int = 1
    first_available: int = 1
    state: LogState = LogState.OPEN
    gone: bool = False

    def records(self, first: int, last: int) -> list[tuple[int, int]]:
        return [content(self.session, sequence) for sequence in range(first, last + 1)]


@dataclass
class World:
    """The publisher's side: logs of all sessions, what is on its way to the subscriber."""

    image: bool
    logs: dict[int, Log] = field(default_factory=dict)
    current: Log | None = None
    epoch: int = 0

    def new_session(self, keep: bool) -> Log:
        old = self.current
        self.epoch += 1
        session = (self.epoch << 32) | (self.epoch * 7 + 1)
        log = Log(session, 0, 0)
        if old is not None:
            if keep:
                log.parent, log.fork = old.session, old.next - 1
                if old.state == LogState.OPEN:
                    old.state = LogState.SUPERSEDED
            else:
                old.gone = True
        self.logs[session] = log
        self.current = log
        return log

    def answer(self, request: Request) -> list[tuple[Reply, int, list[tuple[int, int]] | None]]:
        assert self.current is not None
        log = self.logs.get(request.session or self.current.session)
        if log is None or log.gone:
            return [(Reply(request.id, Status.UNKNOWN_SESSION, 1, request.session), 0, None)]

        def reply(status: Status, part: int = 1, total: int = 1) -> Reply:
            extra = {"schema": 5, "image": "last" if self.image else "none"} if status == Status.INFO else {}
            return Reply(
                request.id, status, 1, log.session, 1, log.first_available, log.next, int(log.state), log.parent,
                log.fork, part, total, extra,
            )  # fmt: skip

        if request.op == Op.STATUS:
            return [(reply(Status.INFO), 0, None)]
        if request.op == Op.FIND:
            found = reply(Status.INFO)
            found.extra.update(at=max(log.first_available, log.next // 2), whole=True)
            return [(found, 0, None)]
        if request.op == Op.SNAPSHOT:
            if not self.image:
                return [(reply(Status.NO_IMAGE), 0, None)]
            as_of = log.next - 1
            if request.ranges and log.first_available - 1 >= request.ranges[0][0]:
                as_of = log.first_available - 1
            return [(reply(Status.SNAPSHOT), as_of, [("image", as_of)])]
        parts: list[tuple[Status, int, list[tuple[int, int]] | None]] = []
        if any(first < log.first_available for first, _ in request.ranges):
            parts.append((Status.UNAVAILABLE, 0, None))
        for first, last in request.ranges:
            begin = max(first, log.first_available)
            while begin <= min(last, log.next - 1):
                end = min(begin + 6, last, log.next - 1)
                parts.append((Status.DATA, begin, log.records(begin, end)))
                begin = end + 1
        if not parts:
            return [(reply(Status.INFO), 0, None)]
        return [(reply(s, n + 1, len(parts)), first, records) for n, (s, first, records) in enumerate(parts)]


class SubscriptionHistory(RuleBasedStateMachine):
    @initialize(
        image=st.booleans(),
        start=st.sampled_from(["first", "live", "snapshot", "at", "resync", "time"]),
        seed=st.integers(0, 2**32),
    )
    def begin(self, image: bool, start: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ns = 10**15
        self.world = World(image)
        self.world.new_session(keep=True)
        starts = {"first": Start.first(), "live": Start.live(), "snapshot": Start.snapshot(), "at": Start.at(1)}
        starts["time"] = Start.time(1)
        starts["resync"] = Start.resync(1, self.world.current.session)
        self.sub = Subscription(1, starts[start], LIMITS, schema=5)
        self.taken: list[object] = []
        self.replies: list[tuple[Reply, int, list[tuple[int, int]] | None]] = []
        self.delayed: list[tuple[int, int, list[tuple[int, int]]]] = []

    # The publisher

    @rule(count=st.integers(1, 9), fate=st.sampled_from(["deliver"] * 4 + ["drop", "drop", "duplicate", "delay"]))
    def publish(self, count: int, fate: str) -> None:
        log = self.world.current
        if log.state != LogState.OPEN:
            return
        first = log.next
        log.next += count
        records = log.records(first, log.next - 1)
        if fate == "delay":
            self.delayed.append((log.session, first, records))
        for _ in range({"deliver": 1, "duplicate": 2}.get(fate, 0)):
            self.sub.on_data(log.session, first, records, self.now_ns)
        self.carry_requests()

    @rule()
    def delayed_packet_arrives(self) -> None:
        if self.delayed:
            session, first, records = self.delayed.pop(self.random.randrange(len(self.delayed)))
            self.sub.on_data(session, first, records, self.now_ns)

    @rule()
    def heartbeat(self) -> None:
        log = self.world.current
        self.sub.on_heartbeat(log.session, log.next, self.now_ns, end=log.state == LogState.ENDED)
        self.carry_requests()

    @rule(keep=st.booleans())
    def new_session(self, keep: bool) -> None:
        if self.world.epoch < 5:
            self.world.new_session(keep)

    @rule()
    def zombie_publisher(self) -> None:
        old = [log for log in self.world.logs.values() if log is not self.world.current]
        if old:
            log = self.random.choice(old)
            self.sub.on_heartbeat(log.session, log.next, self.now_ns)

    @rule()
    def retention(self) -> None:
        log = self.world.current
        if log.next > log.first_available:
            log.first_available = self.random.randint(log.first_available, log.next)

    @rule()
    def end(self) -> None:
        if self.random.random() < 0.1:
            self.world.current.state = LogState.ENDED

    # The log server, time, the reader

    def carry_requests(self) -> None:
        while self.sub.requests:
            request = Request.decode(self.sub.requests.popleft().encode())
            if self.random.random() < 0.85:
                self.replies.extend(self.world.answer(request))

    @rule(count=st.integers(1, 20))
    def replies_arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.replies))):
            reply, first, records = self.replies.pop(0)
            if self.random.random() < 0.9:
                self.sub.on_reply(Reply.decode(reply.encode()), self.now_ns, first, records)
        self.carry_requests()

    @rule(ms=st.integers(1, 300))
    def time_passes(self, ms: int) -> None:
        self.now_ns += ms * MS
        self.sub.on_time(self.now_ns)
        self.carry_requests()

    @rule(count=st.integers(1, 20))
    def read(self, count: int) -> None:
        for _ in range(count):
            item = self.sub.take()
            if item is not None:
                self.taken.append(item)

    # What must always hold

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "sub"):
            assert self.sub.held_records <= LIMITS.max_held_records + LIMITS.max_request_records
            assert self.sub.queued_records <= LIMITS.max_queued_records + LIMITS.max_request_records
            counters = self.sub.counters
            assert counters.recovered <= counters.missed

    def teardown(self) -> None:
        if not hasattr(self, "sub"):
            return
        log = self.world.current
        for _ in range(3000):
            self.now_ns += 20 * MS
            self.sub.on_heartbeat(log.session, log.next, self.now_ns, end=log.state == LogState.ENDED)
            self.sub.on_time(self.now_ns)
            while self.sub.requests:
                self.replies.extend(self.world.answer(self.sub.requests.popleft()))
            while self.replies:
                reply, first, records = self.replies.pop(0)
                self.sub.on_reply(reply, self.now_ns, first, records)
            self.read(1000)
            settled = self.sub.state in (State.LIVE, State.ENDED)
            if (
                settled
                and self.sub.session == log.session
                and self.sub.delivered == log.next - 1
                and not self.sub.requests
            ):
                break
            if self.sub.state == State.ENDED:
                break
        assert self.sub.state in (State.LIVE, State.ENDED), (self.sub.state, self.sub.problem)
        if self.sub.state == State.LIVE:
            assert self.sub.session == log.session
            assert self.sub.delivered == log.next - 1
        check_stream(self.taken, self.world, self.sub)


def check_stream(taken: list[object], world: World, sub: Subscription) -> None:
    session = sub.start.session  # 0 but for a resync, whose reader had everything below its first sequence
    position: int | None = sub.start.sequence - 1 if session else None
    received = lost = skipped = images = 0
    skip_to = 0
    for item in taken:
        match item:
            case Session(0, new) if new == session:
                pass  # it names the session that is followed already
            case Session(old, new):
                assert old == session
                assert new >> 32 > old >> 32
                if old and not world.logs[old].gone and position is not None:
                    assert position <= world.logs[old].next - 1
                # A snapshot that never came promises nothing of the session it was asked in: it joins the next one.
                fresh = old == 0 or (sub.start.mode == "snapshot" and received + lost + skipped + images == 0)
                session, position = new, (None if fresh else 0)
            case Run(origin=Origin.SNAPSHOT) as run:
                assert run.session == session
                assert run.records == [("image", run.last)]
                assert position is None or skip_to == run.last or position == 0
                assert position is None or run.last >= position
                position = run.last
                images += 1
            case Run() as run:
                assert run.session == session
                assert position is None or run.first == position + 1, "a hole or a repetition without a word"
                assert run.records == [content(session, s) for s in range(run.first, run.last + 1)]
                position = run.last
                received += len(run.records)
            case Lost() as event:
                assert event.session == session
                assert position is None or event.first == position + 1
                position = event.last
                lost += event.count
            case Skipped() as event:
                assert position is None or event.first == position + 1
                position = skip_to = event.last
                skipped += event.count
            case Ended() as event:
                assert event.session == session
                assert position is None or position == event.last
    assert sum(isinstance(item, Ended) for item in taken) <= 1
    counters = sub.counters
    assert (received, lost, skipped) == (counters.received, counters.lost, counters.skipped)


TestSubscriptionHistory = SubscriptionHistory.TestCase
TestSubscriptionHistory.settings = settings(max_examples=300, stateful_step_count=50, deadline=None, print_blob=True)


class LongHistories(SubscriptionHistory):
    pass


TestLongHistories = LongHistories.TestCase
TestLongHistories.settings = settings(max_examples=20_000, stateful_step_count=80, deadline=None, print_blob=True)
TestLongHistories.pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
