"""Faults where packets really leave: a publisher that holds some back, and a log server that keeps its replies back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import zmq

import fabric
from fabric.channel import channel_id, channel_prefix
from fabric.log.writer import LogOptions, LogWriter
from fabric.transport.faults import Fault, FaultPlan, OpenGate
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import FAULT_COUNTERS, Publisher
from fabric.transport.replay import fetch_range
from native.packet import Header, Kind, ParseResult

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", value="u8")
CHANNEL = channel_id("numbers")


@pytest.fixture
def writer(tmp_path: Path) -> LogWriter:
    return LogWriter(tmp_path / "numbers", "numbers", CHANNEL, NUMBER, LogOptions(), now_ns=time.time_ns())


class Ear:
    """A SUB socket that hears one channel of one publisher, and its packets parsed."""

    def __init__(self, endpoint: str) -> None:
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, channel_prefix(CHANNEL))
        self._socket.connect(endpoint)

    def hear(self, timeout_s: float = 5.0) -> tuple[int, Header]:
        """(ParseResult, header) of the next packet."""
        assert self._socket.poll(int(timeout_s * 1000)), "no packet came"
        header = Header()
        return header.parse(self._socket.recv()), header

    def quiet(self, for_s: float) -> bool:
        return not self._socket.poll(int(for_s * 1000))

    def close(self) -> None:
        self._socket.close()


def number(value: int) -> fabric.Records:
    records = NUMBER.build(1)
    records["value"] = value
    return records


def test_a_delayed_packet_leaves_though_nothing_follows_it(short_directory: Path, writer: LogWriter) -> None:
    gate = OpenGate(off=True)
    injector = FaultPlan(delay=0.999, delay_for_ns=200_000_000, seed=1).injector("feed", gate)
    with Publisher([f"ipc://{short_directory}/data"], heartbeat_ns=3600 * 10**9, fault=injector) as publisher:
        channel = publisher.add(writer)
        ear = Ear(publisher.endpoints[0])
        ear.hear()  # the heartbeat that answers the subscription
        gate.off = False
        channel.write(number(1), time.time_ns())
        assert writer.control.counter(FAULT_COUNTERS[Fault.DELAYED]) == 1
        result, header = ear.hear()
        assert (result, header.kind, header.sequence) == (ParseResult.OK, Kind.DATA, 1)
        ear.close()
    writer.close()


def test_a_corrupt_packet_is_no_packet(short_directory: Path, writer: LogWriter) -> None:
    gate = OpenGate(off=True)
    injector = FaultPlan(corrupt=0.999, seed=1).injector("feed", gate)
    with Publisher([f"ipc://{short_directory}/data"], heartbeat_ns=3600 * 10**9, fault=injector) as publisher:
        channel = publisher.add(writer)  # with a CRC, because packets are corrupted
        ear = Ear(publisher.endpoints[0])
        ear.hear()
        gate.off = False
        for value in range(50):
            channel.write(number(value), time.time_ns())
        gate.off = True
        channel.write(number(50), time.time_ns())
        heard = []
        while (found := ear.hear())[0] != ParseResult.OK:
            heard.append(found[0])
        assert found[1].sequence == 51
        assert heard  # but for those whose channel was changed, which nobody is subscribed to
        for fault in (Fault.CORRUPTED, Fault.DROPPED):
            assert writer.control.counter(FAULT_COUNTERS[fault]) == 50
        ear.close()
    writer.close()


def test_while_cut_off_nothing_leaves_not_even_heartbeats(short_directory: Path, writer: LogWriter) -> None:
    gate = OpenGate()
    injector = FaultPlan().injector("feed", gate)
    with Publisher([f"ipc://{short_directory}/data"], heartbeat_ns=1_000_000, fault=injector) as publisher:
        channel = publisher.add(writer)
        ear = Ear(publisher.endpoints[0])
        ear.hear()
        gate.cut_until_ns = 2**62
        while not ear.quiet(0.05):
            ear.hear()
        channel.write(number(1), time.time_ns())
        assert ear.quiet(0.1)
        gate.cut_until_ns = 0
        assert ear.hear()[1].sequence == 2  # a heartbeat, which tells what was missed
        assert writer.control.counter(FAULT_COUNTERS[Fault.CUT]) > 1
        ear.close()
    writer.close()


def test_a_log_server_answers_for_none_that_is_cut_off(short_directory: Path, writer: LogWriter) -> None:
    writer.write(number(7), time.time_ns())
    cut = [True]
    server = LogServer(
        [f"ipc://{short_directory}/replay"], {CHANNEL: writer.directory}.get, cut=lambda _: cut[0]
    ).start()
    try:
        ask = server.endpoints[0], "numbers", NUMBER, writer.session, 1, 1
        assert fetch_range(*ask, timeout=0.2) is None
        cut[0] = False
        records = fetch_range(*ask)
        assert records is not None
        assert records["value"].tolist() == [7]
    finally:
        server.close()
        writer.close()
