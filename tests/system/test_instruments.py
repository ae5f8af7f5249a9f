"""Definitions as the client keeps them, and choosing records by symbol while definitions are still on their way."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

import fabric
from fabric.errors import ConfigError, NotConnected, UserMistake
from nodes.records import INSTRUMENT, QUOTE, Kind

pytestmark = pytest.mark.system
MARCH = datetime(2026, 3, 27, 8, tzinfo=UTC)
JUNE = datetime(2026, 6, 26, 8, tzinfo=UTC)


def ns(time_given: datetime) -> int:
    return int(time_given.timestamp()) * 10**9


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[tuple[Path, fabric.ChannelWriter, fabric.ChannelWriter]]:
    """A config with two channels of other programs, and the programs: definitions and quotes."""
    folder = Path("/tmp") / f"zmf-test-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    config = tmp_path / "desk.toml"
    tables = "".join(
        f'[channels."x.{name}"]\nconnect = "ipc://{folder}/{name}"\nreplay = "ipc://{folder}/{name}.replay"\n'
        for name in ("instrument", "quote")
    )
    config.write_text(f'[nodes.feed]\nuse = "feed.simulated"\noutputs = {{ quote = "d.quote" }}\n{tables}')
    with (
        fabric.publish("x.instrument", INSTRUMENT, config=config, log_dir=tmp_path / "i") as definitions,
        fabric.publish("x.quote", QUOTE, config=config, log_dir=tmp_path / "q") as quotes,
    ):
        yield config, definitions, quotes
    shutil.rmtree(folder)


def define(out: fabric.ChannelWriter, number: int, symbol: str, strike: float, kind: Kind, expiry: datetime) -> None:
    out.send(
        instrument=number, symbol=symbol.encode(), underlying=symbol[:3].encode(), strike=strike, kind=int(kind),
        expiry_ns=ns(expiry),
    )  # fmt: skip


def test_symbols_ids_and_chains(
    desk: tuple[Path, fabric.ChannelWriter, fabric.ChannelWriter], waiting: Callable[..., Any]
) -> None:
    config, definitions, _ = desk
    with fabric.connect(config) as client:
        instruments = client.instruments
        assert len(instruments.wait(timeout=10)) == 0
        with pytest.raises(UserMistake, match="no instrument is defined yet"):
            instruments.chain("BTC", MARCH)
        define(definitions, 4, "BTC-MAR-P60", 60.0, Kind.PUT, MARCH)
        define(definitions, 3, "BTC-MAR-C60", 60.0, Kind.CALL, MARCH)
        define(definitions, 2, "BTC-MAR-C50", 50.0, Kind.CALL, MARCH)
        define(definitions, 5, "BTC-JUN-C50", 50.0, Kind.CALL, JUNE)
        define(definitions, 1, "BTC-PERPETUAL", 0.0, Kind.PERPETUAL, datetime(1970, 1, 1, tzinfo=UTC))
        define(definitions, 6, "ETH-MAR-C5", 5.0, Kind.CALL, MARCH)
        waiting(lambda: len(instruments) == 6, "definitions")
        assert instruments.ids("BTC-*").tolist() == [1, 2, 3, 4, 5]
        assert instruments.ids("*-C5", "BTC-P*").tolist() == [1, 6]
        assert (instruments.symbol(5), instruments.symbol(9)) == ("BTC-JUN-C50", None)
        assert int(instruments["BTC-JUN-C50"]["instrument"]) == 5
        assert instruments.expiries("BTC").tolist() == [ns(MARCH), ns(JUNE)]
        for expiry in (MARCH, date(2026, 3, 27), ns(MARCH), instruments.expiries("BTC")[0]):
            assert instruments.chain("BTC", expiry)["instrument"].tolist() == [2, 3, 4], "by strike, calls first"
        assert len(instruments.chain("BTC", date(2026, 3, 28))) == 0
        assert sorted(instruments) == sorted(instruments.symbols().values())
        define(definitions, 5, "BTC-JUN-C50", 51.0, Kind.CALL, JUNE)
        waiting(lambda: instruments["BTC-JUN-C50"]["strike"] == 51.0, "the later definition")


def test_records_wait_a_moment_for_their_definitions(
    desk: tuple[Path, fabric.ChannelWriter, fabric.ChannelWriter],
) -> None:
    config, definitions, quotes = desk
    define(definitions, 1, "BTC-A", 1.0, Kind.CALL, MARCH)
    with fabric.connect(config) as client:
        chosen = client.subscribe("x.quote", symbols="BTC-*", start="first")
        quotes.send(instrument=[1, 2, 3], bid=[1.0, 2.0, 3.0])  # 2 and 3 are not defined yet
        define(definitions, 2, "BTC-B", 1.0, Kind.CALL, MARCH)
        define(definitions, 3, "ETH-A", 1.0, Kind.CALL, MARCH)
        batch = chosen.poll(timeout=10)
        assert batch is not None
        assert batch.records["bid"].tolist() == [1.0, 2.0]
        assert batch.sequences.tolist() == [1, 2]
        assert not batch.contiguous
        assert batch.to_arrow(symbols=True)["instrument"].to_pylist() == ["BTC-A", "BTC-B"]
        quotes.send(instrument=[9, 1], bid=[9.0, 1.0])  # 9 never is: after a moment the others go on
        batch = chosen.poll(timeout=10)
        assert batch is not None
        assert batch.records["bid"].tolist() == [1.0]


def test_without_definitions_symbols_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "none.toml"
    config.write_text('[nodes.feed]\nuse = "feed.simulated"\noutputs = { quote = "d.quote" }\n')
    with fabric.connect(config) as client:
        with pytest.raises(ConfigError, match="no channel of instrument definitions"):
            client.subscribe("d.quote", symbols="BTC-*")
        with pytest.raises(NotConnected):
            client.subscribe("d.quote").wait_live(0.1)


def test_symbols_are_there_at_the_first_call_in_an_event_loop(
    desk: tuple[Path, fabric.ChannelWriter, fabric.ChannelWriter],
) -> None:
    config, definitions, quotes = desk
    define(definitions, 1, "BTC-A", 1.0, Kind.CALL, MARCH)

    async def main() -> None:
        async with fabric.connect(config) as client:
            subscription = client.subscribe("x.quote", start="first")
            quotes.send(instrument=1, bid=1.0)
            batch = await subscription.poll_async(timeout=10)
            assert batch is not None
            assert batch.to_arrow(symbols=True)["instrument"].to_pylist() == ["BTC-A"]
            assert (await client.instruments.wait_async(10)).ids("*").tolist() == [1]
            with pytest.raises(UserMistake, match="await wait_async"):
                client.instruments.wait(1)

    asyncio.run(asyncio.wait_for(main(), 30))
