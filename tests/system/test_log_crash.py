"""A log's writer killed with -9 at random moments: what was committed is whole, and the next writer goes on behind it."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fabric.errors import LogLocked
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.log.verify import verify_log
from fabric.records import Flags, record

pytestmark = pytest.mark.system

DEADLINE_S = 30
KILLS = 30
SEGMENT = 64
CRASH = record("crash", image="last", value="u8", event_first="u8")

COMMON = f"""
import os, random, sys, threading, time
from pathlib import Path
import numpy as np
from fabric.log import LogOptions, LogWriter
from fabric.records import Flags, record

CRASH = record("crash", image="last", value="u8", event_first="u8")
OPTIONS = LogOptions(segment_bytes={SEGMENT} * CRASH.size, retain_bytes=40 * {SEGMENT} * CRASH.size)

def open_writer():
    return LogWriter(Path(sys.argv[1]), "crash", 5, CRASH, OPTIONS, now_ns=time.time_ns())
"""

WRITER = (
    COMMON
    + """
writer = open_writer()
generator = random.Random(int(sys.argv[2]))

def maintain():
    while True:
        writer.maintain(time.time_ns(), time.monotonic_ns())
        time.sleep(0.0005)

threading.Thread(target=maintain, daemon=True).start()
while True:
    first = writer.next
    count = generator.choice([1, 1, 2, 3, 10, 70, 200])
    sequences = np.arange(first, first + count, dtype="u8")
    records = CRASH.build(count, value=sequences * sequences, event_first=first, instrument=sequences % 50)
    records["flags"][-1] = Flags.LAST_IN_EVENT
    writer.write(records, time.time_ns())
"""
)

HOLDER = (
    COMMON
    + """
writer = open_writer()
records = CRASH.build(1, event_first=writer.next, value=writer.next ** 2, flags=1)
writer.write(records, time.time_ns())
child = os.fork()
if child == 0:
    sys.stdin.read()  # until the test lets go
    os._exit(0)
print(child, flush=True)
sys.stdin.read()
"""
)


def spawn(source: str, directory: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", source, str(directory), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(DEADLINE_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def check_records(records, first: int) -> None:
    """Each record is what its sequence says, and events follow one another without a break."""
    sequences = np.arange(first, first + len(records), dtype="u8")
    assert (records["value"] == sequences * sequences).all()
    ends = (records["flags"] & Flags.LAST_IN_EVENT) != 0
    assert (records["event_first"][1:][ends[:-1]] == sequences[1:][ends[:-1]]).all()
    assert (records["event_first"][1:][~ends[:-1]] == records["event_first"][:-1][~ends[:-1]]).all()
    assert (np.diff(records["ts_publish_ns"]) >= 0).all()


def check_log(reader: LogReader) -> int:
    """Everything committed that retention has left is right, and the commit is at an event's end; returns ``next``."""
    first, end = reader.first_available, reader.next
    records = np.concatenate([view for _, view in reader.read_range(first, end - 1)])
    assert len(records) == end - first
    check_records(records, first)
    assert records["flags"][-1] & Flags.LAST_IN_EVENT
    return end


class Follower(threading.Thread):
    """A reader that maps the log from the first commit on and looks at every record through all crashes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.reader = LogReader(directory)
        self.position = self.reader.first_available
        self.seen = 0
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.reader.wait_beyond(self.position - 1, 2_000_000)
                try:
                    records = self.reader.read(self.position, 500)
                except IndexError:  # overtaken by retention
                    self.position = self.reader.first_available
                    continue
                check_records(records, self.position)
                assert self.position + len(records) <= self.reader.next
                self.position += len(records)
                self.seen += len(records)
        except BaseException as error:
            self.failure = error


def wait_for_writer(directory: Path, process: subprocess.Popen[str]) -> LogReader:
    """The log, once this process writes it."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the writer ended by itself"
        if (directory / "current").exists():
            reader = LogReader(directory)
            if reader.control.writer_pid == process.pid:
                return reader
        os.sched_yield()
    raise AssertionError("the writer did not open its log in time")


@pytest.mark.timeout(300)
def test_kill_at_random_moments(tmp_path):
    seed = int(os.environ.get("FABRIC_SEED", "20240817"))
    print(f"seed {seed}")
    generator = random.Random(seed)
    sessions, ends, follower = set(), [0], None
    for attempt in range(KILLS):
        process = spawn(WRITER, tmp_path, generator.randrange(2**32))
        try:
            reader = wait_for_writer(tmp_path, process)
            if follower is None:
                follower = Follower(tmp_path)
                follower.start()
            more = generator.choice([0, 1, 50, 500, 3000])
            deadline = time.monotonic() + DEADLINE_S
            while reader.next <= ends[-1] + more and more:
                assert time.monotonic() < deadline, "the writer does not get on"
                reader.wait_beyond(ends[-1] + more, 50_000_000)
            reader.wait_beyond(2**62, generator.randrange(3_000_000))  # some time into what it does then
        finally:
            kill(process)
        print(f"kill {attempt}: next {reader.next}, first available {reader.first_available}")
        sessions.add(reader.session)
        if reader.next > 1:
            ends.append(check_log(reader))
        assert verify_log(tmp_path).problems == []
    follower.stop.set()
    follower.join(DEADLINE_S)
    assert follower.failure is None
    assert follower.seen > 1000
    assert len(sessions) == 1
    assert all(before <= after for before, after in itertools.pairwise(ends))
    assert ends[-1] > ends[1]


def new_writer(directory: Path) -> LogWriter:
    options = LogOptions(segment_bytes=SEGMENT * CRASH.size, retain_bytes=40 * SEGMENT * CRASH.size)
    return LogWriter(directory, "crash", 5, CRASH, options, now_ns=time.time_ns())


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path):
    parent = spawn(HOLDER, tmp_path)
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(LogLocked, match=rf"pid {parent.pid}"):
            new_writer(tmp_path)
        parent.kill()
        parent.wait(DEADLINE_S)
        os.kill(child, 0)  # lives, and waits for its standard input
        writer = new_writer(tmp_path)
        assert (writer.session, writer.next) == (LogReader(tmp_path).session, 2)
        writer.close()
        os.kill(child, 0)
    finally:
        kill(parent)  # closes the child's standard input: it ends


def test_two_writers_at_once_are_refused(tmp_path):
    process = spawn(WRITER, tmp_path, 1)
    try:
        reader = wait_for_writer(tmp_path, process)
        before = reader.wait_beyond(0, DEADLINE_S * 10**9)
        for _ in range(20):
            with pytest.raises(LogLocked, match=rf"another process writes this log \(pid {process.pid}\)"):
                new_writer(tmp_path)
        assert reader.wait_beyond(before, DEADLINE_S * 10**9) > before  # the first one is not disturbed
        assert reader.control.writer_pid == process.pid
    finally:
        kill(process)
    writer = new_writer(tmp_path)
    assert writer.next == check_log(reader)
    writer.close()
