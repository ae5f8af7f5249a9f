"""`python bench/takeover.py`: how long a channel is without a writer, from kill -9 of its publisher to the first new record at a
reader.

    same host        a node with `standby = true` under `fabric up`; the reader maps the log
    other host       `fabric.stand_by` over tcp (127.0.0.1), `async` and `sync`, the reader over tcp: told to take over at the
                     moment of the kill (what the takeover itself takes), and after the least silence that can be set

Each is done ``--rounds`` times, anew. A publisher sends 2,000 records a second; what a reader is given is checked: every record
once and in order, and after a `sync` takeover none is lost.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import fabric
from fabric.bench.ports import free_endpoints
from fabric.bench.process import interrupt
from fabric.runtime.page import NodePage
from fabric.runtime.standby import standby_pid

NUMBER = fabric.record("number", value="u8")
PAUSE_S = 0.0005
SILENCE = "500ms"
WAIT_S = 30.0
LIFE_NS = 1_200_000_000
"""What dies sooner, five times in a row, ends the fabric as a crash loop."""
DYING_NS = 5_000_000
"""A process that is killed may go on for a moment on another processor."""
CONFIG = """
fabric = "takeover"
[nodes.feed]
use = "feed.simulated"
records_per_second = 2000
standby = true
outputs = { instrument = "t.instrument", quote = "t.quote" }
"""


def publish(ends: list[str], folder: Path, sync: bool) -> None:
    logging.getLogger("fabric").setLevel(logging.ERROR)
    standby = fabric.Standby(ends[4], sync=ends[2] if sync else "")
    with fabric.publish(
        "numbers", NUMBER, listen=ends[0], replay=ends[1], log_dir=folder / "primary", standby=standby
    ) as out:
        while True:
            out.send(value=out.next)
            time.sleep(PAUSE_S)


def follow(ends: list[str], folder: Path, sync: bool, silence: str | None, told: Connection) -> None:
    logging.getLogger("fabric").setLevel(logging.ERROR)
    with fabric.stand_by(
        "numbers", NUMBER, primary=(ends[0], ends[1]), sync=ends[2] if sync else "", listen=ends[3], replay=ends[4],
        log_dir=folder / "standby", takeover_after=silence,
    ) as standby:  # fmt: skip
        while standby.state != ("IN_SYNC" if sync else "FOLLOWING"):
            time.sleep(PAUSE_S)
        told.send("follows")
        if silence is None:
            told.recv()
            out = standby.take_over()
        else:
            out = standby.wait()
        assert out is not None
        while not told.poll():
            out.send(value=out.next)
            time.sleep(PAUSE_S)


def network(sync: bool, silence: str | None) -> float:
    """One takeover by another host's standby; seconds."""
    context = multiprocessing.get_context("spawn")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    ends = free_endpoints(5)
    ours, theirs = context.Pipe()
    primary = context.Process(target=publish, args=(ends, folder, sync), daemon=True)
    standby = context.Process(target=follow, args=(ends, folder, sync, silence, theirs), daemon=True)
    try:
        primary.start()
        standby.start()
        if not ours.poll(WAIT_S):
            raise RuntimeError("the standby does not follow")
        ours.recv()
        with fabric.subscribe(
            "numbers",
            data=ends[0],
            replay=ends[1],
            standby=(ends[3], ends[4]),
            record=NUMBER,
            start="first",
            path="tcp",
        ) as numbers:
            checked = Checked(numbers, lost=not sync)
            checked.until(lambda batch: batch.last > 500)
            parent, began_s = numbers.session, time.perf_counter()
            assert primary.pid is not None
            os.kill(primary.pid, signal.SIGKILL)
            if silence is None:
                ours.send("now")
            checked.until(lambda batch: batch.session != parent)
            took_s = time.perf_counter() - began_s
        ours.send("end")
        standby.join(WAIT_S)
        return took_s
    finally:
        for each in (primary, standby):
            if each.pid is not None:
                each.kill()
                each.join()
        shutil.rmtree(folder)


class Checked:
    """A reader that is given each record once, in order."""

    def __init__(self, numbers: fabric.Subscription, *, lost: bool) -> None:
        self._numbers, self._may_lose = numbers, lost
        self._next: dict[int, int] = {}

    def until(self, condition: Callable[[fabric.Batch], bool]) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while True:
            try:
                batch = self._numbers.poll(timeout=max(0.0, deadline_s - time.monotonic()))
            except fabric.RecordsLost:
                if not self._may_lose:
                    raise
                continue
            if batch is None:
                raise RuntimeError(f"nothing came for {WAIT_S:.0f} s: {self._numbers!r}")
            assert batch.first == self._next.get(batch.session, batch.first), "in order, without a hole"
            if "value" in (batch.records.dtype.names or ()):
                assert np.array_equal(batch.records["value"], batch.sequences)
            self._next[batch.session] = batch.last + 1
            if condition(batch):
                return


def same_host(rounds: int) -> list[float]:
    """Takeovers by the standbys of one node, one after the other; seconds."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    config = folder / "takeover.toml"
    config.write_text(f'data_dir = "{folder}/var"\n{CONFIG}')
    output = (folder / "output").open("wb")
    command = [sys.executable, "-m", "fabric.cli.main", "up", str(config)]
    up = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    took = []
    try:
        node = folder / "var" / "takeover" / "latest" / "nodes" / "feed"

        def standby_waits() -> int:
            page = NodePage.open(node / "page")
            pid = int(page.get("pid"))
            waiting = standby_pid(node)
            return pid if pid and waiting and waiting != pid else 0

        with fabric.subscribe("t.quote", config=config, start="live") as quotes:
            checked = Checked(quotes, lost=False)
            for _ in range(rounds):
                pid, worked_ns = wait_for(standby_waits), time.time_ns() + LIFE_NS
                checked.until(lambda batch, worked_ns=worked_ns: int(batch.records["ts_publish_ns"][-1]) > worked_ns)
                began_s, killed_ns = time.perf_counter(), time.time_ns()
                os.kill(pid, signal.SIGKILL)
                new_ns = killed_ns + DYING_NS
                checked.until(lambda batch, new_ns=new_ns: int(batch.records["ts_publish_ns"][-1]) > new_ns)
                took.append(time.perf_counter() - began_s)
                wait_for(lambda pid=pid: standby_waits() not in (0, pid))
    finally:
        interrupt(up, WAIT_S)
        output.close()
        shutil.rmtree((folder / "var" / "takeover" / "latest" / "logs").resolve(), ignore_errors=True)
        shutil.rmtree(folder)
    return took


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            if result := condition():
                return result
        except (OSError, ValueError, KeyError):
            pass
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"waited {WAIT_S:.0f} s in vain")
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    cases: list[tuple[str, Callable[[], list[float]]]] = [
        ("same host", lambda: same_host(rounds)),
        ("other host, async, told at the kill", lambda: [network(False, None) for _ in range(rounds)]),
        ("other host, sync, told at the kill", lambda: [network(True, None) for _ in range(rounds)]),
        (f"other host, sync, after {SILENCE} of silence", lambda: [network(True, SILENCE) for _ in range(rounds)]),
    ]
    for name, measure in cases:
        took_ms = sorted(1000 * each for each in measure())
        print(
            f"takeover, {name}: median {statistics.median(took_ms):,.1f} ms, max {took_ms[-1]:,.1f} ms ({rounds} rounds)",
            flush=True,
        )


if __name__ == "__main__":
    main()
