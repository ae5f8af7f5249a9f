"""`python bench/recovery.py`: how soon a late joiner is there, and how fast a log is replayed, by each path.

    publisher (its log server with it)  ──ipc, or its mapped log──▶  client (this process)

A publisher of another process writes ``--records`` records of ``--instruments`` instruments, 64 bytes each, to a log in
memory. Then one client joins by snapshot, until it is LIVE and has the last record of each instrument; another one
reads the whole log, from the first record, and checks sequence and content of each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import fabric
from fabric.log.writer import LogOptions

TICK = fabric.record("tick", image="last", value="u8", a="f8", b="f8", c="f8")
BATCH = 1_000
RECORD_BYTES = 64
WAIT_S = 60.0


def publish(folder: Path, records: int, instruments: int, told: Connection) -> None:
    options = LogOptions(retain_bytes=2 * RECORD_BYTES * records, segment_bytes=32 << 20)
    live, replayed = f"ipc://{folder}/data", f"ipc://{folder}/replay"
    with fabric.publish("ticks", TICK, listen=live, replay=replayed, log_dir=folder / "log", options=options) as out:
        for first in range(0, records, BATCH):
            values = np.arange(first, first + BATCH)
            out.send(instrument=1 + values % instruments, value=values)
        told.send("ready")
        told.recv()


def join(folder: Path, **more: Any) -> fabric.Subscription:
    return fabric.subscribe("ticks", data=f"ipc://{folder}/data", replay=f"ipc://{folder}/replay", record=TICK, **more)


def late_joiner(folder: Path, instruments: int, path: str) -> float:
    started = time.perf_counter()
    with join(folder, start="snapshot", path=path) as ticks:
        batch = ticks.poll(timeout=WAIT_S)
        took = time.perf_counter() - started
        assert batch is not None
        assert len(np.unique(batch.records["instrument"])) == instruments, len(batch.records)
        assert str(ticks.state).endswith("LIVE"), ticks.state
    return took


def replay(folder: Path, records: int, path: str) -> float:
    started, done = time.perf_counter(), 0
    with join(folder, start="first", path=path) as ticks:
        while done < records:
            batch = ticks.poll(timeout=WAIT_S)
            assert batch is not None, f"no record for {WAIT_S:.0f} s, after {done:,}"
            assert batch.first == done + 1
            assert int(batch.records["value"][0]) == done
            assert int(batch.records["value"][-1]) == done + len(batch.records) - 1
            done += len(batch.records)
        took = time.perf_counter() - started
        assert (ticks.counters.lost, ticks.counters.skipped, ticks.path) == (0, 0, path)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000, help="a multiple of 1,000")
    parser.add_argument("--instruments", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(dir=memory))
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    publisher = context.Process(target=publish, args=(folder, arguments.records, arguments.instruments, theirs))
    try:
        publisher.start()
        theirs.close()  # then a publisher that dies is heard of
        ours.recv()
        for path in ("ipc", "local") * arguments.rounds:
            joined = late_joiner(folder, arguments.instruments, path)
            took = replay(folder, arguments.records, path)
            print(
                f"{path}: late joiner, {arguments.instruments:,} instruments: LIVE after {joined * 1e3:,.0f} ms; "
                f"replay of {arguments.records:,} records: {took:.2f} s, {arguments.records / took / 1e6:.2f} M records/s",
                flush=True,
            )
        ours.send("done")
        publisher.join(WAIT_S)
    finally:
        publisher.kill()
        publisher.join()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
