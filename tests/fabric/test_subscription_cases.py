"""The subscription machine, case by case, where a random history seldom goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fabric.protocol.events import (
    NO_ANSWER,
    SESSION_GONE_UNKNOWN,
    SESSION_LEFT,
    SESSION_LEFT_UNKNOWN,
    Diverged,
    Lost,
    Session,
)
from fabric.protocol.intervals import Hole, Holes
from fabric.protocol.requests import Op, Reply, Status
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, Run, Start, State
from native.log import LogState

S = 1 << 32
SECOND = 1_000_000_000
LIMITS = Limits(recovery_deadline_ns=30 * SECOND, max_queued_records=100, max_held_records=1000)


def drain(machine: Subscription) -> list[Any]:
    items = []
    while (item := machine.take()) is not None:
        items.append(item)
    return items


def joined(**more: Any) -> Subscription:
    machine = Subscription(1, Start.first(), more.pop("limits", LIMITS), **more)
    machine.on_heartbeat(S, 1, 0)
    drain(machine)
    return machine


def test_a_hole_that_nobody_answers_for_is_lost_although_live_data_flows() -> None:
    machine = joined()
    machine.on_data(S, 2, [2], 0)
    for second in range(1, 40):
        machine.on_data(S, 2 + second, [2 + second], second * SECOND)
    assert machine.counters.lost == 1
    items = [item for item in drain(machine) if isinstance(item, Run | Lost)]
    assert isinstance(items[0], Lost)
    assert (items[0].first, items[0].last, items[0].reason) == (1, 1, "no answer from its log server")
    assert machine.state == State.LIVE
    assert machine.delivered == 41


def test_a_slow_reader_is_nobodys_silence() -> None:
    machine = joined()
    for sequence in range(1, 300):
        machine.on_data(S, sequence, [sequence], 0)
    assert machine.queued_records == 100
    for second in range(1, 100):
        machine.on_heartbeat(S, 300, second * SECOND)
    got = [record for item in drain(machine) if isinstance(item, Run) for record in item.records]
    assert machine.counters.lost == 0
    machine.on_time(100 * SECOND)
    got += [record for item in drain(machine) if isinstance(item, Run) for record in item.records]
    assert got == list(range(1, 1 + len(got)))


def test_what_came_before_the_first_live_packet_is_not_missed() -> None:
    machine = Subscription(1, Start.first(), LIMITS)
    info = {"schema": 0, "image": "none"}
    machine.on_reply(Reply(1, Status.INFO, 1, S, 1, 1, 51, 1, extra=info), 0)
    machine.on_data(S, 61, [61], 0)
    assert (machine.counters.gaps, machine.counters.missed) == (0, 0)
    machine.on_data(S, 63, [63], 0)
    assert (machine.counters.gaps, machine.counters.missed) == (1, 1)
    assert [(request.op, request.ranges) for request in machine.requests] == [(Op.REPLAY, ((1, 50),))]


def test_end_is_only_the_end_when_all_before_it_was_delivered() -> None:
    machine = joined()
    machine.on_heartbeat(S, 4, 0, end=True)
    assert machine.state == State.RECOVERING
    machine.on_reply(Reply(1, Status.DATA, 1, S, 1, 1, 4, 2), 0, 1, [1, 2, 3])
    assert machine.state == State.ENDED
    assert [type(item).__name__ for item in drain(machine)] == ["Run", "Ended"]
    assert (machine.counters.missed, machine.counters.recovered) == (3, 3)


def test_an_end_that_was_known_before_the_last_record_came_is_told_though_nobody_speaks_any_more() -> None:
    machine = joined()
    machine.mapped = True
    machine.on_reply(Reply(1, Status.INFO, 1, S, 1, 1, 3, LogState.ENDED, extra={"schema": 0, "image": "none"}), 0)
    machine.on_data(S, 1, [1, 2], 0)
    machine.on_time(1)
    assert machine.state == State.ENDED


def test_another_schema_fails_it_for_good() -> None:
    machine = joined(schema=7)
    machine.on_reply(Reply(1, Status.INFO, 1, S, 1, 1, 1, 1, extra={"schema": 8, "image": "none"}), 0)
    assert machine.state == State.FAILED
    assert "00000008" in machine.failure


def test_what_the_mapped_log_has_no_more_is_asked_for_before_it_is_given_up() -> None:
    machine = joined()
    machine.on_reply(Reply(1, Status.INFO, 1, S, 1, 1, 1, 1, extra={"schema": 0, "image": "none"}), 0)
    machine.mapped = True
    machine.on_log_begins(11, 0)
    assert drain(machine) == []
    assert machine.wanted() is None, "the log itself is not looked into again"
    request = machine.requests[-1]
    assert (request.op, request.ranges) == (Op.REPLAY, ((1, 10),))
    machine.on_data(S, 11, [11, 12], 0)
    # The log server's archive has all but the first three.
    machine.on_reply(Reply(request.id, Status.UNAVAILABLE, 1, S, 1, 4, 13, 1, part=1, total=2), 0)
    machine.on_reply(Reply(request.id, Status.DATA, 1, S, 1, 11, 13, 1, part=2, total=2), 0, 4, list(range(4, 11)))
    items = drain(machine)
    assert isinstance(items[0], Lost)
    assert (items[0].first, items[0].last) == (1, 3)
    assert [record for item in items[1:] for record in item.records] == list(range(4, 13))
    assert machine.state == State.LIVE


def test_a_hole_of_the_mapped_log_itself_is_not_asked_for() -> None:
    machine = joined()
    machine.mapped = True
    machine.requests.clear()
    machine.on_heartbeat(S, 5, 0)
    assert machine.wanted() == (1, 4)
    assert not machine.requests


def with_holes(count: int) -> Subscription:
    """Every second record is missing: the first hole is record 1."""
    machine = joined(limits=Limits())
    for sequence in range(2, 2 * count + 1, 2):
        machine.on_data(S, sequence, [sequence], 0)
    return machine


def test_what_a_packet_costs_does_not_grow_with_the_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a reader that lacks much could not take in what is published meanwhile, and would never catch up."""
    looked_at = 0
    walk = Holes.__iter__

    def counting(holes: Holes) -> Iterator[Hole]:
        nonlocal looked_at
        for hole in walk(holes):
            looked_at += 1
            yield hole

    machine = with_holes(5000)
    request = machine.requests.popleft()
    monkeypatch.setattr(Holes, "__iter__", counting)
    for sequence in range(10_001, 10_501):
        machine.on_data(S, sequence, [sequence], 1)
    assert looked_at <= 3 * 500
    looked_at = 0
    for part in range(1, 501):
        reply = Reply(request.id, Status.DATA, 1, S, 1, 1, 10_501, 1, 0, 0, part, 501, {})
        machine.on_reply(reply, 2, 2 * part - 1, [2 * part - 1])
    assert machine.delivered == 1000
    assert looked_at <= 3 * 500


def test_holes_that_are_given_up_at_once_go_out_in_order_with_what_lies_between() -> None:
    machine = with_holes(50)
    machine.on_reply(Reply(1, Status.UNAVAILABLE, 1, S, 1, 61, 101, 1, 0, 0, 1, 2, {}), 1)
    assert machine.counters.lost == 0  # an image may stand for them
    machine.on_reply(Reply(9, Status.NO_IMAGE, 1, S, 1, 61, 101, 1, 0, 0, 1, 1, {}), 2)
    items = drain(machine)
    assert [item.first for item in items if isinstance(item, Lost)] == list(range(1, 60, 2))
    assert [item.first for item in items if isinstance(item, Run)] == list(range(2, 61, 2))
    assert (machine.counters.lost, machine.delivered) == (30, 60)
    for second in range(1, 40):
        machine.on_time(second * SECOND)
    lost = [item for item in drain(machine) if isinstance(item, Lost)]
    assert [(item.first, item.reason) for item in lost] == [(each, NO_ANSWER) for each in range(61, 100, 2)]
    assert machine.delivered == 100


NEWER = 2 << 32


def left_without_an_answer(told: Reply | None) -> list[Any]:
    """Three records of a session, then a newer one, and nobody answers for five seconds but, perhaps, of the newer one."""
    machine = joined()
    machine.on_data(S, 1, [1, 2, 3], 0)
    machine.on_data(NEWER, 1, [101], 1 * SECOND)
    if told is not None:
        machine.on_reply(told, 1 * SECOND)
    machine.on_time(7 * SECOND)
    assert machine.session == NEWER
    return [item for item in drain(machine) if not isinstance(item, Run)]


def test_where_nobody_says_how_far_a_session_went_that_is_told() -> None:
    lost, session = left_without_an_answer(None)
    assert lost == Lost(S, 4, 3, SESSION_LEFT_UNKNOWN)
    assert session == Session(S, NEWER)


def test_how_far_it_went_its_successor_knows_too() -> None:
    known = Reply(9, Status.INFO, 1, NEWER, 1, 1, 2, 1, S, 8, extra={"schema": 0, "image": "none"})
    lost, session = left_without_an_answer(known)
    assert lost == Lost(S, 4, 8, SESSION_LEFT)
    assert session == Session(S, NEWER)


def test_of_a_session_whose_log_is_gone_nobody_knows_what_came_before() -> None:
    machine = joined()
    machine.on_data(S, 1, [1], 0)
    machine.on_data(NEWER, 1, [101], 1)
    machine.on_reply(Reply(1, Status.INFO, 1, S, 1, 1, 2, 3, extra={"schema": 0, "image": "none"}), 2)
    machine.on_reply(Reply(2, Status.UNKNOWN_SESSION, 1, NEWER), 3)
    assert [item for item in drain(machine) if isinstance(item, Lost)] == [Lost(S, 2, 1, SESSION_GONE_UNKNOWN)]


def test_an_end_that_was_heard_needs_nobody_to_say_it() -> None:
    machine = joined()
    machine.on_data(S, 2, [2], 0)
    machine.on_heartbeat(S, 3, 0, end=True)
    machine.on_data(NEWER, 1, [101], 1 * SECOND)
    machine.on_time(7 * SECOND)
    assert [item for item in drain(machine) if isinstance(item, Lost)] == [
        Lost(S, 1, 1, SESSION_LEFT),
        Lost(S, 3, 2, SESSION_LEFT_UNKNOWN),  # of sessions in between
    ]


NEWEST = 3 << 32


def info(machine: Subscription, session: int, following: int, **more: int) -> Reply:
    """An answer to what was asked last."""
    asked = machine.requests[-1].id if machine.requests else 0
    return Reply(
        asked, Status.INFO, 1, session, 1, 1, following, more.get("state", 1), more.get("parent", 0), more.get("fork", 0),
        extra={"schema": 0, "image": "last"},
    )  # fmt: skip


def test_a_snapshot_that_was_wanted_of_a_session_passes_over_nothing_of_the_next_one() -> None:
    machine = joined()
    machine.on_heartbeat(S, 5, 0)
    machine.on_reply(Reply(machine.requests[-1].id, Status.UNAVAILABLE, 1, S, 1, 5, 5, 1), 1)
    assert machine.requests[-1].op == Op.SNAPSHOT
    machine.on_data(NEWER, 1, [101], 2)
    machine.on_reply(info(machine, NEWER, 2, parent=S, fork=4), 3)
    machine.on_reply(Reply(9, Status.UNKNOWN_SESSION, 1, S), 4)
    machine.on_time(5)
    assert machine.session == NEWER
    assert [type(item).__name__ for item in drain(machine)] == ["Lost", "Session", "Run"]
    machine.on_time(6)
    assert not [request for request in machine.requests if request.session == NEWER and request.op == Op.SNAPSHOT]


def test_each_session_has_its_own_time_for_its_rest() -> None:
    """However long the one before it took, of which nobody knew the end."""
    machine = joined()
    machine.on_data(NEWER, 2, [102], 1 * SECOND)
    machine.on_heartbeat(NEWEST, 1, 1 * SECOND)
    machine.on_time(7 * SECOND)
    assert machine.session == NEWER
    assert machine.counters.lost == 0
    machine.on_reply(Reply(99, Status.DATA, 1, NEWER, 1, 1, 3, 3), 8 * SECOND, 1, [101])
    assert machine.delivered == 2


@pytest.mark.parametrize(("start", "beyond"), [(Start.live(), 8), (Start.at(8, S), 4)])
def test_diverged_is_what_the_reader_had_beyond_the_fork(start: Start, beyond: int) -> None:
    """One that began above the fork had nothing below; of one that goes on, an earlier life had it all."""
    machine = Subscription(1, start, LIMITS)
    machine.on_data(S, 8, [8, 9], 0)
    machine.on_heartbeat(NEWER, 1, 1)
    machine.on_reply(info(machine, S, 4, state=3), 2)
    machine.on_reply(info(machine, NEWER, 1, parent=S, fork=3), 3)
    machine.on_time(4)
    assert machine.session == NEWER
    assert [item for item in drain(machine) if isinstance(item, Diverged)] == [Diverged(beyond, 9)]


def test_records_that_an_archive_has_are_asked_for_although_their_log_is_gone() -> None:
    machine = joined()
    machine.on_data(S, 3, [3], 0)
    machine.on_data(NEWER, 1, [101], 1)
    machine.on_reply(info(machine, NEWER, 2, parent=S, fork=4), 2)
    asked = machine.requests[-1].id
    machine.on_reply(Reply(asked, Status.UNKNOWN_SESSION, 1, S, extra={"replays": True}), 3)
    machine.on_time(4)
    assert machine.counters.lost == 0
    request = machine.requests[-1]
    assert (request.op, request.ranges) == (Op.REPLAY, ((1, 2), (4, 4))), "how far it went its successor knows"
    for part, missing in ((1, [1, 2]), (2, [4])):
        data = Reply(request.id, Status.DATA, 1, S, 1, 1, 5, 1, part=part, total=2)
        machine.on_reply(data, 5, missing[0], missing)
    machine.on_time(6)
    assert [record for item in drain(machine) if isinstance(item, Run) for record in item.records] == [1, 2, 3, 4, 101]
