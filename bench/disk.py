"""`python bench/disk.py`: one record after the other into a log on disk for a minute, read by another process meanwhile.

    [ publisher: loop without the GIL ]  ──log on disk──▶  [ reader: numpy batches, checks every sequence ]

Retention is above the run's bytes, so that nothing is taken away. Beside it, before and after, raw pyzmq over ipc for a
moment each (it stores nothing). What reached the device is the kernel's count of sectors written, from before the run until
all is synced. Ends early at ``--most-gb``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import fabric
from fabric.bench import records as layout
from fabric.bench.case import Case
from fabric.bench.registry import contestants
from fabric.bench.single import measure
from fabric.log.writer import LogOptions
from native.flood import flood

_CHANNEL = "bench.disk"
_SECTOR_BYTES = 512
_CHUNK_RECORDS = 100_000


def device_bytes(folder: Path) -> int:
    """Bytes written to the device that the folder is on, so far; -1 where the kernel does not tell."""
    number = folder.stat().st_dev
    path = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
    return int(path.read_text().split()[6]) * _SECTOR_BYTES if path.exists() else -1


def publish(folder: Path, seconds: float, most_bytes: int) -> None:
    """One process: as many records as go, and then how many those were."""
    record = layout.record_type(layout.BYTES)
    records = layout.make(_CHUNK_RECORDS, layout.BYTES)
    options = LogOptions(retain_bytes=2 * most_bytes, segment_bytes=64 << 20)
    where = {"listen": f"ipc://{folder}/data", "replay": f"ipc://{folder}/replay"}
    with fabric.publish(_CHANNEL, record, log_dir=folder / "log", options=options, **where) as out:
        print("open", flush=True)
        sys.stdin.readline()
        began_s, count, most = time.monotonic(), 0, most_bytes // layout.BYTES
        while time.monotonic() - began_s < seconds and count < most:
            at = 0
            while at < len(records):
                at = flood(out.publication, records, at, 1)
                if at < len(records):  # over to the next segment
                    out.send(records[at : at + 1])
                    at += 1
            count += at
        took_s = time.monotonic() - began_s
        out.end()
        print(f"{count} {took_s}", flush=True)
        sys.stdin.readline()


def read(folder: Path) -> tuple[int, list[float]]:
    """In this process: everything, until the channel's end. Records, and the rate of each whole second."""
    per_second: list[float] = []
    count, counted, mark_s = 0, 0, time.monotonic()
    sub = fabric.subscribe(
        _CHANNEL, data=f"ipc://{folder}/data", replay=f"ipc://{folder}/replay", start="first", path="local"
    )
    with sub:
        for batch in sub:
            if batch.first != count + 1:
                raise SystemExit(f"after sequence {count} came {batch.first}")
            expected = (np.arange(count, count + len(batch)) % _CHUNK_RECORDS).astype(np.uint64)
            if not np.array_equal(batch.records["number"], expected):
                raise SystemExit(f"records from {batch.first} on are not what was published")
            count = batch.last
            now_s = time.monotonic()
            if now_s - mark_s >= 1.0:
                per_second.append((count - counted) / (now_s - mark_s))
                counted, mark_s = count, now_s
    return count, per_second


def raw_pyzmq() -> float:
    """Records a second of raw pyzmq over ipc, now."""
    peer = contestants()["pyzmq ipc"]
    return measure(Case("throughput", "").job(peer, 400_000, 0), ([], [])).rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--most-gb", type=float, default=24.0, help="of records")
    parser.add_argument("--folder", type=Path, default=Path("var"), help="on the disk to be measured")
    parser.add_argument("--publish", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    most_bytes = int(arguments.most_gb * 1e9)
    if arguments.publish:
        publish(arguments.publish, arguments.seconds, most_bytes)
        return 0
    arguments.folder.mkdir(exist_ok=True)
    if shutil.disk_usage(arguments.folder).free < most_bytes * 1.2:
        print(f"{arguments.folder} has no room for {arguments.most_gb:g} GB: say less with --most-gb", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="disk-", dir=arguments.folder.resolve()))
    try:
        peer = [raw_pyzmq() for _ in range(3)]
        os.sync()
        before = device_bytes(folder)
        command = [sys.executable, __file__, "--publish", str(folder), "--seconds", str(arguments.seconds)]
        command += ["--most-gb", str(arguments.most_gb)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdin
            assert publisher.stdout
            publisher.stdout.readline()
            publisher.stdin.write("go\n")
            publisher.stdin.flush()
            began_s = time.monotonic()
            count, per_second = read(folder)
            took_s = time.monotonic() - began_s
            published = int(publisher.stdout.readline().split()[0])
            publisher.stdin.write("end\n")
            publisher.stdin.flush()
        os.sync()
        synced_s = time.monotonic() - began_s
        written = device_bytes(folder) - before if before >= 0 else -1
        peer += [raw_pyzmq() for _ in range(3)]
    finally:
        shutil.rmtree(folder)
    if count != published:
        print(f"published {published:,}, read {count:,}")
        return 1
    rate, theirs = count / took_s, statistics.median(peer)
    print(f"disk: {count:,} records ({count * layout.BYTES / 1e9:.1f} GB) in {took_s:.1f} s, all read and checked")
    slowest = min(per_second, default=rate)
    print(
        f"  {rate:,.0f} records/s, slowest second {slowest:,.0f}; raw pyzmq ipc {theirs:,.0f}; ratio {rate / theirs:.2f}"
    )
    told = f"{written / 1e9:.1f} GB" if written >= 0 else "not told by this kernel"
    print(f"  reached the device: {told}, all of it {synced_s:.1f} s after the begin")
    return 0


if __name__ == "__main__":
    sys.exit(main())
