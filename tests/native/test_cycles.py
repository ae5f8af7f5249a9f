"""The cycle journal's fast path writes what the slow one does."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from fabric.log.reader import LogReader
from fabric.log.writer import LogWriter
from fabric.runtime.journal import JOURNAL, OPTIONS, STALE, Cycle, Entry, JournalWriter, Kind, read_cycles
from fabric.runtime.page import NodePage, page_names
from fabric.runtime.pauses import GcPauses
from native.cycles import ENTRY_FIELDS, CycleJournal
from native.histogram import BYTES, Histogram
from nodes.records import GREEKS, QUOTE

ENTRIES = [
    Entry(Kind.DATA, 1, 2**63 + 5, 17, 3, STALE),
    Entry(Kind.LOST, 0, 9, 4, 2, 3 << 8),
    Entry(Kind.TIMER),
    Entry(Kind.POLL),
    Entry(Kind.RECEIVED, first=2**40, count=12),
    Entry(Kind.SESSION, 1, 2**64 - 1, 7),
]


def test_the_layout_is_that_of_the_journal():
    fields = JOURNAL.dtype.fields
    assert tuple(sorted(fields, key=lambda name: fields[name][1])) == ENTRY_FIELDS


def test_a_log_of_other_records_is_refused(tmp_path: Path):
    writer = LogWriter(tmp_path, "o", 5, GREEKS, OPTIONS, now_ns=1)
    with pytest.raises(ValueError, match="bytes"):
        CycleJournal(writer.fast, [], cycle=2, output=12)
    writer.close()


def test_a_cycle_of_one_entry_is_written_as_any_other(tmp_path: Path):
    logs = {}
    for fast in (True, False):
        folder = tmp_path / str(fast)
        outputs = [LogWriter(folder / str(i), f"o{i}", 100 + i, QUOTE, OPTIONS, now_ns=1) for i in range(3)]
        journal = JournalWriter(folder / "journal", "n", now_ns=1)
        journal.follow(outputs)
        logs[fast] = journal, outputs
    for number, entry in enumerate(ENTRIES, start=1):
        for fast, (journal, outputs) in logs.items():
            stand = [Entry(Kind.OUTPUT, i, output.session, output.next) for i, output in enumerate(outputs)]
            if fast:
                journal.cycle(1000 + number, number, [entry])
            else:
                journal.write(1000 + number, number, [entry, *stand])
            outputs[number % 3].write(QUOTE.zeros(number), 5)
    found = []
    for journal, outputs in logs.values():
        log = LogReader(journal.writer.session_directory)
        records = np.concatenate([view for _, view in log.read_range(1, log.next - 1)])
        sessions = [output.session for output in outputs]
        records = records.copy()
        chosen = records["kind"] == Kind.OUTPUT
        records["session"][chosen] = [sessions.index(session) for session in records["session"][chosen]]
        found.append(records)
        cycles = [cycle for cycle in read_cycles(log, 1) if isinstance(cycle, Cycle)]
        assert [cycle.entries[0] for cycle in cycles] == ENTRIES
        assert [(cycle.number, cycle.now_ns) for cycle in cycles] == [(n, 1000 + n) for n in range(1, len(ENTRIES) + 1)]
    assert found[0].tobytes() == found[1].tobytes()
    for journal, outputs in logs.values():
        for writer in (journal.writer, *outputs):
            writer.close()


def test_more_entries_and_full_segments_go_the_slow_way(tmp_path: Path):
    journal = JournalWriter(tmp_path, "n", now_ns=1)
    count = journal.writer.control.segment_records // 2 + 10  # two entries each: over the end of a segment
    for number in range(1, count + 1):
        journal.cycle(number, number, [ENTRIES[0]])
    journal.cycle(count + 1, count + 1, ENTRIES)
    cycles = list(read_cycles(LogReader(journal.writer.session_directory), 1))
    assert [cycle.number for cycle in cycles if isinstance(cycle, Cycle)] == list(range(1, count + 2))
    assert isinstance(cycles[-1], Cycle)
    assert cycles[-1].entries == ENTRIES
    journal.writer.close()


def test_a_field_of_records_is_counted():
    records = QUOTE.zeros(5)
    records["ts_origin_ns"] = [0, 10, 20, 30, 95]
    histogram = Histogram(bytearray(BYTES))
    histogram.record_field(100, records[::2], 8)
    assert (histogram.count, histogram.max_ns, histogram.min_ns) == (2, 80, 5)
    for bad in (-1, QUOTE.size - 7):
        with pytest.raises(ValueError, match="field"):
            histogram.record_field(100, records, bad)


def test_collections_are_counted_while_the_node_runs(tmp_path: Path):
    page = NodePage(tmp_path / "page", *page_names([], []))
    pauses = GcPauses(page)
    gc.collect()
    pauses.start()
    gc.collect()
    gc.collect()
    pauses.stop()
    gc.collect()
    pauses.stop()
    assert page.get("gc_pauses") == 2
    assert 0 < page.get("gc_longest_ns") <= page.get("gc_ns")
