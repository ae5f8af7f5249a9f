"""A primary and a standby of the channel ``numbers``, as processes of their own.

    python standby_programs.py '["primary", SETTINGS]'    publishes until it is killed, or stops by itself
    python standby_programs.py '["standby", SETTINGS]'    follows until it takes over, then publishes ``more`` records and waits

SETTINGS is JSON. Each prints a line of JSON when it is up, and one for all that happens. A record's ``value`` is its sequence,
its ``writer`` says who wrote it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import fabric
from fabric.log import LogOptions

NUMBER = fabric.record("number", value="u8", writer="u8")
PRIMARY, STANDBY = 1, 2
SMALL = LogOptions(retain_bytes=64 << 20, segment_bytes=1 << 20)


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def send(out: fabric.ChannelWriter, count: int, writer: int) -> None:
    out.send(value=np.arange(out.next, out.next + count), writer=writer)


def primary(told: dict[str, Any]) -> None:
    """``rate``: records a second; ``replay`` of the standby; ``sync``, ``on_lost``, ``deadline``."""
    rng = random.Random(told["seed"])
    standby = None
    if told.get("standby"):
        standby = fabric.Standby(
            told["standby"], sync=told.get("sync", ""), on_lost=told.get("on_lost", "stop"),
            deadline=told.get("deadline", "1s"),
        )  # fmt: skip
    with fabric.publish(
        "numbers", NUMBER, listen=told["data"], replay=told["replay"], log_dir=told["folder"], options=SMALL,
        standby=standby,
    ) as out:  # fmt: skip
        tell(up=True, session=out.session)
        began, sent = time.monotonic(), 0
        while True:
            while sent < (time.monotonic() - began) * told["rate"]:
                count = rng.randrange(1, 40)
                try:
                    send(out, count, PRIMARY)
                except fabric.FabricError as error:
                    tell(stopped=type(error).__name__, next=out.next, standing=out.standing)
                    raise SystemExit(3) from None
                sent += count
            time.sleep(0.0005)


def standby(told: dict[str, Any]) -> None:
    """``primary``: its two endpoints; ``sync`` its third; ``after``: takeover by silence; ``more``; by a line of input else."""
    with fabric.stand_by(
        "numbers", NUMBER, primary=(told["primary"][0], told["primary"][1]), sync=told.get("sync", ""),
        listen=told["data"], replay=told["replay"], log_dir=told["folder"], takeover_after=told.get("after"),
        options=SMALL,
    ) as standby:  # fmt: skip
        while standby.position == (0, 0) or (told.get("sync") and standby.state != "IN_SYNC"):
            time.sleep(0.005)
        tell(up=True, state=standby.state)
        if told.get("after"):
            out = standby.wait()
        else:
            sys.stdin.readline()
            out = standby.take_over()
        assert out is not None
        took_ns = time.monotonic_ns()
        for _ in range(told["more"]):
            send(out, 1, STANDBY)
        tell(session=out.session, next=out.next, took_ns=took_ns)
        sys.stdin.readline()
        if told.get("end", True):
            out.end()
            tell(ended=out.next)
            sys.stdin.readline()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    which, settings = json.loads(sys.argv[1])
    {"primary": primary, "standby": standby}[which](settings)
