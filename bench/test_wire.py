"""One packet's way: encode ▸ (ZeroMQ) ▸ parse ▸ sequence check ▸ subscription machine ▸ reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, Run, Start
from native.packet import Header, Kind, ParseResult, crc32c, encode
from native.sequence import Tracker, Verdict
from nodes.records import QUOTE

COUNTS = (1, 16, 256)


@pytest.mark.parametrize("crc", [False, True], ids=["plain", "crc"])
@pytest.mark.parametrize("count", COUNTS)
def test_encode(benchmark: Any, count: int, crc: bool) -> None:
    records = QUOTE.zeros(count)
    frame = benchmark(encode, Kind.DATA, 1, 2, 3, 4, QUOTE.schema, QUOTE.size, count, records, crc)
    assert len(frame) == 48 + count * QUOTE.size


@pytest.mark.parametrize("crc", [False, True], ids=["plain", "crc"])
@pytest.mark.parametrize("count", COUNTS)
def test_parse(benchmark: Any, count: int, crc: bool) -> None:
    frame = encode(Kind.DATA, 1, 2, 3, 4, QUOTE.schema, QUOTE.size, count, QUOTE.zeros(count), crc)
    assert benchmark(Header().parse, frame) == ParseResult.OK


@pytest.mark.parametrize("portable", [False, True], ids=["dispatched", "portable"])
def test_crc32c_of_64_kib(benchmark: Any, portable: bool) -> None:
    content = np.arange(65_536, dtype=np.uint8).tobytes()
    assert benchmark(crc32c, content, 0, portable) == crc32c(content)


def test_sequence_check(benchmark: Any) -> None:
    tracker = Tracker()
    tracker.session = 1

    def accept_1000() -> None:
        for _ in range(1000):
            assert tracker.accept(1, tracker.delivered + 1, 1) == Verdict.IN_ORDER

    benchmark(accept_1000)


def test_subscription_machine_1000_packets_in_order(benchmark: Any) -> None:
    """Python's part of receiving: what the native receive loop is to replace."""
    records = QUOTE.zeros(1)

    def pass_1000() -> None:
        machine = Subscription(1, Start.first(), Limits(), schema=QUOTE.schema)
        machine.on_heartbeat(1 << 32, 1, 0)
        for sequence in range(1, 1001):
            machine.on_data(1 << 32, sequence, records, sequence)
            while (item := machine.take()) is not None:
                if isinstance(item, Run):
                    last = item.last
        assert last == 1000
        assert machine.counters.received == 1000

    benchmark(pass_1000)
