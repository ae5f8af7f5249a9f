"""The log: append and commit, read by view, image; and what a cycle journal entry costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.channel import channel_id
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.log.image import empty_image
from fabric.runtime.journal import Entry, JournalWriter, Kind
from nodes.records import QUOTE

OPTIONS = LogOptions(retain_bytes=256 << 20, segment_bytes=16 << 20)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize("count", [1, 64, 1024])
def test_append_and_commit(benchmark: Any, directory: Path, count: int) -> None:
    writer = LogWriter(directory, "b", channel_id("b"), QUOTE, OPTIONS, now_ns=1)
    records = QUOTE.zeros(count)
    rounds = 0

    def write() -> None:
        nonlocal rounds
        writer.write(records, 1)
        rounds += 1
        if rounds % (65_536 // count) == 0:
            writer.maintain(1, 1)

    benchmark(write)
    assert writer.next == 1 + rounds * count
    writer.close()


def test_read_a_million_records_by_view(benchmark: Any, directory: Path) -> None:
    writer = LogWriter(directory, "b", channel_id("b"), QUOTE, OPTIONS, now_ns=1)
    block = QUOTE.build(bid=np.arange(10_000.0))
    for _ in range(100):
        writer.write(block, 1)
    reader = LogReader(directory)

    def total() -> float:
        return sum(float(view["bid"].sum()) for _, view in reader.read_range(1, reader.next - 1))

    assert benchmark(total) == 100 * block["bid"].sum()
    writer.close()


def test_image_update_of_100_000_records(benchmark: Any) -> None:
    rng = np.random.default_rng(1)
    records = QUOTE.build(instrument=rng.integers(1, 5001, 100_000))
    image = empty_image(QUOTE)
    benchmark(image.update, records, 1)
    assert image.count == len(np.unique(records["instrument"]))


def test_journal_a_cycle(benchmark: Any, directory: Path) -> None:
    journal = JournalWriter(directory, "b", now_ns=1)
    entries = [Entry(Kind.DATA, 0, 1, 1, 5), Entry(Kind.OUTPUT, 0, 1, 1)]
    number = 0

    def cycle() -> None:
        nonlocal number
        number += 1
        journal.write(number, number, entries)
        if number % 10_000 == 0:
            journal.writer.retention_floor = journal.writer.next
            journal.writer.maintain(1, 1)

    benchmark(cycle)
    assert journal.writer.next == 1 + 3 * number
    journal.writer.close()
