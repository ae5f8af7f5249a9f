"""The fast path into a log: what it takes has the bytes that the slow way would write, what it refuses leaves no trace."""

from __future__ import annotations

import math
import struct
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fabric.errors import RecordTypeError
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.records import Flags, Records, RecordType, record
from native.appender import Appender
from native.log import PAGE_BYTES, Control

SECOND_NS = 1_000_000_000
SEGMENT = 8
WHOLE = {f"{kind}{size}": (kind, size) for kind in "iu" for size in (1, 2, 4, 8)}
ALL = record(
    "appender_all",
    **{name: name for name in WHOLE},
    f4="f4",
    f8="f8",
    f2="f2",
    text="S5",
    many=("f8", (2,)),
    flag="?",
)
TICK = record("appender_tick", value="u8")


def limits(name: str) -> tuple[int, int]:
    kind, size = WHOLE[name]
    return (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if kind == "i" else (0, (1 << 8 * size) - 1)


def new_writer(directory: Path, kind: RecordType = ALL, *, segment: int = SEGMENT, **more: Any) -> LogWriter:
    options = LogOptions(segment_bytes=segment * kind.size, retain_bytes=1 << 40, **more)
    return LogWriter(directory, "all", 7, kind, options, now_ns=SECOND_NS)


@pytest.fixture
def writer(tmp_path: Path) -> LogWriter:
    return new_writer(tmp_path / "log", segment=64)


def content(directory: Path) -> bytes:
    """Every committed byte."""
    reader = LogReader(directory)
    return b"".join(view.tobytes() for _, view in reader.read_range(reader.first_available, reader.next - 1))


def last(writer: LogWriter) -> np.void:
    return LogReader(writer.directory)[writer.next - 1]  # type: ignore[return-value]


# One record by name


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_at_their_edges(writer: LogWriter, name: str) -> None:
    low, high = limits(name)
    for value in sorted({low, low + 1, 0, 1, min(high, 2**63 - 1) - 1, min(high, 2**63 - 1)}):
        first = writer.next
        assert writer.fast.put({name: value}, SECOND_NS) == first
        assert int(last(writer)[name]) == value
    before = content(writer.directory)
    refused = [low - 1, high + 1, 2**63, -(2**63) - 1, 2**64, 10**30, -(10**30)]
    for value in [each for each in refused if not low <= each <= high]:
        assert writer.fast.put({name: value}, SECOND_NS) == 0, value
    assert content(writer.directory) == before


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_plain_int_is_left_to_the_slow_way(writer: LogWriter, name: str) -> None:
    for value in (
        1.0,
        0.5,
        math.nan,
        True,
        False,
        np.int8(1),
        np.uint64(1),
        np.float64(1),
        "1",
        b"1",
        None,
        [1],
        [1, 2],
        1j,
    ):
        assert writer.fast.put({name: value}, SECOND_NS) == 0, repr(value)
    assert writer.next == 1


@pytest.mark.parametrize("name", ["f4", "f8"])
@pytest.mark.parametrize(
    "value",
    [0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, 1e-45, 3.4e38, sys.float_info.max, 1, -1, 2**53 + 1, 2**24 + 1,
     2**54 + 2**30 + 1, 2**63 - 1, -(2**63), np.float64(0.1)],
)  # fmt: skip
def test_floats_have_the_bytes_that_numpy_gives_them(writer: LogWriter, name: str, value: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy tells of what a float32 can't hold
        expected = ALL.build(**{name: value})
    assert writer.fast.put({name: value}, SECOND_NS) == 1
    assert last(writer)[name].tobytes() == expected[name].tobytes()


@pytest.mark.parametrize("name", ["f4", "f8"])
def test_what_is_no_plain_number_is_not_put_into_a_float(writer: LogWriter, name: str) -> None:
    for value in (True, np.float32(1), np.int64(1), "1", None, [1.0], 1j, 2**63, -(2**63) - 1, 10**400):
        assert writer.fast.put({name: value}, SECOND_NS) == 0, repr(value)
    assert writer.next == 1


def test_fields_of_other_kinds_and_unknown_names_are_refused(writer: LogWriter) -> None:
    for columns in ({"f2": 1.0}, {"text": b"x"}, {"many": 1.0}, {"flag": True}, {"flag": 1}, {"other": 1}, {"": 1},
                    {1: 1}, {None: 1}, {("i1",): 1}):  # fmt: skip
        assert writer.fast.put(columns, SECOND_NS) == 0, columns
    for name in ("value", "I1", "i1 "):
        assert writer.fast.put({"i1": 1, name: 2}, SECOND_NS) == 0
    with pytest.raises(TypeError):
        writer.fast.put(None, SECOND_NS)  # type: ignore[arg-type]
    assert writer.next == 1


def test_a_refused_record_leaves_nothing_in_the_next_one(writer: LogWriter) -> None:
    for columns in ({"i8": -1, "u8": 2**63 - 1, "f8": 1.5, "i1": 200}, {"f4": 1.0, "u2": 7, "nobody": 1}):
        assert writer.fast.put(columns, SECOND_NS) == 0
    assert writer.fast.put({}, 5) == 1
    expected = ALL.zeros(1)
    expected["ts_publish_ns"], expected["flags"] = 5, Flags.LAST_IN_EVENT
    assert content(writer.directory) == expected.tobytes()


def test_the_head_is_stamped_and_marked_whatever_was_named(writer: LogWriter) -> None:
    head = {"ts_event_ns": -5, "ts_origin_ns": 2**62, "ts_publish_ns": 99, "instrument": 2**32 - 1, "flags": 6}
    assert writer.fast.put(head, SECOND_NS) == 1
    row = last(writer)
    assert [int(row[name]) for name in head] == [-5, 2**62, SECOND_NS, 2**32 - 1, 7]
    assert writer.fast.put({"flags": 2**32 - 1}, 0) == 2
    assert int(last(writer)["flags"]) == 2**32 - 1


VALUES = st.one_of(
    st.integers(-(2**65), 2**65),
    st.integers(-300, 300),
    st.sampled_from([each + off for each in (0, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**63, 2**64) for off in (-1, 0, 1)]),
    st.floats(width=32),
    st.floats(),
    st.booleans(),
    st.integers(-128, 127).map(np.int8),
    st.integers(0, 2**64 - 1).map(np.uint64),
    st.floats().map(np.float64),
    st.floats(width=32).map(np.float32),
    st.sampled_from([b"abc", "abc", None, [1, 2], np.array(3), np.array([3])]),
)  # fmt: skip
NAMES = st.sampled_from([*(ALL.dtype.names or ()), "nobody"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(columns=st.dictionaries(NAMES, VALUES, max_size=6), now_ns=st.integers(0, 2**62))
def test_what_put_takes_has_the_bytes_that_the_slow_way_writes(columns: dict[str, Any], now_ns: int) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast, slow = (new_writer(Path(folder) / name) for name in ("fast", "slow"))
        try:
            built: Records | None = ALL.build(None, **columns)
        except (RecordTypeError, ValueError, TypeError, OverflowError):
            built = None
        if fast.fast.put(columns, now_ns):
            assert built is not None, "the slow way refuses it"
            assert len(built) == 1
            built["flags"][-1] |= Flags.LAST_IN_EVENT
            slow.write(built, now_ns)
            assert content(fast.directory) == content(slow.directory)
            assert fast.control.last_publish_ns == slow.control.last_publish_ns
        else:
            assert (fast.next, content(fast.directory)) == (1, b"")
        fast.close()
        slow.close()


# Arrays of records


def test_arrays_of_the_logs_own_dtype_are_written(writer: LogWriter) -> None:
    records = ALL.build(5, i4=np.arange(5), flags=[1, 2, 0, 0, 2])
    before = records.tobytes()
    assert writer.fast.write(records, SECOND_NS) == 1
    assert records.tobytes() == before, "the caller's own are left alone"
    expected = np.frombuffer(bytearray(before), ALL.dtype)  # padding too
    expected["ts_publish_ns"] = SECOND_NS
    expected["flags"] = [1, 2, 0, 0, 3]
    assert content(writer.directory) == expected.tobytes()
    frozen = ALL.zeros(3)
    frozen.flags.writeable = False
    assert writer.fast.write(frozen, SECOND_NS) == 6
    assert writer.next == 9


def test_what_is_not_just_that_is_refused(writer: LogWriter) -> None:
    records = ALL.zeros(6)
    same = ALL.zeros(1).astype(RecordType.from_description(ALL.describe()).dtype)
    assert same.dtype == ALL.dtype
    assert same.dtype is not ALL.dtype
    for wrong in (
        records[::2],
        records[::-1],
        records[:0],
        records.reshape(2, 3),
        records[0:1].reshape(()),
        np.zeros(ALL.size, "u1"),
        TICK.zeros(1),
        same,
        ALL.zeros(65),
    ):
        assert writer.fast.write(wrong, SECOND_NS) == 0, wrong.shape
    for wrong_type in (None, b"", [], records[0], memoryview(records)):
        with pytest.raises(TypeError):
            writer.fast.write(wrong_type, SECOND_NS)  # type: ignore[arg-type]
    assert (writer.next, content(writer.directory)) == (1, b"")
    assert writer.fast.write(records[1::3][:1], SECOND_NS) == 1, "one alone is contiguous"


def test_many_bytes_are_copied_past_the_cache_by_the_slow_way(tmp_path: Path) -> None:
    writer = new_writer(tmp_path / "log", TICK, segment=10_000)
    most = 65_536 // TICK.size
    assert writer.fast.write(TICK.zeros(most + 1), SECOND_NS) == 0
    assert writer.fast.write(TICK.zeros(most), SECOND_NS) == 1


def test_a_segment_is_filled_to_its_last_record_and_no_further(tmp_path: Path) -> None:
    writer = new_writer(tmp_path / "log", TICK)
    assert writer.fast.write(TICK.zeros(SEGMENT - 2), SECOND_NS)
    assert not writer.fast.write(TICK.zeros(3), SECOND_NS)
    assert writer.fast.write(TICK.zeros(1), SECOND_NS)
    assert writer.fast.put({"value": 5}, SECOND_NS) == SEGMENT
    for _ in range(2):
        assert not writer.fast.put({"value": 6}, SECOND_NS)
        assert not writer.fast.write(TICK.zeros(1), SECOND_NS)
    assert writer.next == SEGMENT + 1
    assert writer.write(TICK.build(value=6), SECOND_NS) == SEGMENT + 1  # into the next segment, where it goes on fast
    assert writer.fast.put({"value": 7}, SECOND_NS) == SEGMENT + 2
    assert LogReader(tmp_path / "log").read(SEGMENT + 1, 5)["value"].tolist() == [6, 7]


def test_stamps_never_fall(tmp_path: Path) -> None:
    writer = new_writer(tmp_path / "log", TICK)
    for now_ns in (50, 10, 70, 0, -(2**63), 70, 71, 3):
        if not writer.fast.put({"ts_publish_ns": -1}, now_ns):
            writer.write(TICK.zeros(1), now_ns)
    writer.write(TICK.zeros(1), 100)
    writer.fast.put({}, 99)
    writer.fast.write(TICK.zeros(2), 101)
    writer.write(TICK.zeros(1), 5)
    writer.close()
    writer = new_writer(tmp_path / "log", TICK)
    assert writer.fast.put({}, 1)
    stamps = np.frombuffer(content(tmp_path / "log"), TICK.dtype)["ts_publish_ns"].tolist()
    assert stamps == [50, 50, 70, 70, 70, 70, 71, 71, 100, 100, 101, 101, 101, 101]
    assert writer.fast.publish_ns == writer.control.last_publish_ns == 101


def test_who_is_shut_ended_closed_or_to_reach_the_disk_writes_nothing_fast(tmp_path: Path) -> None:
    writer = new_writer(tmp_path / "log", TICK)
    assert writer.fast.put({}, 1)
    writer.fast.shut()
    writer.fast.shut()
    assert (writer.fast.put({}, 1), writer.fast.write(TICK.zeros(1), 1)) == (0, 0)
    writer.write(TICK.zeros(1), 1)
    assert writer.fast.put({}, 1) == 3, "the slow way turns it to the segment again"
    writer.end()
    assert writer.fast.put({}, 1) == 0
    writer.close()
    assert writer.fast.put({}, 1) == 0
    reopened = LogWriter(tmp_path / "log", "all", 7, TICK, writer.options, now_ns=1, reopen_ended=True)
    assert reopened.fast.put({}, 1) == 0, "it is ended still"
    reopened.close()
    synced = new_writer(tmp_path / "synced", TICK, sync=True)
    assert synced.fast.put({}, 1) == 0
    synced.write(TICK.zeros(1), 1)
    assert synced.fast.put({}, 1) == 0
    assert synced.next == 2


def control_page() -> tuple[bytearray, Control]:
    page = bytearray(PAGE_BYTES)
    control = Control(page, None, writable=True)
    control.initialise(
        channel=1, session=1 << 32, parent_session=0, fork_sequence=0, base=1, segment_records=SEGMENT,
        record_bytes=TICK.size, schema=TICK.schema, created_ns=1, boot_id=bytes(16),
    )  # fmt: skip
    return page, control


def test_a_segment_must_hold_its_records_and_be_writable(tmp_path: Path) -> None:
    page, control = control_page()
    with pytest.raises(TypeError, match="read-only"):
        Appender(Control(page, None), TICK.dtype, 1)
    appender = Appender(control, TICK.dtype, 1)
    assert appender.put({}, 1) == 0, "it was turned to no segment"
    with pytest.raises(BufferError):
        appender.turn_to(bytes(SEGMENT * TICK.size), 1, SEGMENT)
    with pytest.raises(ValueError, match=f"has {SEGMENT * TICK.size} bytes"):
        appender.turn_to(bytearray(SEGMENT * TICK.size - 1), 1, SEGMENT)
    assert appender.put({}, 1) == 0
    segment = bytearray(b"\xee" * (SEGMENT + 1) * TICK.size)
    appender.turn_to(segment, 1, SEGMENT)
    for count in range(1, SEGMENT + 1):
        assert appender.put({"value": count}, count) == count
    assert appender.put({}, 1) == 0
    assert set(segment[SEGMENT * TICK.size :]) == {0xEE}, "never past the segment"
    assert struct.unpack_from("<Qq", page, 128) == (SEGMENT, SEGMENT)
    with pytest.raises(BufferError):
        segment.clear()  # it is held
    del appender
    segment.clear()


# Mixtures against a model


class Mixture(RuleBasedStateMachine):
    """Fast and slow writes, in any order, through closing and opening: the log is what a list of bytes would be."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name) / "log"
        self.expected = b""
        self.count = 0
        self.stamp_ns = 0
        self.writer = new_writer(self.directory, TICK)
        self.session = self.writer.session
        self.readers = [LogReader(self.directory)]

    def model(self, records: Records, now_ns: int) -> None:
        self.stamp_ns = max(self.stamp_ns, now_ns)
        records = records.copy()
        records["ts_publish_ns"] = self.stamp_ns
        records["flags"][-1] |= Flags.LAST_IN_EVENT
        self.expected += records.tobytes()
        self.count += len(records)

    def some(self, count: int) -> Records:
        first = self.count + 1
        return TICK.build(count, value=np.arange(first, first + count), flags=np.arange(count) % 2 * 2)

    @rule(value=st.integers(-1, 2**64), flags=st.integers(0, 20), now_ns=st.integers(0, 1000))
    def put(self, value: int, flags: int, now_ns: int) -> None:
        columns = {"value": value, "flags": flags}
        room = SEGMENT - self.count % SEGMENT if self.count else SEGMENT
        full = self.count > 0 and self.count % SEGMENT == 0 and not self.turned
        done = self.writer.fast.put(columns, now_ns)
        assert bool(done) == (0 <= value < 2**63 and not full), (value, room)
        if done:
            assert done == self.count + 1
            self.model(TICK.build(**columns), now_ns)
            self.turned = False

    @rule(count=st.integers(1, 3 * SEGMENT), now_ns=st.integers(0, 1000))
    def write_fast(self, count: int, now_ns: int) -> None:
        records = self.some(count)
        room = SEGMENT - self.count % SEGMENT
        if self.count and self.count % SEGMENT == 0 and not self.turned:
            room = 0
        done = self.writer.fast.write(records, now_ns)
        assert bool(done) == (count <= room), (count, room)
        if done:
            assert done == self.count + 1
            self.model(records, now_ns)
            self.turned = False

    @rule(count=st.integers(0, 3 * SEGMENT), now_ns=st.integers(0, 1000))
    def write_slowly(self, count: int, now_ns: int) -> None:
        records = self.some(count)
        if count:
            records["flags"][-1] |= Flags.LAST_IN_EVENT
        assert self.writer.write(records, now_ns) == self.count + 1
        if count:
            self.model(records, now_ns)
            self.turned = False
        else:
            self.stamp_ns = max(self.stamp_ns, now_ns)

    @rule()
    def maintain(self) -> None:
        self.writer.maintain(SECOND_NS, 1)

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        if clean:
            self.writer.close()
        else:
            self.writer.abandon_in_child()  # as a kill would leave it
        self.writer = new_writer(self.directory, TICK)
        self.turned = True
        self.readers.append(LogReader(self.directory))

    turned = True
    """The appender stands at the beginning of a segment of its own, or of the one that is not full."""

    @invariant()
    def the_log_is_what_was_written(self) -> None:
        if not hasattr(self, "writer"):
            return
        assert (self.writer.next, self.writer.session) == (self.count + 1, self.session)
        assert self.writer.control.last_publish_ns == self.stamp_ns
        assert content(self.directory) == self.expected
        for reader in self.readers[-2:]:
            assert reader.next == self.count + 1

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
            self.folder.cleanup()


TestMixture = Mixture.TestCase
TestMixture.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
