"""One call from a record to the log and the socket: what is sent is what the log holds, and only while somebody listens."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.backend.cython._zmq as backend

from fabric.log import LogOptions, LogReader, LogWriter
from fabric.records import RecordType, record
from native import wire
from native.packet import HEADER_BYTES, MAX_BYTES, Header, Kind, ParseResult
from native.publication import Publication, SocketLock

SECOND_NS = 1_000_000_000
CHANNEL = 0x1122334455667788
TICK = record("publication_tick", value="u8")
LARGE = record("publication_large", body=("f8", (1000,)))
DEADLINE_MS = 20_000


@pytest.fixture(autouse=True)
def _loaded() -> None:
    if not wire.load(backend.__file__, zmq.zmq_version()):
        pytest.skip("this pyzmq's libzmq can't be called natively")


class Published:
    """A log, a socket and somebody who listens to it."""

    def __init__(self, directory: Path, kind: RecordType, *, crc: bool, segment: int) -> None:
        options = LogOptions(segment_bytes=segment * kind.size, retain_bytes=1 << 40)
        self.kind = kind
        self.writer = LogWriter(directory, "ticks", CHANNEL, kind, options, now_ns=SECOND_NS)
        self.context = zmq.Context()
        self.push, self.pull = self.context.socket(zmq.PUSH), self.context.socket(zmq.PULL)
        for socket in (self.push, self.pull):
            socket.setsockopt(zmq.LINGER, 0)
            socket.set_hwm(100_000)
        self.push.bind("inproc://published")
        self.pull.connect("inproc://published")
        self.lock = SocketLock()
        self.outlet: wire.Outlet | None = wire.Outlet(self.push.underlying)
        self.made = self.publication(crc=crc)

    def publication(self, *, crc: bool = False, outlet: bool = True) -> Publication:
        writer = self.writer
        return Publication(
            writer.fast,
            self.outlet if outlet else None,
            self.lock,
            channel=CHANNEL,
            session=writer.session,
            schema=self.kind.schema,
            crc=crc,
        )

    def received(self) -> list[tuple[Header, bytes]]:
        """What has been sent by now."""
        packets = []
        while self.pull.poll(0):
            frame = self.pull.recv()
            header = Header()
            assert header.parse(frame) == ParseResult.OK
            packets.append((header, frame[HEADER_BYTES:]))
        return packets

    def close(self) -> None:
        self.writer.close()
        self.push.close()
        self.pull.close()
        self.context.term()


@pytest.fixture
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Published]:
    more: dict[str, Any] = {"kind": TICK, "crc": False, "segment": 10_000, **getattr(request, "param", {})}
    made = Published(tmp_path / "log", **more)
    yield made
    made.close()


def logged(published: Published, first: int, count: int) -> bytes:
    reader = LogReader(published.writer.directory)
    return b"".join(view.tobytes() for _, view in reader.read_range(first, first + count - 1))


def test_nothing_is_sent_while_nobody_listens(published: Published) -> None:
    made = published.made
    assert (made.wanted, made.announced) == (False, 1)
    assert made.put({"value": 1}, SECOND_NS) == 1
    assert made.write(TICK.zeros(3), SECOND_NS) == 4
    first = published.writer.write(TICK.zeros(2), SECOND_NS)
    assert made.send_committed(TICK.zeros(2), first)
    assert made.announced == 7
    assert published.received() == []
    assert published.writer.control.counter(0) == 0


@pytest.mark.parametrize("published", [{"crc": False}, {"crc": True}], indirect=True)
def test_what_is_sent_is_what_the_log_holds(published: Published) -> None:
    made, writer = published.made, published.writer
    made.put({"value": 1}, SECOND_NS)
    made.wanted = True
    assert made.put({"value": 2, "flags": 2}, SECOND_NS + 5) == 2
    assert made.write(TICK.build(3, value=[3, 4, 5]), SECOND_NS) == 5
    slow = TICK.build(2, value=[6, 7])
    assert made.send_committed(slow, writer.write(slow, SECOND_NS))
    packets = published.received()
    assert [(header.sequence, header.count) for header, _ in packets] == [(2, 1), (3, 3), (6, 2)]
    for header, _ in packets:
        assert (header.kind, header.channel, header.session) == (Kind.DATA, CHANNEL, writer.session)
        assert (header.schema, header.size) == (TICK.schema, TICK.size)
    assert packets[0][1] + packets[1][1] == logged(published, 2, 4)
    assert packets[2][1] == slow.tobytes()
    assert (made.announced, writer.control.counter(0)) == (8, 3)
    stamped = np.frombuffer(packets[1][1], TICK.dtype)
    assert stamped["ts_publish_ns"].tolist() == [SECOND_NS + 5] * 3
    assert stamped["flags"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("published", [{"kind": LARGE}], indirect=True)
@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_what_is_larger_than_a_packet_goes_as_several(published: Published, count: int) -> None:
    made = published.made
    made.wanted = True
    most = (MAX_BYTES - HEADER_BYTES) // LARGE.size
    assert most < 9
    records = LARGE.build(count, body=np.arange(1000.0))
    last = made.write(records, SECOND_NS)
    if not last:
        assert count * LARGE.size > 65_536
        assert made.send_committed(records, published.writer.write(records, SECOND_NS))
    packets = published.received()
    assert [header.count for header, _ in packets] == [min(most, count - at) for at in range(0, count, most)]
    assert b"".join(content for _, content in packets) == logged(published, 1, count)
    assert published.writer.control.counter(0) == len(packets)
    assert made.announced == count + 1


def test_what_can_not_be_sent_natively_is_refused_before_it_is_logged(published: Published) -> None:
    made = published.publication(outlet=False)
    assert made.put({"value": 1}, SECOND_NS) == 1, "nobody listens"
    made.wanted = True
    assert made.put({"value": 2}, SECOND_NS) == 0
    assert made.write(TICK.zeros(1), SECOND_NS) == 0
    assert not made.send_committed(TICK.zeros(1), 2)
    assert (published.writer.next, made.announced) == (2, 2)
    assert published.received() == []


def test_what_the_appender_refuses_is_neither_logged_nor_sent(published: Published) -> None:
    made = published.made
    for wanted in (False, True):
        made.wanted = wanted
        assert made.put({"value": -1}, SECOND_NS) == 0
        assert made.put({"nobody": 1}, SECOND_NS) == 0
        assert made.write(TICK.zeros(4)[::2], SECOND_NS) == 0
        assert made.write(TICK.zeros(0), SECOND_NS) == 0
    assert not made.send_committed(TICK.zeros(4)[::2], 1)
    assert not made.send_committed(LARGE.zeros(1), 1)
    published.writer.fast.shut()
    assert (made.put({"value": 1}, SECOND_NS), made.write(TICK.zeros(1), SECOND_NS)) == (0, 0)
    assert (published.writer.next, made.announced, published.received()) == (1, 1, [])


def test_no_records_are_no_packet(published: Published) -> None:
    published.made.wanted = True
    records = TICK.zeros(0)
    published.made.send_committed(records, published.writer.write(records, SECOND_NS))
    assert published.received() == []
    assert published.made.announced == 1


@pytest.mark.parametrize("published", [{"segment": 8}], indirect=True)
def test_what_it_sends_goes_on_across_segments(published: Published) -> None:
    made, writer = published.made, published.writer
    made.wanted = True
    for value in range(1, 101):
        if not made.put({"value": value}, SECOND_NS):
            records = TICK.build(value=value, flags=1)
            assert made.send_committed(records, writer.write(records, SECOND_NS))
    packets = published.received()
    assert [header.sequence for header, _ in packets] == list(range(1, 101))
    assert b"".join(content for _, content in packets) == logged(published, 1, 100)


def test_a_publication_begins_where_the_log_ends(published: Published) -> None:
    published.made.write(TICK.zeros(5), SECOND_NS)
    assert published.publication().announced == 6


def test_the_lock_has_one_holder() -> None:
    lock = SocketLock()
    inside, seen = [0], []

    def hold() -> None:
        for _ in range(300):
            with lock:
                inside[0] += 1
                seen.append(inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=hold, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert seen == [1] * 1200
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock:
        pass


HELD = """
import sys, threading, zmq
from pathlib import Path
from test_publication import *
from test_publication import Published
wire.load(backend.__file__, zmq.zmq_version())
published = Published(Path(sys.argv[1]), TICK, crc=False, segment=1000)
made = published.made
made.wanted = True
calls = {
    "put": lambda: made.put({"value": 1}, SECOND_NS),
    "write": lambda: made.write(TICK.zeros(1), SECOND_NS),
    "send": lambda: made.send_committed(TICK.zeros(1), 1),
}
with published.lock:
    thread = threading.Thread(target=calls[sys.argv[2]])
    thread.start()
    thread.join(0.05)  # turns of the interpreter's lock: who waits for the socket's has let go of it
    assert thread.is_alive()
    assert published.received() == []
    assert published.writer.next == (1 if sys.argv[2] == "send" else 2), "readers of the log do not wait for the socket"
thread.join()
assert len(published.received()) == 1
published.close()
"""


@pytest.mark.parametrize("call", ["put", "write", "send"])
def test_who_waits_for_the_socket_keeps_no_other_thread_from_running(tmp_path: Path, call: str) -> None:
    command = [sys.executable, "-c", HELD, str(tmp_path / "log"), call]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
