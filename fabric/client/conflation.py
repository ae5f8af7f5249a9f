"""Conflation: of records in a row, the newest of each key.

    runs      A1 B2 A3 | C4 A5 B6           each record's key and sequence
    one run            C4 A5 B6             of sequences 1 to 6; 3 were conflated

Every record of the sequences ``first`` to ``last`` that is not in the result has a newer one of its key in it. The result is
a run again: it can be cut anywhere, and be conflated with what comes later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from fabric.client.feed import Feed
from fabric.protocol.events import Event
from fabric.protocol.types import Origin, Run
from fabric.records import RecordType
from native.image import KeyedImage

Item = tuple[Feed, Run | Event, bool]
"""What came, of which channel, and whether that was stale."""


def conflate(runs: Sequence[Run], record: RecordType) -> tuple[Run, int]:
    """``runs`` of one session, in order and without a hole or snapshot between, as one run with ``sequences``; and how many
    records it has fewer."""
    given = sum(len(run.records) for run in runs)
    if given == 1:
        return runs[0], 0
    image = KeyedImage(record.size, _key_places(record))
    for run in runs:
        if len(run.records):
            image.update(run.records, run.first, run.sequences)
    kept, sequences = image.export()
    records = np.frombuffer(kept, record.dtype)
    one = Run(runs[-1].origin, runs[-1].session, runs[0].first, runs[-1].last, records, sequences)
    return one, given - len(records)


def conflate_items(items: deque[Item]) -> int:
    """Make one run, in place, of those of a channel between which there is no event or snapshot of it: these stay where
    they are. Where all of a channel's records count, so do its runs. Returns how many records are fewer."""
    rows: list[list[Item]] = []
    open_rows: dict[Feed, list[Item]] = {}
    for each in items:
        feed, item, _ = each
        streamed = isinstance(item, Run) and item.origin != Origin.SNAPSHOT
        if streamed and feed in open_rows:
            open_rows[feed].append(each)
            continue
        rows.append([each])
        if streamed and feed.record is not None and feed.record.conflate:
            open_rows[feed] = rows[-1]
        else:
            open_rows.pop(feed, None)
    items.clear()
    total = 0
    for row in rows:
        feed, item, stale = row[-1]
        runs = [each for _, each, _ in row if isinstance(each, Run) and each.origin != Origin.SNAPSHOT]
        if runs and feed.record is not None and feed.record.conflate:
            item, fewer = conflate(runs, feed.record)
            feed.conflated += fewer
            total += fewer
        items.append((feed, item, stale))
    return total


def cut(run: Run, count: int) -> tuple[Run, Run]:
    """The first ``count`` records, and the rest; both not empty. Not for snapshots, which come whole."""
    head, rest = run.records[:count], run.records[count:]
    last, below, above = run.first + count - 1, None, None
    if run.sequences is not None:
        numbers = np.frombuffer(run.sequences, np.uint64)
        last, below, above = int(numbers[count - 1]), numbers[:count].tobytes(), numbers[count:].tobytes()
    return (
        Run(run.origin, run.session, run.first, last, head, below),
        Run(run.origin, run.session, last + 1, run.last, rest, above),
    )


def _key_places(record: RecordType) -> list[tuple[int, int]]:
    fields = record.dtype.fields
    assert fields is not None
    return [(fields[name][1], fields[name][0].itemsize) for name in record.key]
