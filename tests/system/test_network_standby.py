"""A standby on another host: what readers get when the primary is killed, cut off, or comes back. Processes over 127.0.0.1."""

from __future__ import annotations

import json
import random
import signal
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
import zmq

import fabric
from fabric.bench.ports import free_endpoints
from fabric.cli.main import run_cli
from fabric.errors import ConfigError, LogError, RecordsLost, StandbyLost, Superseded
from fabric.log import LogReader
from fabric.log.paths import session_name
from fabric.standby.node import FOLLOWS

pytestmark = pytest.mark.system
PROGRAMS = Path(__file__).with_name("standby_programs.py")
NUMBER = fabric.record("number", value="u8", writer="u8")
MORE = 200
PRIMARY, STANDBY = 1, 2


class Program:
    """One of ``standby_programs.py``."""

    def __init__(self, which: str, settings: dict[str, Any]) -> None:
        command = [sys.executable, str(PROGRAMS), json.dumps([which, settings])]
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

    def kept(self, session: int) -> int:
        """Records of it at the standby."""
        try:
            return self.log("standby", session).next - 1
        except LogError:  # it has not begun with it
            return 0


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
        self.subscription = fabric.subscribe(
            "numbers", data=data, replay=replay, standby=standby, start="first", **more
        )
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
            standby = hosts.start_standby(sync=hosts.sync, after="600ms")
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
    waiting(lambda: min(near.count, late.count) > 2000 and hosts.kept(parent) > 100, "records, at the standby as well")
    for each in lines:
        each.pull()
    published = hosts.log("primary").next  # whatever is later than this cannot have been on its way
    waiting(lambda: near.count > published + 2000, "records that the standby lacks")
    primary.kill()
    standby.go()  # by command
    told = standby.line()
    seen, seen_late = end_of(standby, [near, late])
    more, more_late = (check(hosts, each, parent, told["session"]) for each in (seen, seen_late))
    assert more > 1000
    assert more_late < more
    assert len(seen_late.values[parent]) < published, "its cable was pulled at the same time"


@pytest.mark.timeout(60)
def test_a_primary_that_was_only_cut_off_stops_when_it_hears_of_the_newer_session(
    hosts: Hosts, cable: Callable[..., Any], waiting: Callable[..., Any]
) -> None:
    lines = [cable(each) for each in hosts.primary]
    back = cable(hosts.standby[1])
    primary = hosts.start_primary(standby=back.endpoint)
    parent = primary.line()["session"]
    standby = hosts.start_standby(primary=[each.endpoint for each in lines], after="600ms")
    standby.line()
    way = [cable(each) for each in hosts.standby]
    near = Reader(*hosts.primary, (way[0].endpoint, way[1].endpoint))
    waiting(lambda: near.count > 2000 and hosts.kept(parent) > 100, "records, at the standby as well")
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


COMMON = """
[nodes.feed]
use = "feed.simulated"
records_per_second = 2000
outputs = {{ instrument = "x.instrument", quote = "x.quote" }}
{more}
[channels."x.instrument"]
listen = "{data}"
replay = "{replay}"
{rival}
[channels."x.quote"]
listen = "{data}"
replay = "{replay}"
{rival}
"""


@pytest.mark.timeout(120)
def test_a_node_is_taken_over_by_command_and_the_one_before_ends(
    up: Any, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    data, replay, sync, data_there, replay_there = free_endpoints(5)
    feed, standby = tmp_path / "feed.toml", tmp_path / "standby.toml"
    rival = f'standby_replay = "{replay_there}"'
    feed.write_text(COMMON.format(more=f'sync = "{sync}"', data=data, replay=replay, rival=rival))
    more = f'[standby.feed]\nconnect = "{data}"\nreplay = "{replay}"\nsync = "{sync}"\n'
    standby.write_text(COMMON.format(more=more, data=data_there, replay=replay_there, rival=""))
    desk = tmp_path / "desk.toml"
    where = f'connect = "{data}"\nreplay = "{replay}"\nstandby_connect = "{data_there}"\n{rival}\n'
    desk.write_text(
        '[nodes.pricing]\nuse = "pricing"\ninputs = { instrument = "x.instrument", quote = "x.quote" }\n'
        f'outputs = {{ greeks = "x.greeks" }}\n[channels."x.instrument"]\n{where}[channels."x.quote"]\n{where}'
    )
    here, there = up(feed), up(standby)
    sign = waiting(lambda: there.run / "nodes" / "feed" / FOLLOWS, "a run")

    def in_sync() -> bool:
        channels = json.loads(sign.read_bytes())["channels"]
        return len(channels) == 2 and all(each["state"] == "IN_SYNC" for each in channels.values())

    waiting(in_sync, "the standby in sync")
    reading = up(desk)
    waiting(lambda: reading.count("pricing", "in.quote.received") > 500, "a node that reads it")
    parent = LogReader(here.log("x.quote")).session
    quotes: dict[int, list[int]] = {}
    with fabric.subscribe(
        "x.quote", data=data, replay=replay, standby=(data_there, replay_there), start="first", path="tcp"
    ) as reader:

        def read(enough: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 30
            while not enough():
                batch = reader.poll(timeout=max(0.0, deadline - time.monotonic()))
                assert batch is not None, reader
                quotes.setdefault(batch.session, []).extend(batch.sequences.tolist())

        read(lambda: len(quotes.get(parent, [])) > 500)
        replayed = reading.count("pricing", "in.quote.replayed")
        assert run_cli(["takeover", str(standby), "--set", f"data_dir={there.data_dir}"]) == 0
        read(lambda: len(quotes) == 2 and len(quotes[list(quotes)[1]]) > 4000)
        session = list(quotes)[1]
        for sequences in quotes.values():
            assert sequences == list(range(1, len(sequences) + 1))
        own = LogReader(there.log("x.quote") / session_name(session))
        assert (own.control.parent_session, own.control.fork_sequence) == (parent, len(quotes[parent]))
    assert here.wait(60) != 0
    assert "was taken over" in here.output
    assert "exit code 3" in here.output
    published = len(quotes[parent]) + len(quotes[session])
    waiting(lambda: reading.count("pricing", "in.quote.received") >= published, "the node that reads it")
    reading.stop()
    counts = reading.report()["channels"]["x.quote"]["subscribers"]["pricing"]
    assert (counts["lost"], counts["skipped"]) == (0, 0)
    assert counts["replayed"] - replayed < 2000, "it listens to the standby"
    there.stop()
    assert there.report()["nodes"]["feed"]["takeovers"] == 1
    assert run_cli(["takeover", str(standby), "--set", f"data_dir={there.data_dir}"]) == 2


def test_misuse_is_told_in_one_line(tmp_path: Path) -> None:
    ends = free_endpoints(5)
    with pytest.raises(ConfigError, match="shorter than 300ms"):
        fabric.Standby(ends[0], deadline="10ms")
    with pytest.raises(ConfigError, match="on_lost='maybe'"):
        fabric.Standby(ends[0], on_lost="maybe")  # type: ignore[arg-type]
    where: dict[str, Any] = {
        "primary": (ends[0], ends[1]),
        "listen": ends[2],
        "replay": ends[3],
        "log_dir": tmp_path / "l",
    }
    with pytest.raises(ConfigError, match="shorter than 500ms"):
        fabric.stand_by("numbers", NUMBER, takeover_after="1ms", **where)
    with fabric.stand_by("numbers", NUMBER, **where) as standby:
        assert standby.wait(0) is None
        with pytest.raises(fabric.FabricError, match="nothing was followed yet"):
            standby.take_over()
        assert standby.position == (0, 0)


def test_a_publisher_that_needs_its_standby_shows_nothing_without_it(
    tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    ends = free_endpoints(5)
    told = fabric.Standby(ends[4], sync=ends[2], deadline="300ms")
    with (
        fabric.publish("numbers", NUMBER, listen=ends[0], replay=ends[1], log_dir=tmp_path / "p", standby=told) as out,
        fabric.subscribe("numbers", data=ends[0], replay=ends[1], start="first", path="tcp") as near,
        fabric.subscribe("numbers", data=ends[0], replay=ends[1], start="first", path="local") as mapped,
    ):
        standby = fabric.stand_by(
            "numbers", NUMBER, primary=(ends[0], ends[1]), sync=ends[2], listen=ends[3], replay=ends[4],
            log_dir=tmp_path / "s",
        )  # fmt: skip
        with standby:
            out.send(value=[1, 2, 3], writer=PRIMARY)  # waits until the standby has come
            assert out.standing == "IN_SYNC"
            assert LogReader(tmp_path / "s").next == 4
        with pytest.raises(StandbyLost):
            out.send(value=[4], writer=PRIMARY)
        with pytest.raises(StandbyLost):
            out.send(value=[5], writer=PRIMARY)
        assert (out.next, out.standing) == (4, "ALONE")
        for reader in (near, mapped):
            got: list[int] = []
            while len(got) < 3:
                batch = reader.poll(timeout=10)
                assert batch is not None
                got += batch.records["value"].tolist()
            assert reader.poll(timeout=0.3) is None, "nobody sees what the standby may not have"


def test_one_that_may_go_on_does_so_and_its_standby_catches_up(tmp_path: Path, waiting: Callable[..., Any]) -> None:
    ends = free_endpoints(5)
    told = fabric.Standby(ends[4], sync=ends[2], deadline="300ms", on_lost="go_on")
    followed: dict[str, Any] = {
        "primary": (ends[0], ends[1]), "sync": ends[2], "listen": ends[3], "replay": ends[4], "log_dir": tmp_path / "s"
    }  # fmt: skip
    with fabric.publish("numbers", NUMBER, listen=ends[0], replay=ends[1], log_dir=tmp_path / "p", standby=told) as out:
        out.send(value=np.arange(1, 5001), writer=PRIMARY)
        assert out.standing == "ALONE"
        for life in range(2):
            with fabric.stand_by("numbers", NUMBER, **followed) as standby:
                waiting(lambda: out.standing == "IN_SYNC", "the standby in sync")
                for _ in range(100):
                    out.send(value=[out.next], writer=PRIMARY)
                    assert standby.position == (out.session, out.next - 1), "it has it before send returns"
            out.send(value=[out.next], writer=PRIMARY)  # waits for the deadline, or has seen it go
            assert out.standing == "ALONE", life
        with fabric.stand_by("numbers", NUMBER, **followed) as standby:
            waiting(lambda: standby.position == (out.session, out.next - 1), "all of it at the standby")
            waiting(lambda: out.standing == "IN_SYNC", "the standby in sync")
            new = standby.take_over()
            with pytest.raises(Superseded):
                out.send(value=[out.next], writer=PRIMARY)
            assert new.session >> 32 > out.session >> 32
            assert LogReader(tmp_path / "s").control.fork_sequence == out.next - 1


def test_primary_and_standby_have_one_key_pair_and_nobody_else_joins(
    tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    def pair() -> tuple[str, fabric.Secret]:
        public, secret = zmq.curve_keypair()
        return public.decode(), fabric.Secret(secret.decode())

    (public, secret), (readers, readers_secret), (_, strange) = pair(), pair(), pair()
    server = fabric.CurveServer(secret, frozenset({public, readers}))
    ours, theirs = fabric.CurveClient(public, secret), fabric.CurveClient(public, readers_secret)
    ends = free_endpoints(7)
    told = fabric.Standby(ends[4], sync=ends[2], on_lost="go_on", curve=ours)
    followed: dict[str, Any] = {"primary": (ends[0], ends[1]), "sync": ends[2], "curve": server}
    with fabric.publish(
        "numbers", NUMBER, listen=ends[0], replay=ends[1], log_dir=tmp_path / "p", standby=told, curve=server
    ) as out:
        out.send(value=[1], writer=PRIMARY)
        with (
            fabric.stand_by(
                "numbers", NUMBER, listen=ends[5], replay=ends[6], log_dir=tmp_path / "x",
                primary_curve=fabric.CurveClient(public, strange), **followed,
            ) as stranger,
            fabric.stand_by(
                "numbers", NUMBER, listen=ends[3], replay=ends[4], log_dir=tmp_path / "s", primary_curve=ours, **followed
            ) as standby,
            fabric.subscribe(
                "numbers", data=ends[0], replay=ends[1], standby=(ends[3], ends[4]), start="first", curve=theirs
            ) as reader,
        ):  # fmt: skip
            waiting(lambda: out.standing == "IN_SYNC", "the standby in sync")
            out.send(value=[2], writer=PRIMARY)
            assert standby.position == (out.session, 2)
            new = standby.take_over()
            new.send(value=[1], writer=STANDBY)
            writers: list[int] = []
            while len(writers) < 3:
                batch = reader.poll(timeout=20)
                assert batch is not None, (reader, writers)
                writers += batch.records["writer"].tolist()
            assert writers == [PRIMARY, PRIMARY, STANDBY]
            waiting(lambda: out.superseded, "the primary to hear of it")
            assert stranger.position == (0, 0)
