"""Two lines of one publisher, over real sockets: faults on one of them, and one that dies."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.channel import channel_id
from fabric.errors import ConfigError
from fabric.log import LogOptions, LogWriter
from fabric.protocol.channellines import LineCounts
from fabric.protocol.types import Limits, Run, Start
from fabric.transport.channels import ChannelReceiver
from fabric.transport.faults import FaultInjector, FaultPlan
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import DROPPED_ON_PURPOSE, Publisher
from fabric.transport.receiver import Receiver

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", image="last", key=("instrument",), value="u8")
TOTAL = 2_000
PATIENT = Limits(reorder_ns=5_000_000_000, stale_ns=400_000_000)
"""So patient that only what both lines have passed is asked for, however busy the machine is."""


class Both:
    """A publisher with two lines and its log server; a receiver that has joined both."""

    def __init__(self, directory: Path, faults: dict[str, FaultInjector], first_line: str = "") -> None:
        self.lines = [f"ipc://{directory}/a", f"ipc://{directory}/b"]
        identity = channel_id("numbers")
        self.writer = LogWriter(directory / "log", "numbers", identity, NUMBER, LogOptions(), now_ns=time.time_ns())
        self.server = LogServer([f"ipc://{directory}/replay"], {identity: directory / "log"}.get, crc=False).start()
        by_endpoint = {self.lines["ab".index(name)]: injector for name, injector in faults.items()}
        self.publisher = Publisher(self.lines, heartbeat_ns=20_000_000, fault=by_endpoint or None)
        self.channel = self.publisher.add(self.writer)
        self.receiver = Receiver()
        self.target: ChannelReceiver = self.receiver.subscribe(
            "numbers", Start.first(), data=[first_line or self.lines[0], self.lines[1]],
            replay=self.server.endpoints[0], record=NUMBER, path="ipc", limits=PATIENT,
        )  # fmt: skip
        self.got: list[int] = []
        self.until(lambda: all(self.accounts.heard_ns(line) for line in (0, 1)), "both lines")

    @property
    def accounts(self) -> Any:
        assert self.target.machine.lines is not None
        return self.target.machine.lines.accounts

    @property
    def counts(self) -> list[LineCounts]:
        self.target.settle(time.monotonic_ns())
        assert self.target.machine.lines is not None
        return self.target.machine.lines.counts()

    def turn(self) -> None:
        self.receiver.poll(1_000_000)
        while (item := self.target.take()) is not None:
            assert isinstance(item, Run) or type(item).__name__ == "Session", item
            if isinstance(item, Run):
                self.got += item.records["value"].tolist()

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.turn()
            assert time.monotonic() < deadline, (what, self.target.machine.counters, self.counts)

    def publish(self, last: int) -> None:
        for value in range(self.writer.next, last + 1):
            self.channel.write(NUMBER.build(value=value), 0)
            if value % 10 == 0:
                self.turn()

    def close(self) -> None:
        self.receiver.close()
        self.publisher.close()
        self.server.close()
        self.writer.close()


@pytest.fixture
def both(short_directory: Path) -> Iterator[Callable[..., Both]]:
    opened: list[Both] = []

    def open_both(first_line: str = "", **faults: FaultInjector) -> Both:
        opened.append(Both(short_directory, faults, first_line))
        return opened[-1]

    yield open_both
    for each in opened:
        each.close()


def check_sums(counts: list[LineCounts]) -> None:
    for line in counts:
        assert line.received == line.first + line.duplicates + line.late, line


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
def test_what_one_line_drops_the_other_brings(
    both: Callable[..., Both], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr("fabric.transport.livesockets.native_wire", lambda: False)
    lines = both(a=FaultPlan(drop=0.2, seed=3).injector("a"))
    lines.publish(TOTAL)
    lines.until(lambda: len(lines.got) >= TOTAL, "all records")
    assert lines.got == list(range(1, TOTAL + 1))
    lines.until(lambda: lines.accounts.last(1) >= TOTAL, "the whole line's last packet")
    counters, (a, b) = lines.target.machine.counters, lines.counts
    assert (counters.missed, counters.gaps, counters.replayed, counters.lost) == (0, 0, 0, 0)
    assert lines.server.replayed_records == 0
    assert lines.writer.control.counter(DROPPED_ON_PURPOSE) > TOTAL // 10
    check_sums([a, b])
    assert b.received == TOTAL
    assert a.received < TOTAL
    assert a.first + b.first == TOTAL
    assert counters.duplicates == a.duplicates + b.duplicates == a.received + b.received - TOTAL
    assert (a.state, b.state, a.losses, b.losses) == ("LIVE", "LIVE", 0, 0)


def test_only_what_both_drop_is_asked_for(both: Callable[..., Both]) -> None:
    lines = both(a=FaultPlan(drop=0.2, seed=3).injector("a"), b=FaultPlan(drop=0.2, seed=4).injector("b"))
    lines.publish(TOTAL)
    lines.until(lambda: len(lines.got) >= TOTAL, "all records")
    assert lines.got == list(range(1, TOTAL + 1))
    counters = lines.target.machine.counters
    check_sums(lines.counts)
    assert 0 < counters.missed == counters.recovered == counters.replayed < TOTAL // 10
    assert sum(line.first for line in lines.counts) == TOTAL - counters.replayed


def test_one_line_may_lead_the_other(both: Callable[..., Both]) -> None:
    lines = both(a=FaultPlan(delay=0.5, delay_for_ns=30_000_000, drop=0.1, seed=5).injector("a"))
    lines.publish(TOTAL)
    lines.until(lambda: len(lines.got) >= TOTAL, "all records")
    assert lines.got == list(range(1, TOTAL + 1))
    assert lines.server.replayed_records == 0
    check_sums(lines.counts)


class Relay:
    """A tcp endpoint that passes bytes on to an ipc socket, until it is torn down."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        other: dict[socket.socket, socket.socket] = {}
        while not self._stop.is_set():
            for key, _ in selector.select(0.01):
                near = key.fileobj
                assert isinstance(near, socket.socket)
                if near is self._listener:
                    accepted, _ = near.accept()
                    far = socket.socket(socket.AF_UNIX)
                    far.connect(self._target.removeprefix("ipc://"))
                    other |= {accepted: far, far: accepted}
                    for each in (accepted, far):
                        selector.register(each, selectors.EVENT_READ)
                elif part := near.recv(65536):
                    other[near].sendall(part)
                else:
                    selector.unregister(near)
        selector.close()
        for each in (self._listener, *other):
            each.close()

    def tear_down(self) -> None:
        self._stop.set()
        self._thread.join()


def test_a_line_that_dies_hurts_nothing_and_is_told(
    both: Callable[..., Both], short_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    relay = Relay(f"ipc://{short_directory}/a")
    try:
        lines = both(first_line=relay.endpoint)
        lines.publish(TOTAL // 2)
        lines.until(lambda: lines.accounts.last(0) >= TOTAL // 2, "the relayed line")
    finally:
        relay.tear_down()
    lines.publish(TOTAL)
    lines.until(lambda: lines.counts[0].state == "LOST" and len(lines.got) >= TOTAL, "the loss of the line")
    assert lines.got == list(range(1, TOTAL + 1))
    a, b = lines.counts
    check_sums([a, b])
    assert (a.received, a.losses, b.received, b.state) == (TOTAL // 2, 1, TOTAL, "LIVE")
    assert lines.server.replayed_records == lines.target.machine.counters.missed == 0
    assert lines.target.machine.state == "LIVE"
    assert not lines.target.machine.stale
    lines.until(lambda: "line A" in caplog.text, "a word about it")
    assert "is lost" in caplog.text


def test_a_program_joins_both_lines(short_directory: Path, waiting: Callable[..., Any]) -> None:
    lines, replay = [f"ipc://{short_directory}/{name}" for name in "ab"], f"ipc://{short_directory}/replay"
    with (
        fabric.publish("numbers", NUMBER, listen=lines, replay=replay, log_dir=short_directory / "log") as out,
        fabric.subscribe("numbers", data=lines, replay=replay, start="first", path="ipc") as numbers,
    ):
        feed = numbers.feeds["numbers"]
        waiting(lambda: [line.state for line in feed.lines] == ["LIVE", "LIVE"], "both lines")
        out.send(value=np.arange(1, 101))
        batch = numbers.poll(timeout=20)
        assert batch is not None
        assert batch.records["value"].tolist() == list(range(1, 101))[: len(batch)]
        waiting(lambda: [line.received for line in feed.lines] == [100, 100], "the packets of both lines")
        check_sums(feed.lines)
        assert sum(line.first for line in feed.lines) == sum(line.duplicates for line in feed.lines) == 100
        with pytest.raises(ConfigError, match="names 2 lines"):
            fabric.subscribe("numbers", data=[lines[0], lines[0]], replay=replay)
