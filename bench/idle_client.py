"""What an idle client costs: channels that only send heartbeats, ten a second each, from a publisher each.

    publishers (one process, a socket each) ── heartbeats of 1, 3, 7 channels ──▶ client: a thread, asyncio, uvloop

Prints the client's CPU time as a share of one core; libzmq's own thread is in it. Bounded: a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fabric

COUNTS = (1, 3, 7)
SECONDS = 6.0
PUBLISHER = """
import contextlib, sys, fabric
folder, channels = sys.argv[1], int(sys.argv[2])
record = fabric.record("number", image="last", value="u8")
with contextlib.ExitStack() as stack:
    for n in range(channels):
        out = stack.enter_context(fabric.publish(
            f"n{n}", record, listen=f"ipc://{folder}/{n}", replay=f"ipc://{folder}/{n}r", log_dir=f"{folder}/log{n}"
        ))
        out.send(value=1)
    print("up", flush=True)
    sys.stdin.read()
"""


def where(folder: str, number: int) -> dict[str, str]:
    return {"data": f"ipc://{folder}/{number}", "replay": f"ipc://{folder}/{number}r"}


def tell(name: str, count: int, began_s: float, cpu_s: float) -> None:
    share = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
    print(f"{name:8} {count} channels: {share:.2%} of a core")


def by_thread(folder: str, count: int) -> None:
    with fabric.connect() as client:
        every = [client.subscribe(f"n{n}", **where(folder, n)) for n in range(count)]
        for each in every:
            each.wait_live(10)
        began_s, cpu_s = time.monotonic(), time.process_time()
        time.sleep(SECONDS)
        tell("thread", count, began_s, cpu_s)


async def in_loop(folder: str, count: int, name: str) -> None:
    async with fabric.connect() as client:
        every = [client.subscribe(f"n{n}", **where(folder, n)) for n in range(count)]
        for each in every:
            await each.wait_live_async(10)
        began_s, cpu_s = time.monotonic(), time.process_time()
        await asyncio.sleep(SECONDS)
        tell(name, count, began_s, cpu_s)


def main() -> None:
    folder = tempfile.mkdtemp(prefix="zmf-")
    command: list[Any] = [sys.executable, "-c", PUBLISHER, folder, str(max(COUNTS))]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as publisher:
            assert publisher.stdout is not None
            assert publisher.stdin is not None
            publisher.stdout.readline()
            for count in COUNTS:
                by_thread(folder, count)
                asyncio.run(in_loop(folder, count, "asyncio"))
                with contextlib.suppress(ImportError):
                    import uvloop

                    uvloop.run(in_loop(folder, count, "uvloop"))
            publisher.stdin.close()
    finally:
        shutil.rmtree(Path(folder), ignore_errors=True)


if __name__ == "__main__":
    main()
