"""What a type checker sees of the client. Never run: mypy and pyright read it (test_types.py, ``make lint``)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, assert_type

import numpy as np
import numpy.typing as npt

import fabric
from fabric.client import Batch, ChannelWriter, Client, Instruments, Subscription, Table
from fabric.protocol.types import Counters, State
from fabric.records import RecordType


def subscribing() -> None:
    with fabric.subscribe("demo.greeks", config="configs/demo.toml", symbols="BTC-*") as greeks:
        assert_type(greeks, Subscription)
        assert_type(greeks.state, State)
        assert_type(greeks.counters, Counters)
        assert_type(greeks.poll(max_records=10, timeout=1.0), Batch | None)
        assert_type(iter(greeks), Iterator[Batch])
        for batch in greeks:
            assert_type(batch, Batch)
            assert_type(batch.records, npt.NDArray[np.void])
            assert_type(batch.origin, Literal["live", "replay", "snapshot"])
            assert_type(batch.as_of, int | None)
            assert_type(batch.sequences, npt.NDArray[np.uint64])
    assert_type(fabric.subscribe("x", start=datetime.now(UTC)).start(print), Subscription)
    slow = fabric.subscribe("x", policy="fail", max_behind=1000, max_age="250ms", clock_ns=lambda: 0)
    assert_type(slow.condition, fabric.Condition)
    assert_type(fabric.subscribe("x", policy="latest").counters.conflated, int)


async def in_a_loop() -> None:
    async with fabric.connect("configs/demo.toml") as client:
        assert_type(client, Client)
        both = client.subscribe("demo.quote", "demo.trade", symbols=["BTC-*", "ETH-*"], on_state=lambda change: None)
        assert_type(await both.poll_async(timeout=1.0), Batch | None)
        assert_type(await anext(both), Batch)
        async for batch in both:
            assert_type(batch, Batch)


def looking_up() -> None:
    with fabric.connect() as client:
        assert_type(client.instruments, Instruments)
        assert_type(client.instruments.ids("BTC-*"), npt.NDArray[np.uint32])
        assert_type(client.instruments["BTC-PERPETUAL"], np.void)
        assert_type(client.instruments.chain("BTC", 0), npt.NDArray[np.void])
        table = client.table("demo.greeks")
        assert_type(table, Table)
        assert_type(table.get("BTC-PERPETUAL"), np.void | None)
        assert_type(table.records, npt.NDArray[np.void])
        assert_type(table.state_of("BTC-PERPETUAL"), fabric.Condition | None)


def writing() -> None:
    signal = fabric.record("signal", value="f8")
    assert_type(signal, RecordType)
    with fabric.publish("desk.signal", signal, listen="tcp://127.0.0.1:*", replay="tcp://127.0.0.1:*") as out:
        assert_type(out, ChannelWriter)
        assert_type(out.send(value=[0.25, 0.5]), int)


def mistakes(client: Client) -> None:
    """Each of these lines must be an error: an unused ignore is reported."""
    client.subscribe(1)  # type: ignore[arg-type]
    client.subscribe("x", start=1.5)  # type: ignore[arg-type]
    fabric.subscribe("x", symbol="BTC-*")  # type: ignore[call-arg]
    client.table("x").nothing  # type: ignore[attr-defined]  # noqa: B018
