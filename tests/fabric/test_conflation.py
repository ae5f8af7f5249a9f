"""Conflation: the newest record of each key, in order, and every other one counted."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.client.batch import Batch
from fabric.client.conflation import conflate, conflate_items, cut
from fabric.client.feed import Feed
from fabric.client.policy import Policy
from fabric.errors import ConfigError, RecordTypeError, UserMistake
from fabric.protocol.events import Lost
from fabric.protocol.types import Origin, Run
from fabric.records import RecordType, record

PAIR = record("conflated_pair", image="last", key=("instrument", "side"), side="u1", value="u8")
TRADE = record("conflated_trade", value="u8")
SESSION = 5 << 32


def run_of(keys: list[tuple[int, int]], first: int) -> Run:
    instruments, sides = np.array(keys, np.uint32).reshape(-1, 2).T
    values = np.arange(first, first + len(keys))
    records = PAIR.build(len(keys), instrument=instruments, side=sides, value=values)
    return Run(Origin.LIVE, SESSION, first, first + len(keys) - 1, records)


def sequences_of(run: Run) -> list[int]:
    if run.sequences is None:
        return list(range(run.first, run.last + 1))
    return [int(each) for each in np.frombuffer(run.sequences, np.uint64)]


def feed_of(kind: RecordType) -> Feed:
    receiver: Any = SimpleNamespace(name=kind.name, record=kind)
    return Feed(receiver, cast(Any, None), cast(Any, None))


KEYS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=30)


@given(batches=st.lists(KEYS, min_size=1, max_size=6), first=st.integers(1, 1 << 40), data=st.data())
def test_of_any_batches_the_newest_of_each_key_stays(
    batches: list[list[tuple[int, int]]], first: int, data: st.DataObject
) -> None:
    runs, newest, at = [], {}, first
    for keys in batches:
        runs.append(run_of(keys, at))
        newest.update(zip(keys, range(at, at + len(keys)), strict=True))
        at += len(keys)

    one, conflated = conflate(runs, PAIR)

    assert sequences_of(one) == sorted(newest.values())
    assert one.records["value"].tolist() == sorted(newest.values()), "each with its own record"
    assert (one.first, one.last, one.session) == (first, at - 1, SESSION)
    assert conflated == at - first - len(newest)

    batch = Batch.of("pairs", one, PAIR, stale=False)
    assert batch.sequences.tolist() == sequences_of(one)
    assert (batch.conflated, batch.contiguous) == (conflated, not conflated)
    last = Batch.of("pairs", one, PAIR, stale=False, chosen=np.array([len(one.records) - 1]))
    assert (last.sequences.tolist(), last.conflated) == ([at - 1], conflated), "by symbol, and conflated"

    # In parts, and cut in between, it comes to the same: what was handed out is never in what comes later.
    split = data.draw(st.integers(0, len(runs)))
    early, fewer = conflate(runs[:split], PAIR) if split else (None, 0)
    handed: list[int] = []
    rest = [] if early is None else [early]
    if early is not None and len(early.records) > 1:
        head, tail = cut(early, data.draw(st.integers(1, len(early.records) - 1)))
        assert (head.first, tail.last, head.last + 1) == (early.first, early.last, tail.first)
        assert sequences_of(head) + sequences_of(tail) == sequences_of(early)
        assert sequences_of(head)[-1] == head.last, "what comes later is in neither"
        handed, rest = sequences_of(head), [tail]
    late, again = conflate([*rest, *runs[split:]], PAIR)
    assert handed + sequences_of(late) == sorted({*handed, *newest.values()})
    assert at - first == len(handed) + len(late.records) + fewer + again


@given(
    keys=st.lists(KEYS, min_size=1, max_size=5),
    marks=st.lists(st.integers(0, 5), max_size=3),
)
def test_nothing_is_conflated_across_an_event_or_another_channel(
    keys: list[list[tuple[int, int]]], marks: list[int]
) -> None:
    quotes, trades = feed_of(PAIR), feed_of(TRADE)
    items: deque[Any] = deque()
    at = 1
    for position, batch in enumerate(keys):
        if position in marks:
            items.append((quotes, Lost(SESSION, at, at, "gone"), False))
            at += 1
        items.append((quotes, run_of(batch, at), False))
        items.append((trades, Run(Origin.LIVE, SESSION, at, at + 1, TRADE.build(value=[at, at + 1])), False))
        at += len(batch)
    before = list(items)
    given_records = sum(len(item.records) for _, item, _ in before if isinstance(item, Run))

    fewer = conflate_items(items)

    assert fewer == quotes.conflated
    assert sum(len(item.records) for _, item, _ in items if isinstance(item, Run)) == given_records - fewer
    assert [item for feed, item, _ in items if feed is trades] == [item for feed, item, _ in before if feed is trades]
    ours = [item for feed, item, _ in items if feed is quotes]
    expected: list[Any] = []
    for feed, item, _ in before:
        if feed is quotes:
            if isinstance(item, Run) and expected and isinstance(expected[-1], list):
                expected[-1].append(item)
            else:
                expected.append([item] if isinstance(item, Run) else item)
    assert len(ours) == len(expected), "runs between two events are one, and the events stand where they stood"
    for found, wanted in zip(ours, expected, strict=True):
        if isinstance(wanted, list):
            assert sequences_of(found) == sequences_of(conflate(wanted, PAIR)[0])
        else:
            assert found is wanted


@given(ages=st.lists(st.integers(0, 50), min_size=1, max_size=20), limit=st.integers(1, 50))
def test_a_batch_is_of_one_age(ages: list[int], limit: int) -> None:
    now_ns = 1000
    policy = Policy.of("ordered", None, limit, lambda: now_ns)
    published = now_ns - np.array(sorted(ages, reverse=True), np.int64)
    parts, old_parts = [], []
    while len(published):
        count, old = policy.of_one_age(published)
        parts.append(now_ns - published[:count])
        old_parts.append(old)
        published = published[count:]
    assert old_parts in ([True], [False], [True, False])
    for part, old in zip(parts, old_parts, strict=True):
        assert len(part)
        assert all((age > limit) == old for age in part.tolist())


def test_which_types_may_be_conflated_is_declared() -> None:
    assert PAIR.conflate
    assert not TRADE.conflate
    assert not record("conflated_book", image="book", action="u1", value="u8").conflate
    each_counts = record("conflated_breach", image="last", conflate=False, value="u8")
    assert not each_counts.conflate
    for kind in (PAIR, TRADE, each_counts):
        again = RecordType.from_description(kind.describe())
        assert again.conflate == kind.conflate
        assert again.describe() == kind.describe()
    with pytest.raises(RecordTypeError, match=r'each of its records counts .*image="last"'):
        record("conflated_wrong", conflate=True, value="u8")
    with pytest.raises(RecordTypeError, match="a field can't be called that"):
        record("conflated_field", conflate="u8", value="u8")  # type: ignore[arg-type]


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="'ordered', 'latest', 'fail'"):
        Policy.of("newest", None, None, None)
    for word, limit in (("fail", None), ("latest", 5), ("ordered", 5)):
        with pytest.raises(ConfigError, match='max_behind is the limit of policy="fail"'):
            Policy.of(word, limit, None, None)
    with pytest.raises(ConfigError, match="at least 1"):
        Policy.of("fail", 0, None, None)
    for age in ("250", "-1ms", "soon", 0):
        with pytest.raises(ConfigError):
            Policy.of("ordered", None, age, None)
    with pytest.raises(UserMistake, match=r"'trades'.*'conflated_trade', of which each one counts .*is of events"):
        Policy.of("latest", None, None, None).check_record("trades", TRADE)
