"""Several lines of one channel in the hot path: the first packet delivers, the same on another line costs a count."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import zmq
import zmq.backend.cython._zmq as backend
from wire_model import RECORD_BYTES, SCHEMA, SESSION, data, heartbeat, runs, until

from native import wire
from native.lines import MOST, LineAccounts
from native.sequence import Tracker

CHANNEL = 5


@pytest.fixture(autouse=True)
def _loaded() -> None:
    if not wire.load(backend.__file__, zmq.zmq_version()):
        pytest.skip("this pyzmq's libzmq can't be called natively")


class Joined:
    """Two publishers that send the same, and a lane that has joined both."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.inlet = wire.Inlet()
        self.pubs, self.subs = [], []
        for name in "ab":
            pub, sub = self.context.socket(zmq.XPUB), self.context.socket(zmq.SUB)
            pub.bind(f"inproc://{name}")
            sub.setsockopt(zmq.SUBSCRIBE, b"")
            sub.connect(f"inproc://{name}")
            assert pub.poll(20_000)
            pub.recv()
            self.pubs.append(pub)
            self.subs.append(sub)
            self.inlet.add_socket(sub.underlying, int(sub.FD))
        self.tracker = Tracker()
        self.tracker.session = SESSION
        self.lines = LineAccounts(2)
        self.lane = self.inlet.add_lane(
            CHANNEL,
            SCHEMA,
            RECORD_BYTES,
            self.tracker,
            1 << 16,
            None,
            self.lines,
            [sub.underlying for sub in self.subs],
        )
        assert self.lane.resume()

    def send(self, line: int, frame: bytes) -> None:
        wanted = self.inlet.packets + 1
        self.pubs[line].send(frame)
        until(lambda: self.inlet.drain() >= 0 and self.inlet.packets >= wanted)

    def close(self) -> None:
        for each in (*self.subs, *self.pubs):
            each.close(linger=0)
        self.context.term()


@pytest.fixture
def joined() -> Iterator[Joined]:
    made = Joined()
    yield made
    made.close()


def accounts(lines: LineAccounts) -> list[tuple[int, int, int, int, int]]:
    return [
        (lines.received(line), lines.first(line), lines.duplicates(line), lines.late(line), lines.last(line))
        for line in range(len(lines))
    ]


def test_the_first_one_delivers_and_the_lane_stays_plain(joined: Joined) -> None:
    joined.send(0, data(CHANNEL, 1, 3))
    joined.send(1, data(CHANNEL, 1, 3))
    joined.send(1, data(CHANNEL, 4))
    joined.send(1, heartbeat(CHANNEL, 5))
    joined.send(0, heartbeat(CHANNEL, 4))  # behind: the other line has brought more
    joined.send(0, data(CHANNEL, 4))
    assert joined.lane.plain
    assert joined.inlet.take_control() is None
    assert [(first, len(part) // RECORD_BYTES) for _, first, part in runs(joined.lane)] == [(1, 4)]
    assert accounts(joined.lines) == [(4, 3, 1, 0, 4), (4, 1, 3, 0, 4)]
    assert joined.lines.dropped == 4


def test_what_is_ahead_goes_to_the_control_side_with_its_line(joined: Joined) -> None:
    joined.send(1, data(CHANNEL, 2))
    assert not joined.lane.plain
    joined.send(0, data(CHANNEL, 1))
    taken = [joined.inlet.take_control(), joined.inlet.take_control()]
    assert [(each[0].id, each[2]) for each in taken if each] == [(joined.lane.id, 1), (joined.lane.id, 0)]
    assert accounts(joined.lines) == [(0, 0, 0, 0, 0)] * 2  # the control side's to count


def test_a_told_gap_makes_what_comes_of_it_late(joined: Joined) -> None:
    joined.tracker.delivered = joined.tracker.seen = 10
    joined.lines.tell(3, 5)
    joined.lines.tell(8, 8)
    joined.send(1, data(CHANNEL, 4, 3))
    joined.send(1, data(CHANNEL, 8, 2))
    joined.send(1, data(CHANNEL, 10))
    assert accounts(joined.lines)[1] == (6, 0, 3, 3, 10)
    joined.lines.restart()
    joined.send(1, data(CHANNEL, 4))
    assert accounts(joined.lines)[1][2:] == (4, 3, 4)


@pytest.mark.parametrize("seed", range(5))
def test_every_record_once_and_the_sums_hold(joined: Joined, seed: int) -> None:
    generator = random.Random(seed)
    print("seed", seed)
    positions, total = [1, 1], 200
    while min(positions) <= total:
        line = generator.randrange(2)
        # A line behind may do as it likes; one in front goes on record by record.
        if positions[line] <= total:
            joined.send(line, data(CHANNEL, positions[line]))
        positions[line] += 1
    assert joined.lane.plain
    assert sum(len(part) // RECORD_BYTES for _, _, part in runs(joined.lane)) == total
    counted = accounts(joined.lines)
    assert all(received == first + duplicates + late for received, first, duplicates, late, _ in counted)
    assert sum(each[1] for each in counted) == total
    assert joined.lines.dropped == total


def test_what_makes_no_sense_raises(joined: Joined) -> None:
    for count in (0, MOST + 1):
        with pytest.raises(ValueError):
            LineAccounts(count)
    with pytest.raises(IndexError):
        joined.lines.received(2)
    with pytest.raises(ValueError):
        joined.lines.brought(0, 1, 1, 2, 0)
    for sockets in ([1], [1, 1], [1, 2, 3]):
        with pytest.raises(ValueError):
            joined.inlet.add_lane(6, SCHEMA, RECORD_BYTES, Tracker(), 1 << 16, None, joined.lines, sockets)


def test_a_socket_that_is_no_line_of_the_lane_is_not_for_it(joined: Joined) -> None:
    other = Tracker()
    other.session = SESSION
    single = joined.inlet.add_lane(CHANNEL, SCHEMA, RECORD_BYTES, other, 1 << 16)
    lines = LineAccounts(1)
    elsewhere = joined.inlet.add_lane(
        7, SCHEMA, RECORD_BYTES, Tracker(), 1 << 16, None, lines, [joined.subs[1].underlying]
    )
    assert single.resume()
    joined.send(0, data(CHANNEL, 1))
    assert (single.received, joined.lane.received, elsewhere.received) == (1, 1, 0)
