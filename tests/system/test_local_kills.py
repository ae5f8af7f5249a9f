"""The same-host path under kill -9, pauses and changed logs: no torn record, none lost unsaid, none twice."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fabric.log import LogReader
from fabric.supervise.watchdog import stopped

pytestmark = pytest.mark.system
PROGRAM = Path(__file__).with_name("local_programs.py")
READERS = ("blocking", "yielding", "asyncio", "slow", "table")
Waiting = Callable[..., Any]


class Stage:
    """A channel's log and endpoints, a publisher that comes and goes, readers that stay."""

    def __init__(self, folder: Path, endpoints: tuple[str, str], waiting: Waiting) -> None:
        self.waiting = waiting
        self.log = folder / "log"
        self.progress_file = folder / "progress"
        self.progress_file.write_bytes(bytes(4096))
        with self.progress_file.open("r+b") as file:
            self.progress = mmap.mmap(file.fileno(), 4096)
        self.settings = {"log": str(self.log), "endpoints": list(endpoints), "progress": str(self.progress_file)}
        self.settings |= {"retain_bytes": 256 << 20, "segment_bytes": 1 << 20, "path": "local"}
        self.publisher: subprocess.Popen[str] | None = None
        self.readers: list[tuple[str, subprocess.Popen[str]]] = []

    def start(self, what: str, **more: Any) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), what, json.dumps({**self.settings, **more})]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def publish(self, **more: Any) -> None:
        self.publisher = self.start("publish", **more)

    def read(self, kind: str, **more: Any) -> int:
        """Its slot, for ``last``."""
        slot = len(self.readers)
        self.readers.append((kind, self.start("read", kind=kind, slot=slot, **more)))
        return slot

    def last(self, slot: int) -> int:
        return struct.unpack_from("<Q", self.progress, 8 * slot)[0]

    @property
    def next(self) -> int:
        return LogReader(self.log).next

    def wait_next(self, sequence: int, timeout: float = 60) -> None:
        reader = self.waiting(lambda: LogReader(self.log), "the log", timeout)
        self.waiting(lambda: reader.next > sequence or self.failed(), f"record {sequence}", timeout)

    def failed(self) -> None:
        for what, process in (("the publisher", self.publisher), *self.readers):
            if process is not None and process.poll() not in (None, 0):
                raise AssertionError(f"{what} has failed: {process.communicate()[1]}")

    def kill(self) -> None:
        assert self.publisher is not None
        assert self.publisher.poll() is None, self.publisher.communicate()[1]
        self.publisher.kill()
        self.publisher.communicate()
        self.publisher = None

    def results(self, timeout: float = 60) -> list[tuple[str, dict[str, Any]]]:
        made = []
        for kind, process in self.readers:
            output, errors = process.communicate(timeout=timeout)
            assert process.returncode == 0, f"{kind}: {errors}"
            made.append((kind, json.loads(output)))
        return made

    def close(self) -> None:
        for process in (self.publisher, *(process for _, process in self.readers)):
            if process is not None:
                if process.poll() is None:
                    process.kill()
                process.communicate()
        shutil.rmtree(self.log, ignore_errors=True)


@pytest.fixture
def stage(short_directory: Path, endpoints: tuple[str, str], waiting: Waiting) -> Iterator[Stage]:
    # The log is where such logs usually are, on tmpfs: what is measured here is no disk.
    memory = Path("/dev/shm")
    folder = memory / short_directory.name if memory.is_dir() and os.access(memory, os.W_OK) else short_directory / "x"
    folder.mkdir()
    made = Stage(folder, endpoints, waiting)
    yield made
    made.close()
    shutil.rmtree(folder)


def kills(stage: Stage, rounds: int, seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    begin_s, killed = time.monotonic(), 0
    stage.publish(seed=chance.getrandbits(32))
    stage.wait_next(0)
    session = LogReader(stage.log).session
    slots = [stage.read(kind) for kind in READERS]
    for slot in slots:
        stage.waiting(lambda slot=slot: stage.last(slot) > 0 or stage.failed(), f"reader {slot}", 60)
    for _ in range(rounds):
        stage.wait_next(stage.next + chance.randrange(500, 30_000))
        stage.kill()
        killed += 1
        stage.publish(seed=chance.getrandbits(32))
        stage.wait_next(stage.next)
    stage.wait_next(stage.next + 1000)
    stage.kill()
    stage.publish(seed=chance.getrandbits(32), until=stage.next + 1000)
    results = stage.results()
    log = LogReader(stage.log)
    assert log.session == session, "every writer went on in the same session"
    print(f"{log.next - 1} records, {killed + 1} kills, {time.monotonic() - begin_s:.1f} s")
    for kind, seen in results:
        assert seen["wrong"] == 0, f"{kind} read torn or wrong records: {seen}"
        assert (seen["jumps"], seen["lost"], seen["snapshots"]) == ([], [], []), f"{kind} has lost or repeated: {seen}"
        assert (seen["first"], seen["last"]) == (1, log.next - 1), kind
        assert (seen["sessions"], seen["paths"], seen["state"]) == ([session], ["local"], "ENDED"), kind


def test_a_publisher_killed_in_mid_stream_tears_loses_and_repeats_nothing(stage: Stage) -> None:
    kills(stage, rounds=3, seed=20)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_fifty_kills(stage: Stage, seed: int) -> None:
    kills(stage, rounds=9, seed=seed)


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize("image", [True, False])
def test_a_reader_that_is_stopped_past_retention_is_told_exactly_what_it_lost(
    stage: Stage, kind: str, image: bool
) -> None:
    stage.settings |= {"retain_bytes": 2 << 20, "segment_bytes": 1 << 18, "image": image}
    stage.publish(seed=5, per_tick=20)
    stage.wait_next(0)
    slot = stage.read(kind)
    stage.waiting(lambda: stage.last(slot) > 1000 or stage.failed(), "the reader", 60)
    process = stage.readers[slot][1]
    os.kill(process.pid, signal.SIGSTOP)
    stage.waiting(lambda: stopped(process.pid), "it to be stopped")
    stopped_at = stage.last(slot)
    log = LogReader(stage.log)
    stage.waiting(lambda: log.first_available > stopped_at + 20_000 or stage.failed(), "retention", 60)
    stage.kill()  # nothing moves while it is woken
    os.kill(process.pid, signal.SIGCONT)
    stage.publish(seed=6, per_tick=20, until=log.next + 2000)
    ((_, seen),) = stage.results()
    assert (seen["wrong"], seen["last"], seen["state"]) == (0, log.next - 1, "ENDED")
    assert (seen["paths"], len(seen["sessions"])) == (["local"], 1)
    if image:
        assert (seen["lost"], seen["jumps"]) == ([], [])
        assert any(stopped_at <= after and as_of >= after for after, as_of in seen["snapshots"]), seen
    else:
        # Where it was slow to start, the first records were gone before it began.
        lost = [each for each in seen["lost"] if each[0] > seen["first"]]
        assert sum(last - first + 1 for first, last in seen["lost"] if last < seen["first"]) == seen["first"] - 1
        assert seen["jumps"] == lost, "what it was told is what is missing"
        assert seen["snapshots"] == []
        assert sum(last - first + 1 for first, last in seen["lost"]) > 10_000
