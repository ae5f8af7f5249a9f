"""`python bench/many_channels.py`: what a record costs when channels grow from 1 to 1,000, and instruments from 10 to 10,000.

                        === channel 0 ===
    [ one publisher ]   === channel 1 ===   [ one reader, one subscription ]
                        ===    ...    ===

Processor time (rusage) of both processes for each record, so that it matters little what else the machine does; medians of
rounds in which each number has its turn; every record is counted. Over sockets the publisher pauses after every 4,096 records,
as the reader could not follow without replay.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import fabric
from fabric.bench import records as layout
from fabric.channel import channel_id
from fabric.log.writer import LogOptions, LogWriter
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import Publisher

_RECORDS = 300_000
_WARM = 20_000
_AT_ONCE = 4_096


def name_of(number: int) -> str:
    return f"bench.many{number}"


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def publish(folder: Path, channels: int, instruments: int, pause_s: float) -> None:
    record = layout.record_type(layout.BYTES)
    options = LogOptions(retain_bytes=1 << 28, segment_bytes=max(1 << 16, (1 << 24) // channels))
    logs = {channel_id(name_of(number)): folder / name_of(number) for number in range(channels)}
    writers = [
        LogWriter(folder / name_of(number), name_of(number), channel_id(name_of(number)), record, options, now_ns=1)
        for number in range(channels)
    ]
    server = LogServer([f"ipc://{folder}/replay"], logs.get).start()
    publisher = Publisher([f"ipc://{folder}/data"])
    outs = [publisher.add(writer, crc=False) for writer in writers]
    records = layout.make(_RECORDS, layout.BYTES)
    records["instrument"] = np.arange(_RECORDS) % instruments
    parts = [(outs[number % channels].write, records[number : number + 1]) for number in range(_RECORDS)]
    print("open", flush=True)
    sys.stdin.readline()
    began_s = 0.0
    for number, (write, part) in enumerate(parts):
        if number == _WARM:
            began_s = cpu_s()
        write(part, time.time_ns())
        if pause_s and number % _AT_ONCE == 0:
            time.sleep(pause_s)
    print(cpu_s() - began_s, flush=True)
    sys.stdin.readline()
    publisher.close()
    server.close()
    for writer in writers:
        writer.close()


def read(folder: Path, channels: int, path: str, publisher: subprocess.Popen[str]) -> float:
    """Processor seconds of this process for all records but the first ones."""
    names = [name_of(number) for number in range(channels)]
    lines = ['fabric = "bench"', "[nodes.reader]", 'use = "bench"']
    for name in names:
        lines += [
            f"[channels.{json.dumps(name)}]",
            f'connect = "ipc://{folder}/data"',
            f'replay = "ipc://{folder}/replay"',
        ]
    (folder / "reader.toml").write_text("\n".join(lines) + "\n")
    assert publisher.stdin is not None
    with fabric.connect(folder / "reader.toml") as client:
        chosen: Any = path
        sub = client.subscribe(*names, record=layout.record_type(layout.BYTES), start="first", path=chosen)
        sub.wait_live(timeout=60)
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        count, began_s = 0, 0.0
        while count < _RECORDS:
            batch = sub.poll(timeout=30)
            if batch is None:
                raise SystemExit(f"only {count} of {_RECORDS} records came: {sub.counters}")
            if count < _WARM <= count + len(batch):
                began_s = cpu_s()
            count += len(batch)
        return cpu_s() - began_s


def cost_us(channels: int, instruments: int, path: str) -> float:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    command = [sys.executable, __file__, "--publish", str(folder), "--channels", str(channels)]
    command += ["--instruments", str(instruments), "--pause", "0" if path == "local" else "0.02"]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdin
            assert publisher.stdout
            publisher.stdout.readline()
            ours_s = read(folder, channels, path, publisher)
            theirs_s = float(publisher.stdout.readline())
            publisher.stdin.write("end\n")
            publisher.stdin.flush()
        return (ours_s + theirs_s) / (_RECORDS - _WARM) * 1e6
    finally:
        shutil.rmtree(folder)


def line(name: str, counts: tuple[int, ...], rounds: int, cost: Callable[[int], float]) -> None:
    """``cost`` of each of ``counts``, and the last one's ratio to the first one's."""
    found = [{count: cost(count) for count in counts} for _ in range(rounds)]
    shown = ", ".join(f"{count:,}: {statistics.median(each[count] for each in found):.2f}" for count in counts)
    ratio = statistics.median(each[counts[-1]] / each[counts[0]] for each in found)
    print(f"{name}: us a record {shown}; ratio {ratio:.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publish", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--channels", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--instruments", type=int, default=10, help=argparse.SUPPRESS)
    parser.add_argument("--pause", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.publish:
        publish(arguments.publish, arguments.channels, arguments.instruments, arguments.pause)
        return 0
    for path in ("local", "ipc"):
        line(path, (1, 10, 100, 1000), arguments.rounds, lambda channels, path=path: cost_us(channels, 10, path))
    line("instruments", (10, 100, 1000, 10_000), arguments.rounds, lambda many: cost_us(1, many, "local"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
