"""Requests and replies survive the wire; whatever else arrives there is malformed and nothing worse."""

from __future__ import annotations

import dataclasses

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabric.protocol.requests import MAX_RANGES, VERSION, MalformedMessage, Op, Reply, Request, Status

U64 = st.integers(0, 2**64 - 1)
SEQUENCES = st.integers(1, 2**63 - 1)
RANGES = st.lists(st.tuples(SEQUENCES, SEQUENCES).map(lambda pair: (min(pair), max(pair))), max_size=MAX_RANGES)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8)),
    st.datetimes().map(lambda when: msgpack.Timestamp.from_unix_nano(int(when.year) * 10**15)),
)
KEYS = st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(max_size=4), st.binary(max_size=4), st.booleans())
STRUCTURES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=14), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=40,
)
REQUESTS = st.builds(Request, U64, st.sampled_from(Op), U64, U64, RANGES.map(tuple))
REPLIES = st.builds(
    Reply,
    U64,
    st.sampled_from(Status),
    *[U64] * 10,
    extra=st.dictionaries(st.text(max_size=6), st.one_of(U64, st.binary(max_size=16), st.text(max_size=6)), max_size=3),
)


def decoded(kind, frame):
    """The message, or None if it was malformed; anything else raised fails the test."""
    try:
        return kind.decode(frame)
    except MalformedMessage:
        return None


@given(REQUESTS)
def test_requests_round_trip(request_):
    back = Request.decode(request_.encode())
    assert back == request_
    assert isinstance(back.op, Op)


@given(REPLIES)
def test_replies_round_trip(reply):
    back = Reply.decode(reply.encode())
    assert back == reply
    assert isinstance(back.status, Status)


def test_a_reply_keeps_every_field_in_its_place():
    reply = Reply(1, Status.DATA, *range(2, 12), extra={"a": b"b"})
    assert list(dataclasses.astuple(Reply.decode(reply.encode()))) == [1, Status.DATA, *range(2, 12), {"a": b"b"}]


@pytest.mark.parametrize("kind", [Request, Reply])
@settings(max_examples=200)
@given(frame=st.binary(max_size=80))
@example(b"")
@example(b"\xc1")
@example(b"\x81\x90\x01")  # a map whose key is a list
@example(b"\x91" * 5000)
@example(b"\x81" * 5000)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
def test_random_bytes_are_malformed_and_nothing_worse(kind, frame):
    message = decoded(kind, frame)
    assert message is None or isinstance(message, kind)


@pytest.mark.parametrize("kind", [Request, Reply])
@settings(max_examples=200)
@given(structure=STRUCTURES)
def test_random_structures_are_malformed_and_nothing_worse(kind, structure):
    message = decoded(kind, msgpack.packb(structure))
    assert message is None or isinstance(message, kind)


@settings(max_examples=200)
@given(REQUESTS, REPLIES, st.data())
def test_one_field_changed_is_malformed_or_still_what_encode_writes(request_, reply, data):
    for message in (request_, reply):
        fields = msgpack.unpackb(message.encode())
        at = data.draw(st.integers(1, len(fields) - 1))
        fields[at] = data.draw(STRUCTURES)
        frame = msgpack.packb(fields)
        back = decoded(type(message), frame)
        if back is not None and type(message) is Request:
            assert back.encode() == frame


@settings(max_examples=300)
@given(REPLIES, st.data())
def test_mutated_and_cut_frames(reply, data):
    frame = bytearray(reply.encode())
    for _ in range(data.draw(st.integers(0, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    decoded(Reply, bytes(frame[: data.draw(st.integers(0, len(frame)))]))


@pytest.mark.parametrize(
    "fields",
    [
        [VERSION + 1, 1, 1, 1, 1, []],
        [VERSION, -1, 1, 1, 1, []],
        [VERSION, True, 1, 1, 1, []],
        [VERSION, 1.0, 1, 1, 1, []],
        [VERSION, 1, 0, 1, 1, []],
        [VERSION, 1, 9, 1, 1, []],
        [VERSION, 1, 1, 1, 1],
        [VERSION, 1, 1, 1, 1, [], 0],
        [VERSION, 1, 2, 1, 1, {}],
        [VERSION, 1, 2, 1, 1, [1, 2]],
        [VERSION, 1, 2, 1, 1, [[1]]],
        [VERSION, 1, 2, 1, 1, [[1, 2, 3]]],
        [VERSION, 1, 2, 1, 1, [[0, 2]]],
        [VERSION, 1, 2, 1, 1, [[3, 2]]],
        [VERSION, 1, 2, 1, 1, [[1, 2**63]]],
        [VERSION, 1, 2, 1, 1, [["1", 2]]],
        [VERSION, 1, 2, 1, 1, [[1, 2]] * (MAX_RANGES + 1)],
    ],
    ids=repr,
)
def test_what_no_request_says(fields):
    with pytest.raises(MalformedMessage):
        Request.decode(msgpack.packb(fields))


@pytest.mark.parametrize(
    ("at", "value"), [(0, -1), (0, None), (1, 0), (1, 9), (1, "1"), (5, 1.5), (11, True), (12, []), (12, None)]
)
def test_what_no_reply_says(at, value):
    fields = msgpack.unpackb(Reply(1, Status.INFO, 1, 1).encode())
    fields[at] = value
    with pytest.raises(MalformedMessage):
        Reply.decode(msgpack.packb(fields))


def test_bytes_after_the_message_are_malformed():
    for message in (Request(1, Op.STATUS, 1, 1), Reply(1, Status.INFO, 1, 1)):
        with pytest.raises(MalformedMessage):
            type(message).decode(message.encode() + b"\x00")
