"""A publisher and a subscriber on two hosts: network namespaces of our own, and a cable that is pulled, slow, or loses packets.

Needs the right to make namespaces (root, or CAP_NET_ADMIN and CAP_SYS_ADMIN) and ip; delay and loss need tc and netem.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fabric.log import LogReader
from fabric.log.paths import session_name

pytestmark = pytest.mark.system
HERE, THERE = "10.203.77.1", "10.203.77.2"
DATA_PORT, REPLAY_PORT = 17701, 17702

PUBLISHER = """
import json, sys, time, numpy as np, fabric
from fabric.log.writer import LogOptions
host, folder, rate, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
record = fabric.record("number", value="u8")
with fabric.publish("numbers", record, listen=f"tcp://{host}:17701", replay=f"tcp://{host}:17702", log_dir=folder) as out:
    print("up", flush=True)
    sys.stdin.readline()
    first, began = 1, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        while first - 1 < passed * rate:
            out.send(value=np.arange(first, first + 50))
            first += 50
        time.sleep(0.005)
    out.end()
    print(first - 1, flush=True)
    sys.stdin.readline()
"""

SUBSCRIBER = """
import json, sys, numpy as np, fabric
host = sys.argv[1]
stale = []
with fabric.subscribe(
    "numbers", data=f"tcp://{host}:17701", replay=f"tcp://{host}:17702", start="first", path="tcp",
    on_state=lambda change: stale.append(change.stale),
) as numbers:
    numbers.wait_live(20)
    print("up", flush=True)
    next_value = 1
    for batch in numbers:
        values = batch.records["value"]
        assert values[0] == next_value and (np.diff(values) == 1).all(), (next_value, values[:3])
        next_value = int(values[-1]) + 1
    counters = numbers.counters
    print(json.dumps({
        "delivered": next_value - 1, "lost": counters.lost, "skipped": counters.skipped, "missed": counters.missed,
        "recovered": counters.recovered, "stale": any(stale), "path": numbers.path,
    }), flush=True)
"""


@dataclass
class Hosts:
    """Two namespaces and the cable between them."""

    one: str
    two: str

    def start(self, host: str, program: str, *arguments: Any) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", host, sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def cable(self, *, up: bool) -> None:
        run("ip", "netns", "exec", self.one, "ip", "link", "set", "cable", "up" if up else "down")

    def disturb(self, *how: str) -> None:
        """``tc netem`` on both ends; skips where this kernel has none."""
        for host in (self.one, self.two):
            command = ["ip", "netns", "exec", host, "tc", "qdisc", "replace", "dev", "cable", "root", "netem", *how]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"this kernel has no netem: {done.stderr.strip()}")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if not shutil.which("ip"):
        pytest.skip("ip (iproute2) is not installed")
    made = Hosts(f"zmf-{os.getpid()}-1", f"zmf-{os.getpid()}-2")
    done = subprocess.run(["ip", "netns", "add", made.one], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"network namespaces can't be made here: {done.stderr.strip()}")
    try:
        run("ip", "netns", "add", made.two)
        ends = [f"zmfa{os.getpid()}", f"zmfb{os.getpid()}"]
        added = subprocess.run(
            ["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], capture_output=True, text=True
        )
        if added.returncode:
            pytest.skip(f"there are no virtual cables here: {added.stderr.strip()}")
        for host, end, address in ((made.one, ends[0], HERE), (made.two, ends[1], THERE)):
            run("ip", "link", "set", end, "netns", host)
            inside = ("ip", "netns", "exec", host, "ip")
            run(*inside, "link", "set", end, "name", "cable")
            run(*inside, "addr", "add", f"{address}/24", "dev", "cable")
            run(*inside, "link", "set", "cable", "up")
            run(*inside, "link", "set", "lo", "up")
        yield made
    finally:
        for host in (made.one, made.two):  # the cable goes with them
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def deliver(hosts: Hosts, folder: Path, rate: int, seconds: float, meanwhile: Callable[[], None]) -> dict[str, Any]:
    """Publish so long at that rate, do something meanwhile, and return what the subscriber says at the end."""
    with (
        hosts.start(hosts.one, PUBLISHER, HERE, folder, rate, seconds) as publisher,
        hosts.start(hosts.two, SUBSCRIBER, HERE) as subscriber,
    ):
        try:
            assert publisher.stdin
            assert publisher.stdout
            assert subscriber.stdout
            assert publisher.stdout.readline() == "up\n"
            assert subscriber.stdout.readline() == "up\n"
            publisher.stdin.write("go\n")
            publisher.stdin.flush()
            meanwhile()
            published = int(publisher.stdout.readline())
            told: dict[str, Any] = json.loads(subscriber.stdout.readline())
            publisher.stdin.write("end\n")
            publisher.stdin.flush()
        except BaseException:
            publisher.kill()
            subscriber.kill()
            raise
    assert told["delivered"] == published
    assert (told["lost"], told["skipped"], told["path"]) == (0, 0, "tcp")
    assert told["missed"] == told["recovered"]
    return told


@pytest.mark.timeout(90)
def test_a_cable_that_is_pulled_for_three_seconds_loses_nothing(hosts: Hosts, tmp_path: Path) -> None:
    def pull() -> None:
        time.sleep(1.0)
        hosts.cable(up=False)
        time.sleep(3.0)
        hosts.cable(up=True)

    told = deliver(hosts, tmp_path / "log", 20_000, 7.0, pull)
    assert told["stale"], "the reader was told that nothing came"


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_a_cable_that_is_pulled_for_ten_seconds_loses_nothing(hosts: Hosts, tmp_path: Path) -> None:
    def pull() -> None:
        for _ in range(3):
            time.sleep(3.0)
            hosts.cable(up=False)
            time.sleep(10.0)
            hosts.cable(up=True)

    deliver(hosts, tmp_path / "log", 50_000, 60.0, pull)


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "how",
    [("delay", "5ms", "2ms"), ("loss", "2%"), ("delay", "5ms", "reorder", "25%")],
    ids=["slow", "lossy", "reorder"],
)
def test_a_bad_cable_loses_nothing(how: tuple[str, ...], hosts: Hosts, tmp_path: Path) -> None:
    hosts.disturb(*how)
    deliver(hosts, tmp_path / "log", 20_000, 4.0, lambda: None)


@pytest.mark.timeout(90)
def test_a_partition_loses_nothing(hosts: Hosts, tmp_path: Path) -> None:
    hosts.disturb("loss", "0%")

    def part() -> None:
        time.sleep(1.0)
        hosts.disturb("loss", "100%")
        time.sleep(3.0)
        hosts.disturb("loss", "0%")

    deliver(hosts, tmp_path / "log", 20_000, 7.0, part)


def open_session(directory: Path, session: int) -> LogReader:
    return LogReader(directory / session_name(session))


def standby_program(which: str, settings: dict[str, Any]) -> tuple[str, str, str]:
    """What ``Hosts.start`` is given for one of standby_programs.py."""
    program = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return program, str(Path(__file__).with_name("standby_programs.py")), json.dumps([which, settings])


READER = """
import json, sys, fabric
data, replay, standby = sys.argv[1], sys.argv[2], tuple(sys.argv[3:5])
seen, lost = {}, []
with fabric.subscribe("numbers", data=data, replay=replay, standby=standby, start="first", path="tcp") as numbers:
    batches = iter(numbers)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            break
        except fabric.RecordsLost as told:
            lost.append((told.first, told.last))
            continue
        first, last = seen.get(batch.session, (batch.first, batch.first - 1))
        assert batch.first == last + 1, (batch, last)
        assert batch.records["value"].tolist() == list(range(batch.first, batch.last + 1))
        if not seen:
            print("up", flush=True)
        seen[batch.session] = (first, batch.last)
print(json.dumps({"seen": [[str(session), *ends] for session, ends in seen.items()], "lost": lost}), flush=True)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
def test_a_standby_on_the_other_host_takes_over_when_the_cable_is_pulled(
    hosts: Hosts, tmp_path: Path, sync: bool
) -> None:
    """The primary's host is cut off from all others; it stops when it is back."""
    primary, standby = (
        [f"tcp://{HERE}:{DATA_PORT + n}" for n in range(3)],
        [f"tcp://{THERE}:{DATA_PORT + n}" for n in range(2)],
    )
    settings = {
        "data": primary[0], "replay": primary[1], "folder": str(tmp_path / "primary"), "standby": standby[1],
        "rate": 20_000, "seed": 1, "on_lost": "stop",
    }  # fmt: skip
    theirs = {
        "primary": primary[:2], "data": standby[0], "replay": standby[1], "folder": str(tmp_path / "standby"), "more": 100,
        "after": "1s",
    }  # fmt: skip
    if sync:
        settings["sync"] = theirs["sync"] = primary[2]
    with (
        hosts.start(hosts.one, *standby_program("primary", settings)) as writer,
        hosts.start(hosts.two, *standby_program("standby", theirs)) as follower,
        hosts.start(hosts.two, READER, *primary[:2], *standby) as reader,
    ):
        try:
            assert writer.stdout
            assert follower.stdout
            assert follower.stdin
            assert reader.stdout
            parent = json.loads(writer.stdout.readline())["session"]
            json.loads(follower.stdout.readline())
            assert reader.stdout.readline() == "up\n"
            time.sleep(0.5)
            hosts.cable(up=False)
            session = json.loads(follower.stdout.readline())["session"]
            if sync:  # alone, it stops by itself: nobody there saw anything that the standby lacks
                assert json.loads(writer.stdout.readline())["stopped"] == "StandbyLost"
            hosts.cable(up=True)
            if not sync:
                assert json.loads(writer.stdout.readline())["stopped"] == "Superseded"
            assert writer.wait(20) == 3
            follower.stdin.write("end\n")
            follower.stdin.flush()
            told = json.loads(reader.stdout.readline())
        except BaseException:
            for each in (writer, follower, reader):
                each.kill()
            raise
        follower.kill()
    fork = open_session(tmp_path / "standby", session).control.fork_sequence
    (first, last_of_parent), (_, last) = ((int(each[1]), int(each[2])) for each in told["seen"])
    assert [int(each[0]) for each in told["seen"]] == [parent, session]
    assert (first, last) == (1, open_session(tmp_path / "standby", session).next - 1)
    assert last_of_parent >= fork
    assert told["lost"] == ([[fork + 1, last_of_parent]] if last_of_parent > fork else [])
    published = open_session(tmp_path / "primary", parent).next - 1
    assert published <= fork if sync else published > fork, "the primary's own log, when it stopped"
