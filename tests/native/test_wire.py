"""native.wire over real sockets: what goes into the rings, what goes to the control queue, and that nothing else happens."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import zmq
import zmq.backend.cython._zmq as backend
from wire_model import (
    RECORD_BYTES,
    SCHEMA,
    SESSION,
    content,
    controls,
    damaged,
    data,
    heartbeat,
    linked,
    runs,
    until,
)

from native import histogram, wire
from native.packet import MAX_BYTES, Header, Kind, ParseResult, encode
from native.sequence import Tracker

NEWER = (4 << 32) | 1
SECOND_NS = 1_000_000_000


def transports(tmp_path):
    return [f"ipc://{tmp_path}/s", "tcp://127.0.0.1:*", "inproc://each"]


@pytest.fixture(autouse=True)
def _loaded():
    if not wire.load(backend.__file__, zmq.zmq_version()):
        pytest.skip("this pyzmq's libzmq can't be called natively")


def test_load_says_no_to_what_is_not_the_library():
    assert wire.version() == zmq.zmq_version()
    assert wire.error_text(errno.EAGAIN)
    code = (
        "from native import wire\nimport sys, zmq, math\n"
        "import zmq.backend.cython._zmq as z\n"
        "assert not wire.available() and wire.version() == ''\n"
        "assert not wire.load('/no/such/file.so') and not wire.load(math.__file__ or z.__doc__ or '')\n"
        "assert not wire.load(z.__file__, '4.0.0')\n"
        "try: wire.Inlet()\nexcept RuntimeError: pass\nelse: sys.exit('an inlet without a library')\n"
        "try: wire.Outlet(1)\nexcept RuntimeError: pass\nelse: sys.exit('an outlet without a library')\n"
        "assert wire.load(z.__file__, zmq.zmq_version()) and wire.available()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Sending


def test_records_go_out_as_packets_that_the_codec_reads(tmp_path):
    for endpoint in transports(tmp_path):
        with linked(endpoint) as link:
            records = np.frombuffer(content(100, 10), dtype="<u8").reshape(10, -1)
            before_ns = time.time_ns()
            assert link.outlet.send_records(records, 2, 7, RECORD_BYTES, 5, SESSION, 102, SCHEMA, 3, True) == 3
            assert (
                link.outlet.send_records(content(200, 1), 0, 1, RECORD_BYTES, 5, SESSION, 200, SCHEMA, 3, False, 77)
                == 1
            )
            assert link.outlet.send_control(Kind.END, 5, SESSION, 201, SCHEMA, RECORD_BYTES, True, 9) == 1
            frames = [link.subs[0].recv() for _ in range(5)]
            header = Header()
            for frame, first, count in zip(frames[:3], (102, 105, 108), (3, 3, 1), strict=True):
                assert header.parse(frame) == ParseResult.OK
                assert before_ns <= header.sent_ns <= time.time_ns()
                assert frame == encode(
                    Kind.DATA,
                    5,
                    SESSION,
                    first,
                    header.sent_ns,
                    SCHEMA,
                    RECORD_BYTES,
                    count,
                    content(first, count),
                    True,
                )
            assert frames[3] == encode(Kind.DATA, 5, SESSION, 200, 77, SCHEMA, RECORD_BYTES, 1, content(200, 1), False)
            assert frames[4] == encode(Kind.END, 5, SESSION, 201, 9, SCHEMA, RECORD_BYTES, 0, None, True)


def test_sending_what_is_no_packet_raises():
    with linked() as link:
        send = link.outlet.send_records
        for first, count, size, session, sequence, most in [
            (0, 3, RECORD_BYTES, SESSION, 1, 1),
            (2, 1, RECORD_BYTES, SESSION, 1, 1),
            (-1, 1, RECORD_BYTES, SESSION, 1, 1),
            (0, -1, RECORD_BYTES, SESSION, 1, 1),
            (2**62, 2**62, RECORD_BYTES, SESSION, 1, 1),
            (0, 1, 0, SESSION, 1, 1),
            (0, 1, MAX_BYTES, SESSION, 1, 1),
            (0, 1, RECORD_BYTES, SESSION, 1, 0),
            (0, 1, RECORD_BYTES, SESSION, 1, 3000),
            (0, 1, RECORD_BYTES, 0, 1, 1),
            (0, 1, RECORD_BYTES, SESSION, 0, 1),
            (0, 1, RECORD_BYTES, SESSION, 2**63, 1),
        ]:
            with pytest.raises(ValueError):
                send(content(1, 2), first, count, size, 5, session, sequence, SCHEMA, most)
        with pytest.raises(ValueError):
            link.outlet.send_control(Kind.DATA, 5, SESSION, 1, SCHEMA, RECORD_BYTES)
        assert send(b"", 0, 0, RECORD_BYTES, 5, SESSION, 1, SCHEMA, 1) == 0
        push = link.context.socket(zmq.PUSH)
        assert wire.Outlet(push.underlying).send_records(
            content(1, 1), 0, 1, RECORD_BYTES, 5, SESSION, 1, SCHEMA, 1
        ) == (-errno.EAGAIN)
        push.close()


def test_what_a_full_socket_refuses_is_told(tmp_path):
    with linked("inproc://full") as link:
        pub, sub = link.context.socket(zmq.XPUB), link.context.socket(zmq.SUB)
        pub.setsockopt(zmq.SNDHWM, 3)
        sub.setsockopt(zmq.RCVHWM, 1)
        pub.setsockopt(zmq.XPUB_NODROP, 1)
        pub.bind("inproc://nodrop")
        sub.subscribe(b"")
        sub.connect("inproc://nodrop")
        assert pub.poll(5000)
        pub.recv()
        outlet = wire.Outlet(pub.underlying)
        sent = outlet.send_records(content(1, 10), 0, 10, RECORD_BYTES, 5, SESSION, 1, SCHEMA, 1)
        assert 1 <= sent < 10
        again = (content(1, 10), sent, 10 - sent, RECORD_BYTES, 5, SESSION, 1 + sent, SCHEMA, 1)
        assert outlet.send_records(*again) == -errno.EAGAIN
        assert outlet.send_control(Kind.HEARTBEAT, 5, SESSION, 1, SCHEMA, RECORD_BYTES) == -errno.EAGAIN
        assert [sub.recv()[16:24] for _ in range(sent)] == [n.to_bytes(8, "little") for n in range(1, 1 + sent)]
        pub.close()
        sub.close()


@pytest.mark.parametrize("transport", ["inproc", "ipc"])
def test_what_a_slow_reader_has_not_read_is_not_overwritten(tmp_path, transport):
    """Small packets lie in memory that is used in turn: not while anybody's pipe holds them."""
    endpoint = f"ipc://{tmp_path}/s" if transport == "ipc" else "inproc://slow"
    context, count = zmq.Context(), 18_000
    pub, fast, slow = context.socket(zmq.XPUB), context.socket(zmq.SUB), context.socket(zmq.SUB)
    for socket in (pub, fast, slow):
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
    pub.setsockopt(zmq.XPUB_VERBOSE, 1)
    pub.bind(endpoint)
    for socket in (fast, slow):
        socket.connect(endpoint)
        socket.subscribe(b"")
        assert pub.recv() == b"\x01"
    for _ in range(2):  # the next outlet takes over the memory of the one before, whoever still reads from it
        outlet, at = wire.Outlet(pub.underlying), 0
        for step in (count // 2, 1, count - count // 2 - 1):
            sent = outlet.send_records(content(1 + at, step), 0, step, RECORD_BYTES, 5, SESSION, 1 + at, SCHEMA, 1)
            assert sent == step
            for number in range(at, at + step):
                assert fast.recv()[48:] == content(1 + number, 1)
            at += step
        del outlet
    for number in (*range(count), *range(count)):
        frame = slow.recv()
        assert (int.from_bytes(frame[16:24], "little"), frame[48:]) == (1 + number, content(1 + number, 1))
    for socket in (pub, fast, slow):
        socket.close()
    context.term()


# In order


def test_packets_in_order_become_one_run(tmp_path):
    for endpoint in transports(tmp_path):
        with linked(endpoint) as link:
            lane = link.lane(5)
            assert link.outlet.send_records(content(1, 40), 0, 40, RECORD_BYTES, 5, SESSION, 1, SCHEMA, 7) == 6
            until(lambda: link.inlet.drain(now_ns=123) >= 0 and link.inlet.records == 40)
            assert (lane.packets, lane.waiting, lane.heard_ns, lane.plain) == (6, 40, 123, True)
            assert 0 < lane.arrived_ns <= time.monotonic_ns()
            assert lane.tracker.delivered == lane.tracker.seen == 40
            session, first, records = lane.take(10)
            assert (session, first, records.tobytes()) == (SESSION, 1, content(1, 10))
            assert runs(lane) == [(SESSION, 11, content(11, 30))]
            assert (lane.waiting, lane.take(), lane.take(0)) == (0, None, None)
            assert (link.inlet.packets, link.inlet.records) == (6, 40)
            assert link.inlet.bytes == 6 * 48 + 40 * RECORD_BYTES


def test_arrays_have_the_dtype_and_are_read_only():
    dtype = np.dtype([("a", "<u8"), ("b", "<u8", (3,))])
    with linked() as link:
        tracker = Tracker()
        tracker.session = SESSION
        lane = link.inlet.add_lane(5, SCHEMA, RECORD_BYTES, tracker, 1 << 20, dtype)
        lane.resume()
        link.pass_on(data(5, 1, 3), data(5, 4, 300))
        for most, count in ((3, 3), (1000, 300)):
            _, first, records = lane.take(most)
            assert records.dtype == dtype
            assert records.shape == (count,)
            assert records["a"].tolist() == list(range(first, first + count))
            assert records.flags.c_contiguous
            assert records.flags.aligned
            assert not records.flags.writeable
            with pytest.raises(ValueError):
                records["a"][0] = 1


# The exception path


def test_a_hole_goes_to_the_control_queue_and_all_that_follows_it():
    with linked() as link:
        lane = link.lane(5)
        after = [data(5, 3), data(5, 4), heartbeat(5, 5), data(5, 2)]
        link.pass_on(data(5, 1), *after)
        assert not lane.plain
        assert not lane.resume()  # its frames come first
        assert runs(lane) == [(SESSION, 1, content(1, 1))]
        assert controls(link.inlet) == [(lane.id, frame) for frame in after]
        assert lane.tracker.delivered == lane.tracker.seen == 1
        lane.tracker.delivered = lane.tracker.seen = 4  # as the control side does when the hole is filled
        assert lane.resume()
        link.pass_on(data(5, 5), data(5, 6))
        assert runs(lane) == [(SESSION, 5, content(5, 2))]
        assert link.inlet.take_control() is None


@pytest.mark.parametrize(
    "frame",
    [
        data(5, 3),
        data(5, 1),
        data(5, 1, 3),
        data(5, 2, session=NEWER),
        data(5, 2, session=SESSION + 1),
        data(5, 2, session=SESSION - (1 << 32)),
        data(5, 2, schema=SCHEMA + 1),
        encode(Kind.DATA, 5, SESSION, 2, 1, SCHEMA, RECORD_BYTES * 2, 1, content(2, 2)),
        encode(Kind.SNAPSHOT, 5, SESSION, 2, 1, SCHEMA, RECORD_BYTES, 1, content(2, 1)),
        heartbeat(5, 2, kind=Kind.END),
        heartbeat(5, 3),
        heartbeat(5, 1),
        heartbeat(5, 2, session=NEWER),
    ],
    ids=[
        "hole",
        "duplicate",
        "overlap",
        "newer",
        "conflict",
        "fenced",
        "schema",
        "size",
        "snapshot",
        "end",
        "ahead",
        "behind",
        "newer-heartbeat",
    ],
)
def test_whatever_is_not_the_next_record_is_left_to_the_control_side(frame):
    with linked() as link:
        lane = link.lane(5)
        link.pass_on(data(5, 1), frame, data(5, 2))
        assert controls(link.inlet) == [(lane.id, frame), (lane.id, data(5, 2))]
        assert (lane.tracker.session, lane.tracker.delivered, lane.tracker.seen) == (SESSION, 1, 1)
        assert runs(lane) == [(SESSION, 1, content(1, 1))]
        assert lane.resume()


def test_heartbeats_of_a_lane_in_step_only_say_that_it_lives():
    with linked() as link:
        lane = link.lane(5)
        link.send(data(5, 1), heartbeat(5, 2))
        until(lambda: link.inlet.drain(now_ns=50) >= 0 and lane.packets == 2)
        link.send(heartbeat(5, 2))
        until(lambda: link.inlet.drain(now_ns=60) >= 0 and lane.packets == 3)
        assert (lane.plain, lane.heard_ns) == (True, 60)
        assert link.inlet.take_control() is None
        lane.tracker.seen = 2  # a hole is known: the same heartbeat is not plain then
        link.pass_on(heartbeat(5, 3))
        assert controls(link.inlet) == [(lane.id, heartbeat(5, 3))]


def test_a_lane_begins_paused_and_can_be_paused():
    with linked() as link:
        lane = link.lane(5, plain=False)
        link.pass_on(data(5, 1))
        assert controls(link.inlet) == [(lane.id, data(5, 1))]
        assert lane.resume()
        lane.pause()
        link.pass_on(data(5, 1))
        assert controls(link.inlet) == [(lane.id, data(5, 1))]


def test_bad_frames_are_counted_and_nothing_else():
    with linked() as link:
        lane = link.lane(5)
        good = data(5, 1, crc=True)
        link.pass_on(good[:47], b"", damaged(good, 45), damaged(good), damaged(good, 36), good + b"x", data(6, 1))
        wanted = link.inlet.packets + 2
        link.pub.send_multipart([good, b"", b"more"])
        link.send(good)
        until(lambda: link.inlet.drain() >= 0 and link.inlet.packets == wanted)
        inlet = link.inlet
        assert (inlet.malformed, inlet.bad_version, inlet.bad_crc, inlet.unknown_channel) == (4, 1, 2, 1)
        assert runs(lane) == [(SESSION, 1, content(1, 1))]
        assert inlet.take_control() is None


def test_a_full_ring_overwrites_nothing():
    with linked() as link:
        lane = link.lane(5, ring_bytes=RECORD_BYTES * 16)
        link.pass_on(*(data(5, first) for first in range(1, 19)))
        assert controls(link.inlet) == [(lane.id, data(5, 17)), (lane.id, data(5, 18))]
        assert runs(lane, 5)[0] == (SESSION, 1, content(1, 4))  # a chunk is a quarter of so small a ring
        assert lane.waiting == 0
        assert lane.resume()
        link.pass_on(data(5, 17, 2), data(5, 19, 14))
        assert b"".join(run[2] for run in runs(lane)) == content(17, 16)
        link.pass_on(data(5, 33, 17))  # more than it could ever hold
        assert controls(link.inlet) == [(lane.id, data(5, 33, 17))]


def test_a_full_control_queue_drops_as_the_network_does():
    with linked(control_bytes=1 << 17) as link:
        lane = link.lane(5)
        big = data(5, 3, 1000)
        link.pass_on(data(5, 1), *([big] * 6))
        assert (lane.overflow, link.inlet.overflow) == (2, 2)
        for _ in range(20):  # around the ring's end, again and again
            taken = controls(link.inlet)
            assert taken == [(lane.id, big)] * len(taken)
            assert len(taken) >= 3
            before = lane.overflow
            link.pass_on(*([big] * 4))
            assert lane.overflow - before <= 1
        controls(link.inlet)
        assert lane.resume()
        link.pass_on(data(5, 2))
        assert runs(lane) == [(SESSION, 1, content(1, 2))]


# Many lanes and sockets


def test_several_lanes_of_one_channel_each_get_it():
    with linked() as link:
        first, second, behind = link.lane(5), link.lane(5), link.lane(5, delivered=9)
        other = link.lane(6)
        link.pass_on(data(5, 1, 2), data(5, 3))
        assert link.inlet.ready_lanes() == [first, second]
        assert link.inlet.ready_lanes() == []
        assert runs(first) == runs(second) == [(SESSION, 1, content(1, 3))]
        assert controls(link.inlet) == [(behind.id, data(5, 1, 2)), (behind.id, data(5, 3))]
        assert (other.packets, link.inlet.records) == (0, 6)


def test_a_thousand_channels_come_and_go():
    with linked() as link:
        source = random.Random(1)
        channels = [source.getrandbits(64) for _ in range(1000)]  # as hashes are: some share a slot
        lanes = {channel: link.lane(channel, ring_bytes=4096) for channel in channels}
        link.pass_on(*(data(channel, 1) for channel in channels))
        assert link.inlet.ready_lanes() == list(lanes.values())
        for channel in channels[::2]:
            link.inlet.remove_lane(lanes[channel])
        link.pass_on(*(data(channel, 2) for channel in channels))
        assert link.inlet.unknown_channel == 500
        for n, channel in enumerate(channels):
            assert runs(lanes[channel]) == [(SESSION, 1, content(1, 1 + n % 2))]


def test_a_busy_socket_starves_no_other():
    with linked(subs=3) as link:
        link.lane(5)
        link.send(*(data(5, first) for first in range(1, 201)))
        assert [link.inlet.drain(96), link.inlet.drain(5)] == [96, 5]
        left = [0, 0, 0]
        for n, sub in enumerate(link.subs):
            link.inlet.remove_socket(sub.underlying)
            while sub.poll(0):
                sub.recv()
                left[n] += 1
        assert sorted(left) == [163, 168, 168], left


def test_removing_lanes_and_sockets():
    with linked() as link:
        lane = link.lane(5)
        link.pass_on(data(5, 1), data(5, 3))
        link.inlet.remove_lane(lane)
        with pytest.raises(KeyError):
            link.inlet.remove_lane(lane)
        assert link.inlet.ready_lanes() == []
        assert link.inlet.take_control() is None  # its frames went with it
        assert not lane.resume()
        link.pass_on(data(5, 2))
        assert link.inlet.unknown_channel == 1
        assert runs(lane) == [(SESSION, 1, content(1, 1))]
        link.inlet.remove_socket(link.subs[0].underlying)
        with pytest.raises(KeyError):
            link.inlet.remove_socket(link.subs[0].underlying)
        link.send(data(5, 1))
        assert link.subs[0].poll(5000)
        assert link.inlet.drain() == 0


def is_lent(records):
    """A view of the ring's memory, not a copy."""
    return type(records.base).__name__ == "Chunk"


def test_lanes_and_arrays_outlive_everything():
    with linked() as link:
        lane = link.lane(5)
        link.pass_on(data(5, 1, 200), data(5, 201, 3))
        records = lane.take(200)[2]
        assert is_lent(records)
        link.inlet.remove_socket(link.subs[0].underlying)
        del link.inlet
        assert runs(lane) == [(SESSION, 201, content(201, 3))]
        del lane
        assert records.tobytes() == content(1, 200)


def test_a_socket_whose_context_ended_is_left_alone():
    with linked() as link:
        lane = link.lane(5)
        link.pass_on(data(5, 1))
        pair = link.context.socket(zmq.PUB)  # can't be received from
        link.inlet.add_socket(pair.underlying, int(pair.FD))
        link.pass_on(data(5, 2))
        assert link.inlet.broken_sockets == 1
        link.pass_on(data(5, 3))
        assert (link.inlet.broken_sockets, lane.received) == (1, 3)
        assert link.inlet.wait(1) == wire.RECORDS
        assert link.inlet.wait(1_000_000) == 0
        link.inlet.remove_socket(pair.underlying)
        pair.close()


# Views


def test_views_never_change_while_the_ring_goes_on():
    with linked() as link:
        lane = link.lane(5, ring_bytes=1 << 16)
        views, first = [], 1
        for _ in range(200):
            link.pass_on(data(5, first, 200))
            while (run := lane.take()) is not None:
                views.append(run[1:])
            first += 200
            if len(views) % 7 == 0:
                del views[: len(views) // 2]
        assert lane.plain
        assert any(is_lent(records) for _, records in views)
        for start, records in views:
            assert records.tobytes() == content(start, len(records) // RECORD_BYTES)


def test_views_that_are_kept_cost_the_reader_copies_never_the_ring():
    with linked() as link:
        lane = link.lane(5, ring_bytes=1 << 16)
        kept = []
        for n in range(100):
            link.pass_on(data(5, 1 + 512 * n, 512))
            while (run := lane.take()) is not None:
                kept.append(run[1:])
        lent = sum(is_lent(records) for _, records in kept)
        assert 4 <= lent < 20, lent
        assert lane.plain
        for first, records in kept:
            assert records.tobytes() == content(first, len(records) // RECORD_BYTES)
        kept.clear()
        link.pass_on(data(5, 1 + 512 * 100, 512))
        assert is_lent(lane.take()[2])  # let go: lent again


def test_small_runs_are_copies():
    with linked() as link:
        lane = link.lane(5)
        link.pass_on(data(5, 1, 127), data(5, 128, 128))
        assert not is_lent(lane.take(127)[2])
        assert is_lent(lane.take(128)[2])


# Waiting


def test_wait_returns_what_there_is(tmp_path):
    for endpoint in transports(tmp_path):
        with linked(endpoint) as link:
            lane = link.lane(5)
            for spin in (False, True):
                began_ns = time.monotonic_ns()
                assert link.inlet.wait(3_000_000, spin) == 0
                assert 3_000_000 <= time.monotonic_ns() - began_ns < SECOND_NS
            first = lane.tracker.delivered + 1
            link.send(data(5, first))
            assert link.inlet.wait(20 * SECOND_NS) == wire.RECORDS
            assert link.inlet.wait(0) == 0  # told once
            assert len(runs(lane)) == 1
            link.send(data(5, 9))
            assert link.inlet.wait(20 * SECOND_NS, True) == wire.CONTROL
            assert link.inlet.wait(20 * SECOND_NS) == wire.CONTROL  # as long as it is so
            assert len(controls(link.inlet)) == 1
            assert link.inlet.wait(-5) == 0


@pytest.mark.parametrize("spin", [False, True], ids=["poll", "spin"])
def test_wait_sees_extra_descriptors(spin):
    with linked() as link:
        lane = link.lane(5)
        reader, writer = os.pipe()
        link.inlet.add_fd(reader)
        assert link.inlet.wait(1_000_000, spin) == 0
        os.write(writer, b"x")
        assert link.inlet.wait(20 * SECOND_NS, spin) == wire.EXTRA
        assert link.inlet.wait(20 * SECOND_NS, spin) == wire.EXTRA
        bits, sequence = 0, 1
        deadline_ns = time.monotonic_ns() + 20 * SECOND_NS
        while not bits & wire.EXTRA:  # a socket that is never dry does not hide it
            assert time.monotonic_ns() < deadline_ns
            link.send(data(5, sequence))
            sequence += 1
            bits = link.inlet.wait(SECOND_NS, spin)
            runs(lane)
        link.inlet.remove_fd(reader)
        with pytest.raises(KeyError):
            link.inlet.remove_fd(reader)
        assert link.inlet.wait(SECOND_NS // 1000, spin) & wire.EXTRA == 0
        os.close(reader)
        os.close(writer)


def test_what_came_while_the_sockets_were_held_is_found(tmp_path):
    with linked(f"ipc://{tmp_path}/s") as link:
        lane = link.lane(5)
        link.inlet.hold()
        link.send(data(5, 1))
        assert link.subs[0].poll(5000)
        link.subs[0].setsockopt(zmq.SUBSCRIBE, b"other")  # uses up the signal
        link.inlet.release()
        assert link.inlet.wait(20 * SECOND_NS) == wire.RECORDS
        assert lane.received == 1


def test_the_histogram_counts_from_sent_to_arrived():
    with linked() as link:
        lane = link.lane(5)
        assert lane.histogram is None
        counts = histogram.Histogram(bytearray(histogram.BYTES))
        lane.histogram = counts
        now_ns = time.time_ns()
        for sequence, sent_ns in ((1, now_ns - SECOND_NS), (2, 0), (3, now_ns + 100 * SECOND_NS)):
            link.pass_on(
                encode(Kind.DATA, 5, SESSION, sequence, sent_ns, SCHEMA, RECORD_BYTES, 1, content(sequence, 1))
            )
        assert counts.count == 2  # one without a stamp
        assert counts.min_ns == 0
        assert counts.max_ns >= SECOND_NS
        lane.histogram = None
        link.pass_on(data(5, 4))
        assert counts.count == 2


def test_arguments_that_make_no_sense():
    with linked() as link:
        for record_bytes, ring_bytes, dtype in ((0, 100, None), (8, 0, None), (MAX_BYTES, 100, None), (8, 100, "u4")):
            with pytest.raises(ValueError):
                link.inlet.add_lane(5, SCHEMA, record_bytes, Tracker(), ring_bytes, dtype)
        with pytest.raises(ValueError):
            wire.Inlet(100)
        with pytest.raises(ValueError):
            link.inlet.add_socket(0, 1)
        with pytest.raises(ValueError):
            wire.Outlet(0)
        with pytest.raises(TypeError):
            wire.Lane()
