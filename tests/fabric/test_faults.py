"""The fault injector: a machine of packets and times, so its laws are tested over whole histories; and the page that tells it
of partitions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.errors import ConfigError
from fabric.transport.faultpage import FaultPage, NodeGate
from fabric.transport.faults import MAX_HELD_PACKETS, SHARES, Fault, FaultPlan, OpenGate, flip_bit

DELAY_NS = 1_000
SHARE = st.sampled_from([0.0, 0.05, 0.3, 0.9])
PLANS = st.builds(FaultPlan, **dict.fromkeys(SHARES, SHARE), delay_for_ns=st.just(DELAY_NS), seed=st.integers(0, 10**6))
STEPS = st.lists(st.integers(0, 400), min_size=1, max_size=60)
"""Nanoseconds between one packet and the next."""


def packet(number: int) -> bytes:
    """48 bytes that differ from those of every other number in far more than one bit."""
    return b"".join((number * 2_654_435_761 + each).to_bytes(12, "little") for each in range(4))


class History:
    """What an injector made of some packets; ``sent`` holds (time, packet)."""

    def __init__(self, plan: FaultPlan, steps: list[int], gate: OpenGate | None = None) -> None:
        self.injector = plan.injector("feed", gate)
        self.tally: Counter[Fault] = Counter()
        self.sent: list[tuple[int, bytes]] = []
        self.offered: dict[bytes, int] = {}
        self.now_ns = 0
        for number, step in enumerate(steps):
            self.until(self.now_ns + step)
            self.offered[packet(number)] = self.now_ns
            self.take(self.injector.offer(packet(number), self.now_ns, self.count))

    def count(self, fault: Fault) -> None:
        self.tally[fault] += 1

    def take(self, packets: list[bytes]) -> None:
        self.sent += [(self.now_ns, each) for each in packets]

    def until(self, now_ns: int) -> None:
        """Time passes, as for the publisher's helper thread: what is due leaves when it is due."""
        while (due_ns := self.injector.next_due_ns) is not None and due_ns <= now_ns:
            self.now_ns = max(self.now_ns, due_ns)
            self.take(self.injector.due(self.now_ns))
        self.now_ns = now_ns

    def rest(self) -> History:
        self.until(self.now_ns + DELAY_NS)
        return self

    def original(self, sent: bytes) -> bytes:
        """The packet that was offered, of one that was sent."""
        if sent in self.offered:
            return sent
        near = [each for each in self.offered if int.from_bytes(each).__xor__(int.from_bytes(sent)).bit_count() == 1]
        assert len(near) == 1, "a packet that nobody offered"
        return near[0]


@settings(max_examples=60)
@given(PLANS, STEPS)
def test_the_same_seed_decides_the_same(plan: FaultPlan, steps: list[int]) -> None:
    one, two = History(plan, steps).rest(), History(plan, steps).rest()
    assert (one.sent, one.tally) == (two.sent, two.tally)


@settings(max_examples=60)
@given(PLANS, STEPS)
def test_nothing_is_invented_and_every_packet_is_accounted_for(plan: FaultPlan, steps: list[int]) -> None:
    history = History(plan, steps).rest()
    assert history.injector.held == 0
    tally = history.tally
    copies = Counter(history.original(sent) for _, sent in history.sent)
    assert max(copies.values(), default=0) <= 2
    assert (
        sum(copies.values()) == len(steps) - (tally[Fault.DROPPED] - tally[Fault.CORRUPTED]) + tally[Fault.DUPLICATED]
    )
    assert sum(each == 2 for each in copies.values()) == tally[Fault.DUPLICATED]
    damaged = {history.original(sent) for _, sent in history.sent if sent not in history.offered}
    assert len(damaged) == tally[Fault.CORRUPTED]
    assert tally[Fault.CUT] == 0


@settings(max_examples=60)
@given(PLANS, STEPS)
def test_what_is_held_back_leaves_in_time_without_another_packet(plan: FaultPlan, steps: list[int]) -> None:
    history = History(plan, steps).rest()
    for at_ns, sent in history.sent:
        assert 0 <= at_ns - history.offered[history.original(sent)] <= DELAY_NS


@settings(max_examples=60)
@given(STEPS, st.integers(0, 1000))
def test_without_faults_everything_leaves_at_once_and_in_order(steps: list[int], seed: int) -> None:
    history = History(FaultPlan(seed=seed), steps)
    assert [sent for _, sent in history.sent] == list(history.offered)
    assert not history.tally


@settings(max_examples=60)
@given(PLANS, STEPS, st.sampled_from(SHARES))
def test_another_share_of_one_fault_leaves_the_others_as_they_were(
    plan: FaultPlan, steps: list[int], name: str
) -> None:
    """Only what a packet meets first keeps it from the others: so all of them are looked at alone."""
    faults = dict(zip(SHARES, Fault, strict=False))

    def met(**more: float) -> list[int]:
        alone = FaultPlan(**{name: getattr(plan, name)}, **more, delay_for_ns=DELAY_NS, seed=plan.seed)
        injector, at = alone.injector("feed"), []
        for number in range(len(steps)):
            tally: list[Fault] = []
            injector.offer(packet(number), 0, tally.append)
            at += [number] if faults[name] in tally else []
        return at

    assert met() == met(**{each: 0.0001 for each in SHARES if each not in (name, "drop", "reorder", "corrupt")})


def test_reordered_packets_are_overtaken_by_one_to_eight() -> None:
    history = History(FaultPlan(reorder=0.1, delay_for_ns=DELAY_NS, seed=3), [1] * 900)
    numbers = {each: number for number, each in enumerate(history.offered)}
    order = [numbers[sent] for _, sent in history.sent]
    overtaken = [
        sum(other > number for other in order[:place])
        for place, number in enumerate(order)
        if any(other > number for other in order[max(0, place - 20) : place])
    ]
    assert 60 < len(overtaken) <= history.tally[Fault.REORDERED]
    assert set(range(1, 9)) <= set(overtaken)
    assert max(overtaken) <= 10  # one that was held back as well may go just before


def test_shares_are_about_right() -> None:
    many, share = 20_000, 0.02
    plan = FaultPlan(**dict.fromkeys(SHARES, share), delay_for_ns=DELAY_NS, seed=11)
    tally = History(plan, [50] * many).tally
    spread = 6 * (many * share * (1 - share)) ** 0.5
    left = many * (1 - share)  # those that were dropped meet no other fault
    assert abs(tally[Fault.DROPPED] - tally[Fault.CORRUPTED] - many * share) < spread
    for fault in (Fault.DUPLICATED, Fault.REORDERED, Fault.CORRUPTED):
        assert abs(tally[fault] - left * share) < spread, fault.name
    assert abs(tally[Fault.DELAYED] - left * (1 - share) * share) < spread


@settings(max_examples=60)
@given(PLANS, STEPS, STEPS, STEPS)
def test_nothing_leaves_while_cut_off(plan: FaultPlan, before: list[int], during: list[int], after: list[int]) -> None:
    gate = OpenGate()
    history = History(plan, before, gate)
    begin_ns, sent = history.now_ns + 1, len(history.sent)
    gate.cut_until_ns = begin_ns + sum(during) + 1
    held, number = history.injector.held, len(before)
    history.now_ns = begin_ns
    for step in during:
        number += 1
        history.take(history.injector.offer(packet(number), history.now_ns, history.count))
        history.until(min(history.now_ns + step, gate.cut_until_ns - 1))
    assert len(history.sent) == sent
    assert len(during) <= history.tally[Fault.CUT] <= len(during) + held
    history.until(gate.cut_until_ns)
    for step in after:
        number += 1
        history.offered[packet(number)] = history.now_ns
        history.take(history.injector.offer(packet(number), history.now_ns, history.count))
        history.until(history.now_ns + step)
    assert len(during) <= history.tally[Fault.CUT] <= len(during) + held


@settings(max_examples=60)
@given(PLANS, STEPS)
def test_once_off_everything_held_leaves_and_the_rest_passes(plan: FaultPlan, steps: list[int]) -> None:
    gate = OpenGate()
    history = History(plan, steps, gate)
    held = history.injector.held
    gate.off = True
    gone = history.injector.offer(b"last" * 12, history.now_ns, history.count)
    assert (len(gone), gone[-1], history.injector.held) == (held + 1, b"last" * 12, 0)


def test_no_more_is_held_than_there_is_room_for() -> None:
    plan = FaultPlan(delay=0.999, delay_for_ns=10**12, seed=1)
    history = History(plan, [0] * (MAX_HELD_PACKETS + 500))
    assert history.injector.held == MAX_HELD_PACKETS
    assert len(history.sent) == 500
    assert len(history.injector.release()) == MAX_HELD_PACKETS


def test_each_publisher_and_each_life_meets_faults_of_its_own() -> None:
    plan = FaultPlan(drop=0.5, seed=7)
    seen = set()
    for name, life in (("feed", 0), ("feed", 1), ("risk", 0)):
        injector = plan.injector(name, life=life)
        seen.add(tuple(bool(injector.offer(packet(each), 0, lambda fault: None)) for each in range(64)))
    assert len(seen) == 3


def test_flipping_a_bit() -> None:
    assert flip_bit(b"\x00\x00", 9) == b"\x00\x02"


@settings(max_examples=60)
@given(PLANS)
def test_plans_say_what_they_are_as_text(plan: FaultPlan) -> None:
    assert FaultPlan.parse(str(plan)) == plan


def test_plans_that_are_none() -> None:
    for text, said in (
        ("drop=1.5", "drop=1.5 is not a share"),
        ("duplicate=-0.1", "duplicate=-0.1 is not a share"),
        ("reoder=0.1", "unknown fault 'reoder'"),
        ("corrupt=much", "not a number"),
        ("delay_for=soon", "is not a duration"),
    ):
        with pytest.raises(ConfigError, match=said):
            FaultPlan.parse(text)


def test_the_page_of_faults(tmp_path: Path) -> None:
    nodes = ["feed", "pricing", "risk"]
    page, other = FaultPage.create(tmp_path, nodes), FaultPage(tmp_path, nodes)
    gate = NodeGate(other, "pricing")
    assert (gate.off, gate.cut_until_ns) == (False, 0)
    page.cut("pricing", 2**62 + 5)
    assert (gate.cut_until_ns, NodeGate(other, "risk").cut_until_ns) == (2**62 + 5, 0)
    page.turn_off()
    assert (gate.off, gate.cut_until_ns) == (True, 0)
    assert [other.begin_life("feed"), page.begin_life("feed"), page.begin_life("risk")] == [0, 1, 0]
    with pytest.raises(ValueError, match="another size"):
        FaultPage(tmp_path, ["feed"])
