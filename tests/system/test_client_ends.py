"""How clients end, and what is said of what has ended; one part's trouble is no other's."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.client.instruments import Instruments, SymbolFilter
from fabric.client.table import Table
from fabric.errors import Closed, ConfigError, UserMistake
from fabric.protocol.events import Session, Skipped
from fabric.protocol.types import Origin, Run
from nodes.records import BOOK, INSTRUMENT

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", image="last", key=("instrument",), value="u8")
PAIR = fabric.record("pair", image="last", key=("side", "label"), side="u1", label="S8", value="f8")


def publish(endpoints: tuple[str, str], tmp_path: Path, **more: Any) -> fabric.ChannelWriter:
    return fabric.publish("numbers", NUMBER, listen=endpoints[0], replay=endpoints[1], log_dir=tmp_path / "log", **more)


def where(endpoints: tuple[str, str]) -> dict[str, str]:
    return {"data": endpoints[0], "replay": endpoints[1]}


class Fed:
    """A feed that is given its runs and events by the test."""

    def __init__(self, record: fabric.RecordType, *items: Any) -> None:
        self.record, self.items, self.gone = record, list(items), None
        self.channel, self.waiting_records = "x", 0
        self.receiver = self

    def take(self) -> Any:
        return self.items.pop(0) if self.items else None

    def state_changed(self) -> bool:
        return False

    def note(self, item: Any) -> None: ...


class NoHub:
    owner = None

    def add(self, sink: Any, channels: Any) -> None: ...
    def forget(self, channels: Any) -> None: ...
    def check(self) -> None: ...


def table_of(fed: Any, client: Any = None) -> Table:
    return Table(client, NoHub(), fed)  # type: ignore[arg-type]


def snapshot(record: fabric.RecordType, as_of: int, **columns: Any) -> Run:
    rows = record.build(**columns)
    return Run(Origin.SNAPSHOT, 1, 0, as_of, rows, np.arange(1, len(rows) + 1, dtype=np.uint64).tobytes())


def test_a_snapshot_in_mid_stream_takes_the_place_of_what_a_book_table_held() -> None:
    fed = Fed(BOOK, snapshot(BOOK, 10, instrument=1, price=[100.0, 101.0]))
    table = table_of(fed)
    table.move([fed])
    assert table.records["price"].tolist() == [100.0, 101.0]
    fed.items = [Skipped(1, 11, 500), snapshot(BOOK, 500, instrument=1, price=[101.0])]
    table.move([fed])
    assert table.records["price"].tolist() == [101.0], "the other level was removed in what was skipped"
    assert table.as_of == 500


def test_keys_are_exact() -> None:
    fed = Fed(PAIR, snapshot(PAIR, 2, side=[1, 1], label=[b"BTC-PERP", b"ETH"], value=[1.0, 2.0]))
    table = table_of(fed)
    table.move([fed])
    assert table[1, "BTC-PERP"]["value"] == 1.0
    assert table[np.uint8(1), b"ETH"]["value"] == 2.0
    for missing in ((1, "BTC-PERPETUAL"), (1, "ETH\0"), (257, "ETH"), (-1, "ETH"), (2, "ETH")):
        assert missing not in table
        with pytest.raises(KeyError):
            table[missing]
    assert (np.uint8(1), b"ETH") in table
    assert (1.5, "ETH") not in table
    with pytest.raises(UserMistake, match=r"1\.5 is no whole number"):
        table[1.5, "ETH"]


def test_symbols_and_ids_that_move_leave_nothing_behind() -> None:
    rows = INSTRUMENT.build(instrument=[1, 2, 5, 2], symbol=[b"A-1", b"A-2", b"A-1", b"B-2"])
    fed = Fed(INSTRUMENT, Run(Origin.LIVE, 1, 1, 4, rows))
    instruments = Instruments(NoHub(), [fed])  # type: ignore[arg-type, list-item]
    instruments.move([fed])
    assert instruments.symbols() == {5: "A-1", 2: "B-2"}
    assert sorted(instruments) == ["A-1", "B-2"]
    fed.items = [Session(1, 2), Run(Origin.LIVE, 2, 1, 1, INSTRUMENT.build(instrument=7, symbol=b"C"))]
    instruments.move([fed])
    assert instruments.symbols() == {7: "C"}


def test_what_nobody_defines_is_waited_for_once() -> None:
    fed = Fed(INSTRUMENT, Run(Origin.LIVE, 1, 1, 1, INSTRUMENT.build(instrument=1, symbol=b"A-1")))
    instruments = Instruments(NoHub(), [fed])  # type: ignore[arg-type, list-item]
    instruments.move([fed])
    chosen = SymbolFilter(("A-*",), instruments)
    records = NUMBER.build(instrument=[1, 999], value=1)
    assert chosen.unknown(records)
    chosen.give_up(records)
    assert not chosen.unknown(records)
    assert chosen.unknown(NUMBER.build(instrument=[1, 998], value=1)), "another one is given its moment"
    assert chosen.choose(records).tolist() == [0]


def test_what_is_not_kept_current_says_so(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out:
        out.send(instrument=1, value=1)
        client = fabric.connect()
        table = client.table("numbers", **where(endpoints))
        closed = client.table("numbers", **where(endpoints))
        numbers = client.subscribe("numbers", **where(endpoints))
        table.wait_live(10)
        closed.wait_live(10)
        assert (table.state, table.stale) == ("LIVE", False)
        closed.close()
        closed.close()
        assert (closed.state, closed.stale, closed[1]["value"]) == ("CLOSED", True, 1)
        with pytest.raises(Closed):
            closed.wait_live(1)
        client.close()
        assert (table.state, table.stale, numbers.state) == ("CLOSED", True, "CLOSED")
        assert table[1]["value"] == 1, "what it holds stays readable"


def test_a_callback_that_raises_ends_its_own_subscription_alone(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def bad(change: fabric.StateChange) -> None:
        raise LookupError("mine")

    with publish(endpoints, tmp_path) as out, fabric.connect() as client:
        good = client.subscribe("numbers", **where(endpoints), start="first")
        table = client.table("numbers", **where(endpoints))
        broken = client.subscribe("numbers", **where(endpoints), start="first", on_state=bad)
        waiting(lambda: broken.state == "FAILED", "its failure")
        assert "failed and is not fed any more" in caplog.text
        with pytest.raises(LookupError, match="mine"):
            broken.poll(timeout=10)
        out.send(instrument=1, value=5)
        batch = good.poll(timeout=10)
        assert batch is not None
        waiting(lambda: 1 in table, "the table")
        assert not client.closed


def test_one_subscription_in_one_loop_after_another(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out:
        numbers = fabric.subscribe("numbers", **where(endpoints), start="first")
        got = []

        async def one() -> None:
            async for batch in numbers:
                got.extend(batch.records["value"].tolist())
                return

        for value in (1, 2, 3):
            out.send(value=value)
            asyncio.run(asyncio.wait_for(one(), 20))
        assert got == [1, 2, 3]
        numbers.close()


def test_a_client_whose_loop_has_ended_says_so(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path):

        async def begin() -> fabric.Client:
            client = fabric.connect()
            client.drive_by_loop()
            client.subscribe("numbers", **where(endpoints))
            return client

        client = asyncio.run(begin())
        raised: list[BaseException] = []

        def elsewhere() -> None:
            try:
                client.subscribe("numbers", **where(endpoints))
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert isinstance(raised[0], Closed)
        assert "loop that received for this client has ended" in str(raised[0])
        client.close()


def test_dropped_subscriptions_and_tables_give_back_their_sockets(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    with publish(endpoints, tmp_path) as out, fabric.connect() as client:
        keep = client.subscribe("numbers", **where(endpoints), start="first")
        keep.wait_live(10)
        before = open_files()
        for _ in range(50):
            client.subscribe("numbers", **where(endpoints), start="first").wait_live(10)
            client.table("numbers", **where(endpoints)).wait_live(10)
        gc.collect()
        waiting(lambda: len(client._hub._machines) == 1, "the others to be forgotten")
        waiting(lambda: open_files() <= before + 10, "their sockets to be closed")
        out.send(value=1)
        assert keep.poll(timeout=10) is not None


def test_waiting_in_the_loop_is_refused_and_has_another_form(endpoints: tuple[str, str], tmp_path: Path) -> None:
    async def main() -> None:
        with publish(endpoints, tmp_path) as out:
            out.send(instrument=1, value=1)
            async with fabric.connect() as client:
                table = client.table("numbers", **where(endpoints))
                with pytest.raises(UserMistake, match="await wait_live_async"):
                    table.wait_live(1)
                await table.wait_live_async(10)
                assert table[1]["value"] == 1

    asyncio.run(asyncio.wait_for(main(), 30))


def test_times_to_come_and_what_is_no_start_are_refused(endpoints: tuple[str, str]) -> None:
    from datetime import UTC, datetime, timedelta

    with fabric.connect() as client:
        for start, said in (
            (datetime.now(UTC) + timedelta(hours=1), "is still to come"),
            (1.5, "is not a sequence"),
            (None, "is not a sequence"),
        ):
            with pytest.raises(ConfigError, match=said):
                client.subscribe("numbers", **where(endpoints), start=start)  # type: ignore[arg-type]


def test_an_empty_range_of_lost_records_reads_as_what_it_is() -> None:
    assert "from record 111 on some may be lost" in str(fabric.RecordsLost("x", 111, 110, "the log is gone"))
    assert "records 1 to 3 are lost" in str(fabric.RecordsLost("x", 1, 3, "the log is gone"))
