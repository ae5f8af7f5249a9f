"""Two lines of one channel: what is delivered, asked for and counted, under random histories and step by step."""

from __future__ import annotations

import random

import pytest

from fabric.protocol.channellines import ChannelLines
from fabric.protocol.lines import LineState
from fabric.protocol.requests import Op, Reply, Status
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, Run, Start, State

MS = 1_000_000
SESSION, NEWER = 5 << 32 | 1, 6 << 32 | 2
REORDER_NS = 10 * MS
A, B = 0, 1


def made(**limits: int) -> Subscription:
    given = {"reorder_ns": REORDER_NS, "stale_ns": 1000 * MS} | limits
    machine = Subscription(1, Start.live(), Limits(**given), jitter=lambda: 1.0, lines=2)
    for line in (A, B):
        machine.on_heartbeat(SESSION, 1, 1, line=line)
    return machine


def taken(machine: Subscription) -> list[int]:
    found: list[int] = []
    while (item := machine.take()) is not None:
        if isinstance(item, Run):
            found += item.records
    return found


def send(machine: Subscription, line: int, first: int, now_ns: int, count: int = 1, session: int = SESSION) -> None:
    machine.on_data(session, first, list(range(first, first + count)), now_ns, line)


def answer(machine: Subscription, now_ns: int) -> set[int]:
    """Answers what the machine asks for, at once; the sequences that it asked for."""
    asked: set[int] = set()
    while machine.requests:
        request = machine.requests.popleft()
        if request.op != Op.REPLAY:
            continue
        for part, (first, last) in enumerate(request.ranges, 1):
            reply = Reply(request.id, Status.DATA, 1, request.session, part=part, total=len(request.ranges))
            machine.on_reply(reply, now_ns, first, list(range(first, last + 1)))
            asked.update(range(first, last + 1))
    return asked


def counted(machine: Subscription, line: int) -> tuple[int, int, int]:
    """(first, duplicates, late); checks the sum on the way."""
    assert machine.lines is not None
    counts = machine.lines.counts()[line]
    assert counts.received == counts.first + counts.duplicates + counts.late
    return counts.first, counts.duplicates, counts.late


def test_a_gap_that_grows_while_it_waits_is_one_gap() -> None:
    machine = made()
    for through in (100, 1_300):  # both at the same time, as packets are that are read in one turn
        machine.on_heartbeat(SESSION, through + 1, 2, line=A)
    machine.on_time(2 + REORDER_NS)
    assert answer(machine, 2 + REORDER_NS) >= {1, 100, 101, 1_300}
    assert (machine.counters.missed, machine.counters.gaps) == (1_300, 1)
    assert taken(machine) == list(range(1, 1_301))


@pytest.mark.parametrize("seed", range(40))
def test_only_what_no_line_brought_is_missed_and_asked_for(seed: int) -> None:
    generator = random.Random(seed)
    print("seed", seed)
    drops = [generator.choice((0.0, 0.1, 0.5)), generator.choice((0.0, 0.1, 0.9))]
    lags = [
        generator.randrange(4 * MS),
        generator.randrange(4 * MS),
    ]  # one line may lead the other by less than reorder_ns
    arrivals: list[tuple[int, int, int, int]] = []
    brought = [set[int](), set[int]()]
    first = 1
    for number in range(300):
        count = generator.randrange(1, 4)
        for line in (A, B):
            if generator.random() >= drops[line]:
                at_ns = 2 + number * MS // 2 + lags[line]
                arrivals.append((at_ns, line, first, count))
                brought[line].update(range(first, first + count))
        first += count
    machine, got, asked, now_ns = made(), list[int](), set[int](), 0
    for at_ns, line, begin, count in sorted(arrivals, key=lambda each: each[0]):
        for between_ns in range(now_ns, at_ns, MS):
            machine.on_time(between_ns)
            asked |= answer(machine, between_ns)
        now_ns = at_ns
        send(machine, line, begin, now_ns, count)
        asked |= answer(machine, now_ns)
        got += taken(machine)
        counted(machine, line)
    for line in (A, B):
        machine.on_heartbeat(SESSION, first, now_ns + 5 * MS, line=line)
    for later_ns in range(now_ns + 5 * MS, now_ns + 200 * MS, MS):
        asked |= answer(machine, later_ns)
        machine.on_time(later_ns)
    got += taken(machine)
    everything = set(range(1, first))
    lacked = everything - brought[A] - brought[B]
    assert got == list(range(1, first))
    assert asked == lacked
    counters = machine.counters
    assert (counters.missed, counters.recovered, counters.lost) == (len(lacked), len(lacked), 0)
    received = sum(counted(machine, line)[0] for line in (A, B))
    assert received + counters.replayed == len(everything) == counters.received
    assert counters.duplicates == len(brought[A] & brought[B])
    assert machine.state == State.LIVE


def test_a_hole_waits_for_the_other_line_and_no_longer_than_it_should() -> None:
    machine = made()
    send(machine, A, 2, 10)
    assert (machine.counters.missed, list(machine.requests), machine.state) == (0, [], State.LIVE)
    machine.on_time(10 + REORDER_NS - 1)
    assert not machine.requests
    machine.on_time(10 + REORDER_NS)  # the other line is slow or silent
    assert machine.counters.missed == 1
    assert machine.counters.gaps == 1
    assert machine.state == State.RECOVERING
    assert answer(machine, 11 + REORDER_NS) == {1}
    assert taken(machine) == [1, 2]
    send(machine, B, 1, 12 + REORDER_NS)
    send(machine, B, 2, 13 + REORDER_NS)
    assert (counted(machine, A), counted(machine, B)) == ((1, 0, 0), (0, 1, 1))


def test_nothing_is_asked_for_above_a_hole_that_another_line_may_fill() -> None:
    machine = made()
    send(machine, A, 5, 10)  # 1 to 4 may come on B yet
    machine.on_heartbeat(NEWER, 1, 11, line=A)
    asked = machine.requests.popleft()
    forked = {"base": 1, "next": 1, "parent": SESSION, "fork": 8}
    machine.on_reply(Reply(asked.id, Status.INFO, 1, NEWER, **forked, extra={"image": "none"}), 12)
    assert not machine.requests  # 6 to 8 come on no line any more
    machine.on_time(10 + REORDER_NS)
    (request,) = machine.requests
    assert request.ranges == ((1, 4), (6, 8))
    gone = Reply(request.id, Status.UNAVAILABLE, 1, SESSION, first_available=4)
    machine.on_reply(gone, 11 + REORDER_NS)
    assert taken(machine) == []
    assert machine.counters.lost == 3


def test_what_both_have_passed_is_asked_for_at_once() -> None:
    machine = made()
    send(machine, A, 3, 10)
    send(machine, B, 2, 11)
    assert answer(machine, 11) == {1}
    assert taken(machine) == [1, 2, 3]
    assert (machine.counters.missed, machine.counters.recovered) == (1, 1)


def test_a_lost_line_is_told_not_waited_for_and_may_come_back() -> None:
    machine = made()
    assert machine.lines is not None
    for number in range(1, 14):  # B is silent for longer than stale_ns
        send(machine, A, number, number * 100 * MS)
    machine.on_time(1301 * MS)
    assert [each.state for each in machine.lines.counts()] == [LineState.LIVE, LineState.LOST]
    assert machine.lines.take_told() == [(B, LineState.LOST)]
    assert not machine.stale
    send(machine, A, 15, 1400 * MS)
    assert answer(machine, 1400 * MS) == {14}  # at once: nobody else is there
    send(machine, B, 15, 1401 * MS)
    assert machine.lines.take_told() == [(B, LineState.LIVE)]
    assert machine.lines.counts()[B].losses == 1
    assert counted(machine, B) == (0, 1, 0)


def test_where_all_lines_fall_silent_none_is_lost() -> None:
    machine = made()
    assert machine.lines is not None
    machine.on_time(60_000 * MS)
    assert machine.stale
    assert machine.lines.take_told() == []


def test_a_line_that_was_never_heard_is_lost_after_a_while() -> None:
    lines = ChannelLines(2, 100)
    lines.check(1000)
    assert [each.state for each in lines.counts()] == [LineState.SILENT] * 2
    lines.accounts.heard(A, 0, 1050)
    lines.check(1050)
    assert lines.state(B) == LineState.SILENT
    assert not lines.passed(0) or lines.accounts.last(B) == 0
    lines.accounts.heard(A, 7, 1101)
    lines.check(1101)
    assert lines.state(B) == LineState.LOST
    assert lines.passed(7)
    assert not lines.passed(8)


def test_a_slower_line_may_still_bring_the_session_that_was_left() -> None:
    machine = made()
    send(machine, A, 1, 10)
    send(machine, A, 1, 20, session=NEWER)
    while machine.requests:
        request = machine.requests.popleft()
        old = request.session == SESSION
        known = Reply(
            request.id, Status.INFO, 1, request.session, next=2, parent=0 if old else SESSION, fork=0 if old else 1
        )
        machine.on_reply(known, 30)
        machine.on_time(40)
    assert machine.session == NEWER
    assert taken(machine) == [1, 1]
    send(machine, B, 1, 50)
    send(machine, B, 1, 60, session=NEWER)
    assert (counted(machine, A), counted(machine, B)) == ((2, 0, 0), (0, 1, 1))
    assert machine.counters.fenced == 0
