"""The rungs of recovery over real sockets: a log that was shortened, a log server that does not answer, an archive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.channel import channel_id
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.log.follower import Followed, FollowerLog
from fabric.protocol.breaker import BreakerState
from fabric.protocol.events import Lost
from fabric.protocol.ladder import Rung
from fabric.protocol.types import Limits, Run, Start
from fabric.records import Flags
from fabric.transport.faults import FaultPlan
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import Publisher
from fabric.transport.receiver import Receiver

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", value="u8")
SMALL = LogOptions(retain_bytes=2 << 16, segment_bytes=1 << 16)
IDENTITY = channel_id("numbers")


def archived(directory: Path, session: int, first: int, last: int) -> None:
    """An archive's log that begins with ``first``."""
    log = FollowerLog(directory, "numbers", IDENTITY, NUMBER, SMALL, Followed(session, 0, 0, first), now_ns=1)
    records = NUMBER.build(last - first + 1, value=np.arange(first, last + 1))
    records["ts_publish_ns"] = 1
    records["flags"] = Flags.LAST_IN_EVENT
    log.follow(first, records)
    log.close()


@pytest.mark.parametrize("begins", [1, 400])
def test_what_the_log_server_has_no_more_comes_from_an_archive_elsewhere(
    short_directory: Path, waiting: Callable[..., Any], begins: int
) -> None:
    lines, log_server, archive = (f"ipc://{short_directory}/{name}" for name in ("data", "log", "archive"))
    total = 6_000
    with fabric.publish(
        "numbers", NUMBER, listen=lines, replay=log_server, log_dir=short_directory / "l", options=SMALL
    ) as out:
        for first in range(1, total, 20):
            out.send(value=np.arange(first, first + 20))
        log = LogReader(short_directory / "l")
        waiting(lambda: log.first_available > 1, "retention")
        available = log.first_available
        archived(short_directory / "a", out.session, begins, 5_000)
        server = LogServer([archive], {IDENTITY: short_directory / "a"}.get, offers_logs=False).start()
        lost: list[Lost] = []
        try:
            with fabric.subscribe(
                "numbers", data=lines, replay=[log_server, archive], start="first", path="ipc", on_lost=lost.append
            ) as reader:
                got: list[int] = []
                deadline = time.monotonic() + 20
                while not got or got[-1] < total:
                    batch = reader.poll(timeout=max(0.0, deadline - time.monotonic()))
                    assert batch is not None, (reader.counters, reader.feeds["numbers"].rungs)
                    got += batch.records["value"].tolist()
                assert got == list(range(begins, total + 1))
                assert [(each.first, each.last) for each in lost] == ([] if begins == 1 else [(1, begins - 1)])
                below, above = reader.feeds["numbers"].rungs
                assert above.records >= available - begins
                assert below.records + above.records >= total - begins + 1
                assert (below.name, above.name, below.opened, above.opened) == ("log", "archive", 0, 0)
        finally:
            server.close()


def test_a_log_server_that_does_not_answer_is_passed_over(short_directory: Path) -> None:
    lines, log_server, archive = (f"ipc://{short_directory}/{name}" for name in ("data", "log", "archive"))
    silent = threading.Event()
    directory, total = short_directory / "l", 1_000
    writer = LogWriter(directory, "numbers", IDENTITY, NUMBER, LogOptions(), now_ns=time.time_ns())
    servers = [
        LogServer([log_server], {IDENTITY: directory}.get, cut=lambda _: silent.is_set()).start(),
        LogServer([archive], {IDENTITY: directory}.get, offers_logs=False).start(),
    ]
    publisher = Publisher([lines], heartbeat_ns=20_000_000, fault=FaultPlan(drop=0.2, seed=1).injector("x"))
    channel = publisher.add(writer)
    receiver = Receiver()
    target = receiver.subscribe(
        "numbers", Start.first(), data=lines, replay=[Rung("log", log_server), Rung("archive", archive)], record=NUMBER,
        path="ipc", limits=Limits(request_timeout_ns=50_000_000, stale_ns=60_000_000_000),
    )  # fmt: skip
    got: list[int] = []
    deadline = time.monotonic() + 20

    def turn_until(condition: Callable[[], object]) -> None:
        while not condition():
            receiver.poll(5_000_000)
            while (item := target.take()) is not None:
                if isinstance(item, Run):
                    got.extend(item.records["value"].tolist())
            assert target.climb is not None
            assert time.monotonic() < deadline, (target.machine.counters, target.climb.counts())

    try:
        turn_until(lambda: target.machine.active)
        silent.set()
        for value in range(1, total + 1):
            channel.write(NUMBER.build(value=value), 0)
        turn_until(lambda: len(got) >= total)
        assert got == list(range(1, total + 1))
        assert target.climb is not None
        log, other = target.climb.counts()
        assert target.machine.counters.lost == 0
        assert target.machine.counters.timeouts >= 3
        assert (log.state, log.records) != (BreakerState.CLOSED, 0)
        assert log.opened >= 1
        assert other.records >= target.machine.counters.missed > 0
    finally:
        receiver.close()
        publisher.close()
        for server in servers:
            server.close()
        writer.close()
