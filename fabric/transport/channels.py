"""One subscribed channel of a receiver, and what a receiver counts."""

from __future__ import annotations

from dataclasses import dataclass

from fabric.protocol.events import Event
from fabric.protocol.requests import Reply
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Run
from fabric.records import RecordType
from fabric.transport.security import CurveClient
from fabric.transport.sockets import Socket
from native.packet import ParseResult


@dataclass(slots=True)
class WireCounters:
    """What arrived and was not a packet or reply of ours: dropped, never delivered."""

    malformed: int = 0
    bad_crc: int = 0
    bad_version: int = 0
    unknown_channel: int = 0
    wrong_schema: int = 0
    bad_replies: int = 0

    def count_bad(self, result: int) -> None:
        """A packet that is none, by what the parser said of it."""
        if result == ParseResult.BAD_CRC:
            self.bad_crc += 1
        elif result == ParseResult.BAD_VERSION:
            self.bad_version += 1
        else:
            self.malformed += 1


class ChannelReceiver:
    """One subscribed channel: its state machine, its record type once known, its replay socket."""

    def __init__(
        self,
        name: str,
        machine: Subscription,
        record: RecordType | None,
        data: str,
        replay: str,
        curve: CurveClient | None = None,
    ) -> None:
        self.name = name
        self.machine = machine
        self.record = record
        self.data_endpoint = data
        self.replay_endpoint = replay
        self.curve = curve
        self.dealer: Socket | None = None

    def take(self) -> Run | Event | None:
        """The next run or event, or None."""
        return self.machine.take()

    def learn(self, reply: Reply, counters: WireCounters) -> bool:
        """Take the record type from an INFO, where the subscriber has none of its own; False if the reply is no good."""
        if reply.base < 1 or reply.next < reply.base or reply.session == 0:
            counters.bad_replies += 1
            return False
        if self.record is None:
            try:
                self.record = RecordType.from_description(reply.extra["record"])
            except Exception:  # a peer may send anything
                counters.bad_replies += 1
                return False
            self.machine.schema = self.record.schema
        return True
