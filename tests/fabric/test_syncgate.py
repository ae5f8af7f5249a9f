"""The primary's side of a `sync` standby: what may be seen when, by histories with a clock of their own."""

from __future__ import annotations

import contextlib
import random

import pytest

from fabric.protocol.requests import MalformedMessage
from fabric.protocol.syncgate import OnLost, Standing, SyncGate, SyncLimits, Verdict
from fabric.protocol.syncmessages import FromPrimary, FromStandby, Kind

A, B = b"A" * 8, b"B" * 8
MS, S = 1_000_000, 1_000_000_000
STRICT = SyncLimits("stop", deadline_ns=S, first_join_ns=10 * S)
LOOSE = SyncLimits("go_on", deadline_ns=S)


def test_a_write_is_seen_once_it_is_acknowledged() -> None:
    gate = SyncGate(STRICT)
    gate.join(A, has=1, sent=1, now_ns=0)
    assert gate.state is Standing.IN_SYNC, "nothing was there yet that it could lack"
    assert gate.verdict(11, since_ns=0, now_ns=0) is Verdict.WAIT
    gate.ack(A, 10, 1)
    assert gate.verdict(11, 0, 1) is Verdict.WAIT, "its last record is not there"
    gate.ack(B, 11, 2)
    assert gate.verdict(11, 0, 2) is Verdict.WAIT, "another one's word is none"
    gate.ack(A, 11, 3)
    assert gate.verdict(11, 0, 3) is Verdict.GO


def test_who_was_behind_catches_up_before_it_counts() -> None:
    for limits, meanwhile in ((STRICT, Verdict.WAIT), (LOOSE, Verdict.GO)):
        gate = SyncGate(limits)
        gate.join(A, has=50, sent=101, now_ns=0)
        assert gate.state is Standing.CATCHING_UP
        assert gate.verdict(111, 0, 1) is meanwhile
        gate.ack(A, 100, 2)
        assert gate.state is Standing.CATCHING_UP
        gate.ack(A, 101, 3)
        assert gate.state is Standing.IN_SYNC
        assert gate.verdict(111, 3, 4) is Verdict.WAIT, "from here on nothing is seen that it lacks"
        gate.ack(A, 111, 5)
        assert gate.verdict(111, 3, 5) is Verdict.GO


@pytest.mark.parametrize("limits", [STRICT, LOOSE])
def test_silence_is_lost_after_the_deadline_and_progress_is_no_silence(limits: SyncLimits) -> None:
    gate = SyncGate(limits)
    gate.join(A, 1, 1, 0)
    for step in range(1, 5):  # slow, but it gets on
        gate.ack(A, 1 + step, step * 900 * MS)
        assert gate.verdict(100, 0, step * 900 * MS + 899 * MS) is Verdict.WAIT
    gate.ack(A, 5, 3600 * MS + 900 * MS)  # heard, and nothing new
    assert gate.verdict(100, 0, 4600 * MS) is Verdict.WAIT
    assert gate.verdict(100, 0, 4600 * MS + 1) is Verdict.LOST
    assert not gate.silent(5400 * MS)
    assert gate.silent(5501 * MS)
    gate.drop()
    assert (gate.state, gate.lost) == (Standing.ALONE, 1)
    after = gate.verdict(100, 6 * S, 6 * S)
    assert after is (Verdict.WAIT if limits is STRICT else Verdict.GO)
    if limits is STRICT:
        assert gate.verdict(100, 6 * S, 7 * S + 1) is Verdict.LOST, (
            "one that was there is waited for no longer than that"
        )


def test_the_first_write_of_all_waits_for_a_standby_to_come() -> None:
    gate = SyncGate(STRICT)
    assert gate.verdict(2, 0, 9 * S) is Verdict.WAIT
    assert gate.verdict(2, 0, 10 * S + 1) is Verdict.LOST
    assert SyncGate(LOOSE).verdict(2, 0, 0) is Verdict.GO


def test_another_standby_joins_only_when_the_first_is_silent() -> None:
    gate = SyncGate(STRICT)
    gate.join(A, 1, 1, 0)
    assert gate.may_join(A, 1), "again, on another connection"
    assert not gate.may_join(B, S)
    assert gate.may_join(B, S + 1)
    gate.join(B, 1, 1, S + 1)
    gate.ack(A, 100, S + 2)
    assert gate.acked == 1


def test_once_taken_over_nothing_is_seen_any_more() -> None:
    gate = SyncGate(LOOSE)
    gate.join(A, 1, 1, 0)
    gate.taken_over(7)
    gate.ack(A, 100, 1)
    gate.drop()
    assert gate.verdict(2, 0, 1) is Verdict.TAKEN_OVER
    assert not gate.may_join(A, 5 * S)
    assert (gate.state, gate.taken_by) == (Standing.TAKEN_OVER, 7)


@pytest.mark.parametrize("on_lost", ["stop", "go_on"])
def test_histories_never_show_what_the_standby_lacks(on_lost: OnLost) -> None:
    """A standby that joins, falls behind, dies and comes back in any order: what a write's GO says is true while IN_SYNC, and
    with ``stop`` always."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    shown_in_sync = 0
    for _ in range(300):
        gate = SyncGate(SyncLimits(on_lost, deadline_ns=5, first_join_ns=50))
        committed, here, now_ns = 1, 0, 0  # what is visible, what the standby's log has, below which
        connected = False
        for _ in range(60):
            now_ns += rng.randrange(4)
            what = rng.random()
            if what < 0.15:  # it dies, perhaps with its newest records
                connected = False
                here = max(0, here - rng.randrange(3))
            elif what < 0.35 and gate.may_join(A, now_ns):
                connected = True
                gate.join(A, min(here, committed), committed, now_ns)
                here = min(here, committed)
            elif what < 0.6 and connected:
                here = min(committed, here + rng.randrange(8))
                gate.ack(A, here, now_ns)
            else:
                end, since_ns = committed + rng.randrange(1, 4), now_ns
                while (verdict := gate.verdict(end, since_ns, now_ns)) is Verdict.WAIT:
                    now_ns += 1
                    if connected and rng.random() < 0.5:
                        here = min(end, here + rng.randrange(4))
                        gate.ack(A, here, now_ns)
                if verdict is Verdict.GO:
                    if gate.state is Standing.IN_SYNC or on_lost == "stop":
                        assert here >= end or not connected, (seed, gate.state)
                        assert gate.acked >= end, (seed, gate.state)
                        shown_in_sync += 1
                    committed = end
                elif on_lost == "stop":
                    break
                else:
                    gate.drop()
                    committed = end
            if gate.silent(now_ns):
                gate.drop()
    assert shown_in_sync > 50, "or nothing was tried"


def test_messages_are_read_back_and_all_else_is_malformed() -> None:
    ours = FromStandby(Kind.JOIN, 1, 2 << 32, 3, 4, A, True)
    theirs = FromPrimary(Kind.WRITE, 1, 2 << 32, 3, 4, True, False)
    assert FromStandby.decode(ours.encode()) == ours
    assert FromPrimary.decode(theirs.encode()) == theirs
    rng = random.Random(5)
    for decode, frame in ((FromStandby.decode, theirs.encode()), (FromPrimary.decode, ours.encode())):
        with pytest.raises(MalformedMessage):
            decode(frame)
    for frame in (ours.encode(), theirs.encode()):
        for decode in (FromStandby.decode, FromPrimary.decode):
            for _ in range(500):
                garbled = bytearray(frame[: rng.randrange(len(frame) + 1)])
                for _ in range(rng.randrange(3)):
                    if garbled:
                        garbled[rng.randrange(len(garbled))] = rng.randrange(256)
                with contextlib.suppress(MalformedMessage):
                    decode(bytes(garbled))
