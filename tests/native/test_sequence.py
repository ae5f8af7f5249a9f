"""The sequence check against sets of sequences in plain Python."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from native.sequence import Tracker, Verdict

SMALL = st.integers(0, 12)
SESSIONS = st.builds(lambda epoch, low: (epoch << 32) | low, st.integers(1, 3), st.integers(1, 2))


def expected_verdict(current: int, delivered: int, session: int, first: int, count: int) -> Verdict:
    """By sets: what a packet brings, what is out already, what is next."""
    if session != current:
        if current == 0:
            return Verdict.NO_SESSION
        mine, theirs = current >> 32, session >> 32
        return Verdict.NEWER_SESSION if theirs > mine else Verdict.CONFLICT if theirs == mine else Verdict.FENCED
    brought, out = set(range(first, first + count)), set(range(delivered + 1))
    if first == delivered + 1:
        return Verdict.IN_ORDER
    if first > delivered + 1:
        return Verdict.AHEAD
    return Verdict.DUPLICATE if brought <= out else Verdict.OVERLAP


@settings(max_examples=500)
@given(st.one_of(st.just(0), SESSIONS), SMALL, SESSIONS, st.integers(1, 12), st.integers(1, 6))
def test_verdict(current, delivered, session, first, count):
    tracker = Tracker()
    tracker.session, tracker.delivered, tracker.seen = current, delivered, delivered
    expected = expected_verdict(current, delivered, session, first, count)
    assert Verdict(tracker.verdict(session, first, count)) is expected
    assert (tracker.session, tracker.delivered, tracker.seen) == (current, delivered, delivered)


@settings(max_examples=200)
@given(st.lists(st.tuples(SESSIONS, st.integers(1, 30), st.integers(1, 5)), max_size=60), SMALL)
def test_accept_moves_both_watermarks_and_only_in_order(packets, seen):
    tracker = Tracker()
    tracker.session = session = (2 << 32) | 1
    tracker.seen = seen
    delivered = 0
    for packet_session, first, count in packets:
        expected = expected_verdict(session, delivered, packet_session, first, count)
        assert Verdict(tracker.accept(packet_session, first, count)) is expected
        if expected is Verdict.IN_ORDER:
            delivered = first + count - 1
            seen = max(seen, delivered)
        assert (tracker.session, tracker.delivered, tracker.seen) == (session, delivered, seen)


def test_a_new_tracker_follows_nothing():
    tracker = Tracker()
    assert (tracker.session, tracker.delivered, tracker.seen) == (0, 0, 0)
    assert tracker.accept(1 << 32, 1, 1) == Verdict.NO_SESSION
    assert tracker.delivered == 0


def test_the_highest_sequences_do_not_wrap():
    tracker = Tracker()
    tracker.session, tracker.delivered = 1 << 32, 2**63 - 10
    assert tracker.verdict(1 << 32, 2**63 - 1, 1400) == Verdict.AHEAD
    assert tracker.verdict(1 << 32, 2**63 - 9, 1400) == Verdict.IN_ORDER
    assert tracker.verdict(1 << 32, 2**63 - 11, 1400) == Verdict.OVERLAP
    assert tracker.verdict(1 << 32, 2**63 - 11, 2) == Verdict.DUPLICATE
