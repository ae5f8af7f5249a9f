"""`python bench/beside_a_busy_thread.py`: how long a packet takes into a client that computes in Python all the time.

    [ publisher, 100 records/s ]  ──ipc──▶  [ client: a thread that computes, a thread that reads ]

Two figures, each beside the same without the computing thread, in turns: until the record is in the client's memory (a native
stamp: the pump needs no GIL), and until Python's reader sees it (which waits for the GIL: ``sys.setswitchinterval``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import fabric
from fabric.bench import records as layout
from native.histogram import BYTES, Histogram

_CHANNEL = "bench.busy"
_PAUSE_S = 0.01


def publish(folder: Path, seconds: float) -> None:
    record = layout.make(1, layout.BYTES)
    where = {"listen": f"ipc://{folder}/data", "replay": f"ipc://{folder}/replay"}
    with fabric.publish(_CHANNEL, layout.record_type(layout.BYTES), log_dir=folder / "log", **where) as out:
        print("open", flush=True)
        sys.stdin.readline()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            time.sleep(_PAUSE_S)
            out.send(record)
        out.end()
        sys.stdin.readline()


def compute(stop: threading.Event) -> None:
    total = 0
    while not stop.is_set():
        for number in range(1000):
            total += number


def measure(busy: bool, seconds: float) -> tuple[float, float]:
    """Median us until in memory, and until seen by Python."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    command = [sys.executable, __file__, "--publish", str(folder), "--seconds", str(seconds)]
    stop = threading.Event()
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdin
            assert publisher.stdout
            publisher.stdout.readline()
            where = {"data": f"ipc://{folder}/data", "replay": f"ipc://{folder}/replay"}
            with fabric.subscribe(_CHANNEL, start="live", path="ipc", **where) as sub:
                sub.wait_live(timeout=20)
                lane = sub.feeds[_CHANNEL].receiver.lane
                if lane is None:
                    raise SystemExit("packets are not received natively here: fabric explain says why")
                if busy:
                    threading.Thread(target=compute, args=(stop,), daemon=True).start()
                lane.histogram = arrived = Histogram(bytearray(BYTES))
                publisher.stdin.write("go\n")
                publisher.stdin.flush()
                seen = [time.time_ns() - int(batch.records["ts_publish_ns"][-1]) for batch in sub]
                stop.set()
                lane.histogram = None
            publisher.stdin.write("end\n")
            publisher.stdin.flush()
        return arrived.percentile_ns(50) / 1e3, float(np.median(seen)) / 1e3
    finally:
        stop.set()
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publish", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.publish:
        publish(arguments.publish, arguments.seconds)
        return 0
    print(f"{os.cpu_count()} CPUs, switch interval {sys.getswitchinterval() * 1e3:g} ms, {arguments.pairs} pairs")
    pairs = [(measure(False, arguments.seconds), measure(True, arguments.seconds)) for _ in range(arguments.pairs)]
    for place, name in enumerate(("in memory", "seen by Python")):
        idle = statistics.median(pair[0][place] for pair in pairs)
        busy = statistics.median(pair[1][place] for pair in pairs)
        ratio = statistics.median(pair[1][place] / pair[0][place] for pair in pairs)
        print(
            f"{name}: p50 {idle:.1f} us idle, {busy:.1f} us beside a busy thread, {'ratio' if not place else 'times'} {ratio:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
