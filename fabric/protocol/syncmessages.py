"""What a primary and its `sync` standby say to one another, over ROUTER (the primary) and DEALER.

A message is one frame of msgpack, WRITE has a second one: the records' bytes, as they stand in the log.

    from the standby    [version, kind, channel, session, life, next, who, flushes]
        JOIN     I have all of the session below ``next``, and took the last of it from that life of the primary (0: not
                 known): send me the rest
        ACK      I have all below ``next``; repeated when nothing is new
        TAKEN    ``session`` has taken the channel over

    from the primary    [version, kind, channel, session, life, next, gated, ended]
        JOINED   ``next`` is the next record to be committed; all writes from there on are sent
        WRITE    records from ``next`` on; all below is committed. gated: nobody sees them before they are acknowledged
        ALIVE    as WRITE, without records; ended: nothing will follow in this session
        CUT      what is above what you know to be committed may not be what I have: cut it off, and join again
        OTHER    ``session`` is the one that I write: go over to it first
        BUSY     another standby has joined

A primary that was restarted within a session is another *life*: what the life before sent and did not commit may come
otherwise, so the standby keeps of it only what it knows to be committed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgpack

from fabric.protocol.requests import MalformedMessage

VERSION = 1
WHO_BYTES = 8
_U64 = 1 << 64


class Kind(enum.IntEnum):
    """Both ways."""

    JOIN = 1
    ACK = 2
    TAKEN = 3
    JOINED = 11
    WRITE = 12
    ALIVE = 13
    CUT = 14
    OTHER = 15
    BUSY = 16


@dataclass(frozen=True, slots=True)
class FromStandby:
    """``JOIN``, ``ACK`` or ``TAKEN``."""

    kind: Kind
    channel: int
    session: int
    life: int
    next: int
    who: bytes
    flushes: bool = False

    def encode(self) -> bytes:
        fields = [VERSION, int(self.kind), self.channel, self.session, self.life, self.next, self.who, self.flushes]
        packed: bytes = msgpack.packb(fields)
        return packed

    @staticmethod
    def decode(frame: bytes) -> FromStandby:
        """Raises MalformedMessage for anything that ``encode`` would not write."""
        kind, numbers, who, flushes = _fields(frame)
        if kind not in (Kind.JOIN, Kind.ACK, Kind.TAKEN) or not isinstance(who, bytes) or len(who) != WHO_BYTES:
            raise MalformedMessage("not from a standby")
        return FromStandby(kind, *numbers, who, flushes is True)


@dataclass(frozen=True, slots=True)
class FromPrimary:
    """All other kinds."""

    kind: Kind
    channel: int
    session: int
    life: int
    next: int
    gated: bool = False
    ended: bool = False

    def encode(self) -> bytes:
        fields = [VERSION, int(self.kind), self.channel, self.session, self.life, self.next, self.gated, self.ended]
        packed: bytes = msgpack.packb(fields)
        return packed

    @staticmethod
    def decode(frame: bytes) -> FromPrimary:
        """Raises MalformedMessage for anything that ``encode`` would not write."""
        kind, numbers, gated, ended = _fields(frame)
        if kind in (Kind.JOIN, Kind.ACK, Kind.TAKEN) or not isinstance(gated, bool) or not isinstance(ended, bool):
            raise MalformedMessage("not from a primary")
        return FromPrimary(kind, *numbers, gated, ended)


def _fields(frame: bytes) -> tuple[Kind, tuple[int, int, int, int], object, object]:
    try:
        fields = msgpack.unpackb(frame)
    except Exception as error:  # msgpack raises many types for garbage
        raise MalformedMessage(str(error)) from None
    if not isinstance(fields, list) or len(fields) != 8 or fields[0] != VERSION:
        raise MalformedMessage("shape")
    numbers = fields[2:6]
    if any(type(each) is not int or not 0 <= each < _U64 for each in (fields[1], *numbers)):
        raise MalformedMessage("numbers")
    try:
        kind = Kind(fields[1])
    except ValueError:
        raise MalformedMessage("kind") from None
    return kind, (numbers[0], numbers[1], numbers[2], numbers[3]), fields[6], fields[7]
