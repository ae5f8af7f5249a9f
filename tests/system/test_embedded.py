"""The embedded client against real sockets and processes: stalls, kills, late joiners, forks, garbage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

import fabric
from fabric.channel import channel_id
from fabric.errors import AddressInUse, Closed, LogFull, LogLocked, NotConnected, RecordTypeError
from fabric.log import LogOptions, LogWriter
from fabric.protocol.events import Lost
from fabric.protocol.types import Limits, Run, Start
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import Publisher
from fabric.transport.receiver import Receiver
from native.packet import Kind, encode

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", image="last", key=("instrument",), value="u8")
SMALL = LogOptions(retain_bytes=8 << 16, segment_bytes=1 << 16)


@pytest.fixture(params=("local", "ipc", "tcp"))
def path(request: pytest.FixtureRequest) -> str:
    """Every test here holds on every path, but for those about packets, which take ``sockets``."""
    return str(request.param)


def publish(endpoints: tuple[str, str], tmp_path: Path, **more: Any) -> fabric.ChannelWriter:
    return fabric.publish("numbers", NUMBER, listen=endpoints[0], replay=endpoints[1], log_dir=tmp_path / "log", **more)


def subscribe(endpoints: tuple[str, str], **more: Any) -> fabric.Subscription:
    more.setdefault("path", getattr(endpoints, "path", "auto"))
    return fabric.subscribe("numbers", data=endpoints[0], replay=endpoints[1], **more)


def read_until(subscription: fabric.Subscription, last: int, timeout: float = 20.0) -> list[fabric.Batch]:
    deadline = time.monotonic() + timeout
    batches: list[fabric.Batch] = []
    while not batches or batches[-1].last < last:
        batch = subscription.poll(timeout=max(0.0, deadline - time.monotonic()))
        assert batch is not None, (subscription, subscription.counters)
        batches.append(batch)
    return batches


def check_complete(batches: list[fabric.Batch], first: int, last: int) -> None:
    """Every sequence once, in order, with the content that the writer gave it."""
    assert [int(s) for batch in batches for s in batch.sequences] == list(range(first, last + 1))
    values = np.concatenate([batch.records["value"] for batch in batches])
    assert values.tolist() == list(range(first, last + 1))


def test_batches_tell_the_truth(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out, subscribe(endpoints, start="first", record=NUMBER) as numbers:
        out.send(instrument=5, value=[1, 2, 3])
        batches = read_until(numbers, 3)
        check_complete(batches, 1, 3)
        batch = batches[0]
        assert (batch.first, batch.contiguous, batch.session, batch.as_of) == (1, True, out.session, None)
        assert not batch.records.flags.writeable
        out.send(instrument=5, value=[4, 5, 6, 7])
        parts = [numbers.poll(max_records=3, timeout=5), numbers.poll(max_records=3, timeout=5)]
        assert [(part.first, part.last, len(part)) for part in parts if part] == [(4, 6, 3), (7, 7, 1)]
        assert numbers.poll(timeout=0) is None
        out.end()
        assert list(numbers) == []
        assert numbers.state == "ENDED"
    assert batch.records["value"].tolist() == [1, 2, 3][: len(batch)], "views outlive close()"


def test_a_stalled_subscriber_past_the_high_water_mark_recovers_everything(
    sockets: tuple[str, str], tmp_path: Path
) -> None:
    identity = channel_id("numbers")
    writer = LogWriter(tmp_path / "log", "numbers", identity, NUMBER, LogOptions(), now_ns=time.time_ns())
    server = LogServer([sockets[1]], {identity: tmp_path / "log"}.get).start()
    publisher = Publisher([sockets[0]], send_hwm=10)
    channel = publisher.add(writer)
    receiver = Receiver(receive_hwm=10)
    target = receiver.subscribe(
        "numbers", Start.first(), data=sockets[0], replay=sockets[1], record=NUMBER, path="ipc", limits=Limits()
    )
    deadline = time.monotonic() + 20
    while not target.machine.active:
        receiver.poll(10_000_000)
        assert time.monotonic() < deadline
    total = 20_000
    for value in range(1, total + 1):  # the receiver is not polled meanwhile: ZeroMQ drops without a word
        channel.write(NUMBER.build(value=value), 0)
    got: list[int] = []
    while len(got) < total:
        receiver.poll(10_000_000)
        while (item := target.take()) is not None:
            if isinstance(item, Run):
                got += item.records["value"].tolist()
        assert time.monotonic() < deadline, target.machine.counters
    assert got == list(range(1, total + 1))
    counters = target.machine.counters
    assert counters.missed == counters.recovered > 1000
    assert counters.lost == counters.duplicates == 0
    receiver.close()
    publisher.close()
    server.close()
    writer.close()


def test_a_reader_that_stops_reading_is_bounded_and_then_gets_everything(
    sockets: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: Callable[..., Any]
) -> None:
    monkeypatch.setattr("fabric.client.intake.QUEUE_RECORDS", 500)
    limits = Limits(max_queued_records=500, max_held_records=500)
    with publish(sockets, tmp_path) as out, subscribe(sockets, start="first", limits=limits) as numbers:
        waiting(lambda: numbers.feeds["numbers"].receiver.machine.active, "the subscription")
        total = 20_000
        for first in range(1, total, 50):
            out.send(value=np.arange(first, first + 50))
        deadline = time.monotonic() + 10
        while numbers.counters.refused == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        machine = numbers.feeds["numbers"].receiver.machine
        assert machine.queued_records + machine.held_records + numbers._intake._ready_records < 500 * 4 + 65_536
        assert numbers.state == "RECOVERING"
        check_complete(read_until(numbers, total), 1, total)
        assert numbers.counters.lost == 0


PUBLISHER = """
import sys, fabric, numpy as np
record = fabric.record("number", image="last", value="u8")
data, replay, log, end = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
with fabric.publish("numbers", record, listen=data, replay=replay, log_dir=log) as out:
    for line in sys.stdin:  # each line: publish up to this sequence
        upto = int(line)
        while out.next <= upto:
            out.send(instrument=out.next % 7, value=np.arange(out.next, min(out.next + out.next % 5, upto) + 1))
        if upto == end:
            out.end()
"""


def test_a_publisher_killed_in_mid_stream_and_restarted_leaves_every_subscriber_complete(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    total = 150_000
    command = [sys.executable, "-c", PUBLISHER, *endpoints, str(tmp_path / "log"), str(total)]
    readers = [subscribe(endpoints, start="first") for _ in range(2)]
    # It gets no further than ``upto`` by itself, so that it can't be done before it is killed.
    for upto, kill_at in ((60_000, 20_000), (110_000, 70_000), (total, total - 1)):
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            try:
                for reader in readers if upto == 60_000 else ():
                    waiting(lambda reader=reader: reader.feeds["numbers"].receiver.machine.active, "the subscription")
                process.stdin.write(f"{upto}\n".encode())  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                waiting(lambda kill_at=kill_at: readers[0].last > kill_at, f"record {kill_at}")
                if upto == total:
                    for reader in readers:
                        batches = list(reader)
                        check_complete(batches, 1, total)
                        assert len({batch.session for batch in batches}) == 1, "it went on in the same session"
                        assert reader.counters.lost == 0
                        reader.close()
            finally:
                process.kill()


def test_a_late_joiner_gets_a_snapshot_and_goes_on_without_a_hole(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path, options=SMALL) as out:
        for value in range(1, 20_001):
            out.append(instrument=value % 10 + 1, value=value)
            if value % 100 == 0:
                out.flush()
        with subscribe(endpoints) as numbers:
            image = numbers.poll(timeout=10)
            assert image is not None
            assert (image.origin, image.as_of, len(image)) == ("snapshot", 20_000, 10)
            assert sorted(image.records["value"].tolist()) == list(range(19_991, 20_001))
            assert image.sequences.tolist() == image.records["value"].tolist()
            out.send(value=[20_001, 20_002])
            check_complete(read_until(numbers, 20_002), 20_001, 20_002)


def test_what_retention_removed_is_skipped_by_a_snapshot_or_lost_by_name(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    with publish(endpoints, tmp_path, options=SMALL) as out:
        for first in range(1, 40_001, 100):
            out.send(instrument=1, value=np.arange(first, first + 100))
        control = out._writer.control
        waiting(lambda: control.first_available > 20_000, "retention")
        with subscribe(endpoints, start="first") as numbers:
            image = numbers.poll(timeout=10)
            assert image is not None
            assert image.origin == "snapshot"
            assert image.as_of == image.records["value"][-1] >= control.first_available - 1
            check_complete(read_until(numbers, 40_000), image.as_of + 1, 40_000)
            assert (numbers.counters.skipped, numbers.counters.lost) == (image.as_of, 0)


def test_without_an_image_the_hole_is_raised_where_it_is_and_iteration_goes_on(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    plain = fabric.record("number", value="u8")
    more = {"listen": endpoints[0], "replay": endpoints[1], "log_dir": tmp_path / "log", "options": SMALL}
    with fabric.publish("numbers", plain, **more) as out:  # type: ignore[arg-type]
        for first in range(1, 40_001, 100):
            out.send(instrument=1, value=np.arange(first, first + 100))
        control = out._writer.control
        segment = SMALL.segment_bytes // plain.size
        oldest = 1 + segment * (39_999 // segment + 1 - SMALL.retain_bytes // SMALL.segment_bytes)
        waiting(lambda: control.first_available == oldest, "retention")  # all of it: none goes on while we read
        with subscribe(endpoints, start="first") as numbers:
            with pytest.raises(fabric.RecordsLost) as caught:
                next(numbers)
            lost = caught.value
            assert (lost.channel, lost.first) == ("numbers", 1)
            assert "no longer retained" in lost.reason
            check_complete(read_until(numbers, 40_000), lost.last + 1, 40_000)
            assert numbers.counters.lost == lost.last
        told: list[Lost] = []
        with subscribe(endpoints, start="first", on_lost=told.append) as numbers:
            check_complete(read_until(numbers, 40_000), lost.last + 1, 40_000)
        assert [(event.first, event.last) for event in told] == [(1, lost.last)]


def test_a_lost_log_is_a_new_session_and_the_old_tail_is_accounted_for(
    endpoints: tuple[str, str], tmp_path: Path
) -> None:
    with subscribe(endpoints, start="first", on_lost=(told := []).append) as numbers:
        with publish(endpoints, tmp_path) as out:
            out.send(value=[1, 2, 3])
            check_complete(read_until(numbers, 3), 1, 3)
            old = out.session
        shutil.rmtree(tmp_path / "log")
        with publish(endpoints, tmp_path) as out:
            out.send(value=[1, 2])
            batch = numbers.poll(timeout=20)
            assert batch is not None
            assert batch.session == out.session != old
            assert (batch.first, out.session >> 32 > old >> 32) == (1, True)
            assert ["is not known" in event.reason for event in told] == [True]


def test_garbage_on_the_wire_is_counted_and_dropped(sockets: tuple[str, str], tmp_path: Path) -> None:
    identity = channel_id("numbers")
    context = zmq.Context.instance()
    with publish(sockets, tmp_path) as out:
        out.send(value=[1, 2, 3])
        with context.socket(zmq.DEALER) as dealer:  # to the log server
            dealer.setsockopt(zmq.LINGER, 500)
            dealer.connect(sockets[1])
            for junk in (b"", b"\xff" * 100, b"\x96\x01\x02", os.urandom(2000)):
                dealer.send(junk)
            dealer.send_multipart([b"a", b"b", b"c"])
        fake = f"{sockets[0]}.fake"
        with context.socket(zmq.PUB) as pub:
            pub.setsockopt(zmq.LINGER, 0)
            pub.bind(fake)
            with fabric.subscribe(
                "numbers", data=fake, replay=sockets[1], start="first", record=NUMBER, path="ipc"
            ) as numbers:
                check_complete(read_until(numbers, 3), 1, 3)
                prefix = identity.to_bytes(8, "little")
                session, schema, size = out.session, NUMBER.schema, NUMBER.size
                good = encode(Kind.DATA, identity, session, 4, 0, schema, size, 1, NUMBER.build(value=4), True)
                flipped = bytearray(good)
                flipped[60] ^= 1
                junk = [
                    prefix, prefix + b"x" * 10, prefix + os.urandom(100), good[:-1], bytes(flipped),
                    good[:45] + b"\x09" + good[46:],
                    encode(Kind.DATA, identity, session, 4, 0, schema ^ 1, size, 1, NUMBER.build(value=9)),
                    encode(Kind.DATA, identity, session - (1 << 32), 4, 0, schema, size, 1, NUMBER.build(value=9)),
                    encode(Kind.DATA, identity, session ^ 1, 4, 0, schema, size, 1, NUMBER.build(value=9)),
                    encode(Kind.SNAPSHOT, identity, session, 4, 0, schema, size, 1, NUMBER.build(value=9)),
                ]  # fmt: skip
                deadline = time.monotonic() + 20
                while numbers.counters.conflicts == 0:  # the subscription takes a moment to reach the fake publisher
                    for frame in junk:
                        pub.send(frame)
                    pub.send_multipart([good, b"another frame"])
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                pub.send(good)
                check_complete(read_until(numbers, 4), 4, 4)
                wire = numbers.wire
                assert min(wire.malformed, wire.bad_crc, wire.bad_version, wire.wrong_schema) > 0
                assert min(numbers.counters.fenced, numbers.counters.conflicts) > 0
        assert out._server.malformed >= 4


def test_oversized_subscriptions_do_not_slow_the_publisher(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out, subscribe(endpoints, start="first") as numbers:
        numbers.wait_live(10)
        with zmq.Context.instance().socket(zmq.XSUB) as bad:
            bad.setsockopt(zmq.LINGER, 200)
            bad.connect(endpoints[0])
            for _ in range(300):
                bad.send(b"\x01" + os.urandom(1 << 16))
        for value in range(1, 2001):
            out.send(value=value)
        check_complete(read_until(numbers, 2000), 1, 2000)


def test_values_that_do_not_fit_are_refused(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out, subscribe(endpoints, start="first") as numbers:
        for wrong in ({"instrument": 1 << 32}, {"instrument": -1}, {"value": 0.5}, {"value": "x"}):
            with pytest.raises(RecordTypeError, match="takes"):
                out.send(**wrong)
        with pytest.raises(fabric.FabricError, match="max_records=0"):
            numbers.poll(max_records=0)
        assert out.next == 1


def test_what_is_no_record_type_or_given_twice_is_refused(sockets: tuple[str, str], tmp_path: Path) -> None:
    plain: Any = NUMBER.dtype
    with pytest.raises(RecordTypeError, match=r"fabric\.record"):
        fabric.publish("numbers", plain, listen=sockets[0], replay=sockets[1], log_dir=tmp_path / "log")
    with publish(sockets, tmp_path) as out:
        one = NUMBER.build(1, value=1)
        with pytest.raises(RecordTypeError, match="value"):
            out.send(one, value=2)
        with pytest.raises(TypeError, match="2 arguments"):
            out.send(one, one)  # type: ignore[call-arg]
        # The same place with other names each time, and names in another order.
        for columns in ({"value": 1}, {"value": 2, "instrument": 3}, {"instrument": 4, "value": 5}, {}):
            out.send(**columns)
        with pytest.raises(RecordTypeError, match="nothing"):
            out.send(nothing=1)
        assert out.send(records=one) == 5
    log = fabric.open_log(tmp_path / "log")
    records = log[1:6].records
    assert [*zip(records["instrument"].tolist(), records["value"].tolist(), strict=True)] == [
        (0, 1),
        (3, 2),
        (4, 5),
        (0, 0),
        (0, 1),
    ]


def test_two_writers_busy_ports_and_other_dtypes_are_refused(sockets: tuple[str, str], tmp_path: Path) -> None:
    with publish(sockets, tmp_path) as out:
        with pytest.raises(LogLocked, match=rf"pid {os.getpid()}"):
            publish((f"{sockets[0]}2", f"{sockets[1]}2"), tmp_path)
        with pytest.raises(AddressInUse, match="cannot listen on ipc"):
            publish(sockets, tmp_path / "other")
        out.send(value=1)
        other = fabric.record("other", value="f4")
        with subscribe(sockets, record=other) as numbers, pytest.raises(RecordTypeError, match="schema"):
            numbers.poll(timeout=10)
        with pytest.raises(RecordTypeError, match="takes RecordType"):
            out.send(other.build(value=1))
        with pytest.raises(RecordTypeError, match="no field 'valeu'"):
            out.send(valeu=1)


def test_what_is_published_is_handed_to_a_function_of_the_same_process(
    endpoints: tuple[str, str], tmp_path: Path
) -> None:
    got: list[tuple[int, list[int], bool]] = []
    with publish(endpoints, tmp_path, options=LogOptions(segment_bytes=64 << 10)) as out:
        out.send(value=1)
        out.hand_to(lambda records, first: got.append((first, records["value"].tolist(), records.flags.writeable)))
        out.send(value=2)
        out.send(value=[3, 4])
        out.append(value=5)
        out.append(value=6)
        out.flush()
        assert got == [(2, [2], False), (3, [3, 4], False), (5, [5, 6], False)]
        got.clear()
        for first in range(7, 7 + 3000, 100):  # over several segments
            out.send(value=np.arange(first, first + 100))
        assert [value for _, values, _ in got for value in values] == list(range(7, 3007))

        def trouble(records: object, first: int) -> None:
            raise ValueError(first)

        out.hand_to(trouble)
        with pytest.raises(ValueError, match="3007"):
            out.send(value=3007)
        out.hand_to(None)
        assert out.send(value=3008) == 3008, "what the handler raised kept nothing from being published"


def test_a_full_disk_does_not_keep_a_channel_from_closing(
    endpoints: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = publish(endpoints, tmp_path)
    out.send(instrument=1, value=1)

    def full(*_: object) -> int:
        raise LogFull("no room for the next segment", path=tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr(LogWriter, "write", full)
        out._writer.fast.shut()  # the segment is full
        with pytest.raises(LogFull):
            out.send(instrument=1, value=2)
        with pytest.raises(LogFull):
            out.close()
        out.close()
    with pytest.raises(Closed):
        out.flush()
    with publish(endpoints, tmp_path) as again:  # its lock and its addresses are free
        assert again.send(instrument=1, value=2) == 2


def test_not_connected_says_why(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with subscribe(endpoints) as numbers, pytest.raises(NotConnected, match=f"nothing listens on {endpoints[0]}"):
        numbers.wait_live(timeout=0.2)
    with publish(endpoints, tmp_path), fabric.subscribe("nmbers", data=endpoints[0], replay=endpoints[1]) as numbers:
        with pytest.raises(NotConnected, match="knows no such channel"):
            numbers.wait_live(timeout=0.5)
    refused = ("tcp://127.0.0.1:9", "tcp://127.0.0.1:9")
    with subscribe(refused) as numbers, pytest.raises(NotConnected, match="Connection refused"):
        numbers.wait_live(timeout=0.2)


def test_over_tcp(tmp_path: Path) -> None:
    with publish(("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"), tmp_path, fault="drop=0.1,seed=5") as out:
        with subscribe((out.data_endpoint, out.replay_endpoint), start="first") as numbers:
            numbers.wait_live(10)
            for value in range(1, 2001):
                out.send(value=value)
            check_complete(read_until(numbers, 2000), 1, 2000)


def test_after_fork_every_call_in_the_child_raises(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out, subscribe(endpoints, start="first") as numbers:
        out.send(value=1)
        read_until(numbers, 1)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            said = b""
            for call in (lambda: out.send(value=2), lambda: numbers.poll(timeout=0), lambda: next(numbers)):
                try:
                    call()
                except Closed:
                    said += b"x"
            os.write(writing, said)
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        assert os.read(reading, 10) == b"xxx"
        os.close(reading)
        out.send(value=2)
        check_complete(read_until(numbers, 2), 2, 2)


def test_a_dropped_subscription_ends_its_thread(endpoints: tuple[str, str], tmp_path: Path) -> None:
    import gc

    with publish(endpoints, tmp_path):
        numbers = subscribe(endpoints)
        numbers.wait_live(10)
        thread = numbers._hub._thread
        del numbers
        gc.collect()
        thread.join(10)
        assert not thread.is_alive()


def test_two_readers_of_one_channel_in_one_receiver(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out:
        receiver = Receiver()
        readers = [
            receiver.subscribe(
                "numbers", Start.first(), data=endpoints[0], replay=endpoints[1], record=NUMBER, limits=Limits()
            )
            for _ in range(2)
        ]
        deadline = time.monotonic() + 10
        while not all(reader.machine.active for reader in readers):
            receiver.poll(10_000_000)
            assert time.monotonic() < deadline
        out.send(value=[1, 2, 3])
        taken: list[list[int]] = [[], []]
        while taken != [[1, 2, 3], [1, 2, 3]]:
            receiver.poll(10_000_000)
            for values, reader in zip(taken, readers, strict=True):
                while (item := reader.take()) is not None:
                    values.extend(item.records["value"].tolist() if isinstance(item, Run) else ())
            assert time.monotonic() < deadline
        receiver.close()


def test_close_from_another_thread_ends_iteration(endpoints: tuple[str, str], tmp_path: Path) -> None:
    import threading

    with publish(endpoints, tmp_path) as out:
        out.send(value=1)
        numbers = subscribe(endpoints, start="first")
        got = []
        thread = threading.Thread(target=lambda: got.extend(numbers))
        thread.start()
        deadline = time.monotonic() + 10
        while not got:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        numbers.close()
        thread.join(10)
        assert not thread.is_alive()
        with pytest.raises(Closed):
            numbers.poll()
