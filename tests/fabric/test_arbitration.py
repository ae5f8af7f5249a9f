"""Line arbitration by hand: each rule in the smallest history that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fabric.protocol.arbiters import Arbiters
from fabric.protocol.arbitration import Arbiter
from fabric.protocol.arbitration_types import (
    FORCED,
    PASSED,
    TIMED_OUT,
    ArbitrationLimits,
    Delivered,
    Gap,
    Item,
    PassedOver,
    Restarted,
)
from fabric.protocol.lines import LineBack, LineLost, LineState

LIMITS = ArbitrationLimits(reorder_ns=10, stale_ns=1000, max_held=8, restart_window=20)


def cut(payload: str, offset: int, count: int) -> str:
    return payload[offset : offset + count]


def items(arbiter: Arbiter) -> Iterator[Item]:
    while (item := arbiter.take()) is not None:
        yield item
    assert arbiter.report().adds_up, arbiter.report()


def told(arbiter: Arbiter) -> list[str]:
    """Numbers as '3' or '3-5' with the line behind them, gaps in brackets."""
    words = []
    for item in items(arbiter):
        match item:
            case Delivered(first, last):
                words.append(f"{first}{item.line}" if first == last else f"{first}-{last}{item.line}")
            case Gap(first, last):
                words.append(f"[{first}-{last}]")
            case PassedOver(first, last):
                words.append(f"({first}-{last})")
            case Restarted(_, _, highest, first):
                words.append(f"restart {highest}>{first}")
            case LineLost(line):
                words.append(f"lost {line}")
            case LineBack(line):
                words.append(f"back {line}")
    return words


def fed(*packets: tuple[str, int, int], limits: ArbitrationLimits = LIMITS) -> Arbiter:
    """(line, first, count) one after the other, all at time 1, from number 1."""
    arbiter = Arbiter(limits=limits, start=1)
    for line, first, count in packets:
        arbiter.on_packet(line, first, count, None, 1)
    return arbiter


def test_the_first_line_to_bring_a_message_delivers_it() -> None:
    arbiter = fed(("A", 1, 1), ("B", 1, 1), ("B", 2, 2), ("A", 2, 2))
    assert told(arbiter) == ["1A", "2-3B"]
    lines = arbiter.report().lines
    assert (lines["A"].first, lines["A"].duplicates) == (1, 2)
    assert (lines["B"].first, lines["B"].duplicates) == (2, 1)


def test_one_line_fills_what_the_other_lacks() -> None:
    arbiter = fed(("A", 1, 1), ("A", 3, 1), ("B", 1, 1))
    assert told(arbiter) == ["1A"], "B has not passed 2"
    arbiter.on_packet("B", 2, 1, None, 5)
    assert told(arbiter) == ["2B", "3A"]
    lines = arbiter.report().lines
    assert (lines["A"].gaps, lines["A"].lacked, lines["B"].lacked) == (1, 1, 0)


def test_a_gap_is_told_when_both_have_passed_it() -> None:
    arbiter = fed(("A", 1, 1), ("A", 4, 1), ("B", 1, 1))
    assert told(arbiter) == ["1A"]
    arbiter.on_packet("B", 5, 1, None, 2)
    first, *_ = items(arbiter)
    assert first == Gap(2, 3, PASSED)
    assert arbiter.next == 6


def test_only_the_part_that_both_have_passed_is_given_up() -> None:
    arbiter = fed(("A", 1, 1), ("A", 6, 1), ("B", 1, 1))
    arbiter.on_heartbeat("B", 4, 2)
    assert told(arbiter) == ["1A", "[2-3]"]
    arbiter.on_packet("B", 4, 2, None, 3)
    assert told(arbiter) == ["4-5B", "6A"]


def test_a_line_that_is_slow_is_waited_for_only_so_long() -> None:
    arbiter = fed(("A", 1, 1), ("B", 1, 1), ("A", 3, 1))
    arbiter.on_time(10)
    assert told(arbiter) == ["1A"]
    arbiter.on_time(11)
    first, *_ = items(arbiter)
    assert first == Gap(2, 2, TIMED_OUT)
    arbiter.on_packet("B", 2, 1, None, 12)
    arbiter.on_packet("B", 3, 1, None, 12)
    assert told(arbiter) == []
    lines = arbiter.report().lines
    assert (lines["B"].late, lines["B"].duplicates) == (1, 2)


def test_the_time_of_a_hole_counts_without_on_time() -> None:
    arbiter = fed(("A", 1, 1), ("A", 3, 1))
    arbiter.on_packet("B", 2, 1, None, 11)
    assert told(arbiter) == ["1A", "[2-2]", "3A"]
    assert arbiter.report().lines["B"].late == 1


def test_order_within_a_line_may_change_while_the_other_has_not_passed() -> None:
    arbiter = fed(("A", 1, 1), ("A", 3, 1), ("A", 2, 1))
    assert told(arbiter) == ["1A", "2A", "3A"]
    assert arbiter.report().lines["A"].lacked == 0
    assert arbiter.report().lines["A"].gaps == 1


def test_packets_with_other_boundaries() -> None:
    arbiter = Arbiter(limits=LIMITS, start=1, cut=cut)
    arbiter.on_packet("A", 1, 3, "abc", 1)
    arbiter.on_packet("B", 2, 4, "bcde", 1)
    arbiter.on_packet("A", 8, 2, "hi", 1)
    arbiter.on_packet("B", 6, 5, "fghij", 1)
    got = [item for item in items(arbiter) if isinstance(item, Delivered)]
    assert "".join(item.payload for item in got) == "abcdefghij"
    assert [(item.first, item.last, item.line) for item in got] == [
        (1, 3, "A"),
        (4, 5, "B"),
        (6, 7, "B"),
        (8, 9, "A"),
        (10, 10, "B"),
    ]


def test_without_slicing_an_item_says_where_its_packet_begins() -> None:
    arbiter = fed(("A", 1, 3), ("B", 2, 4))
    assert list(items(arbiter))[1] == Delivered(4, 5, None, 2, "B")


def test_a_heartbeat_shows_a_loss_at_the_end() -> None:
    arbiter = fed(("A", 1, 1), ("B", 1, 1))
    arbiter.on_heartbeat("A", 3, 2)
    assert told(arbiter) == ["1A"]
    arbiter.on_heartbeat("B", 3, 2)
    assert told(arbiter) == ["[2-2]"]
    assert arbiter.report().lines["A"].lacked == 1


def test_a_lost_line_shows_and_hurts_nothing() -> None:
    arbiter = fed(("A", 1, 1), ("B", 1, 1))
    arbiter.on_packet("A", 2, 1, None, 900)
    assert arbiter.report().states == {"A": LineState.LIVE, "B": LineState.LIVE}
    arbiter.on_packet("A", 3, 1, None, 1001)
    assert told(arbiter) == ["1A", "2A", "lost B", "3A"]
    assert arbiter.report().states["B"] == LineState.LOST
    arbiter.on_packet("A", 5, 1, None, 1002)
    assert told(arbiter) == ["[4-4]", "5A"], "a lost line is not waited for"
    arbiter.on_packet("B", 5, 1, None, 1003)
    assert list(items(arbiter)) == [LineBack("B", 1)]
    report = arbiter.report()
    assert (report.states["B"], report.losses["B"], report.lines["B"].lacked) == (LineState.LIVE, 1, 3)


def test_a_line_that_never_comes_is_silent_and_then_lost() -> None:
    arbiter = fed(("A", 1, 1))
    assert arbiter.report().states["B"] == LineState.SILENT
    arbiter.on_packet("A", 3, 1, None, 2)
    assert told(arbiter) == ["1A"], "B may only be slow"
    arbiter.on_time(1001)
    assert told(arbiter) == ["lost B", "[2-2]", "3A"]


def test_too_much_above_a_hole_gives_it_up_at_once() -> None:
    arbiter = fed(("A", 1, 1), ("B", 1, 1), *(("A", number, 1) for number in range(3, 11)))
    assert told(arbiter) == ["1A"]
    arbiter.on_packet("A", 11, 1, None, 2)
    first, *_ = items(arbiter)
    assert first == Gap(2, 2, FORCED)
    assert arbiter.report().counters.forced == 1


def test_heartbeats_alone_do_not_grow_without_bound() -> None:
    arbiter = fed(("A", 1, 1), ("B", 1, 1))
    for number in range(3, 100):
        arbiter.on_heartbeat("A", number, 2)
    assert len(arbiter.report().accounts) == 1
    assert arbiter.report().accounts[0].missing == LIMITS.max_held


def test_a_start_that_is_heard() -> None:
    arbiter = Arbiter(limits=LIMITS)
    arbiter.on_packet("A", 10, 1, None, 1)
    arbiter.on_packet("B", 8, 3, None, 1)
    assert told(arbiter) == ["10A"]
    assert (arbiter.report().lines["B"].early, arbiter.report().lines["B"].duplicates) == (2, 1)


def test_a_new_session_waits_for_the_rest_of_the_old_one() -> None:
    arbiter = Arbiter(limits=LIMITS, start=1, base=1)
    arbiter.on_packet("A", 1, 1, None, 1, session="x")
    arbiter.on_packet("B", 1, 1, None, 1, session="x")
    arbiter.on_packet("A", 1, 2, None, 2, session="y")
    assert told(arbiter) == ["1A"]
    arbiter.on_packet("B", 2, 1, None, 3, session="x")
    arbiter.on_packet("B", 1, 1, None, 3, session="y")
    assert list(items(arbiter)) == [
        Delivered(2, 2, None, 2, "B"),
        Restarted("x", "y", 2, 1),
        Delivered(1, 2, None, 1, "A"),
    ]
    arbiter.on_packet("A", 3, 1, None, 4, session="x")
    assert told(arbiter) == []
    assert arbiter.report().lines["A"].old == 1


def test_a_new_session_does_not_wait_for_ever() -> None:
    arbiter = Arbiter(limits=LIMITS, start=1, base=1)
    arbiter.on_packet("A", 1, 1, None, 1, session="x")
    arbiter.on_packet("B", 1, 1, None, 1, session="x")
    arbiter.on_packet("A", 3, 1, None, 1, session="x")
    arbiter.on_packet("A", 2, 1, None, 2, session="y")
    arbiter.on_time(12)
    assert told(arbiter) == ["1A", "[2-2]", "3A", "restart 3>1", "[1-1]", "2A"]


def test_a_loss_at_the_beginning_of_a_session_is_a_gap_where_its_first_number_is_known() -> None:
    for base, expected in ((1, ["1A", "restart 1>1", "[1-2]", "3A"]), (None, ["1A", "restart 1>3", "3A"])):
        arbiter = Arbiter(("A",), LIMITS, start=1, base=base)
        arbiter.on_packet("A", 1, 1, None, 1, session="x")
        arbiter.on_packet("A", 3, 1, None, 2, session="y")
        assert told(arbiter) == expected


def test_numbers_that_go_back_far_are_a_restart() -> None:
    arbiter = fed(("A", 1, 30), ("B", 1, 30), ("A", 1, 1))
    assert told(arbiter) == ["1-30A"]
    arbiter.on_packet("B", 31, 1, None, 2)
    arbiter.on_packet("B", 1, 1, None, 2)
    assert told(arbiter) == ["31B", "restart 31>1", "1A"]
    assert arbiter.report().lines["B"].duplicates == 31


@pytest.mark.parametrize(("first", "restarts"), [(11, 0), (10, 1)])
def test_how_far_back_is_far(first: int, restarts: int) -> None:
    """After 1 to 30 the line is at 31: 11 is back by 20, which is the window."""
    arbiter = Arbiter(("A",), LIMITS, start=1)
    arbiter.on_packet("A", 1, 30, None, 1)
    arbiter.on_packet("A", first, 1, None, 1)
    list(items(arbiter))
    assert arbiter.report().counters.restarts == restarts
    assert arbiter.report().lines["A"].duplicates == 1 - restarts


def test_a_slow_line_is_not_a_restart() -> None:
    arbiter = fed(("B", 1, 1), ("A", 1, 100), ("B", 2, 1), ("B", 3, 98))
    assert told(arbiter) == ["1B", "2-100A"]
    assert arbiter.report().counters.restarts == 0


def test_a_heartbeat_can_tell_a_restart() -> None:
    arbiter = Arbiter(("A",), LIMITS, start=1)
    arbiter.on_packet("A", 1, 30, None, 1)
    arbiter.on_heartbeat("A", 1, 2)
    arbiter.on_packet("A", 1, 1, None, 3)
    assert told(arbiter) == ["1-30A", "restart 30>1", "1A"]


def test_no_window_no_restart() -> None:
    arbiter = fed(("A", 1, 30), ("A", 1, 1), limits=ArbitrationLimits(restart_window=None))
    assert told(arbiter) == ["1-30A"]
    assert arbiter.report().lines["A"].duplicates == 1


def test_a_line_left_behind_by_a_restart_is_old_until_it_goes_over() -> None:
    arbiter = fed(("A", 1, 30), ("B", 1, 30), ("A", 1, 1))
    arbiter.on_packet("B", 31, 1, None, 20)
    assert told(arbiter) == ["1-30A", "restart 30>1", "1A"]
    assert arbiter.report().lines["B"].old == 1
    arbiter.on_packet("B", 2, 1, None, 21)
    assert told(arbiter) == ["2B"]


def test_a_stray_packet_of_the_old_numbering() -> None:
    arbiter = fed(("A", 1, 30), ("B", 1, 30), ("A", 1, 1), ("A", 31, 1), ("B", 1, 1))
    assert told(arbiter) == ["1-30A", "31A", "restart 31>1", "1A"]


def test_a_third_restart_closes_the_first_at_once() -> None:
    arbiter = Arbiter(limits=LIMITS, start=1)
    for session in "xyz":
        arbiter.on_packet("A", 1, 1, None, 1, session=session)
    assert told(arbiter) == ["1A", "restart 1>1", "1A"]
    arbiter.on_time(11)
    assert told(arbiter) == ["restart 1>1", "1A"]


def test_an_open_gap_can_be_recovered() -> None:
    limits = ArbitrationLimits(reorder_ns=10, recover_ns=100)
    arbiter = fed(("A", 1, 1), ("A", 5, 1), ("B", 1, 1), ("B", 5, 1), limits=limits)
    assert told(arbiter) == ["1A"]
    assert arbiter.wanted() == [(2, 4)]
    arbiter.recover(1, 2, None, 50)
    assert told(arbiter) == ["2"]
    assert arbiter.wanted() == [(3, 4)]
    arbiter.recover(4, 4, None, 60)
    assert told(arbiter) == []
    arbiter.on_time(101)
    assert told(arbiter) == ["[3-3]", "4", "5A"]
    assert (arbiter.report().counters.recovered, arbiter.report().counters.spare) == (2, 4)


def test_a_late_join_from_a_snapshot() -> None:
    arbiter = Arbiter(limits=LIMITS, snapshot=True)
    arbiter.on_packet("A", 10, 2, None, 1)
    arbiter.on_packet("B", 7, 3, None, 1)
    arbiter.on_packet("A", 12, 1, None, 1)
    assert told(arbiter) == []
    assert arbiter.resume_at(9, 2)
    assert told(arbiter) == ["9B", "10-11A", "12A"]
    assert arbiter.report().lines["B"].early == 2


def test_what_waits_for_a_snapshot_is_bounded() -> None:
    arbiter = Arbiter(("A",), LIMITS, snapshot=True)
    for number in range(1, 11):
        arbiter.on_packet("A", number, 1, None, 1)
    arbiter.resume_at(1, 2)
    assert arbiter.report().counters.unplaced == 2
    arbiter.on_time(12)
    assert told(arbiter) == ["[1-2]", *(f"{number}A" for number in range(3, 11))]


def test_a_snapshot_passes_over_a_hole_and_what_is_held_below_it() -> None:
    arbiter = fed(("A", 1, 1), ("A", 3, 4), ("B", 1, 1))
    assert arbiter.resume_at(5, 2)
    assert told(arbiter) == ["1A", "(2-4)", "5-6A"]
    assert arbiter.report().counters.discarded == 2
    assert not arbiter.resume_at(7, 2)
    assert arbiter.resume_at(9, 2)
    arbiter.on_packet("B", 7, 3, None, 3)
    assert told(arbiter) == ["(7-8)", "9B"]
    assert arbiter.report().lines["B"].late == 2


def test_a_snapshot_of_the_session_that_lines_are_going_over_to() -> None:
    arbiter = Arbiter(limits=LIMITS, start=1, base=1)
    arbiter.on_packet("A", 1, 1, None, 1, session="x")
    arbiter.on_packet("A", 5, 1, None, 2, session="y")
    assert not arbiter.resume_at(9, 3, session="z")
    assert arbiter.resume_at(5, 3, session="y")
    assert told(arbiter) == ["1A", "restart 1>1", "(1-4)", "5A"]


def test_three_lines() -> None:
    arbiter = Arbiter(("A", "B", "C"), LIMITS, start=1)
    for line in "ABC":
        arbiter.on_packet(line, 1, 1, None, 1)
    arbiter.on_packet("A", 3, 1, None, 1)
    arbiter.on_packet("B", 3, 1, None, 1)
    assert told(arbiter) == ["1A"]
    arbiter.on_packet("C", 2, 2, None, 1)
    assert told(arbiter) == ["2C", "3A"]


def test_numberings_by_key_share_their_lines() -> None:
    arbiters: Arbiters[str] = Arbiters(("A", "B"), LIMITS)
    for key in "xy":
        for line in "AB":
            arbiters.on_packet(key, line, 1, 1, None, 1)
    assert [key for key, _ in arbiters] == ["x", "y"]
    arbiters.on_packet("x", "A", 3, 1, None, 2)
    assert list(arbiters) == [], "B is alive, and has not passed 2 of x"
    arbiters.on_packet("y", "B", 2, 1, None, 12)
    assert [key for key, _ in arbiters] == ["x", "x", "y"]
    arbiters.on_packet("x", "B", 5, 1, None, 900)
    arbiters.on_time(910)
    assert list(arbiters) == [("x", Gap(4, 4, TIMED_OUT)), ("x", Delivered(5, 5, None, 5, "B"))]
    arbiters.on_time(1100)
    assert list(arbiters) == [(None, LineLost("A", 2))], "a line is lost once, not for each key"
    arbiters.on_packet("y", "A", 2, 1, None, 1101)
    assert list(arbiters) == [(None, LineBack("A", 2))]
    assert all(report.adds_up for report in arbiters.reports().values())


@pytest.mark.parametrize(
    "call",
    [
        lambda: Arbiter(("A", "A")),
        lambda: Arbiter(()),
        lambda: Arbiter().on_packet("C", 1, 1, None, 1),
        lambda: Arbiter().on_packet("A", 1, -1, None, 1),
    ],
)
def test_what_can_not_be(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        call()
