"""Processes of their own for tests of the same-host path: a publisher that is killed, and readers that check each record.

    python local_programs.py publish SETTINGS   until it is killed; or, where it is to end the channel at ``until``, until its
                                                input ends
    python local_programs.py read SETTINGS      until the channel has ended; prints what it has read as JSON

SETTINGS is JSON. A record carries its own sequence twice and a checksum of it.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import random
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fabric
from fabric.log import LogOptions
from fabric.protocol.events import Lost
from fabric.records import Records, RecordType

INSTRUMENTS = 50
FACTOR = 0x9E3779B97F4A7C15
FIELDS = {"sequence": "u8", "body": ("f8", (3,)), "again": "u8", "check": "u8"}
READERS = ("blocking", "yielding", "asyncio", "slow", "table")
_TICK_S = 0.001


def record_type(image: bool = True) -> RecordType:
    more: dict[str, Any] = {"image": "last", "key": ("instrument",)} if image else {}
    return fabric.record("local_kills", **more, **FIELDS)


def checksums(sequences: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (sequences + np.uint64(1)) * np.uint64(FACTOR) ^ (sequences >> np.uint64(7))


def columns(first: int, count: int) -> dict[str, Any]:
    sequences = np.arange(first, first + count, dtype="u8")
    return {
        "instrument": sequences % INSTRUMENTS,
        "sequence": sequences,
        "body": np.repeat(sequences.astype("f8"), 3).reshape(-1, 3),
        "again": sequences,
        "check": checksums(sequences),
    }


def wrong(records: Records, sequences: npt.NDArray[np.uint64]) -> int:
    """Records that are not what their sequence says, whole."""
    good = (
        (records["sequence"] == sequences)
        & (records["again"] == sequences)
        & (records["check"] == checksums(sequences))
        & (records["instrument"] == sequences % INSTRUMENTS)
        & (records["body"] == sequences[:, None]).all(axis=1)
    )
    return int((~good).sum())


def publish(settings: dict[str, Any]) -> None:
    """100 records a millisecond in flushes of many sizes, as the seed says; after ``until`` the end."""
    chance = random.Random(settings["seed"])
    record = record_type(settings.get("image", True))
    options = LogOptions(settings["retain_bytes"], 0, settings["segment_bytes"])
    listen, replay = settings["endpoints"]
    until, rate = settings.get("until", 0), settings.get("per_tick", 100)
    log = settings["log"]
    with fabric.publish("kills", record, listen=listen, replay=replay, log_dir=log, options=options) as out:
        begin_s, begin = time.monotonic(), out.next
        while not until or out.next <= until:
            due = begin + int((time.monotonic() - begin_s) / _TICK_S * rate)
            if out.next > due:
                time.sleep(_TICK_S)
            while out.next <= due and (not until or out.next <= until):
                count = chance.choice([1, 1, 1, 2, 5, 17, 60, 300])
                records = record.build(count, **columns(out.next, count))
                if chance.random() < 0.5:
                    out.send(records)
                elif chance.random() < 0.3:
                    out.append(records[: count // 2])
                    out.append(records[count // 2 :])
                    out.flush()
                else:
                    for at in range(count):
                        out.append(records[at : at + 1])
                    out.flush()
        out.end()
        sys.stdin.read()  # its log server answers for as long as there is a reader


class Check:
    """What a reader has seen, for the test that started it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        with Path(settings["progress"]).open("r+b") as file:
            self.progress = mmap.mmap(file.fileno(), 4096)
        self.at = 8 * settings["slot"]
        self.next = 0
        self.seen: dict[str, Any] = {"first": 0, "wrong": 0, "jumps": [], "snapshots": [], "sessions": [], "paths": []}
        self.seen["lost"] = []

    def batch(self, batch: fabric.Batch, path: str) -> None:
        seen = self.seen
        if batch.session not in seen["sessions"]:
            seen["sessions"].append(batch.session)
        if path not in seen["paths"]:
            seen["paths"].append(path)
        sequences = batch.sequences.astype("u8")
        seen["wrong"] += wrong(batch.records, sequences)
        if batch.as_of is not None:
            seen["snapshots"].append([self.next, batch.as_of])
            self.next = batch.as_of + 1
        else:
            first = int(sequences[0])
            seen["first"] = seen["first"] or first
            if self.next and first != self.next:
                seen["jumps"].append([self.next, first - 1])
            if not (np.diff(sequences) == 1).all():
                seen["jumps"].append([first, int(sequences[-1])])
            self.next = int(sequences[-1]) + 1
        self.tell(self.next - 1)

    def lost(self, event: Lost) -> None:
        self.seen["lost"].append([event.first, event.last])

    def tell(self, last: int) -> None:
        struct.pack_into("<Q", self.progress, self.at, last)

    def done(self, state: str) -> None:
        print(json.dumps({**self.seen, "last": self.next - 1, "state": state}), flush=True)


def read(settings: dict[str, Any]) -> None:
    kind = settings["kind"]
    check = Check(settings)
    data, replay = settings["endpoints"]
    where = {"data": data, "replay": replay, "path": settings["path"]}
    if kind == "table":
        read_table(check, where)
        return
    more = {**where, "start": "first", "on_lost": check.lost}
    if kind == "asyncio":
        asyncio.run(read_async(check, more))
        return
    chance = random.Random(settings["slot"])
    with fabric.subscribe("kills", **more, idle="yield" if kind == "yielding" else "block") as records:
        check.tell(0)
        if kind == "slow":
            while (batch := records.poll(max_records=chance.choice([1, 10, 3000]), timeout=None)) is not None:
                check.batch(batch, records.path)
                if chance.random() < 0.2:
                    time.sleep(0.002)
        else:
            for batch in records:
                check.batch(batch, records.path)
        check.done(records.state)


async def read_async(check: Check, more: dict[str, Any]) -> None:
    async with fabric.subscribe("kills", **more) as records:
        async for batch in records:
            check.batch(batch, records.path)
        check.done(records.state)


def read_table(check: Check, where: dict[str, Any]) -> None:
    with fabric.connect() as client:
        table = client.table("kills", **where)
        table.wait_live(60)
        before = 0
        tired = threading.Event()
        while True:
            over = table.state == "ENDED"
            records, sequences = table.snapshot()
            check.seen["wrong"] += wrong(records, sequences)
            check.seen["wrong"] += table.as_of < before
            before = table.as_of
            check.tell(before)
            if over:
                break
            tired.wait(0.002)
        check.next = table.as_of + 1
        check.seen["first"] = 1
        check.seen["paths"].append(table.feed.path)
        check.seen["sessions"].append(table.feed.session)
        check.seen["lost"] += [["table", table.counters.lost]] if table.counters.lost else []
        check.done(table.state)


if __name__ == "__main__":
    {"publish": publish, "read": read}[sys.argv[1]](json.loads(sys.argv[2]))
