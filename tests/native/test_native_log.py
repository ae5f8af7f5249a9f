"""Control page, commit, wait page and append: the bytes of a log, without files."""

from __future__ import annotations

import mmap
import struct
import threading
import time

import numpy as np
import pytest

from native.log import COUNTERS, PAGE_BYTES, Control, LogState, append

BOOT = bytes(range(16))
IDENTITY = {
    "channel": 0x1122334455667788,
    "session": (1700000000 << 32) | 5,
    "parent_session": (1600000000 << 32) | 6,
    "fork_sequence": 41,
    "base": 1,
    "segment_records": 1000,
    "record_bytes": 72,
    "schema": 0xDEADBEEF,
    "created_ns": 1_700_000_000_000_000_001,
    "boot_id": BOOT,
}
SECOND_NS = 1_000_000_000


def new_log(wait: bool = True) -> tuple[mmap.mmap, mmap.mmap | None, Control]:
    page = mmap.mmap(-1, PAGE_BYTES)
    wait_page = mmap.mmap(-1, PAGE_BYTES) if wait else None
    control = Control(page, wait_page, writable=True)
    control.initialise(**IDENTITY)
    return page, wait_page, control


def test_the_page_is_laid_out_as_documented():
    page, _, control = new_log()
    control.store_commit(7, 99)
    control.first_available = 3
    control.alive_ns = 123
    control.writer_pid = 4242
    control.clean_close = True
    control.count(2, 5)
    assert page[:8] == b"ZMFLOG01"
    assert struct.unpack_from("<II6QII q16s", page, 8) == (
        1,
        72,
        IDENTITY["channel"],
        IDENTITY["session"],
        IDENTITY["parent_session"],
        41,
        1,
        1000,
        0xDEADBEEF,
        0,
        IDENTITY["created_ns"],
        BOOT,
    )
    assert struct.unpack_from("<Qq", page, 128) == (7, 99)
    assert struct.unpack_from("<Q", page, 192) == (3,)
    assert struct.unpack_from("<qIII", page, 256) == (123, LogState.OPEN, 4242, 1)
    assert struct.unpack_from("<16Q", page, 320) == (0, 0, 5, *[0] * 13)


def test_fields_read_back_through_another_mapping():
    page, wait_page, control = new_log()
    reader = Control(page, wait_page)
    assert reader.valid
    assert not reader.writable
    for name, value in IDENTITY.items():
        assert getattr(reader, name) == value, name
    assert (reader.commit, reader.next, reader.first_available, reader.state) == (0, 1, 1, LogState.OPEN)
    control.store_commit(10, 77)
    control.state = LogState.ENDED
    assert (reader.commit, reader.next, reader.last_publish_ns, reader.state) == (10, 11, 77, LogState.ENDED)


@pytest.mark.parametrize(
    ("offset", "damage"),
    [(0, b"X"), (8, b"\x02"), (12, b"\x20\0\0\0"), (48, bytes(8)), (56, bytes(8)), (264, bytes(4)), (264, b"\x09")],
    ids=["magic", "version", "record_bytes", "base", "segment_records", "no state", "unknown state"],
)
def test_a_damaged_page_is_not_valid(offset, damage):
    page, _, control = new_log()
    page[offset : offset + len(damage)] = damage
    assert not control.valid


def test_an_empty_page_is_not_valid():
    assert not Control(bytes(PAGE_BYTES)).valid


def test_commit_never_goes_back():
    _, _, control = new_log()
    control.store_commit(10, 1)
    control.store_commit(10, 2)
    with pytest.raises(ValueError, match="never goes back"):
        control.store_commit(9, 3)
    assert (control.commit, control.last_publish_ns) == (10, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda control: control.initialise(**IDENTITY),
        lambda control: control.store_commit(1, 1),
        lambda control: control.count(0),
        lambda control: setattr(control, "first_available", 2),
        lambda control: setattr(control, "alive_ns", 2),
        lambda control: setattr(control, "state", LogState.ENDED),
        lambda control: setattr(control, "writer_pid", 2),
        lambda control: setattr(control, "clean_close", True),
    ],
)
def test_a_reader_cannot_write(change):
    page, wait_page, _ = new_log()
    before = bytes(page)
    with pytest.raises(TypeError, match="read-only"):
        change(Control(page, wait_page))
    assert bytes(page) == before


def test_pages_of_the_wrong_size_or_kind_are_refused():
    with pytest.raises(ValueError, match="4096"):
        Control(bytes(PAGE_BYTES - 1))
    with pytest.raises(ValueError, match="wait page"):
        Control(bytes(PAGE_BYTES), bytearray(7))
    with pytest.raises(BufferError):
        Control(bytes(PAGE_BYTES), writable=True)
    with pytest.raises(BufferError):
        Control(bytes(PAGE_BYTES), bytes(PAGE_BYTES))
    with pytest.raises(ValueError, match="16 bytes"):
        Control(bytearray(PAGE_BYTES), writable=True).initialise(**{**IDENTITY, "boot_id": b"short"})


def test_counters():
    _, _, control = new_log()
    for index in range(COUNTERS):
        control.count(index)
        control.count(index, index)
    assert [control.counter(index) for index in range(COUNTERS)] == [1 + index for index in range(COUNTERS)]
    for index in (-1, COUNTERS):
        with pytest.raises(IndexError):
            control.count(index)
        with pytest.raises(IndexError):
            control.counter(index)


@pytest.mark.parametrize("with_wait_page", [True, False])
def test_wait_beyond_times_out(with_wait_page):
    page, wait_page, control = new_log(with_wait_page)
    control.store_commit(3, 1)
    reader = Control(page, wait_page)
    begin_ns = time.monotonic_ns()
    assert reader.wait_beyond(3, 20_000_000) == 4
    assert time.monotonic_ns() - begin_ns >= 20_000_000
    assert reader.wait_beyond(3, 0) == 4
    assert reader.wait_beyond(3, -1) == 4


@pytest.mark.parametrize("timeout_ns", [60 * SECOND_NS, 2**63 - 1])
@pytest.mark.parametrize("with_wait_page", [True, False])
def test_wait_beyond_wakes_a_waiting_thread_at_once(with_wait_page, timeout_ns):
    page, wait_page, control = new_log(with_wait_page)
    reader = Control(page, wait_page)
    seen = []

    def follow():
        seen.extend(reader.wait_beyond(sequence, timeout_ns) for sequence in range(50))

    thread = threading.Thread(target=follow, daemon=True)
    begin_ns = time.monotonic_ns()
    thread.start()
    for count in range(1, 51):
        if (
            wait_page is not None
        ):  # commit only once the reader sleeps, or has not come to it yet and will see the commit
            deadline = time.monotonic() + 30
            while struct.unpack_from("<I", wait_page)[0] == 0 and time.monotonic() < deadline:
                pass
        control.store_commit(count, count)
    thread.join(30)
    assert not thread.is_alive()
    assert time.monotonic_ns() - begin_ns < 30 * SECOND_NS  # far below the time-out: woken, not timed out
    assert seen == sorted(seen)
    assert seen[-1] == 51
    assert all(following > sequence + 1 for sequence, following in enumerate(seen))


def test_several_waiting_threads_are_all_woken():
    page, wait_page, control = new_log()
    ready = threading.Barrier(5)
    told = []

    def follow():
        reader = Control(page, wait_page)
        ready.wait(30)
        told.append(reader.wait_beyond(0, 60 * SECOND_NS))

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait(30)
    control.store_commit(1, 1)
    for thread in threads:
        thread.join(30)
    assert told == [2] * 4


def test_what_is_committed_already_needs_no_wait():
    _, _, control = new_log()
    control.store_commit(5, 1)
    assert control.wait_beyond(0, 60 * SECOND_NS) == 6
    assert control.wait_beyond(4, 60 * SECOND_NS) == 6


def test_append_copies_and_stamps_only_its_records():
    segment = bytearray(b"\xee" * 400)
    records = bytearray(b"".join(bytes([at]) * 40 for at in range(6)))
    append(segment, 3, records, 2, 4, 40, 0x0102030405060708)
    stamp = struct.pack("<q", 0x0102030405060708)
    expected = b"".join(bytes([at]) * 16 + stamp + bytes([at]) * 16 for at in range(2, 6))
    assert bytes(segment) == b"\xee" * 120 + expected + b"\xee" * 120
    append(segment, 10, records, 0, 0, 40, 1)
    assert bytes(segment[:120]) == b"\xee" * 120


@pytest.mark.parametrize("record_bytes", [40, 48, 64, 9000])
@pytest.mark.parametrize("offset", [0, 8])
def test_append_of_many_copies_and_stamps_all(record_bytes, offset):
    count = 200_000 // record_bytes
    content = np.random.default_rng(3).integers(0, 256, (count, record_bytes), np.uint8)
    segment = memoryview(bytearray(b"\xee" * ((count + 2) * record_bytes + offset)))[offset:]
    append(segment, 1, bytearray(content.tobytes()), 0, count, record_bytes, -7)
    content[:, 16:24] = np.frombuffer(struct.pack("<q", -7), np.uint8)
    assert bytes(segment[record_bytes:-record_bytes]) == content.tobytes()
    assert set(segment[:record_bytes]) == set(segment[-record_bytes:]) == {0xEE}


@pytest.mark.parametrize(
    ("at_record", "first", "count", "record_bytes"),
    [(7, 0, 4, 40), (-1, 0, 2, 40), (0, -1, 2, 40), (0, 3, 4, 40), (0, 0, -1, 40), (0, 0, 6, 16), (0, 0, 1, 0)],
)
def test_append_never_leaves_the_segment(at_record, first, count, record_bytes):
    segment = bytearray(400)
    with pytest.raises(ValueError, match="do not fit"):
        append(segment, at_record, bytearray(b"\x01" * 240), first, count, record_bytes, -1)
    assert segment == bytearray(400)


def test_append_wants_contiguous_records():
    with pytest.raises(BufferError):
        append(bytearray(400), 0, memoryview(bytearray(400))[::2], 0, 1, 40, 1)
    with pytest.raises(BufferError):
        append(bytes(400), 0, bytearray(40), 0, 1, 40, 1)
