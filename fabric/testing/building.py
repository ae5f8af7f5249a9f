"""Records for tests: from rows as one would write them down, or random and seeded."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fabric.records import Flags, Records, RecordType

START_NS = 1_700_000_000_000_000_000
_STEP_NS = 1_000_000


def make_records(
    record: RecordType, rows: Iterable[Mapping[str, Any]], *, start_ns: int = START_NS, step_ns: int = _STEP_NS
) -> Records:
    """One record a row: ``make_records(QUOTE, [{"instrument": 1, "bid": 10.0, "ask": 10.5}, ...])``.

    Stamps that a row does not give count up from ``start_ns`` by ``step_ns``; each record is an event of its own; other
    fields are zero. Raises RecordTypeError for a field that the type has not.
    """
    parts = []
    for number, row in enumerate(rows):
        now_ns = start_ns + number * step_ns
        values = {
            "ts_event_ns": now_ns,
            "ts_origin_ns": now_ns,
            "ts_publish_ns": now_ns,
            "flags": int(Flags.LAST_IN_EVENT),
            **row,
        }
        parts.append(record.build(1, **values))
    return np.concatenate(parts) if parts else record.zeros(0)


def random_records(
    record: RecordType,
    count: int,
    *,
    seed: int,
    instruments: Sequence[int] = (1, 2, 3),
    start_ns: int = START_NS,
    step_ns: int = _STEP_NS,
) -> Records:
    """``count`` records with plausible noise in every field: floats 0 to 1,000 in steps of 1/64, small whole numbers, short
    names. The same seed gives the same records."""
    chance = random.Random(seed)
    records = make_records(
        record, ({"instrument": chance.choice(instruments)} for _ in range(count)), start_ns=start_ns, step_ns=step_ns
    )
    noise = np.random.Generator(np.random.PCG64(seed))
    for name in (record.dtype.names or ())[5:]:
        field = records[name]
        kind, shape = field.dtype.kind, field.shape
        if kind == "f":
            records[name] = noise.integers(0, 64_000, shape) / 64.0
        elif kind in "iu":
            records[name] = noise.integers(0, 100, shape)
        elif kind == "S":
            records[name] = np.array([b"AAA", b"BBB", b"CCC"])[noise.integers(0, 3, shape)]
    return records


def packets(records: Records, *, seed: int, largest: int = 8) -> list[Records]:
    """The records cut into packets of random size, 1 to ``largest``."""
    chance, parts, position = random.Random(seed), [], 0
    while position < len(records):
        size = chance.randint(1, largest)
        parts.append(records[position : position + size])
        position += size
    return parts
