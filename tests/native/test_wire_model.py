"""Random packets through an inlet and through a model in plain Python: the same records, the same frames, the same counts."""

from __future__ import annotations

import pytest
import zmq
import zmq.backend.cython._zmq as backend
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_model import (
    RECORD_BYTES,
    SCHEMA,
    SESSION,
    Link,
    ModelInlet,
    ModelLane,
    content,
    damaged,
    data,
    heartbeat,
    linked,
)

from native import wire
from native.packet import Kind

RING_RECORDS = 24
CHANNELS = (5, 5 + (1 << 40), 6)  # the last has no lane at first

NEXT, NEAR, BEAT = "next", "near", "beat"

ACTIONS = st.lists(
    st.one_of(
        # Mostly what a healthy channel sends, so that the lanes are plain often enough.
        st.tuples(st.just(NEXT), st.sampled_from(CHANNELS), st.integers(1, 5), st.booleans()),
        st.tuples(st.just(NEXT), st.sampled_from(CHANNELS[:2]), st.integers(1, 5), st.booleans()),
        st.tuples(
            st.just(NEAR),
            st.sampled_from(CHANNELS),
            st.integers(-4, 4),
            st.integers(1, 4),
            st.sampled_from([SESSION, SESSION, SESSION + 1, SESSION + (1 << 32), SESSION - (1 << 32)]),
            st.sampled_from([SCHEMA, SCHEMA, 12]),
        ),
        st.tuples(
            st.just(BEAT), st.sampled_from(CHANNELS), st.integers(-1, 1), st.sampled_from([Kind.HEARTBEAT, Kind.END])
        ),
        st.tuples(st.just("bad"), st.sampled_from(CHANNELS), st.integers(0, 79)),
        st.tuples(st.just("short"), st.integers(0, 60)),
        st.tuples(st.just("parts"), st.sampled_from(CHANNELS)),
        st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 30)),
        st.tuples(st.just("resume"), st.integers(0, 2)),
        st.tuples(st.just("drain")),
    ),
    max_size=60,
)


class Pair:
    """An inlet with three lanes, two of one channel, and the model of it."""

    def __init__(self, link: Link) -> None:
        self.link, self.inlet, self.model = link, link.inlet, ModelInlet()
        self.sent = link.inlet.packets
        self.base = self.counts()
        self.lanes: list[ModelLane] = []
        for channel in (CHANNELS[0], CHANNELS[0], CHANNELS[1]):
            lane = ModelLane(link.lane(channel, ring_bytes=RING_RECORDS * RECORD_BYTES), RING_RECORDS)
            self.model.lanes.setdefault(channel, []).append(lane)
            self.lanes.append(lane)

    def counts(self) -> list[int]:
        inlet = self.link.inlet
        return [inlet.malformed, inlet.bad_crc, inlet.bad_version, inlet.unknown_channel]

    def next_of(self, channel: int) -> int:
        lanes = self.model.lanes.get(channel)
        return lanes[0].tracker.delivered + 1 if lanes else 1

    def send(self, *parts: bytes) -> None:
        """Into both; drained now, since the model knows no wait."""
        self.link.pub.send_multipart(list(parts))
        self.sent += 1
        while self.inlet.packets < self.sent:
            self.inlet.drain()
        self.model.take_in(*parts)

    def act(self, action: tuple[object, ...]) -> None:
        match action:
            case ("next", int(channel), int(count), bool(crc)):
                self.send(data(channel, self.next_of(channel), count, crc=crc))
            case ("near", int(channel), int(offset), int(count), int(session), int(schema)):
                first = max(1, self.next_of(channel) + offset)
                self.send(data(channel, first, count, session=session, schema=schema))
            case ("beat", int(channel), int(offset), Kind() as kind):
                self.send(heartbeat(channel, max(1, self.next_of(channel) + offset), kind=kind))
            case ("bad", int(channel), int(at)):
                self.send(damaged(data(channel, self.next_of(channel), crc=True), at))
            case ("short", int(length)):
                self.send(b"\x01" * length)
            case ("parts", int(channel)):
                self.send(data(channel, self.next_of(channel)), b"more")
            case ("take", int(which), int(most)):
                self.take(self.lanes[which], most)
            case ("resume", int(which)):
                self.take_frames()
                lane = self.lanes[which]
                lane.tracker.seen = lane.tracker.delivered = lane.tracker.delivered + 1  # something else filled a hole
                lane.lane.tracker.seen = lane.lane.tracker.delivered = lane.tracker.delivered
                assert lane.lane.resume()
                lane.plain = True

    def take(self, model: ModelLane, most: int) -> bool:
        run = model.lane.take(most)
        if run is None:
            assert not model.records
            return False
        session, first, records = run
        count = len(records) // RECORD_BYTES
        assert 1 <= count <= most
        assert records.tobytes() == content(first, count)
        assert [model.records.popleft() for _ in range(count)] == [(session, first + i) for i in range(count)]
        return True

    def take_frames(self) -> None:
        by_id = {lane.lane.id: lane for lane in self.lanes}
        while (item := self.inlet.take_control()) is not None:
            assert item[1] == by_id[item[0].id].frames.pop(0)
        assert not any(lane.frames for lane in self.lanes)

    def check(self) -> None:
        for model in self.lanes:
            lane = model.lane
            assert lane.plain == model.plain
            assert lane.waiting == len(model.records)
            assert lane.tracker.delivered == model.tracker.delivered
            assert lane.tracker.seen == model.tracker.seen
        model_counts = [self.model.malformed, self.model.bad_crc, self.model.bad_version, self.model.unknown_channel]
        assert [now - before for now, before in zip(self.counts(), self.base, strict=True)] == model_counts

    def finish(self) -> None:
        for model in self.lanes:
            while self.take(model, 1000):
                pass
        self.take_frames()
        for model in self.lanes:
            self.inlet.remove_lane(model.lane)


@pytest.fixture(scope="module")
def link():
    if not wire.load(backend.__file__, zmq.zmq_version()):
        pytest.skip("this pyzmq's libzmq can't be called natively")
    with linked("inproc://model") as link:
        yield link


@settings(max_examples=300, deadline=None)
@given(actions=ACTIONS)
def test_an_inlet_does_what_the_model_does(link, actions):
    pair = Pair(link)
    try:
        for action in actions:
            pair.act(action)
            pair.check()
    finally:
        pair.finish()
