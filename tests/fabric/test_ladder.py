"""The ladder against what it promises, under random histories; and the breaker, step by step."""

from __future__ import annotations

import random

import pytest

from fabric.protocol.breaker import Breaker, BreakerLimits, BreakerState
from fabric.protocol.ladder import Ladder, Rung

MS = 1_000_000
CLOSED, OPEN, HALF_OPEN = BreakerState
LOG, ARCHIVE = Rung("log", "ipc://log"), Rung("archive", "ipc://archive")


def test_a_breaker_opens_probes_and_closes() -> None:
    told: list[tuple[BreakerState, BreakerState]] = []
    breaker = Breaker(BreakerLimits(), lambda: 1.0, lambda before, now: told.append((before, now)))
    for _ in range(2):
        breaker.failed(0)
    breaker.succeeded()  # in a row, they must be
    for _ in range(3):
        assert breaker.may_ask(0)
        breaker.failed(0)
    assert (breaker.state, breaker.may_ask(19 * MS), breaker.next_ns(5 * MS)) == (OPEN, False, 20 * MS)
    assert breaker.may_ask(20 * MS)
    breaker.asked(20 * MS)
    assert (breaker.state, breaker.may_ask(21 * MS)) == (HALF_OPEN, False)  # one probe at a time
    breaker.failed(30 * MS)
    assert (breaker.state, breaker.next_ns(30 * MS)) == (OPEN, 70 * MS)  # twice as long
    breaker.asked(70 * MS)
    assert breaker.next_ns(71 * MS) == 1070 * MS  # a probe that was lost does not keep it shut
    breaker.succeeded()
    assert (breaker.state, breaker.may_ask(71 * MS)) == (HALF_OPEN, True)  # one is not enough
    breaker.asked(71 * MS)
    breaker.succeeded()
    assert (breaker.state, breaker.opened) == (CLOSED, 2)
    assert told == [
        (CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED),
    ]  # fmt: skip
    for _ in range(3):
        breaker.failed(100 * MS)
    assert breaker.next_ns(100 * MS) == 120 * MS  # it begins with the short pause again


@pytest.mark.parametrize("seed", range(5))
def test_pauses_double_up_to_the_longest_and_are_jittered(seed: int) -> None:
    generator, now_ns, before_ns = random.Random(seed), 0, 0
    limits = BreakerLimits(failures=1)
    breaker = Breaker(limits, lambda: 0.5 + generator.random())
    for number in range(20):
        breaker.failed(now_ns)
        pause_ns = breaker.next_ns(now_ns) - now_ns
        middle_ns = min(limits.pause_min_ns << number, limits.pause_max_ns)
        assert 0.5 * middle_ns <= pause_ns <= 1.5 * middle_ns
        assert pause_ns != before_ns
        now_ns, before_ns = now_ns + pause_ns, pause_ns
        breaker.asked(now_ns)


def test_only_what_a_rung_has_no_more_climbs() -> None:
    ladder = Ladder([LOG, ARCHIVE], jitter=lambda: 1.0)
    assert ladder.plan(((10, 99),), 0).asks == [(0, ((10, 99),))]
    ladder.answered(0, first_available=50)
    assert ladder.plan(((10, 99), (120, 130)), 0).asks == [(0, ((50, 99), (120, 130))), (1, ((10, 49),))]
    ladder.answered(1, first_available=30)
    plan = ladder.plan(((10, 99),), 0)
    assert (plan.asks, plan.gone) == ([(0, ((50, 99),)), (1, ((30, 49),))], ((10, 29),))
    ladder.restart()
    assert ladder.plan(((10, 99),), 0).asks == [(0, ((10, 99),))]


def test_a_rung_that_is_silent_is_passed_over_and_that_is_no_verdict() -> None:
    told: list[tuple[str, BreakerState]] = []
    ladder = Ladder([LOG, ARCHIVE], jitter=lambda: 1.0, listener=lambda rung, _, now: told.append((rung.name, now)))
    for _ in range(3):
        ladder.asked(0, 0)
        ladder.failed(0, 0)
    assert told == [("log", OPEN)]
    assert ladder.plan(((1, 9),), 1 * MS).asks == [(1, ((1, 9),))]
    ladder.knows_nothing(1)
    plan = ladder.plan(((1, 9),), 1 * MS)
    assert (plan.asks, plan.waits, plan.gone, plan.wait_until_ns) == ([], ((1, 9),), (), 20 * MS)
    assert ladder.plan(((1, 9),), 20 * MS).asks == [(0, ((1, 9),))]
    ladder.answered(0, first_available=10)
    assert ladder.plan(((1, 9),), 20 * MS).gone == ((1, 9),)


@pytest.mark.parametrize("seed", range(40))
def test_every_sequence_is_in_one_place_and_gone_only_if_all_have_said_so(seed: int) -> None:
    generator = random.Random(seed)
    count, now_ns = generator.randrange(1, 4), 0
    ladder = Ladder([Rung(str(n), "") for n in range(count)], jitter=lambda: 0.5 + generator.random())
    begins = [0] * count
    for _ in range(100):
        now_ns += generator.randrange(0, 100 * MS)
        rung = generator.randrange(count)
        match generator.choice(["asked", "failed", "failed", "failed", "answered", "unavailable", "restart"]):
            case "asked" if ladder.breakers[rung].may_ask(now_ns):
                ladder.asked(rung, now_ns)
            case "failed":
                ladder.failed(rung, now_ns)
            case "answered":
                ladder.answered(rung)
            case "unavailable":
                first = generator.randrange(1, 60)
                begins[rung] = max(begins[rung], first)
                ladder.answered(rung, first)
            case "restart" if generator.random() < 0.1:
                begins = [0] * count
                ladder.restart()
        edges = sorted(generator.sample(range(1, 60), 6))
        missing = tuple(zip(edges[::2], edges[1::2], strict=True))
        plan = ladder.plan(missing, now_ns)
        placed: dict[int, int] = {}
        for number, ranges in [*plan.asks, (-1, plan.waits), (-2, plan.gone)]:
            for begin, end in ranges:
                for sequence in range(begin, end + 1):
                    assert sequence not in placed
                    placed[sequence] = number
        assert sorted(placed) == [sequence for begin, end in missing for sequence in range(begin, end + 1)]
        for sequence, number in placed.items():
            having = [each for each in range(count) if begins[each] <= sequence]
            willing = [each for each in having if ladder.breakers[each].may_ask(now_ns)]
            assert number == (willing[0] if willing else -1 if having else -2)
        assert (plan.wait_until_ns is None) == (plan.waits == ())
        assert plan.wait_until_ns is None or plan.wait_until_ns > now_ns


def test_a_ladder_needs_a_rung() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ladder([], jitter=lambda: 1.0)
