"""The verifier's account of one input: known answers, above all those that must not pass. A verifier that can't fail would be
worth nothing, so every true history is also doctored, and must then be found out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.fault.walk import (
    NEVER_PUBLISHED,
    NEVER_TOLD,
    OUT_OF_ORDER,
    SWITCHED,
    TOLD_TWICE,
    TWICE,
    Published,
    Walk,
)
from fabric.runtime.journal import Entry, Kind

S1, S2 = 1 << 32 | 5, 2 << 32 | 6


def join(session: int = S1, old: int = 0) -> Entry:
    return Entry(Kind.SESSION, session=session, first=old)


def data(first: int, last: int, session: int = S1) -> Entry:
    return Entry(Kind.DATA, session=session, first=first, count=last - first + 1)


def skipped(first: int, last: int, session: int = S1) -> Entry:
    return Entry(Kind.SKIPPED, session=session, first=first, count=last - first + 1)


def lost(first: int, last: int, session: int = S1) -> Entry:
    return Entry(Kind.LOST, session=session, first=first, count=last - first + 1)


def snapshot(as_of: int, records: int = 3, session: int = S1) -> Entry:
    return Entry(Kind.SNAPSHOT, session=session, first=as_of, count=records)


def walk(entries: Iterable[Entry], *, last: int = 10, first_available: int = 1, **more: Published) -> Walk:
    """The account of a reader of a log of records 1 to ``last``; ``more`` has the log of the second session."""
    sessions = {S1: Published(1, last + 1, first_available)}
    if more:
        sessions[S2] = more["second"]
    account = Walk(sessions)
    for entry in entries:
        account.take(entry)
    account.finish()
    return account


def said(account: Walk) -> list[tuple[str, int, int]]:
    return [(each.what, each.first, each.last) for each in account.findings]


@pytest.mark.parametrize(
    "entries",
    [
        [join(), data(1, 10)],
        [join(), data(1, 4), data(5, 5), data(6, 10)],
        [join(), data(1, 4), join(), data(5, 10)],  # a second life tells the session again
        [join(), data(1, 3), skipped(4, 6), snapshot(6), data(7, 10)],
        [join(), data(1, 3), lost(4, 6), data(7, 10)],
        [join(), snapshot(6), data(7, 10)],
        [join(), data(1, 8), snapshot(5), data(6, 10)],  # began anew without its state, by an older image
        [join(), data(1, 8), skipped(9, 9), snapshot(9), data(10, 10)],
        [join(), data(1, 10), Entry(Kind.ENDED, session=S1, first=10)],
    ],
)
def test_histories_that_hold(entries: list[Entry]) -> None:
    account = walk(entries)
    assert (said(account), account.sum_fails(), account.published) == ([], "", 10)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], [(NEVER_TOLD, 1, 10)]),
        ([join()], [(NEVER_TOLD, 1, 10)]),
        ([join(), data(1, 9)], [(NEVER_TOLD, 10, 10)]),
        ([join(), data(2, 10)], [(NEVER_TOLD, 1, 1)]),
        ([join(), data(1, 4), data(6, 10)], [(NEVER_TOLD, 5, 5)]),
        ([join(), data(1, 4), data(4, 10)], [(TWICE, 4, 4)]),
        ([join(), data(1, 4), data(1, 4), data(5, 10)], [(TWICE, 1, 4)]),
        ([join(), data(1, 4), data(7, 10), data(5, 6)], [(OUT_OF_ORDER, 5, 6)]),
        ([join(), data(1, 4), data(7, 10), data(4, 5)], [(TWICE, 4, 4), (OUT_OF_ORDER, 5, 5), (NEVER_TOLD, 6, 6)]),
        ([join(), data(1, 11)], [(NEVER_PUBLISHED, 11, 11)]),
        ([join(), data(1, 4), data(7, 10), lost(5, 6)], [(OUT_OF_ORDER, 5, 6)]),
        ([join(), data(1, 10), lost(5, 6)], [(TOLD_TWICE, 5, 6)]),
        ([join(), data(1, 3), snapshot(6), data(7, 10)], [(NEVER_TOLD, 4, 6)]),
        ([join(), data(1, 3), skipped(4, 5), snapshot(6), data(7, 10)], [(NEVER_TOLD, 6, 6)]),
        ([join(), data(1, 9), Entry(Kind.ENDED, session=S1, first=10)], [(NEVER_TOLD, 10, 10)]),
    ],
)
def test_histories_that_do_not_hold(entries: list[Entry], expected: list[tuple[str, int, int]]) -> None:
    account = walk(entries)
    assert said(account) == expected
    assert account.undetected == sum(last - first + 1 for _, first, last in expected)
    assert account.sum_fails() == ""


def test_the_counts() -> None:
    account = walk([join(), data(1, 2), skipped(3, 4), snapshot(4, 7), lost(5, 6), data(7, 10)], first_available=6)
    assert (account.delivered, account.skipped, account.lost, account.from_snapshots) == (6, 2, 2, 7)
    assert account.lost_but_there == 1


def test_another_session() -> None:
    second = Published(1, 6, 1)
    whole = [join(), data(1, 10), join(S2, S1), data(1, 5, S2)]
    account = walk(whole, second=second)
    assert (said(account), account.published, account.sum_fails()) == ([], 15, "")
    assert said(walk([join(), data(1, 9), *whole[2:]], second=second)) == [(NEVER_TOLD, 10, 10)]
    assert said(walk(whole[:2], second=second)) == [(NEVER_TOLD, 1, 5)]
    assert said(walk([*whole[:2], data(1, 5, S2)], second=second)) == [(SWITCHED, 1, 5)]
    forked = [join(), data(1, 10), Entry(Kind.DIVERGED, first=9, count=10), *whole[2:]]
    assert said(walk(forked, second=second)) == []
    later = walk([join(S2), data(1, 5, S2)], second=second)  # began when the first was history already
    assert (said(later), later.published) == ([], 5)


def test_a_writer_that_goes_on_when_its_reader_is_stopped() -> None:
    for entries, after in (([join(), data(1, 7)], 8), ([join(), data(1, 10), join(S2, S1), data(1, 2, S2)], 3)):
        account = Walk({S1: Published(1, 11, 1), S2: Published(1, 6, 1)}, open_end=True)
        for entry in entries:
            account.take(entry)
        account.finish()
        assert (said(account), account.after, account.sum_fails()) == ([], after, "")
    missed = Walk({S1: Published(1, 11, 1), S2: Published(1, 6, 1)}, open_end=True)
    for entry in (join(), data(1, 7), join(S2, S1), data(1, 5, S2)):
        missed.take(entry)
    missed.finish()
    assert said(missed) == [(NEVER_TOLD, 8, 10)]


def test_a_session_whose_log_is_gone() -> None:
    entries = [join(), data(1, 9), join(S2, S1), data(1, 5, S2)]
    second = Published(1, 6, 1)

    def account(**more: Published) -> Walk:
        found = Walk({S2: second, **({S1: more["first"]} if more else {})})
        for entry in entries:
            found.take(entry)
        found.finish()
        assert found.sum_fails() == ""
        return found

    assert (said(account()), account().unknown) == ([], [S1])
    forked = account(first=Published(1, 11, 11, gone=True))  # its successor knows that it held 10
    assert (said(forked), forked.unknown) == ([(NEVER_TOLD, 10, 10)], [])
    assert said(account(first=Published(1, 8, 8, gone=True))) == []  # delivered beyond the fork: told as Diverged


def test_a_loss_of_unknown_size_is_told_all_the_same() -> None:
    account = walk([join(), data(1, 7), lost(8, 7), join(S2, S1), data(1, 5, S2)], second=Published(1, 6, 1))
    assert (said(account), account.lost, account.sum_fails()) == ([], 3, "")


@st.composite
def true_histories(draw: st.DrawFn) -> tuple[list[Entry], int]:
    """Entries that cover 1 to n, and n."""
    entries, at = [join()], 1
    for kind, count in draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), min_size=1, max_size=30)):
        last = at + count - 1
        if kind == 0:
            entries += [skipped(at, last), snapshot(last)]
        elif kind == 1:
            entries.append(lost(at, last))
        elif kind == 2:
            entries += [join(), data(at, last)]
        else:
            entries.append(data(at, last))
        at = last + 1
    return entries, at - 1


@settings(max_examples=200)
@given(true_histories())
def test_every_true_history_holds(history: tuple[list[Entry], int]) -> None:
    account = walk(history[0], last=history[1])
    assert (said(account), account.sum_fails()) == ([], "")
    assert account.published == history[1]


@settings(max_examples=300)
@given(true_histories(), st.sampled_from(["remove", "double", "swap", "shorten", "shift"]), st.data())
def test_every_doctored_history_is_found_out(history: tuple[list[Entry], int], how: str, drawn: st.DataObject) -> None:
    entries, last = history
    places = [place for place, entry in enumerate(entries) if entry.kind is Kind.DATA]
    if not places:
        return
    place = drawn.draw(st.sampled_from(places))
    entry = entries[place]
    doctored = list(entries)
    if how == "remove":
        del doctored[place]
    elif how == "double":
        doctored.insert(place, entry)
    elif how == "swap":
        others = [other for other in places if other != place]
        if not others:
            return
        other = drawn.draw(st.sampled_from(others))
        doctored[place], doctored[other] = entries[other], entry
    elif how == "shorten":
        doctored[place] = Entry(Kind.DATA, session=S1, first=entry.first, count=entry.count - 1)
    else:
        doctored[place] = Entry(Kind.DATA, session=S1, first=entry.first + 1, count=entry.count)
    account = walk(doctored, last=last)
    assert account.undetected > 0
