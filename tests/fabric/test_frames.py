"""Records as Arrow, polars and pandas tables; slices of a log."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import fabric
from fabric.channel import channel_id
from fabric.client import Batch
from fabric.errors import UserMistake
from fabric.frames import Tabular, is_time, to_batch
from fabric.log import LogOptions, LogWriter, open_log
from fabric.protocol.types import Origin, Run
from fabric.records import RecordType

pa = pytest.importorskip("pyarrow")
TICK = fabric.record(
    "tick", image="last", price="f8", side="u1", venue="S4", expiry_ns="i8", took_ns="u8", levels=("f8", (3,))
)
NAME = fabric.record("name", image="last", symbol="S32")
NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
NINE_NS = int(NINE.timestamp()) * 10**9


def ticks(count: int = 3) -> np.ndarray:
    records = TICK.build(
        count,
        ts_event_ns=NINE_NS + np.arange(count),
        instrument=1 + np.arange(count) % 2,
        price=np.arange(count) / 4,
        side=2,
        venue=b"XDRB",
        expiry_ns=NINE_NS,
        took_ns=7,
    )
    records["levels"] = [1.0, 2.0, math.nan]
    return records


def batch(records: np.ndarray, record: RecordType = TICK) -> Batch:
    return Batch.of("ticks", Run(Origin.LIVE, 1, 1, len(records), records), record, stale=False)


def written(directory: Path, channel: str, record: RecordType, parts: list[tuple[np.ndarray, int]]) -> Path:
    """A log of ``parts``: (records, publication time) each."""
    options = LogOptions(retain_bytes=1 << 20, segment_bytes=1 << 16)
    writer = LogWriter(directory / channel, channel, channel_id(channel), record, options, now_ns=NINE_NS)
    for records, now_ns in parts:
        writer.write(records, now_ns)
    writer.close()
    return directory / channel


def test_types_and_values_in_arrow() -> None:
    table = batch(ticks()).to_arrow()
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {
        "ts_event_ns": "timestamp[ns, tz=UTC]",
        "ts_origin_ns": "timestamp[ns, tz=UTC]",
        "ts_publish_ns": "timestamp[ns, tz=UTC]",
        "instrument": "uint32",
        "flags": "uint32",
        "price": "double",
        "side": "uint8",
        "venue": "string",
        "expiry_ns": "timestamp[ns, tz=UTC]",
        "took_ns": "uint64",
        "levels": "fixed_size_list<item: double>[3]",
    }
    assert table["price"].to_pylist() == [0.0, 0.25, 0.5]
    assert table["venue"].to_pylist() == ["XDRB"] * 3
    assert table["ts_event_ns"].cast("int64").to_pylist() == [NINE_NS, NINE_NS + 1, NINE_NS + 2]
    assert table["levels"].to_pylist()[0][:2] == [1.0, 2.0]
    assert batch(ticks(0)).to_arrow().num_rows == 0


ARRAYS = fabric.record(
    "arrays", venues=("S4", (3,)), expiries_ns=("i8", (2,)), grid=("f8", (2, 3)), sides=("S1", (2, 2))
)


def test_arrays_in_a_record_become_nested_lists() -> None:
    records = ARRAYS.zeros(2)
    records["venues"][1] = [b"XDRB", b"A", b""]
    records["expiries_ns"] = [[NINE_NS, NINE_NS + 1], [0, 1]]
    records["grid"] = np.arange(12.0).reshape(2, 2, 3)
    records["sides"][0] = [[b"a", b"b"], [b"c", b"d"]]
    table = batch(records, ARRAYS).to_arrow()
    assert {name: str(table.schema.field(name).type) for name in table.column_names[5:]} == {
        "venues": "fixed_size_list<item: string>[3]",
        "expiries_ns": "fixed_size_list<item: timestamp[ns, tz=UTC]>[2]",
        "grid": "fixed_size_list<item: fixed_size_list<item: double>[3]>[2]",
        "sides": "fixed_size_list<item: fixed_size_list<item: string>[2]>[2]",
    }
    assert table["venues"].to_pylist() == [["", "", ""], ["XDRB", "A", ""]]
    assert table["grid"].to_pylist() == np.arange(12.0).reshape(2, 2, 3).tolist()
    assert table["sides"].to_pylist()[0] == [["a", "b"], ["c", "d"]]
    expiries = table["expiries_ns"].combine_chunks().flatten().cast("int64")
    assert expiries.to_pylist() == [NINE_NS, NINE_NS + 1, 0, 1]


def test_tables_without_rows_keep_their_columns() -> None:
    pytest.importorskip("polars"), pytest.importorskip("pandas")
    for record in (TICK, ARRAYS):
        none, some = batch(record.zeros(0), record), batch(record.zeros(1), record)
        for symbols in (False, {1: "A"}, {}):
            assert none.to_arrow(symbols=symbols).schema == some.to_arrow(symbols=symbols).schema
            assert none.to_polars(symbols=symbols).columns == list(record.dtype.names or ())
            assert none.to_pandas(symbols=symbols).columns.tolist() == list(record.dtype.names or ())

    class Parts(Tabular):
        def _rows(self):
            return iter([TICK.zeros(0), TICK.zeros(0)])

    assert Parts().to_arrow().column_names == list(TICK.dtype.names or ())


def test_only_signed_64_bit_ns_fields_are_times() -> None:
    assert is_time("expiry_ns", np.dtype("<i8"))
    assert not is_time("took_ns", np.dtype("<u8"))
    assert not is_time("price", np.dtype("<i8"))


def test_ids_become_dictionary_encoded_symbols() -> None:
    column = to_batch(ticks(), {1: "BTC-A", 2: "BTC-B"})["instrument"]
    assert str(column.type) == "dictionary<values=string, indices=int32, ordered=0>"
    assert column.to_pylist() == ["BTC-A", "BTC-B", "BTC-A"]
    assert to_batch(ticks(), {2: "BTC-B"})["instrument"].to_pylist() == [None, "BTC-B", None], "not known: null"
    assert to_batch(ticks(), {})["instrument"].to_pylist() == [None] * 3
    with pytest.raises(UserMistake, match="no instrument definitions"):
        batch(ticks()).to_arrow(symbols=True)


def test_polars_and_pandas_and_the_c_stream() -> None:
    pl, pd = pytest.importorskip("polars"), pytest.importorskip("pandas")
    one = batch(ticks())
    assert one.to_polars()["price"].to_list() == [0.0, 0.25, 0.5]
    frame = one.to_pandas(symbols={1: "A", 2: "B"})
    assert frame["instrument"].tolist() == ["A", "B", "A"]
    assert str(frame["ts_event_ns"].dtype) == "datetime64[ns, UTC]"
    assert pa.table(one)["price"].to_pylist() == [0.0, 0.25, 0.5], "read through __arrow_c_stream__"
    assert pl.from_arrow(pa.table(one)).height == pd.DataFrame(frame).shape[0] == 3


def test_slices_of_a_log(tmp_path: Path) -> None:
    parts = [(ticks(1000), NINE_NS + second * 10**9) for second in range(5)]
    log = open_log(written(tmp_path, "x.tick", TICK, parts))
    assert log.next == 5001
    assert len(log[:]) == 5000
    some = log[10:20]
    assert (len(some), some.first, some.last) == (10, 10, 19)
    assert some.records["price"].tolist() == [index / 4 for index in range(9, 19)]
    assert some.sequences.tolist() == list(range(10, 20))
    assert some.to_arrow()["price"].to_pylist() == some.records["price"].tolist()
    across = log[1:5001]
    assert len(list(across.views())) > 3, "several segments"
    assert len(across.records) == across.to_arrow().num_rows == 5000
    assert log[-3:].sequences.tolist() == [4998, 4999, 5000]
    assert len(log[4990:9999]) == 11, "what is not there yet is not waited for"
    assert len(log[20:10]) == len(log[7000:8000]) == 0
    assert len(log[7000:8000].to_arrow()) == 0
    with pytest.raises(IndexError, match="below the first available"):
        log[0:10]
    with pytest.raises(IndexError, match="no step"):
        log[1:10:2]


def test_one_record_of_a_log(tmp_path: Path) -> None:
    log = open_log(written(tmp_path, "x.tick", TICK, [(ticks(1000), NINE_NS)]))
    row = log[3]
    assert isinstance(row, np.void)
    assert (row["price"], row["ts_event_ns"]) == (0.5, NINE_NS + 2)
    assert log[np.uint64(3)].tobytes() == row.tobytes() == log[-998].tobytes()
    assert log[-1]["price"] == 999 / 4
    for place in (0, 1001, -1001, 2**70):
        with pytest.raises(IndexError, match=f"no record {place}: 1 to 1000 are there"):
            log[place]


def test_numpy_and_pandas_bounds(tmp_path: Path) -> None:
    parts = [(ticks(100), NINE_NS + second * 10**9) for second in range(5)]
    log = open_log(written(tmp_path, "x.tick", TICK, parts))
    assert (log[np.int64(10) : np.uint32(20)].first, log[np.int8(-3) :].first) == (10, 498)
    assert log[np.datetime64(NINE_NS + 10**9, "ns") :].first == 101
    assert log[np.datetime64(NINE_NS + 10**9 + 1, "ns") :].first == 201
    pd = pytest.importorskip("pandas")
    assert log[pd.Timestamp(NINE_NS + 10**9, tz="UTC") :].first == 101
    assert log[pd.Timestamp(NINE_NS + 10**9 + 1, tz="UTC") :].first == 201


@pytest.mark.parametrize("bad", ["a", 1.5, True, np.True_, np.float64(2), (1,)])
def test_what_is_no_place_in_a_log_is_refused(tmp_path: Path, bad: object) -> None:
    log = open_log(written(tmp_path, "x.tick", TICK, [(ticks(), NINE_NS)]))
    for bounds in (slice(bad, None), slice(None, bad)):
        with pytest.raises(UserMistake, match="can't bound a range of a log"):
            log[bounds]
    with pytest.raises(UserMistake, match="asked for by its sequence"):
        log[bad]  # type: ignore[call-overload]


def test_slices_by_time(tmp_path: Path) -> None:
    parts = [(ticks(100), NINE_NS + second * 10**9) for second in range(5)]
    log = open_log(written(tmp_path, "x.tick", TICK, parts))
    two, three = NINE + timedelta(seconds=2), NINE + timedelta(seconds=3)
    assert (log[two:three].first, log[two:three].last) == (201, 300)
    assert (log[two + timedelta(microseconds=1) :].first) == 301
    assert len(log[NINE + timedelta(days=1) :]) == 0
    assert log.find_time(0) == 1
    with pytest.raises(UserMistake, match="no time zone"):
        log[datetime(2026, 3, 2) :]  # noqa: DTZ001


def test_a_log_takes_symbols_from_the_definitions_beside_it(tmp_path: Path) -> None:
    log = open_log(written(tmp_path, "x.tick", TICK, [(ticks(), NINE_NS)]))
    with pytest.raises(UserMistake, match="no instrument definitions"):
        log[:].to_arrow(symbols=True)
    names = NAME.build(instrument=[1, 2, 2], symbol=[b"BTC-A", b"old", b"BTC-B"])
    written(tmp_path, "x.instrument", NAME, [(names, NINE_NS)])
    assert log[:].to_arrow()["instrument"].to_pylist() == ["BTC-A", "BTC-B", "BTC-A"]
    assert log[:].to_arrow(symbols=False)["instrument"].to_pylist() == [1, 2, 1]
    whole = log[:].to_pandas(symbols=True)
    assert str(whole["instrument"].dtype) == "category"
