"""Requests to a log server, and its replies, as they travel over DEALER and ROUTER.

A request is one frame: msgpack ``[version, id, op, channel, session, ranges]``, and a seventh field, ``host``, from who would
rather map the log than be sent packets: 16 bytes that tell this boot of this host (see fabric.transport.mapped). A reply is
``[meta]`` or ``[meta][packet]``:

    meta = [id, status, channel, session, base, first_available, next, state, parent, fork, part, total, extra]

    op         answer
    STATUS     one INFO: what the log server knows of the session (0: the current one); extra has the record type, and to
               who is on the same host ``directory``, the session's, if it may be mapped; of an archive's ``complete``:
               whether it knows all that the session had
    REPLAY     ``total`` DATA parts, each with one packet of live form, for the ranges asked; or UNAVAILABLE when
               something asked is below first_available, followed by the parts that still exist
    SNAPSHOT   ``total`` SNAPSHOT parts, whose packets have sequence = as_of; extra has the records' own sequences.
               One range (n, n) asks for the oldest image that is good at n or later, so that little is passed over
    FIND       one INFO whose extra has ``at``, the first sequence published at time n (UTC ns; one range (n, n)) or later,
               and ``whole``: false where retention may have removed earlier ones of that time
    any        UNKNOWN_CHANNEL, UNKNOWN_SESSION (the log of that session is gone; extra has ``replays`` where an archive has
               some of it), NO_IMAGE, BAD_REQUEST

Whatever does not parse is counted and dropped, by both sides.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import msgpack

VERSION = 1
MAX_RANGES = 256
HOST_BYTES = 16
_U64 = 1 << 64


class Op(enum.IntEnum):
    STATUS = 1
    REPLAY = 2
    SNAPSHOT = 3
    FIND = 4


class Status(enum.IntEnum):
    INFO = 1
    DATA = 2
    SNAPSHOT = 3
    UNAVAILABLE = 4
    UNKNOWN_CHANNEL = 5
    UNKNOWN_SESSION = 6
    NO_IMAGE = 7
    BAD_REQUEST = 8


class MalformedMessage(ValueError):
    """Bytes that are not a request or reply."""


@dataclass(frozen=True, slots=True)
class Request:
    """``ranges`` are inclusive (first, last) pairs, for REPLAY."""

    id: int
    op: Op
    channel: int
    session: int
    ranges: tuple[tuple[int, int], ...] = ()
    host: bytes = b""

    def encode(self) -> bytes:
        fields = [VERSION, self.id, int(self.op), self.channel, self.session, self.ranges]
        packed: bytes = msgpack.packb([*fields, self.host] if self.host else fields)
        return packed

    @staticmethod
    def decode(frame: bytes) -> Request:
        """Raises MalformedMessage for anything that ``encode`` would not write."""
        fields = _unpack(frame, 6, 7)
        if type(fields[0]) is not int or fields[0] != VERSION:
            raise MalformedMessage(f"request version {fields[0]!r}")
        numbers = [_u64(value) for value in fields[1:5]]
        ranges = fields[5]
        if not isinstance(ranges, list) or len(ranges) > MAX_RANGES:
            raise MalformedMessage("ranges")
        pairs = []
        for pair in ranges:
            if not isinstance(pair, list) or len(pair) != 2:
                raise MalformedMessage("range")
            first, last = _u64(pair[0]), _u64(pair[1])
            if not 0 < first <= last < _U64 // 2:
                raise MalformedMessage("range order")
            pairs.append((first, last))
        try:
            op = Op(numbers[1])
        except ValueError:
            raise MalformedMessage("op") from None
        host = fields[6] if len(fields) > 6 else b""
        if not isinstance(host, bytes) or len(host) not in (0, HOST_BYTES):
            raise MalformedMessage("host")
        return Request(numbers[0], op, numbers[2], numbers[3], tuple(pairs), host)


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply's meta frame. ``part`` counts from 1 to ``total``."""

    id: int
    status: Status
    channel: int
    session: int
    base: int = 1
    first_available: int = 0
    next: int = 0
    state: int = 0
    parent: int = 0
    fork: int = 0
    part: int = 1
    total: int = 1
    extra: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        packed: bytes = msgpack.packb(
            [
                self.id,
                int(self.status),
                self.channel,
                self.session,
                self.base,
                self.first_available,
                self.next,
                self.state,
                self.parent,
                self.fork,
                self.part,
                self.total,
                self.extra,
            ]
        )
        return packed

    @staticmethod
    def decode(frame: bytes) -> Reply:
        """Raises MalformedMessage for anything that ``encode`` would not write."""
        fields = _unpack(frame, 13)
        numbers = [_u64(value) for value in fields[:12]]
        extra = fields[12]
        if not isinstance(extra, dict):
            raise MalformedMessage("extra")
        try:
            status = Status(numbers[1])
        except ValueError:
            raise MalformedMessage("status") from None
        identity, _, channel, session, base, available, following, state, parent, fork, part, total = numbers
        return Reply(
            identity, status, channel, session, base, available, following, state, parent, fork, part, total, extra
        )


def _unpack(frame: bytes, *counts: int) -> list[Any]:
    try:
        fields = msgpack.unpackb(frame, strict_map_key=False)
    except Exception as error:  # msgpack raises many types for garbage
        raise MalformedMessage(str(error)) from None
    if not isinstance(fields, list) or len(fields) not in counts:
        raise MalformedMessage("shape")
    return fields


def _u64(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _U64:
        raise MalformedMessage(f"{value!r} is not a u64")
    return value
