"""A standby on another host: what readers get when the primary is killed, cut off, or comes back. Processes over 127.0.0.1."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.errors import RecordsLost, StandbyLost, Superseded
from fabric.log import LogReader
from fabric.log.paths import session_name

pytestmark = pytest.mark.system
PROGRAMS = Path(__file__).with_name("standby_programs.py")
NUMBER = fabric.record("number", value="u8", writer="u8")
MORE = 200
PRIMARY, STANDBY = 1, 2


def free_endpoints(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


class Program:
    """One of ``standby_programs.py``."""

    def __init__(self, which: str, settings: dict[str, Any]) -> None:
        command = [sys.executable, str(PROGRAMS), which, json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, f"it has ended: {self.process.wait(10)}"
        told: dict[str, Any] = json.loads(text)
        return told

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Hosts:
    """Where the two are, and their programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ends = free_endpoints(5)
        self.primary, self.sync, self.standby = (ends[0], ends[1]), ends[2], (ends[3], ends[4])
        self.programs: list[Program] = []

    def start_primary(self, **more: Any) -> Program:
        settings = {
            "data": self.primary[0], "replay": self.primary[1], "folder": str(self.folder / "primary"),
            "standby": self.standby[1], "rate": 20_000, "seed": 1, **more,
        }  # fmt: skip
        self.programs.append(Program("primary", settings))
        return self.programs[-1]

    def start_standby(self, **more: Any) -> Program:
        settings = {
            "primary": self.primary, "data": self.standby[0], "replay": self.standby[1],
            "folder": str(self.folder / "standby"), "more": MORE, **more,
        }  # fmt: skip
        self.programs.append(Program("standby", settings))
        return self.programs[-1]

    def log(self, host: str, session: int = 0) -> LogReader:
        directory = self.folder / host
        return LogReader(directory / session_name(session) if session else directory)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    for each in made.programs:
        each.close()


@dataclass
class Seen:
    """What one reader was given, by session, and what it was told of losses."""

    values: dict[int, list[int]] = field(default_factory=dict)
    firsts: dict[int, int] = field(default_factory=dict)
    lost: list[tuple[int, int]] = field(default_factory=list)


class Reader:
    """Reads in a thread until the channel has ended."""

    def __init__(self, data: str, replay: str, standby: tuple[str, str] | None, **more: Any) -> None:
        more.setdefault("path", "tcp")
        self.subscription = fabric.subscribe("numbers", data=data, replay=replay, standby=standby, start="first", **more)
        self.seen = Seen()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        return sum(map(len, self.seen.values.values()))

    def _read(self) -> None:
        batches = iter(self.subscription)
        try:
            while True:
                try:
                    batch = next(batches)
                except RecordsLost as told:
                    self.seen.lost.append((told.first, told.last))
                    continue
                values = self.seen.values.setdefault(batch.session, [])
                self.seen.firsts.setdefault(batch.session, batch.first)
                assert batch.first == self.seen.firsts[batch.session] + len(values), "in order, without a hole"
                values += batch.records["value"].tolist()
        except StopIteration:
            return
        except fabric.FabricError as error:
            self.error = error
        except AssertionError as error:
            self.error = error

    def end(self, timeout: float = 20.0) -> Seen:
        self._thread.join(timeout)
        alive = self._thread.is_alive()
        state = f"{self.subscription!r} {self.subscription.counters}"
        self.subscription.close()
        self._thread.join(5)
        if self.error is not None:
            raise self.error
        assert not alive, f"the reader has not come to the end: {state}"
        return self.seen


def check(hosts: Hosts, seen: Seen, parent: int, session: int) -> int:
    """What a reader had is the parent up to the fork, all of the new session, and exactly what it was told; returns how many
    records that was."""
    followed, own = hosts.log("standby", parent), hosts.log("standby", session)
    assert own.control.parent_session == parent
    fork = own.control.fork_sequence
    assert fork == followed.next - 1
    assert list(seen.values) == [parent, session]
    had = seen.firsts[parent] + len(seen.values[parent]) - 1
    told = [(fork + 1, had)] if had > fork else []
    assert seen.lost == told, f"forked at {fork}, the reader had {had}"
    assert had >= fork, "the standby has it, so everybody gets it"
    assert seen.values[parent] == list(range(seen.firsts[parent], had + 1))
    assert seen.values[session] == list(range(1, own.next))
    kept = np.concatenate([view["value"] for _, view in followed.read_range(followed.first_available, fork)])
    assert kept.tolist() == list(range(followed.first_available, fork + 1))
    return max(0, had - fork)


def end_of(standby: Program, readers: list[Reader]) -> list[Seen]:
    standby.go()
    standby.line()
    return [reader.end() for reader in readers]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("on_lost", ["stop", "go_on"])
def test_kill_9_of_a_primary_with_a_sync_standby_loses_nothing(
    on_lost: str, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(4):
        hosts = Hosts(tmp_path / str(number))
        try:
            primary = hosts.start_primary(sync=hosts.sync, on_lost=on_lost, seed=rng.randrange(1 << 32))
            parent = primary.line()["session"]
            standby = hosts.start_standby(sync=hosts.sync, after="400ms")
            assert standby.line()["state"] == "IN_SYNC"
            readers = [Reader(*hosts.primary, hosts.standby) for _ in range(2)]
            readers.append(Reader(*hosts.primary, hosts.standby, path="auto"))  # maps the primary's log, as on its host
            enough = rng.randrange(500, 15_000)
            waiting(lambda readers=readers, enough=enough: min(each.count for each in readers) > enough, "records")
            primary.kill()
            told = standby.line()
            for seen in end_of(standby, readers):
                assert check(hosts, seen, parent, told["session"]) == 0, (seed, number)
                assert seen.lost == [], (seed, number)
            published = hosts.log("primary", parent)
            assert hosts.log("standby", parent).next >= published.next, (seed, number)
        finally:
            for each in hosts.programs:
                each.close()


@pytest.mark.timeout(60)
def test_an_async_standby_that_was_held_back_announces_exactly_what_is_lost(
    hosts: Hosts, cable: Callable[..., Any], waiting: Callable[..., Any]
) -> None:
    lines = [cable(each) for each in hosts.primary]
    primary = hosts.start_primary()
    parent = primary.line()["session"]
    standby = hosts.start_standby(primary=[each.endpoint for each in lines])
    standby.line()
    near, late = Reader(*hosts.primary, hosts.standby), Reader(*(each.endpoint for each in lines), hosts.standby)
    waiting(lambda: min(near.count, late.count) > 2000, "records")
    for each in lines:
        each.pull()
    held = hosts.log("standby", parent)
    waiting(lambda: near.count > held.next + 2000, "records that the standby lacks")
    primary.kill()
    standby.go()  # by command
    told = standby.line()
    seen, seen_late = end_of(standby, [near, late])
    assert check(hosts, seen, parent, told["session"]) > 1000
    assert check(hosts, seen_late, parent, told["session"]) == 0, "it had no more than the standby"


@pytest.mark.timeout(60)
def test_a_primary_that_was_only_cut_off_stops_when_it_hears_of_the_newer_session(
    hosts: Hosts, cable: Callable[..., Any], waiting: Callable[..., Any]
) -> None:
    lines = [cable(each) for each in hosts.primary]
    back = cable(hosts.standby[1])
    primary = hosts.start_primary(standby=back.endpoint)
    parent = primary.line()["session"]
    standby = hosts.start_standby(primary=[each.endpoint for each in lines], after="500ms")
    standby.line()
    way = [cable(each) for each in hosts.standby]
    near = Reader(*hosts.primary, (way[0].endpoint, way[1].endpoint))
    waiting(lambda: near.count > 2000, "records")
    for each in (*lines, *way, back):
        each.pull()
    told = standby.line()
    had = near.count
    waiting(lambda: near.count > had + 2000, "both publish: nobody can know better")
    assert primary.process.poll() is None
    back.plug()
    stopped = primary.line()
    assert stopped["stopped"] == "Superseded"
    assert primary.process.wait(10) == 3
    for each in way:
        each.plug()
    (seen,) = end_of(standby, [near])
    assert check(hosts, seen, parent, told["session"]) > 1000
    # And it does not begin again beside the newer one.
    again = hosts.start_primary()
    assert again.process.wait(20) != 0
    assert hosts.log("primary").session == parent
