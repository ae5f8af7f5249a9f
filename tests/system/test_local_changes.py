"""What may happen to a mapped log and its publisher while it is read: seamless, or announced; and which path it goes by."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.channel import channel_id
from fabric.errors import NotConnected, RecordTypeError
from fabric.log import LogOptions, LogWriter
from fabric.log.paths import WAIT
from fabric.protocol.events import Lost
from fabric.records import RecordType
from fabric.transport.channels import ChannelReceiver
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import Publisher

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", image="last", key=("instrument",), value="u8")
OTHER = fabric.record("number", image="last", key=("instrument",), value="f4", more="u8")
SMALL = LogOptions(retain_bytes=1 << 20, segment_bytes=16 * NUMBER.size)
Waiting = Callable[..., Any]


@pytest.fixture(params=("local", "auto"))
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def publish(
    endpoints: tuple[str, str], tmp_path: Path, record: RecordType = NUMBER, **more: Any
) -> fabric.ChannelWriter:
    return fabric.publish("numbers", record, listen=endpoints[0], replay=endpoints[1], log_dir=tmp_path / "log", **more)


def subscribe(endpoints: tuple[str, str], **more: Any) -> fabric.Subscription:
    more.setdefault("path", getattr(endpoints, "path", "auto"))
    return fabric.subscribe("numbers", data=endpoints[0], replay=endpoints[1], start="first", **more)


def read(numbers: fabric.Subscription, count: int, timeout: float = 30) -> list[int]:
    """The next records' values; exactly so many, each where its sequence says."""
    got: list[int] = []
    deadline = time.monotonic() + timeout
    while len(got) < count:
        batch = numbers.poll(timeout=max(0.0, deadline - time.monotonic()))
        assert batch is not None, f"{len(got)} of {count} records; {numbers!r} by {numbers.path}, {numbers.counters}"
        assert batch.records["value"].tolist() == batch.sequences.tolist()
        got += batch.records["value"].tolist()
    return got


def local(numbers: fabric.Subscription, waiting: Waiting) -> None:
    waiting(lambda: numbers.path == "local", f"the mapped log, not {numbers.path}")


def test_the_path_is_reported_before_and_after(endpoints: tuple[str, str], tmp_path: Path, waiting: Waiting) -> None:
    with subscribe(endpoints) as numbers:
        assert numbers.path == "ipc", "nothing is mapped yet"
        with publish(endpoints, tmp_path) as out:
            out.send(value=[1, 2, 3])
            assert read(numbers, 3) == [1, 2, 3]
            local(numbers, waiting)
            out.send(value=4)
            assert read(numbers, 1) == [4]


def test_a_publisher_that_comes_again_goes_on_without_a_seam(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Waiting
) -> None:
    with subscribe(endpoints) as numbers:
        got: list[int] = []
        sessions = set()
        for life in range(4):
            with publish(endpoints, tmp_path, options=SMALL) as out:
                for value in range(1 + 40 * life, 41 + 40 * life):  # through several segments
                    out.send(value=value)
                got += read(numbers, 40)
                local(numbers, waiting)
                sessions.add(out.session)
        assert got == list(range(1, 161))
        assert len(sessions) == 1
        assert numbers.counters.lost == 0


def test_retention_that_is_faster_is_told_with_its_range(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Waiting
) -> None:
    plain = fabric.record("plain", value="u8")
    told: list[Lost] = []
    options = LogOptions(retain_bytes=64 * plain.size, segment_bytes=16 * plain.size)
    with (
        publish(endpoints, tmp_path, plain, options=options) as out,
        subscribe(endpoints, on_lost=told.append) as numbers,
    ):
        out.send(value=1)
        assert read(numbers, 1) == [1]
        local(numbers, waiting)
        out.send(value=2)
        assert read(numbers, 1) == [2]
        for value in range(3, 400):
            out.send(value=value)
        first = 337  # of the last four segments
        waiting(lambda: out._writer.control.first_available == first, "retention")
        rest = [*range(3, 17), *range(first, 400)]  # what is mapped can be read to its end
        assert read(numbers, len(rest)) == rest
        assert [(event.first, event.last) for event in told] == [(17, first - 1)]
        assert numbers.counters.lost == first - 17
        local(numbers, waiting)


def test_a_log_that_is_removed_and_made_anew_is_a_new_session(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Waiting
) -> None:
    told: list[Lost] = []
    with subscribe(endpoints, on_lost=told.append) as numbers:
        for life in range(3):
            with publish(endpoints, tmp_path) as out:
                out.send(value=[1, 2, 3])
                assert read(numbers, 3) == [1, 2, 3]
                local(numbers, waiting)
                assert (numbers.session, len(told)) == (out.session, life)
            shutil.rmtree(tmp_path / "log")


def test_a_log_removed_while_its_publisher_runs_is_read_on(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Waiting
) -> None:
    with publish(endpoints, tmp_path) as out, subscribe(endpoints) as numbers:
        out.send(value=[1, 2])
        assert read(numbers, 2) == [1, 2]
        local(numbers, waiting)
        shutil.rmtree(tmp_path / "log")
        out.send(value=[3, 4])
        assert read(numbers, 2) == [3, 4]
        (tmp_path / "log").mkdir()  # else closing, which takes its files along, would be surprised


def test_another_dtype_is_announced(endpoints: tuple[str, str], tmp_path: Path, waiting: Waiting) -> None:
    with subscribe(endpoints) as numbers:
        with publish(endpoints, tmp_path) as out:
            out.send(value=[1, 2, 3])
            assert read(numbers, 3) == [1, 2, 3]
            local(numbers, waiting)
        with publish(endpoints, tmp_path, OTHER) as out:
            out.send(value=[1, 2])
            with pytest.raises(RecordTypeError, match="schema"):
                numbers.poll(timeout=30)
            assert numbers.state == "FAILED"
            with subscribe(endpoints) as others:
                assert read(others, 2) == [1, 2]
                local(others, waiting)


def test_the_end_and_a_new_beginning(endpoints: tuple[str, str], tmp_path: Path, waiting: Waiting) -> None:
    with subscribe(endpoints) as numbers:
        with publish(endpoints, tmp_path) as out:
            out.send(value=[1, 2, 3])
            assert read(numbers, 3) == [1, 2, 3]
            local(numbers, waiting)
            out.send(value=4)
            out.end()
            assert read(numbers, 1) == [4]
            assert list(numbers) == []
            assert (numbers.state, numbers.path) == ("ENDED", "local")
            old = out.session
        with publish(endpoints, tmp_path) as out, subscribe(endpoints) as again:
            out.send(value=[1, 2])
            assert read(again, 2) == [1, 2]
            assert again.session == out.session != old
            local(again, waiting)


def test_records_before_the_end_come_before_the_end(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path, options=SMALL) as out:
        out.send(value=np.arange(1, 1001))
        out.end()
        with subscribe(endpoints) as numbers:
            values = [value for batch in numbers for value in batch.records["value"].tolist()]
    assert values == list(range(1, 1001))


def test_a_reader_that_may_not_write_the_wait_page_polls(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out:
        page = out._writer.session_directory / WAIT
        page.unlink()
        page.mkdir()  # nobody can open it for writing, whoever runs this
        with subscribe(endpoints) as numbers:
            numbers.wait_live(30)
            assert numbers.path == "local"
            for value in range(1, 200):
                out.send(value=value)
                assert read(numbers, 1) == [value]
            threading.Timer(0.02, lambda: out.send(value=200)).start()
            assert read(numbers, 1) == [200]
            out.end()
            assert list(numbers) == []
        page.rmdir()


FORKS = """
import os, sys, threading, time
import fabric
from fabric.errors import Closed
number = fabric.record("number", image="last", key=("instrument",), value="u8")
data, replay, path, log = sys.argv[1:]
where = {"data": data, "replay": replay, "path": path}

def values(numbers, last):
    got = []
    while not got or got[-1] < last:
        batch = numbers.poll(timeout=20)
        assert batch is not None, numbers
        got += batch.records["value"].tolist()
    return got

out = fabric.publish("numbers", number, listen=data, replay=replay, log_dir=log)
numbers = fabric.subscribe("numbers", **where, start="first")
others = fabric.subscribe("numbers", **where, start="first")
client = fabric.connect()
table = client.table("numbers", **where)
out.send(value=[1, 2])
assert values(numbers, 2) == [1, 2]
table.wait_live(20)
waiting = []
thread = threading.Thread(target=lambda: waiting.extend(values(others, 3)))  # asleep in a wait while the process forks
thread.start()
child = os.fork()
if child == 0:
    closed = 0
    for call in (lambda: numbers.poll(timeout=1), lambda: next(numbers), lambda: out.send(value=9),
                 lambda: table.wait_live(1), lambda: client.subscribe("numbers", **where)):
        try:
            call()
        except Closed:
            closed += 1
    numbers.close(), others.close(), client.close(), out.close()
    own = fabric.subscribe("numbers", **where, start="first")
    got = values(own, 3)
    own.close()
    os._exit(0 if (closed, got) == (5, [1, 2, 3]) else 1)
out.send(value=3)
deadline = time.monotonic() + 30
status = (0, 0)
while status[0] == 0:
    assert time.monotonic() < deadline, "the child hangs"
    status = os.waitpid(child, os.WNOHANG)
    numbers.poll(timeout=0.01)
assert os.waitstatus_to_exitcode(status[1]) == 0, status
thread.join(20)
assert waiting == [1, 2, 3], waiting
out.send(value=4)
assert values(numbers, 4)[-1] == 4
table_deadline = time.monotonic() + 20
while table.as_of < 4:
    assert time.monotonic() < table_deadline
for each in (numbers, others, client, out):
    each.close()
"""


def test_a_forked_child_is_told_and_can_begin_anew(endpoints: tuple[str, str], tmp_path: Path, path: str) -> None:
    command = [sys.executable, "-c", FORKS, *endpoints, path, str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


HELD = """
import os, sys, threading
import fabric
from fabric.errors import Closed
number = fabric.record("number", image="last", key=("instrument",), value="u8")
data, replay, path, log = sys.argv[1:]
with fabric.publish("numbers", number, listen=data, replay=replay, log_dir=log) as out:
    with fabric.subscribe("numbers", data=data, replay=replay, path=path) as numbers:
        held, over = threading.Event(), threading.Event()

        def hold():
            with numbers._bell.lock:
                held.set()
                over.wait(30)

        threading.Thread(target=hold).start()
        held.wait(20)
        child = os.fork()
        if child == 0:
            import faulthandler
            faulthandler.dump_traceback_later(5, exit=True)
            try:
                numbers.poll(timeout=0)
            except Closed:
                os._exit(0)
            os._exit(2)
        status = os.waitpid(child, 0)[1]
        over.set()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_child_is_told_whatever_locks_were_held_when_it_was_forked(
    endpoints: tuple[str, str], tmp_path: Path, path: str
) -> None:
    command = [sys.executable, "-c", HELD, *endpoints, path, str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr


def test_without_its_log_server_auto_takes_packets_and_local_says_why(
    endpoints: tuple[str, str], tmp_path: Path, path: str, waiting: Waiting
) -> None:
    identity = channel_id("numbers")
    writer = LogWriter(tmp_path / "log", "numbers", identity, NUMBER, LogOptions(), now_ns=time.time_ns())
    with Publisher([endpoints[0]]) as publisher:
        channel = publisher.add(writer)
        more = {"data": endpoints[0], "replay": endpoints[1], "path": path, "start": "live", "record": NUMBER}
        with fabric.subscribe("numbers", **more) as numbers:
            if path == "local":
                with pytest.raises(NotConnected, match=f"nothing listens on {endpoints[1]}"):
                    numbers.wait_live(0.3)
                assert (numbers.state, numbers.path) == ("JOINING", "ipc")
            else:
                numbers.wait_live(30)
                channel.write(NUMBER.build(value=1), 1)
                assert read(numbers, 1) == [1]
                assert numbers.path == "ipc"
            server = LogServer([endpoints[1]], {identity: tmp_path / "log"}.get).start()
            try:
                local(numbers, waiting)
                numbers.wait_live(30)
                first = writer.next
                for value in range(first, first + 100):
                    channel.write(NUMBER.build(value=value), 1)
                assert read(numbers, 100) == list(range(first, first + 100))
            finally:
                server.close()
            channel.write(NUMBER.build(value=writer.next), 1)  # without it, what is mapped stays mapped
            assert len(read(numbers, 1)) == 1
            assert numbers.path == "local"
    writer.close()


def test_a_signal_handler_may_close_what_the_reader_is_about_to_open(
    endpoints: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: Waiting
) -> None:
    """A signal comes between any two instructions: also where the reader holds its channel's lock."""
    with publish(endpoints, tmp_path) as out, subscribe(endpoints) as numbers:
        waiting(lambda: numbers.feeds["numbers"].receiver.closed_cursor, "the mapped log")
        before = ChannelReceiver._open
        closed = threading.Event()

        def interrupted(self: ChannelReceiver, mapped: Any) -> bool:
            if threading.current_thread() is threading.main_thread() and not closed.is_set():
                closed.set()
                signal.raise_signal(signal.SIGUSR1)
            return before(self, mapped)

        monkeypatch.setattr(ChannelReceiver, "_open", interrupted)
        old = signal.signal(signal.SIGUSR1, lambda *_: numbers.close())
        try:
            out.send(value=1)
            assert list(numbers) in ([], [1])
            assert closed.is_set()
            assert numbers.state == "CLOSED"
        finally:
            signal.signal(signal.SIGUSR1, old)
