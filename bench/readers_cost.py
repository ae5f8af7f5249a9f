"""`python bench/readers_cost.py`: what a publisher pays for each further reader on this host, in instructions (needs valgrind).

    [ publisher under callgrind: a loop without the GIL ]  ──mapped log──▶  [ spinning reader ] x 0, 1, 2, 4

Readers look at the log's commit word and write nothing that the publisher reads, so the count must not depend on them. That
they take turns with the publisher for a cache line is not in it, nor is the time: for that, see ``fabric bench fanout``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fabric
from fabric.bench import records as layout
from native.flood import flood

_CHANNEL = "bench.readers"
_RECORDS = 100_000


def publish(folder: Path, readers: int) -> None:
    records = layout.make(_RECORDS, layout.BYTES)
    where = {"listen": f"ipc://{folder}/data", "replay": f"ipc://{folder}/replay"}
    with fabric.publish(_CHANNEL, layout.record_type(layout.BYTES), log_dir=folder / "log", **where) as out:
        out.send(records[:1])
        command = [sys.executable, __file__, "--read", str(folder)]
        with ExitStack() as stack:
            for _ in range(readers):
                reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                stack.callback(reader.wait)
                assert reader.stdout is not None
                if reader.stdout.readline().strip() != "reading":
                    raise SystemExit("a reader did not come up")
            at = flood(out.publication, records, 1, 1)
            if at != _RECORDS:
                raise SystemExit(f"published {at} of {_RECORDS}: make the log's segments larger")
            out.end()


def read(folder: Path) -> None:
    count = 0
    sub = fabric.subscribe(
        _CHANNEL, data=f"ipc://{folder}/data", replay=f"ipc://{folder}/replay", start="first", path="local", idle="spin"
    )
    with sub:
        for batch in sub:
            if not count:
                print("reading", flush=True)
            count += len(batch)
    if count != _RECORDS:
        raise SystemExit(f"read {count} of {_RECORDS}")


def instructions(readers: int) -> float:
    """Of one record, with so many readers."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=*native_5flood*flood*"]
        command += [f"--callgrind-out-file={folder}/counts", "--trace-children=no", sys.executable, __file__]
        run = subprocess.run(
            [*command, "--publish", str(folder), "--readers", str(readers)],
            env=os.environ | {"FABRIC_STAMPS": "system"},  # how often a counter's anchor is renewed depends on time
            capture_output=True,
            text=True,
        )
        found = re.search(r"Collected : (\d+)", run.stderr)
        if run.returncode or not found:
            raise SystemExit(run.stderr[-2000:])
        return int(found.group(1)) / (_RECORDS - 1)
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publish", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--readers", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        publish(arguments.publish, arguments.readers)
        return 0
    if arguments.read:
        read(arguments.read)
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (Debian: apt-get install valgrind)", file=sys.stderr)
        return 2
    counts = {readers: instructions(readers) for readers in (0, 1, 2, 4)}
    for readers, count in counts.items():
        print(f"readers: {readers}: {count:.1f} instructions a record")
    print(f"readers: each further one costs {max(counts[n] / counts[0] - 1 for n in (1, 2, 4)) / 1:.2%} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
