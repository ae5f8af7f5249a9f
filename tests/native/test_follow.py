"""Cursors in mapped logs, waits for several of them, and the thread that rings for an event loop."""

from __future__ import annotations

import gc
import mmap
import os
import random
import select
import shutil
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabric.log import LogOptions, LogReader, LogWriter
from fabric.log.paths import WAIT
from fabric.records import record
from fabric.transport.logbell import LogBell
from native.follow import Followers, Found, Idle, LogCursor
from native.log import PAGE_BYTES, Control, LogState

SECOND_NS = 1_000_000_000
LONG_NS = 60 * SECOND_NS
DEADLINE_S = 30
SEGMENT = 16
TICK = record("follow_tick", value="u8")
IDLES = (Idle.BLOCK, Idle.YIELD, Idle.SPIN)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        os.sched_yield()


def new_writer(directory: Path, *, segments: int = 100, segment: int = SEGMENT) -> LogWriter:
    bytes_ = segment * TICK.size
    options = LogOptions(segment_bytes=bytes_, retain_bytes=segments * bytes_)
    return LogWriter(directory, "ticks", 77, TICK, options, now_ns=SECOND_NS)


def write(writer: LogWriter, count: int = 1) -> None:
    first = writer.next
    writer.write(TICK.build(count, value=np.arange(first, first + count)), SECOND_NS + first)


def cursor_of(reader: LogReader, first: int = 1) -> LogCursor:
    cursor = LogCursor(reader.control, reader.map_whole, TICK.dtype, first)
    cursor.open = True
    return cursor


def drain(cursor: LogCursor) -> list[int]:
    got: list[int] = []
    while (view := cursor.take()) is not None:
        got += view["value"].tolist()
    return got


class Log:
    """A writer, and one reader's cursor."""

    def __init__(self, directory: Path, *, segments: int = 100) -> None:
        self.directory = directory
        self.writer = new_writer(directory, segments=segments)
        self.reader = LogReader(directory)
        self.cursor = cursor_of(self.reader)

    @property
    def sleepers(self) -> int:
        return struct.unpack_from("<I", (self.reader.directory / WAIT).read_bytes())[0]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


@pytest.fixture
def logs(tmp_path: Path) -> list[Log]:
    return [Log(tmp_path / f"log{at}") for at in range(3)]


# Cursors


def test_take_gives_what_is_committed_up_to_a_segments_end(log: Log) -> None:
    cursor = log.cursor
    assert (cursor.take(), cursor.next, cursor.behind) == (None, 1, 0)
    write(log.writer, SEGMENT + 5)
    assert cursor.behind == SEGMENT + 5
    assert [cursor.take(3)["value"].tolist() for _ in range(2)] == [[1, 2, 3], [4, 5, 6]]  # type: ignore[index]
    assert (cursor.next, cursor.behind) == (7, SEGMENT - 1)
    view = cursor.take(1000)
    assert view is not None
    assert view["value"].tolist() == list(range(7, SEGMENT + 1))
    assert drain(cursor) == list(range(SEGMENT + 1, SEGMENT + 6))
    assert (cursor.take(), cursor.behind, cursor.overrun) == (None, 0, False)
    write(log.writer, SEGMENT - 5)  # exactly to the segment's end: the next one is mapped only when it has records
    assert len(drain(cursor)) == SEGMENT - 5
    assert cursor.take() is None
    write(log.writer)
    assert drain(cursor) == [2 * SEGMENT + 1]


def test_take_of_none_and_of_any_number(log: Log) -> None:
    write(log.writer, 5)
    nothing = log.cursor.take(0)
    assert nothing is not None
    assert (len(nothing), log.cursor.next) == (0, 1)
    for number in (-1, -(2**62)):
        log.cursor.seek(1)
        view = log.cursor.take(number)
        assert view is not None
        assert len(view) == 5
    with pytest.raises(OverflowError):
        log.cursor.take(2**63)


def test_views_are_read_only_and_constant_to_the_last_reference(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", segments=2)
    write(log.writer, SEGMENT)
    view = log.cursor.take(4)
    assert view is not None
    with pytest.raises(ValueError, match="read-only"):
        view["value"] = 0
    with pytest.raises(ValueError):
        view.flags.writeable = True
    before = view.tobytes()
    for _ in range(5 * SEGMENT):
        write(log.writer)
        log.writer.maintain(2 * SECOND_NS, 1)
    assert log.reader.first_available > SEGMENT
    log.reader.close()
    log.writer.close()
    shutil.rmtree(log.directory)
    part = view[1:3]
    del log, view
    gc.collect()
    assert part["value"].tolist() == [2, 3]
    assert before[TICK.size : 3 * TICK.size] == part.tobytes()


def test_a_closed_cursor_gives_nothing_and_no_wait_looks_at_it(log: Log) -> None:
    write(log.writer, 3)
    followers = Followers()
    followers.add(log.cursor)
    log.cursor.open = False
    assert (log.cursor.take(), log.cursor.next, log.cursor.open) == (None, 1, False)
    assert followers.look() == Found.NOTHING
    log.writer.end()
    for idle in IDLES:
        assert followers.wait(followers.ticket(), SECOND_NS // 1000, idle) == Found.NOTHING
    log.cursor.open = True
    assert followers.look() == Found.RECORDS
    assert drain(log.cursor) == [1, 2, 3]
    assert followers.look() == Found.STATE


def test_seek_goes_anywhere_from_the_base_on(log: Log) -> None:
    write(log.writer, 3 * SEGMENT)
    for first in (40, 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT):
        log.cursor.seek(first)
        assert drain(log.cursor) == list(range(first, 3 * SEGMENT + 1))
    log.cursor.seek(1000)
    assert (log.cursor.take(), log.cursor.behind, log.cursor.next) == (None, 0, 1000)
    with pytest.raises(ValueError, match="begins with sequence 1"):
        log.cursor.seek(0)
    with pytest.raises(OverflowError):
        log.cursor.seek(-1)
    assert log.cursor.next == 1000


def test_overrun_says_so_and_stays_where_the_loss_begins(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", segments=3)
    write(log.writer, SEGMENT)
    assert log.cursor.take(4) is not None
    for _ in range(8 * SEGMENT):
        write(log.writer)
        log.writer.maintain(2 * SECOND_NS, 1)
    available = log.reader.first_available
    assert available > 2 * SEGMENT
    assert drain(log.cursor) == list(range(5, SEGMENT + 1)), "a segment that is mapped can be read to its end"
    assert (log.cursor.take(), log.cursor.overrun, log.cursor.next) == (None, True, SEGMENT + 1)
    assert log.cursor.behind == 8 * SEGMENT
    log.cursor.seek(available)
    assert not log.cursor.overrun
    assert drain(log.cursor) == list(range(available, 9 * SEGMENT + 1))


def test_a_segment_that_is_missing_is_an_overrun_too(log: Log) -> None:
    write(log.writer, 2 * SEGMENT)
    for path in log.reader.directory.glob("*1.seg*"):
        path.unlink()
    segments = sorted(path.name for path in log.reader.directory.iterdir())
    assert sum(name[0].isdigit() for name in segments) == 1, segments
    assert (log.cursor.take(), log.cursor.overrun, log.cursor.next) == (None, True, 1)


def test_what_is_no_log_of_this_dtype_is_refused(log: Log) -> None:
    other = record("follow_other", a="u8", b="u8")
    with pytest.raises(ValueError, match=f"{TICK.size} bytes, not {other.size}"):
        LogCursor(log.reader.control, log.reader.map_whole, other.dtype, 1)
    with pytest.raises(ValueError, match="begins with sequence"):
        LogCursor(log.reader.control, log.reader.map_whole, TICK.dtype, 0)
    write(log.writer)
    for wrong in (TICK.zeros(SEGMENT - 1), other.zeros(SEGMENT)):
        cursor = LogCursor(log.reader.control, lambda _, wrong=wrong: wrong, TICK.dtype, 1)
        cursor.open = True
        with pytest.raises(ValueError, match="segment 1 has"):
            cursor.take()
        assert cursor.next == 1
    with pytest.raises(TypeError):
        LogCursor(None, log.reader.map_whole, TICK.dtype, 1)  # type: ignore[arg-type]


def test_an_error_while_mapping_moves_nothing(log: Log) -> None:
    write(log.writer, 2)
    fail = [True]

    def map_segment(begin: int) -> np.ndarray:
        if fail:
            raise OSError(fail.pop())
        return log.reader.map_whole(begin)

    cursor = LogCursor(log.reader.control, map_segment, TICK.dtype, 1)
    cursor.open = True
    with pytest.raises(OSError):
        cursor.take()
    assert (cursor.next, cursor.overrun) == (1, False)
    assert drain(cursor) == [1, 2]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("how", ["closed", "closed and moved", "moved"])
def test_what_closes_or_moves_a_cursor_while_it_maps_a_segment_wins(log: Log, how: str, missing: bool) -> None:
    """Mapping lets go of the GIL: another thread may count what was read, close the cursor and move it."""
    write(log.writer, 5)

    def map_segment(begin: int) -> np.ndarray:
        if "closed" in how:
            cursor.open = False
        if "moved" in how:
            cursor.seek(4)
        if missing and not seen:
            seen.append(begin)
            raise IndexError(begin)
        return log.reader.map_whole(begin)

    seen: list[int] = []
    moved = "moved" in how
    cursor = LogCursor(log.reader.control, map_segment, TICK.dtype, 1)
    cursor.open = True
    assert cursor.take() is None
    assert (cursor.next, cursor.overrun) == (4 if moved else 1, False)
    how = ""
    cursor.open = True
    assert drain(cursor) == list(range(4 if moved else 1, 6))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_mixture_of_calls_gives_every_record_once(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    log = Log(tmp_path / "log")
    got: list[int] = []
    expected = 1
    while log.writer.next < 2000:
        if chance.random() < 0.5:
            write(log.writer, chance.choice([1, 1, 2, 7, SEGMENT, 40]))
        if chance.random() < 0.2:
            log.cursor.open = not log.cursor.open
        if chance.random() < 0.05:
            expected = chance.randint(1, log.writer.next)
            log.cursor.seek(expected)
        most = chance.choice([-1, 1, 3, SEGMENT, 1000])
        assert (log.cursor.next, log.cursor.behind) == (expected, log.writer.next - expected)
        view = log.cursor.take(most)
        if not log.cursor.open or expected == log.writer.next:
            assert view is None
            continue
        assert view is not None
        to_end = SEGMENT - (expected - 1) % SEGMENT
        count = min(to_end, log.writer.next - expected, most if most > 0 else 10**9)
        assert view["value"].tolist() == list(range(expected, expected + count))
        got += view["value"].tolist()
        expected += count
    assert got


# Waiting


@pytest.mark.parametrize("idle", IDLES)
def test_a_poke_after_the_ticket_was_drawn_is_never_missed(log: Log, idle: Idle) -> None:
    for followers in (Followers(), Followers()):
        if len(followers) == 0:
            followers.add(log.cursor)
        ticket = followers.ticket()
        followers.poke()
        began = time.monotonic()
        for _ in range(3):  # a ticket is not used up
            assert followers.wait(ticket, LONG_NS, idle) == Found.POKED
        assert time.monotonic() - began < DEADLINE_S
        assert followers.wait(followers.ticket(), SECOND_NS // 500, idle) == Found.NOTHING, "it was poked before"


@pytest.mark.parametrize("idle", IDLES)
def test_time_is_over(log: Log, idle: Idle) -> None:
    followers = Followers()
    followers.add(log.cursor)
    for timeout_ns in (0, -1, -(2**63)):
        assert followers.wait(followers.ticket(), timeout_ns, idle) == Found.NOTHING
    began_ns = time.monotonic_ns()
    while followers.wait(followers.ticket(), 20_000_000, idle) == Found.NOTHING:
        if time.monotonic_ns() - began_ns >= 20_000_000:
            break
    assert 20_000_000 <= time.monotonic_ns() - began_ns < LONG_NS
    write(log.writer)
    assert followers.wait(followers.ticket(), 2**63 - 1, idle) == Found.RECORDS
    assert followers.wait(followers.ticket() - 1 & 0xFFFFFFFF, 0, idle) == Found.RECORDS, "records come before pokes"


def waiting_thread(followers: Followers, idle: Idle, found: list[int], ticket: int | None = None) -> threading.Thread:
    ticket = followers.ticket() if ticket is None else ticket
    began = threading.Event()

    def wait() -> None:
        began.set()
        result = int(Found.NOTHING)
        deadline = time.monotonic() + DEADLINE_S
        while result == Found.NOTHING and time.monotonic() < deadline:  # a wait may end for nothing
            result = followers.wait(ticket, LONG_NS, idle)
        found.append(result)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert began.wait(DEADLINE_S)
    return thread


def ended(*threads: threading.Thread) -> None:
    deadline = time.monotonic() + DEADLINE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), "it waits on"


@pytest.mark.parametrize("idle", IDLES)
@pytest.mark.parametrize("which", [0, 2])
def test_a_commit_in_any_of_the_logs_ends_the_wait(logs: list[Log], which: int, idle: Idle) -> None:
    followers = Followers()
    for log in logs:
        followers.add(log.cursor)
    for _ in range(20):
        found: list[int] = []
        thread = waiting_thread(followers, idle, found)
        if idle == Idle.BLOCK:
            until(lambda: all(log.sleepers for log in logs), "a sleeper")
        write(logs[which].writer)
        ended(thread)
        assert found == [Found.RECORDS]
        assert len(drain(logs[which].cursor)) == 1


@pytest.mark.parametrize("idle", IDLES)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_poke_and_a_commit_wake_every_thread(logs: list[Log], idle: Idle, threads: int) -> None:
    followers = Followers()
    for log in logs:
        followers.add(log.cursor)
    for _ in range(5):
        found: list[int] = []
        waiting = [waiting_thread(followers, idle, found) for _ in range(threads)]
        followers.poke()
        ended(*waiting)
        assert found == [Found.POKED] * threads
    found = []
    waiting = [waiting_thread(followers, idle, found) for _ in range(threads)]
    write(logs[1].writer)
    ended(*waiting)
    assert found == [Found.RECORDS] * threads


def test_a_sleeper_is_marked_and_a_commit_takes_the_mark_away(log: Log) -> None:
    followers = Followers()
    followers.add(log.cursor)
    assert log.sleepers == 0
    found: list[int] = []
    thread = waiting_thread(followers, Idle.BLOCK, found)
    until(lambda: log.sleepers, "a sleeper")
    followers.poke()
    ended(thread)
    write(log.writer)
    assert log.sleepers == 0
    for idle in (Idle.SPIN, Idle.YIELD):  # who does not sleep costs the writer no system call
        log.cursor.seek(2)
        followers.wait(followers.ticket(), SECOND_NS // 1000, idle)
        assert log.sleepers == 0


@pytest.mark.parametrize("idle", IDLES)
@pytest.mark.parametrize("state", [LogState.ENDED, LogState.SUPERSEDED])
def test_another_state_is_told_once_and_after_the_records(log: Log, idle: Idle, state: LogState) -> None:
    followers = Followers()
    followers.add(log.cursor)
    assert log.cursor.told_state == LogState.OPEN
    found: list[int] = []
    thread = waiting_thread(followers, idle, found)
    if idle == Idle.BLOCK:
        until(lambda: log.sleepers, "a sleeper")
    log.writer.control.state = state
    log.writer.control.wake()
    ended(thread)
    assert found == [Found.STATE]
    assert log.cursor.told_state == state
    assert followers.wait(followers.ticket(), SECOND_NS // 1000, idle) == Found.NOTHING
    log.writer.control.state = LogState.OPEN
    write(log.writer)
    assert [followers.look(), followers.look()] == [Found.RECORDS, Found.RECORDS]
    assert drain(log.cursor) == [1]
    assert [followers.look(), followers.look()] == [Found.STATE, Found.NOTHING]


@pytest.mark.parametrize("idle", IDLES)
@pytest.mark.parametrize("count", [126, 127, 128, 300])
def test_more_cursors_than_the_kernel_waits_for(logs: list[Log], count: int, idle: Idle) -> None:
    followers = Followers()
    cursors = [cursor_of(logs[at % 2].reader) for at in range(count - 1)]
    for each in (*cursors, logs[2].cursor):
        followers.add(each)
    assert len(followers) == count
    for _ in range(3):
        found: list[int] = []
        thread = waiting_thread(followers, idle, found)
        write(logs[2].writer)
        ended(thread)
        assert found == [Found.RECORDS]
        assert drain(logs[2].cursor)
        found = []
        thread = waiting_thread(followers, idle, found)
        followers.poke()
        ended(thread)
        assert found == [Found.POKED]
        began_ns = time.monotonic_ns()
        followers.wait(followers.ticket(), 3_000_000, idle)
        assert time.monotonic_ns() - began_ns < LONG_NS


@pytest.mark.parametrize("idle", IDLES)
def test_without_a_wait_page_it_is_polled(log: Log, idle: Idle) -> None:
    with (log.reader.directory / "control").open("rb") as file:
        control = Control(mmap.mmap(file.fileno(), PAGE_BYTES, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED), None)
    cursor = LogCursor(control, log.reader.map_whole, TICK.dtype, 1)
    cursor.open = True
    followers = Followers()
    followers.add(cursor)
    for count in range(1, 6):
        found: list[int] = []
        thread = waiting_thread(followers, idle, found)
        write(log.writer)
        ended(thread)
        assert (found, drain(cursor)) == ([Found.RECORDS], [count])
        thread = waiting_thread(followers, idle, found)
        followers.poke()
        ended(thread)
        assert found == [Found.RECORDS, Found.POKED]
    log.writer.end()
    assert followers.wait(followers.ticket(), LONG_NS, idle) == Found.STATE


@pytest.mark.parametrize("idle", IDLES)
def test_a_wait_is_for_those_that_were_there_when_it_began(logs: list[Log], idle: Idle) -> None:
    one, other, later = logs
    followers = Followers()
    followers.add(one.cursor)
    followers.add(other.cursor)
    assert (one.cursor in followers, later.cursor in followers, len(followers)) == (True, False, 2)
    found: list[int] = []
    ticket = followers.ticket()
    thread = waiting_thread(followers, idle, found, ticket)
    if idle == Idle.BLOCK:
        until(lambda: other.sleepers, "a sleeper")
    followers.add(later.cursor)
    followers.remove(other.cursor)
    followers.remove(other.cursor)  # once more does nothing
    write(later.writer)
    assert found == []
    del other.cursor  # what is waited for stays alive
    gc.collect()
    if idle == Idle.BLOCK:
        write(other.writer)
    else:
        followers.poke()
    ended(thread)
    assert found in ([Found.RECORDS], [Found.POKED])
    assert followers.wait(followers.ticket(), LONG_NS, idle) == Found.RECORDS
    assert drain(later.cursor) == [1]
    for empty in (later.cursor, one.cursor):
        followers.remove(empty)
    assert len(followers) == 0
    assert followers.wait(followers.ticket(), SECOND_NS // 1000, idle) == Found.NOTHING
    with pytest.raises(TypeError):
        followers.add(None)  # type: ignore[arg-type]


def test_cursors_come_and_go_while_threads_wait(logs: list[Log]) -> None:
    seed = 4
    print("seed", seed)
    chance = random.Random(seed)
    followers = Followers()
    stop = threading.Event()
    waits = [0, 0]

    def wait(at: int) -> None:
        while not stop.is_set():
            followers.wait(followers.ticket(), SECOND_NS // 20, IDLES[at])
            waits[at] += 1

    threads = [threading.Thread(target=wait, args=(at,), daemon=True) for at in range(2)]
    for thread in threads:
        thread.start()
    here: list[LogCursor] = []
    deadline = time.monotonic() + DEADLINE_S
    for _ in range(2000):
        if here and chance.random() < 0.5:
            followers.remove(here.pop(chance.randrange(len(here))))
        else:
            here.append(cursor_of(logs[chance.randrange(3)].reader, chance.choice([1, 1000])))
            followers.add(here[-1])
        write(logs[chance.randrange(3)].writer)
        assert time.monotonic() < deadline
    assert len(followers) == len(here)
    stop.set()
    followers.poke()
    followers.poke()
    ended(*threads)
    assert all(waits)


def test_records_in_order_through_one_wait_for_all(logs: list[Log]) -> None:
    """Two writers' threads, one reader of both that sleeps: nothing is missed, nothing comes twice."""
    followers = Followers()
    total = 3000
    for log in logs[:2]:
        followers.add(log.cursor)

    def produce(log: Log) -> None:
        for _ in range(total):
            if not log.writer.fast.put({"value": log.writer.next}, SECOND_NS):
                write(log.writer)

    threads = [threading.Thread(target=produce, args=(log,), daemon=True) for log in logs[:2]]
    for thread in threads:
        thread.start()
    got: list[list[int]] = [[], []]
    deadline = time.monotonic() + DEADLINE_S
    while sum(map(len, got)) < 2 * total:
        ticket = followers.ticket()
        for log, values in zip(logs, got, strict=False):
            values += drain(log.cursor)
        if sum(map(len, got)) < 2 * total:
            followers.wait(ticket, LONG_NS, Idle.BLOCK)
        assert time.monotonic() < deadline
    assert got == [list(range(1, total + 1))] * 2
    ended(*threads)


# The bell of event loops


def rung(bell: LogBell, seconds: float = DEADLINE_S) -> bool:
    return bool(select.select([bell.descriptor], [], [], seconds)[0])


def test_the_bell_rings_once_and_again_when_it_is_rearmed(logs: list[Log]) -> None:
    bell = LogBell()
    try:
        bell.tell_of([log.cursor for log in logs[:2]])
        assert not rung(bell, 0)
        write(logs[1].writer)
        assert rung(bell)
        bell.clear()
        write(logs[1].writer)
        assert not rung(bell, 0.01), "it was not rearmed"
        write(logs[0].writer)
        assert rung(bell), "a slow reader keeps no other one waiting"
        bell.clear()
        assert [log.cursor.rung for log in logs] == [True, True, False]
        bell.rearm([logs[1].cursor])
        assert rung(bell), "there is still something"
        bell.clear()
        for log in logs:
            drain(log.cursor)
        bell.rearm([log.cursor for log in logs])
        assert not rung(bell, 0.01), "there is nothing any more"
        write(logs[2].writer)
        assert not rung(bell, 0.01), "it is not told of that one"
        bell.tell_of([log.cursor for log in logs])
        assert rung(bell)
        bell.clear()
        drain(logs[2].cursor)
        bell.rearm([logs[2].cursor])
        logs[0].writer.end()
        assert rung(bell), "another state"
    finally:
        bell.close()


def test_the_bell_is_told_of_others_and_ends_its_thread(logs: list[Log]) -> None:
    bell = LogBell()

    def threads() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "fabric-log-bell"]

    before = len(threads())
    for _ in range(50):
        bell.tell_of([logs[0].cursor])
        bell.tell_of([logs[0].cursor])
        bell.tell_of([log.cursor for log in logs])
        bell.remove(logs[1].cursor)
        assert len(threads()) == before + 1
        bell.tell_of([])
        assert len(threads()) == before
        bell.remove(logs[1].cursor)
    bell.tell_of([logs[2].cursor])
    bell.close()
    assert len(threads()) == before


def test_no_ring_is_missed_however_often_it_is_rearmed(log: Log) -> None:
    """A reader that is called by the bell alone, a writer at its own pace."""
    total = 20_000
    bell = LogBell()
    bell.tell_of([log.cursor])

    def produce() -> None:
        for value in range(1, total + 1):
            if not log.writer.fast.put({"value": value}, SECOND_NS):
                write(log.writer)
            if value % 7 == 0:
                os.sched_yield()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    got: list[int] = []
    try:
        while len(got) < total:
            assert rung(bell), f"not called after {len(got)} of {total} records"
            bell.clear()
            got += drain(log.cursor)
            bell.rearm([log.cursor])
            bell.rearm([log.cursor])
    finally:
        ended(thread)
        bell.close()
    assert got == list(range(1, total + 1))
