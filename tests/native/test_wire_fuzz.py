"""Frames that anybody may send, through a native inlet: no more is delivered than was sent, and each message is counted."""

from __future__ import annotations

import pytest
import zmq
import zmq.backend.cython._zmq as backend
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_model import RECORD_BYTES, SESSION, content, controls, data, heartbeat, linked, runs

from native import wire
from native.packet import HEADER_BYTES

CHANNEL = 5
KINDS = st.sampled_from(["set", "insert", "delete", "cut", "append", "swap"])
EDITS = st.lists(st.tuples(KINDS, st.integers(0, 400), st.binary(min_size=1, max_size=3)), min_size=1, max_size=3)
MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just("next"), st.integers(1, 6)),
        st.tuples(st.just("beat")),
        st.tuples(st.just("bytes"), st.binary(max_size=200)),
        st.tuples(st.just("header"), st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES + 64)),
        st.tuples(st.just("mutated"), st.integers(1, 6), EDITS),
        st.tuples(st.just("resume")),
    ),
    min_size=1,
    max_size=40,
)


def mutated(frame: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    changed = bytearray(frame)
    for kind, place, content_ in edits:
        at = place % (len(changed) + 1)
        if kind == "set":
            changed[at : at + len(content_)] = content_[: len(changed) - at]
        elif kind == "insert":
            changed[at:at] = content_
        elif kind == "delete":
            del changed[at : at + len(content_)]
        elif kind == "cut":
            del changed[at:]
        elif kind == "append":
            changed += content_
        else:
            changed[:] = changed[at:] + changed[:at]
    return bytes(changed)


@pytest.fixture(scope="module")
def link():
    if not wire.load(backend.__file__, zmq.zmq_version()):
        pytest.skip("this pyzmq's libzmq can't be called natively")
    with linked("inproc://fuzz") as link:
        yield link


@settings(max_examples=400, deadline=None)
@given(messages=MESSAGES)
def test_only_what_was_sent_is_delivered_and_every_message_is_counted(link, messages):
    inlet, lane = link.inlet, link.lane(CHANNEL)
    before = inlet.packets
    bad_before = inlet.malformed + inlet.bad_crc + inlet.bad_version + inlet.unknown_channel
    lane_before, sent, good = lane.packets, 0, set()
    following, delivered, frames = 1, [], []
    try:
        for message in messages:
            match message:
                case ("next", int(count)):
                    frame = data(CHANNEL, following, count, crc=True)
                    following += count
                    good.add(frame)
                case ("beat",):
                    frame = heartbeat(CHANNEL, following)
                    good.add(frame)
                case ("bytes" | "header", bytes(frame)):
                    pass
                case ("mutated", int(count), list(edits)):
                    whole = data(CHANNEL, following, count, crc=True)
                    frame = mutated(whole, edits)
                    if frame == whole:  # nothing was changed by it
                        following += count
                        good.add(frame)
                case _:
                    tracker = lane.tracker
                    tracker.seen = tracker.delivered = following - 1
                    lane.resume()
                    continue
            link.pass_on(frame)
            sent += 1
            delivered += runs(lane)
            frames += [content_ for _, content_ in controls(inlet)]
    finally:
        inlet.remove_lane(lane)
    bad = inlet.malformed + inlet.bad_crc + inlet.bad_version + inlet.unknown_channel - bad_before
    assert inlet.packets - before == sent == bad + (lane.packets - lane_before)
    assert set(frames) <= good, "what is handed on is a frame that was sent, whole"
    for session, first, records in delivered:
        count = len(records) // RECORD_BYTES
        assert session == SESSION
        assert first + count <= following
        assert records == content(first, count)
