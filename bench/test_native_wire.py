"""native.wire beside pyzmq: one 64-byte record out, and a thousand packets in, over inproc (no I/O thread in between)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.backend.cython._zmq as backend

from native import wire
from native.packet import Kind, encode
from native.sequence import Tracker

SESSION, CHANNEL, SCHEMA, RECORD_BYTES, PACKETS = 1 << 32, 5, 9, 64, 1000
RECORDS = np.zeros(PACKETS * RECORD_BYTES, dtype=np.uint8)


@pytest.fixture
def sockets() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    if not wire.load(backend.__file__, zmq.zmq_version()):
        pytest.skip("this pyzmq's libzmq can't be called natively")
    context = zmq.Context()
    pub, sub = context.socket(zmq.XPUB), context.socket(zmq.SUB)
    for socket in (pub, sub):
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
    pub.bind("inproc://bench")
    sub.setsockopt(zmq.SUBSCRIBE, CHANNEL.to_bytes(8, "little"))
    sub.connect("inproc://bench")
    assert pub.poll(5000)
    pub.recv()
    yield pub, sub
    context.destroy(linger=0)


def send_many(pub: zmq.Socket[bytes], first: int) -> None:
    sent = wire.Outlet(pub.underlying).send_records(
        RECORDS, 0, PACKETS, RECORD_BYTES, CHANNEL, SESSION, first, SCHEMA, 1
    )
    assert sent == PACKETS


@pytest.mark.parametrize("how", ["native", "pyzmq"])
def test_send_one_record(benchmark: Any, sockets: Any, how: str) -> None:
    """Header, copy and hand-over; what is sent is thrown away between rounds."""
    pub, sub = sockets
    outlet = wire.Outlet(pub.underlying)

    def empty() -> None:
        while sub.poll(0):
            sub.recv()

    def native() -> None:
        for n in range(PACKETS):
            outlet.send_records(RECORDS, n, 1, RECORD_BYTES, CHANNEL, SESSION, n + 1, SCHEMA, 1)

    def pyzmq() -> None:
        for n in range(PACKETS):
            record = RECORDS[n * RECORD_BYTES : (n + 1) * RECORD_BYTES]
            frame = encode(Kind.DATA, CHANNEL, SESSION, n + 1, 1, SCHEMA, RECORD_BYTES, 1, record)
            pub.send(frame, zmq.DONTWAIT)

    benchmark.pedantic(native if how == "native" else pyzmq, setup=empty, rounds=50)


@pytest.mark.parametrize("channels", [1, 1000])
def test_drain_1000_packets(benchmark: Any, sockets: Any, channels: int) -> None:
    pub, sub = sockets
    inlet = wire.Inlet()
    inlet.add_socket(sub.underlying, int(sub.FD))
    lanes = []
    for n in range(channels):
        tracker = Tracker()
        tracker.session = SESSION
        lane = inlet.add_lane(CHANNEL + n, SCHEMA, RECORD_BYTES, tracker, 1 << 20)
        assert lane.resume()
        lanes.append(lane)
        sub.setsockopt(zmq.SUBSCRIBE, (CHANNEL + n).to_bytes(8, "little"))
    outlet = wire.Outlet(pub.underlying)
    while pub.poll(0):
        pub.recv()

    def fill() -> None:
        for lane in lanes:
            while lane.take() is not None:
                pass
        for n in range(PACKETS):
            lane = lanes[n % channels]
            sequence = lane.tracker.delivered + 1 + n // channels
            outlet.send_records(RECORDS, n, 1, RECORD_BYTES, lane.channel, SESSION, sequence, SCHEMA, 1)

    benchmark.pedantic(inlet.drain, setup=fill, rounds=50)
    assert inlet.packets == inlet.records == 50 * PACKETS


def test_pyzmq_receives_1000_packets(benchmark: Any, sockets: Any) -> None:
    """What drain is to be compared with; nothing is parsed or checked here yet."""
    pub, sub = sockets

    def receive() -> None:
        for _ in range(PACKETS):
            sub.recv(zmq.DONTWAIT)

    benchmark.pedantic(receive, setup=lambda: send_many(pub, 1), rounds=50)


def test_take_1000_records(benchmark: Any, sockets: Any) -> None:
    """One run of 64 KB out of the ring: a view."""
    pub, sub = sockets
    inlet = wire.Inlet()
    inlet.add_socket(sub.underlying, int(sub.FD))
    tracker = Tracker()
    tracker.session = SESSION
    lane = inlet.add_lane(CHANNEL, SCHEMA, RECORD_BYTES, tracker, 1 << 22)
    assert lane.resume()

    def fill() -> None:
        while lane.take() is not None:
            pass
        send_many(pub, tracker.delivered + 1)
        assert inlet.drain() == PACKETS

    benchmark.pedantic(lane.take, setup=fill, rounds=50)
