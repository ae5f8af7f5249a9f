"""Holes and held records against sets of sequences."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fabric.protocol.intervals import Held, Holding, Hole, Holes

SEQUENCES = st.integers(1, 90)
LENGTHS = st.integers(1, 12)


class HolesAgainstSets(RuleBasedStateMachine):
    """``lacking`` maps each missing sequence to whether it was sent live."""

    def __init__(self) -> None:
        super().__init__()
        self.holes = Holes()
        self.lacking: dict[int, bool] = {}
        self.top = 20  # holes are appended above it

    @rule(skip=st.integers(0, 5), length=LENGTHS, missed=st.booleans())
    def add(self, skip, length, missed):
        first = self.top + 1 + skip
        tail = list(self.holes)[-1] if self.holes else None
        joins = tail is not None and tail.last + 1 == first and tail.missed == missed and not tail.unavailable
        before = len(self.holes)
        assert self.holes.add(Hole(first, first + length - 1, 0, missed)) is not joins
        assert len(self.holes) == before + (not joins)
        self.lacking |= dict.fromkeys(range(first, first + length), missed)
        self.top = first + length - 1

    @precondition(lambda self: min(self.lacking, default=20) > 2)
    @rule(data=st.data(), missed=st.booleans())
    def insert_first(self, data, missed):
        last = data.draw(st.integers(1, min(self.lacking, default=20) - 1))
        first = data.draw(st.integers(1, last))
        self.holes.insert_first(Hole(first, last, 0, missed))
        self.lacking |= dict.fromkeys(range(first, last + 1), missed)
        self.top = max(self.top, last)

    @rule(first=SEQUENCES, length=st.integers(1, 40))
    def fill(self, first, length):
        parts = self.holes.fill(first, first + length - 1)
        filled = {sequence: missed for begin, end, missed in parts for sequence in range(begin, end + 1)}
        assert sum(end - begin + 1 for begin, end, _ in parts) == len(filled)
        assert parts == sorted(parts)
        expected = {n: missed for n, missed in self.lacking.items() if first <= n < first + length}
        assert filled == expected
        for sequence in expected:
            del self.lacking[sequence]

    @rule(sequence=SEQUENCES)
    def split_below(self, sequence):
        below = self.holes.split_below(sequence)
        assert {n for hole in below for n in range(hole.first, hole.last + 1)} == {
            n for n in self.lacking if n < sequence
        }
        assert below == list(self.holes)[: len(below)]
        assert all(hole.first >= sequence for hole in list(self.holes)[len(below) :])

    @rule(at=st.integers(0, 10))
    def mark_unavailable(self, at):
        holes = list(self.holes)
        if at < len(holes):
            holes[at].unavailable = True

    @precondition(lambda self: bool(self.holes))
    @rule()
    def pop_head(self):
        head = self.holes.head
        assert self.holes.pop_head() is head
        for sequence in range(head.first, head.last + 1):
            del self.lacking[sequence]

    @rule()
    def clear(self):
        self.holes.clear()
        self.lacking.clear()

    @invariant()
    def sorted_disjoint_and_complete(self):
        holes = list(self.holes)
        assert bool(self.holes) == bool(holes)
        assert all(1 <= hole.first <= hole.last and hole.count == hole.last - hole.first + 1 for hole in holes)
        assert all(left.last < right.first for left, right in itertools.pairwise(holes))
        assert {n: h.missed for h in holes for n in range(h.first, h.last + 1)} == self.lacking


TestHoles = HolesAgainstSets.TestCase
TestHoles.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_filled_middle_leaves_two_holes_of_the_same_kind():
    holes = Holes()
    holes.add(Hole(10, 20, 5, True, unavailable=True, lost="why"))
    assert holes.fill(13, 15) == [(13, 15, True)]
    assert list(holes) == [Hole(10, 12, 5, True, True, "why"), Hole(16, 20, 5, True, True, "why")]


def test_a_split_hole_keeps_its_kind():
    holes = Holes()
    holes.add(Hole(10, 20, 5, True, unavailable=True, lost="why"))
    assert holes.split_below(15) == [Hole(10, 14, 5, True, True, "why")]
    assert list(holes)[1] == Hole(15, 20, 5, True, True, "why")


@pytest.mark.parametrize("other", [{"missed": False}, {"unavailable": True}, {"lost": "gone"}], ids=str)
def test_holes_of_another_kind_do_not_grow(other):
    holes = Holes()
    holes.add(Hole(1, 4, 0, **{"missed": True, **other}))
    assert holes.add(Hole(5, 6, 0, True))
    assert [(hole.first, hole.last) for hole in holes] == [(1, 4), (5, 6)]


@settings(max_examples=200)
@given(st.data())
def test_holding_keeps_order_and_count(data):
    """Pieces of distinct ranges arrive in any order; heads leave, prefixes are dropped."""
    edges = sorted(data.draw(st.sets(st.integers(1, 100), min_size=2, max_size=16)))
    pieces = list(zip(edges[::2], edges[1::2], strict=False))
    holding, held = Holding(), set()
    for first, end in data.draw(st.permutations(pieces)):
        holding.add(Held(first, list(range(first, end)), first % 2 == 0, ""))
        held |= set(range(first, end))
        choice = data.draw(st.sampled_from(["", "", "drop", "pop"]))
        if choice == "drop":
            sequence = data.draw(st.integers(0, 100))
            holding.drop_through(sequence)
            held = {n for n in held if n > sequence}
        elif choice == "pop" and holding:
            head = holding.head
            assert holding.pop_head() is head
            assert head.first == min(held)
            held -= set(head.records)
        assert holding.records == len(held)
    taken = []
    while holding:
        head = holding.pop_head()
        assert head.records == list(range(head.first, head.last + 1))
        assert not taken or taken[-1] < head.first
        taken += head.records
    assert taken == sorted(held)
    assert (holding.records, len(holding)) == (0, 0)


def test_clear():
    holding = Holding()
    holding.add(Held(5, [5, 6], True, "gap"))
    holding.clear()
    assert (holding.records, len(holding), bool(holding)) == (0, 0, False)
