"""What tests of native.wire share: sockets that are connected, packets in short words, a reader in plain Python."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zmq

from native import wire
from native.packet import HEADER_BYTES, Header, Kind, ParseResult, encode
from native.sequence import Tracker, Verdict

SESSION = (3 << 32) | 7
SCHEMA = 11
RECORD_BYTES = 32
DEADLINE_S = 20.0


def content(first: int, count: int, record_bytes: int = RECORD_BYTES) -> bytes:
    """Records that say which ones they are."""
    words = np.repeat(np.arange(first, first + count, dtype="<u8"), record_bytes // 8)
    return words.tobytes()


def data(
    channel: int, first: int, count: int = 1, *, session: int = SESSION, schema: int = SCHEMA, crc: bool = False
) -> bytes:
    records = content(first, count)
    return encode(Kind.DATA, channel, session, first, 1, schema, RECORD_BYTES, count, records, crc)


def heartbeat(channel: int, next_sequence: int, *, session: int = SESSION, kind: Kind = Kind.HEARTBEAT) -> bytes:
    return encode(kind, channel, session, next_sequence, 1, SCHEMA, RECORD_BYTES, 0)


def until(condition: Callable[[], object], what: str = "") -> None:
    """Come back when it holds; fail when it does not in time."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, what or "it never came"


class Link:
    """An XPUB, SUBs connected to it that want everything, and an inlet that receives from them."""

    def __init__(self, endpoint: str, *, subs: int = 1, control_bytes: int = 4 << 20) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.pub = self.context.socket(zmq.XPUB)
        self.pub.setsockopt(zmq.SNDHWM, 0)
        self.pub.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.pub.bind(endpoint)
        endpoint = self.pub.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]
        self.inlet = wire.Inlet(control_bytes)
        self.subs: list[zmq.Socket[bytes]] = []
        for _ in range(subs):
            sub = self.context.socket(zmq.SUB)
            sub.setsockopt(zmq.RCVHWM, 0)
            sub.setsockopt(zmq.SUBSCRIBE, b"")
            sub.connect(endpoint)
            assert self.pub.poll(int(DEADLINE_S * 1000))
            self.pub.recv()
            self.subs.append(sub)
            self.inlet.add_socket(sub.underlying, int(sub.FD))
        self.outlet = wire.Outlet(self.pub.underlying)

    def lane(self, channel: int, *, delivered: int = 0, ring_bytes: int = 1 << 16, plain: bool = True) -> wire.Lane:
        tracker = Tracker()
        tracker.session, tracker.delivered, tracker.seen = SESSION, delivered, delivered
        lane = self.inlet.add_lane(channel, SCHEMA, RECORD_BYTES, tracker, ring_bytes)
        if plain:
            assert lane.resume()
        return lane

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.pub.send(frame)

    def pass_on(self, *frames: bytes) -> None:
        """Send, and take in all of it."""
        wanted = self.inlet.packets + len(frames) * len(self.subs)
        self.send(*frames)
        until(lambda: self.inlet.drain() >= 0 and self.inlet.packets >= wanted, "packets got lost")
        assert self.inlet.packets == wanted

    def close(self) -> None:
        for sub in self.subs:
            sub.close(linger=0)
        self.pub.close(linger=0)
        self.context.term()


@contextmanager
def linked(endpoint: str = "inproc://wire", **options: Any) -> Iterator[Link]:
    link = Link(endpoint, **options)
    try:
        yield link
    finally:
        link.close()


def runs(lane: wire.Lane, most: int | None = None) -> list[tuple[int, int, bytes]]:
    """All that it has, as (session, first, bytes)."""
    taken = []
    while (run := lane.take() if most is None else lane.take(most)) is not None:
        taken.append((run[0], run[1], run[2].tobytes()))
    return taken


def controls(inlet: wire.Inlet) -> list[tuple[int, bytes]]:
    """All frames of the control queue, as (lane id, frame)."""
    taken = []
    while (item := inlet.take_control()) is not None:
        taken.append((item[0].id, item[1]))
    return taken


class ModelLane:
    """The rules of a lane, for a ring of ``room`` records and a control queue without end."""

    def __init__(self, lane: wire.Lane, room: int) -> None:
        self.lane = lane
        self.tracker = Tracker()
        self.tracker.session, self.tracker.delivered = lane.tracker.session, lane.tracker.delivered
        self.tracker.seen = lane.tracker.seen
        self.plain = lane.plain
        self.room = room
        self.records: deque[tuple[int, int]] = deque()
        self.frames: list[bytes] = []

    def take_in(self, header: Header, frame: bytes) -> None:
        tracker = self.tracker
        usual = self.plain and header.schema == SCHEMA and header.size == RECORD_BYTES
        if usual and header.kind == Kind.DATA and len(self.records) + header.count <= self.room:
            if tracker.accept(header.session, header.sequence, header.count) == Verdict.IN_ORDER:
                self.records += [(header.session, header.sequence + i) for i in range(header.count)]
                return
        elif usual and header.kind == Kind.HEARTBEAT:
            in_step = tracker.seen == tracker.delivered == header.sequence - 1
            if in_step and header.session == tracker.session:
                return
        self.plain = False
        self.frames.append(frame)


class ModelInlet:
    """What an inlet does with frames, in Python: counters, and lanes by channel."""

    def __init__(self) -> None:
        self.lanes: dict[int, list[ModelLane]] = {}
        self.malformed = self.bad_crc = self.bad_version = self.unknown_channel = 0

    def take_in(self, *frames: bytes) -> None:
        header = Header()
        result = header.parse(frames[0]) if len(frames) == 1 else ParseResult.BAD_LENGTH
        if result == ParseResult.BAD_CRC:
            self.bad_crc += 1
        elif result == ParseResult.BAD_VERSION:
            self.bad_version += 1
        elif result != ParseResult.OK:
            self.malformed += 1
        elif header.channel not in self.lanes:
            self.unknown_channel += 1
        else:
            for lane in self.lanes[header.channel]:
                lane.take_in(header, frames[0])


def damaged(frame: bytes, at: int = HEADER_BYTES) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]
