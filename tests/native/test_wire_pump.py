"""The pump: records reach the rings while no thread waits, and a thread that waits misses nothing of what it pumped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq
import zmq.backend.cython._zmq as backend
from wire_model import RECORD_BYTES, SCHEMA, SESSION, content, controls, data, linked, runs, until

from native import wire

SECOND_NS = 1_000_000_000
LONG_NS = 20 * SECOND_NS


@pytest.fixture
def link(tmp_path):
    if not wire.load(backend.__file__, zmq.zmq_version()):
        pytest.skip("this pyzmq's libzmq can't be called natively")
    with linked(f"ipc://{tmp_path}/s") as link:
        link.inlet.start_pump()
        yield link
        link.inlet.stop_pump()


def sent_later(link, *frames):
    """A thread that sends as soon as the caller waits and lets go of the GIL."""
    thread = threading.Thread(target=link.send, args=frames)
    thread.start()
    return thread


def test_records_reach_the_ring_while_nobody_waits(link):
    lane = link.lane(5)
    link.send(data(5, 1), data(5, 2), data(5, 9))
    until(lambda: link.inlet.pumped == 3)
    assert runs(lane) == [(SESSION, 1, content(1, 2))]
    assert controls(link.inlet) == [(lane.id, data(5, 9))]
    assert link.inlet.packets == 3


def test_a_reader_that_comes_back_is_told_by_the_pump(link):
    lane = link.lane(5)
    link.send(data(5, 1))
    until(lambda: link.inlet.pumped == 1)  # it owns the sockets for a second from here on
    assert link.inlet.wait(LONG_NS) == wire.RECORDS
    assert runs(lane) == [(SESSION, 1, content(1, 1))]
    thread = sent_later(link, data(5, 2))
    began_ns = time.monotonic_ns()
    assert link.inlet.wait(LONG_NS) == wire.RECORDS
    assert time.monotonic_ns() - began_ns < SECOND_NS // 2, "it slept until the pump gave the sockets back"
    thread.join()
    assert link.inlet.pumped == 2
    thread = sent_later(link, data(5, 99))
    assert link.inlet.wait(LONG_NS) == wire.CONTROL
    thread.join()
    assert len(controls(link.inlet)) == 1
    reader, writer = os.pipe()
    link.inlet.add_fd(reader)
    os.write(writer, b"x")
    assert link.inlet.wait(LONG_NS) & wire.EXTRA
    link.inlet.remove_fd(reader)
    os.close(reader)
    os.close(writer)


def test_the_sockets_go_back_to_a_reader_that_stays(link):
    lane = link.lane(5)
    link.send(data(5, 1))
    until(lambda: link.inlet.pumped == 1)  # the pump owns the sockets
    enough, sent = threading.Event(), 1

    def publish():
        nonlocal sent
        while not enough.wait(0.002):
            sent += 1
            link.send(data(5, sent))

    thread = threading.Thread(target=publish)
    thread.start()

    def received_by_the_reader():
        link.inlet.wait(SECOND_NS)
        lane.take()
        return link.inlet.packets > link.inlet.pumped

    until(received_by_the_reader)
    enough.set()
    thread.join()
    until(lambda: link.inlet.wait(1) >= 0 and lane.received == sent)
    assert lane.plain


@pytest.mark.parametrize("spin", [False, True], ids=["poll", "spin"])
def test_nothing_is_lost_or_turned_round_between_pump_and_reader(link, spin):
    lane = link.lane(5, ring_bytes=1 << 22)
    total, got = 30_000, 0

    def publish():
        for first in range(1, total, 3):
            link.outlet.send_records(content(first, 3), 0, 3, RECORD_BYTES, 5, SESSION, first, SCHEMA, 1 + first % 3)

    thread = threading.Thread(target=publish)
    thread.start()
    deadline_s = time.monotonic() + 60
    turn = 0
    while got < total:
        assert time.monotonic() < deadline_s
        link.inlet.wait(SECOND_NS, spin)
        turn += 1
        if turn % 16 == 0:  # away for long enough to be found absent
            busy_until_ns = time.monotonic_ns() + 400_000
            while time.monotonic_ns() < busy_until_ns:
                pass
        while (run := lane.take()) is not None:
            assert run[1] == got + 1
            assert run[2].tobytes() == content(run[1], len(run[2]) // RECORD_BYTES)
            got += len(run[2]) // RECORD_BYTES
    thread.join()
    assert lane.plain
    assert got == lane.received == total


def test_lanes_come_and_go_beside_the_pump(link):
    lane = link.lane(5, ring_bytes=1 << 22)
    for n in range(300):
        other = link.lane(6)
        link.send(data(5, n + 1), data(6, 1))
        if n % 2:
            link.inlet.hold()
            link.subs[0].setsockopt(zmq.SUBSCRIBE, n.to_bytes(8, "little"))
            link.inlet.release()
        until(lambda: other.received == 1)  # noqa: B023
        link.inlet.remove_lane(other)
    until(lambda: lane.received == 300)
    link.inlet.stop_pump()
    link.send(data(5, 301))
    assert link.inlet.wait(LONG_NS) == wire.RECORDS
    until(lambda: link.inlet.drain() >= 0 and lane.received == 301)
    link.inlet.start_pump()
    link.inlet.start_pump()
    link.send(data(5, 302))
    until(lambda: lane.received == 302)


def test_an_inlet_that_is_dropped_ends_its_pump(link):
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("threads can't be counted here")
    threads = len(list(tasks.iterdir()))
    other = wire.Inlet()
    other.start_pump()
    del other
    until(lambda: len(list(tasks.iterdir())) <= threads)


def test_a_fork_does_not_wait_for_a_pump_that_it_has_not(link):
    code = (
        "import os, sys, zmq, zmq.backend.cython._zmq as backend\n"
        "from native import wire\n"
        "wire.load(backend.__file__)\n"
        "inlet = wire.Inlet()\n"
        "inlet.start_pump()\n"
        "child = os.fork()\n"
        "del inlet\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=20)
