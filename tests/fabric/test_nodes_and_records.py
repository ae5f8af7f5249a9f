"""Record declarations, ports, checkpoints, pages, units: the small parts that everything rests on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fabric
from fabric import Flags, Input, Node, Output
from fabric.channel import channel_id, check_channel_name
from fabric.errors import ConfigError, LogDamaged, RecordTypeError, UserMistake
from fabric.protocol.events import Lost
from fabric.records import RecordType, find_record
from fabric.runtime import ports
from fabric.runtime.checkpoint import CHECKPOINT, load_checkpoint, pack, seal, unpack
from fabric.runtime.page import NodePage, page_names
from fabric.runtime.ports import OutputPort
from fabric.testing import LossyLine, ManualClock, check_restart, make_records, packets, random_records, run_node
from fabric.units import format_bytes, format_ns, parse_bytes, parse_duration_ns
from nodes.records import BOOK, GREEKS, INSTRUMENT, QUOTE, TRADE

SKEW = fabric.record("skew", put_iv="f8", call_iv="f8")


class Skew(Node):
    greeks = Input("greeks")
    skew = Output(SKEW)
    wing: float = 0.25

    def on_records(self, channel, records, now_ns):
        delta, iv = records["delta"], records["iv"]
        put, call = abs(delta + self.wing).argmin(), abs(delta - self.wing).argmin()
        self.skew.append(put_iv=iv[put], call_iv=iv[call], cause=records)


def test_layout_and_schema_are_what_they_were() -> None:
    assert {r.name: (r.size, f"{r.schema:08x}") for r in (QUOTE, TRADE, BOOK, INSTRUMENT, GREEKS)} == {
        "quote": (64, "b5b6c47b"), "trade": (64, "5047fbf6"), "book": (64, "6394a114"),
        "instrument": (128, "e0507017"), "greeks": (128, "a74959e8"),
    }  # fmt: skip
    again = RecordType.from_description(QUOTE.describe())
    assert (again.dtype, again.schema, again.image, again.key) == (QUOTE.dtype, QUOTE.schema, "last", ("instrument",))
    assert fabric.record("a", x="u1", y="f8", z="u2").size == 56
    assert find_record("greeks") is GREEKS


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "has no fields"),
        ({"class": "f8"}, "can't be a field name"),
        ({"flags": "f8"}, "can't be a field name"),
        ({"x": "O"}, "Python objects"),
        ({"x": "V8"}, "raw bytes can't be in a record"),
        ({"x": "f8,f8"}, "raw bytes can't be in a record"),
        ({"x": ("V8", (2,))}, "raw bytes can't be in a record"),
        ({"x": "c16"}, "complex numbers can't be in a record"),
        ({"x": ("f8", (0,))}, "arrays of no length"),
        ({"x": ("f8", (-1,))}, "field 'x'"),
        ({"image": "f8"}, "image='f8' is not one of .*a field can't be called that"),
        ({"key": "f8"}, "key='f8' is not a tuple of field names .*a field can't be called that"),
        ({"key": ("f8", (3,))}, "is not a tuple of field names"),
        ({"x": "wibble"}, "wibble"),
        ({"x": "S40000"}, "size"),
    ],
)
def test_bad_declarations_are_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(RecordTypeError, match=said):
        fabric.record("bad", **fields)  # type: ignore[arg-type]


def test_a_field_may_be_called_name() -> None:
    assert fabric.record("named", name="S8").fields().endswith("flags, name")


def test_other_descriptions_are_refused() -> None:
    good = QUOTE.describe()
    for bad in ({}, {**good, "schema": 1}, {**good, "fields": [["x", "O", [], 0]]}, {**good, "size": 60}):
        with pytest.raises(RecordTypeError):
            RecordType.from_description(bad)
    with pytest.raises(RecordTypeError, match="no record type is called"):
        find_record("no-such")


def test_cause_is_inherited() -> None:
    node = Skew("skew", inputs={"greeks": "g"}, outputs={"skew": "s"}, config={"wing": 0.1})
    greeks = GREEKS.build(
        instrument=[1, 2, 3], ts_event_ns=[10, 20, 30], ts_origin_ns=[7, 0, 5], flags=[0, Flags.STALE, 0],
        delta=[-0.5, 0.1, 0.6], iv=[0.7, 0.5, 0.6],
    )  # fmt: skip
    clock = ManualClock(1000)
    out = run_node(node, [("greeks", greeks), ("greeks", greeks[:1])], clock=clock, step_ns=10)["skew"]
    assert out["instrument"].tolist() == [3, 1]
    assert out["ts_event_ns"].tolist() == [30, 10]
    assert out["ts_origin_ns"].tolist() == [5, 7], "the oldest that is known"
    assert out["flags"].tolist() == [Flags.STALE | Flags.LAST_IN_EVENT, Flags.LAST_IN_EVENT]
    assert out["ts_publish_ns"].tolist() == [1000, 1010]
    assert out["call_iv"].tolist() == [0.5, 0.7]
    assert clock.monotonic_ns() == 20


def test_an_output_has_room_for_what_one_cycle_makes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_MOST_STAGED_BYTES", 100 * SKEW.size)
    port = OutputPort("skew", SKEW, "skews")
    port.reserve(100)
    with pytest.raises(UserMistake, match="129 records in one cycle"):
        port.reserve(29)  # room for 128 is there
    assert port.flush(1) == port.staged_most == 100


def test_appending_what_does_not_fit_is_refused() -> None:
    node = Skew("skew", inputs={"greeks": "g"}, outputs={"skew": "s"})
    with pytest.raises(RecordTypeError, match="no field 'put'"):
        node.skew.append(put=1.0)
    with pytest.raises(RecordTypeError, match="takes RecordType"):
        node.skew.append(GREEKS.zeros(1))
    view = node.skew.reserve(200)
    view["put_iv"] = 1.0
    assert node.skew.staged == 200
    with pytest.raises(ConfigError, match=r"unknown keys \['wign'\]"):
        Skew("skew", config={"wign": 1})


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**130), 2**130) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 2**40), inner),
    max_leaves=10,
)


@given(plain)
def test_checkpoints_keep_plain_data(value: object) -> None:
    assert unpack(pack(value)) == value


def test_checkpoints_keep_arrays_and_refuse_the_rest(tmp_path: Path) -> None:
    book = BOOK.build(price=[1.0, 2.0], side=[1, 2])
    state = {"book": book, "shape": np.arange(6.0).reshape(2, 3), "number": np.float64(0.5)}
    assert load_checkpoint(tmp_path) is None
    (tmp_path / CHECKPOINT).write_bytes(seal(state))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["book"].dtype == BOOK.dtype
    assert loaded["book"].tolist() == book.tolist()
    assert (loaded["shape"] == state["shape"]).all()
    assert loaded["shape"].flags.writeable
    with pytest.raises(TypeError, match="can't hold set"):
        pack({1})
    with pytest.raises(TypeError, match="Python objects"):
        pack(np.array([object()]))
    (tmp_path / "checkpoint").write_bytes(b"\xc1junk")
    with pytest.raises(LogDamaged, match="remove it to start fresh"):
        load_checkpoint(tmp_path)


def test_a_page_keeps_its_counts_for_the_next_life(tmp_path: Path) -> None:
    counters, histograms = page_names(["quote"], ["feed>pricing"])
    page = NodePage(tmp_path / "page", counters, histograms)
    page.add("cycles", 5)
    page.set("in.quote.received", 2**63)
    page.histograms["feed>pricing"].record(1000)
    again = NodePage(tmp_path / "page", counters, histograms)
    seen = NodePage.open(tmp_path / "page")
    for each in (again, seen):
        assert (each.get("cycles"), each.get("in.quote.received"), each.get("no such")) == (5, 2**63, 0)
        assert each.histograms["feed>pricing"].count == 1
    assert NodePage(tmp_path / "page", *page_names(["quote", "mark"], [])).get("cycles") == 0, (
        "another shape starts anew"
    )


def test_units() -> None:
    assert [parse_bytes(text) for text in ("1", "64KiB", "1.5 MiB", "2GB")] == [1, 65536, 1572864, 2 * 10**9]
    assert [parse_duration_ns(text) for text in ("5ns", "1.5us", "100ms", "2h", "1_000s")] == [
        5, 1500, 10**8, 7200 * 10**9, 10**12,
    ]  # fmt: skip
    for bad in ("", "ms", "-1s", "1 fortnight", "1e3s"):
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration_ns(bad)
    assert [format_bytes(n) for n in (0, 1023, 2048, 5 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "2.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert [format_ns(n) for n in (5, 1500, 2_500_000, 3e9)] == ["5 ns", "1.5 us", "2.5 ms", "3.00 s"]


def test_channel_names() -> None:
    assert channel_id("demo.quote") == channel_id("demo.quote") != channel_id("demo.quotes")
    for bad in ("", ".hidden", "a/b", "@x", "x" * 200):
        with pytest.raises(ConfigError):
            check_channel_name(bad)


class Counting(Node):
    """Counts its inputs; forgets to keep what ``forget`` names."""

    greeks = Input("greeks")
    skew = Output(SKEW)
    forget: str = ""

    def on_start(self):
        self.seen, self.lost = 0, 0

    def on_records(self, channel, records, now_ns):
        for row in records:
            self.seen += 1
            self.skew.append(put_iv=self.seen, call_iv=row["iv"], cause=records[:1])

    def on_lost(self, channel, lost):
        self.lost += lost.count

    def checkpoint(self):
        return {} if self.forget == "seen" else {"seen": self.seen}

    def restore(self, state):
        self.seen = state.get("seen", 0)


def counting(forget=""):
    return Counting("counting", config={"forget": forget}, inputs={"greeks": "g"}, outputs={"skew": "s"})


def test_a_forgotten_state_is_found_by_check_restart() -> None:
    inputs = [("greeks", part) for part in packets(random_records(GREEKS, 20, seed=1), seed=1)]
    assert check_restart(counting, inputs) == len(inputs) - 1, "after the last one nothing could differ"
    assert check_restart(lambda: counting("seen"), inputs[:1]) == check_restart(counting, []) == 0
    with pytest.raises(AssertionError, match=r"restarted after input 0, output 'skew'.*put_iv 1.0 instead of"):
        check_restart(lambda: counting("seen"), inputs)


@settings(deadline=None)  # a busy machine is no defect
@given(st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.3), st.floats(0, 0.5))
def test_a_lossy_line_delivers_everything_once_in_order(seed: int, drop: float, twice: float, reorder: float) -> None:
    records = random_records(GREEKS, 120, seed=seed)
    line = LossyLine(GREEKS, seed=seed, drop=drop, duplicate=twice, reorder=reorder)
    got = [item for _, item in line.carry("greeks", packets(records, seed=seed))]
    assert np.concatenate(got).tobytes() == records.tobytes()
    assert line.counters.recovered == line.counters.missed


def test_a_long_line_does_not_copy_what_was_sent_before(monkeypatch: pytest.MonkeyPatch) -> None:
    line = LossyLine(GREEKS, seed=1, drop=0.1)
    parts = packets(random_records(GREEKS, 1000, seed=1), seed=1)
    copied: list[int] = []
    concatenate = np.concatenate

    def counted(arrays):
        copied.append(sum(map(len, arrays)))
        return concatenate(arrays)

    monkeypatch.setattr("fabric.testing.line.np.concatenate", counted)
    assert sum(len(item) for _, item in line.carry("greeks", parts)) == 1000
    assert line.counters.recovered > 0
    assert sum(copied) < 1000


@given(st.integers(0, 2**32))
def test_a_line_whose_log_forgets_says_exactly_what_is_lost(seed: int) -> None:
    records = random_records(GREEKS, 120, seed=seed)
    line = LossyLine(GREEKS, seed=seed, drop=0.4, retain=3)
    position = 0
    for _, item in line.carry("greeks", packets(records, seed=seed)):
        if isinstance(item, Lost):
            assert item.first == position + 1
            position = item.last
        else:
            assert item.tobytes() == records[position : position + len(item)].tobytes()
            position += len(item)
    assert position == 120


def test_made_records_are_stamped_and_refused_where_they_do_not_fit() -> None:
    rows = make_records(QUOTE, [{"instrument": 1, "bid": 10.0}, {"ts_event_ns": 5}], start_ns=100, step_ns=10)
    assert rows["ts_event_ns"].tolist() == [100, 5]
    assert rows["ts_publish_ns"].tolist() == [100, 110]
    assert len(make_records(QUOTE, [])) == 0
    with pytest.raises(RecordTypeError, match="no field 'bdi'"):
        make_records(QUOTE, [{"bdi": 1}])
    assert random_records(INSTRUMENT, 5, seed=1).tobytes() == random_records(INSTRUMENT, 5, seed=1).tobytes()
