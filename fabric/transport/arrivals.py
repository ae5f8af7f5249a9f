"""What sockets bring, made into what a channel's machine understands: packets, replies, and how handshakes went.

Whatever does not parse, or is not of a channel that is read here, is counted and dropped.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from fabric.protocol.requests import MalformedMessage, Reply, Status
from fabric.transport.channels import ChannelReceiver, WireCounters
from fabric.transport.climb import Asked
from fabric.transport.livesockets import LiveSockets
from fabric.transport.mappedlogs import LOCATE_ID, MappedLogs
from fabric.transport.sockets import Socket
from native.packet import HEADER_BYTES, Header, Kind, ParseResult

_MESSAGES_A_TURN = 512
_FRAMES_A_TURN = 8192
"""More than one wait of the inlet takes in: else frames would pile up, and packets could never pass the machine by again."""
_JOINED_RECORDS = 1024


class _Joined:
    """Live packets of one channel that follow one another: the machine is given them at once."""

    __slots__ = ("channel", "count", "first", "line", "parts", "session")

    def __init__(self, channel: ChannelReceiver, header: Header, frame: bytes, line: int) -> None:
        self.channel, self.session, self.first, self.count = channel, header.session, header.sequence, 0
        self.line = line
        self.parts: list[bytes] = []
        self.add(frame, header)

    def goes_on(self, channel: ChannelReceiver, header: Header, line: int) -> bool:
        """Whether the channel's packet, which has records, is the one after these."""
        follows = header.sequence == self.first + self.count and header.session == self.session
        same = channel is self.channel and line == self.line
        return follows and same and self.count + header.count <= _JOINED_RECORDS

    def add(self, frame: bytes, header: Header) -> None:
        self.parts.append(frame[HEADER_BYTES:])
        self.count += header.count


class Arrivals:
    """Used by whoever polls the receiver. ``changed`` is called with each channel that something came for."""

    def __init__(
        self,
        channels: dict[int, list[ChannelReceiver]],
        sockets: LiveSockets,
        logs: MappedLogs,
        changed: Callable[[ChannelReceiver], None],
    ) -> None:
        self.counters = WireCounters()
        self._channels = channels
        self._sockets = sockets
        self._logs = logs
        self._changed = changed
        self._header = Header()

    def take(self, socket: Socket, now_ns: int) -> None:
        """Take in what a socket has."""
        asked = self._sockets.dealers.asked(socket)
        if self._sockets.dialer.is_watch(socket):
            self._sockets.dialer.take(socket, now_ns)
        elif socket.closed:  # a dealer that an answer before made us throw away
            return
        elif self._sockets.dealers.heard(socket):
            self._drain_answers(socket, now_ns)
        elif asked is None:
            self._drain_live(socket, now_ns)
        else:
            self._drain_replies(socket, *asked, now_ns)

    def take_control(self, now_ns: int) -> None:
        """What was received natively and was not simply the next packet, in the order in which it came."""
        inlet = self._sockets.inlet
        assert inlet is not None
        touched: set[ChannelReceiver] = set()
        joined: _Joined | None = None
        for _ in range(_FRAMES_A_TURN):
            if (taken := inlet.take_control()) is None:
                break
            lane, frame, line = taken
            channel = self._sockets.of_lane.get(lane.id)
            if channel is None or self._header.parse(frame) != ParseResult.OK:
                continue
            if channel not in touched:
                touched.add(channel)
                with channel.lock:
                    channel.stop_lane()
            data = self._is_data(channel)
            if data and joined is not None and joined.goes_on(channel, self._header, line):
                joined.add(frame, self._header)
                continue
            self._give(joined, now_ns)
            joined = _Joined(channel, self._header, frame, line) if data else None
            if not data:
                with channel.lock:
                    self._take_live(channel, frame, line, now_ns)
        self._give(joined, now_ns)
        for channel in touched:
            self._changed(channel)
            with channel.lock:
                channel.start_lane()

    def _is_data(self, channel: ChannelReceiver) -> bool:
        """The packet that was parsed last has records that the channel's machine may be given."""
        header, record = self._header, channel.record
        fits = record is not None and header.schema == record.schema and header.size == record.size
        return fits and header.kind == Kind.DATA and channel.mapped is None

    def _give(self, joined: _Joined | None, now_ns: int) -> None:
        if joined is None:
            return
        channel, record = joined.channel, joined.channel.record
        assert record is not None
        payload = joined.parts[0] if len(joined.parts) == 1 else b"".join(joined.parts)
        with channel.lock:
            records = record.view(payload, 0, joined.count)
            channel.machine.on_data(joined.session, joined.first, records, now_ns, joined.line)

    def _drain_live(self, socket: Socket, now_ns: int) -> None:
        header = self._header
        for _ in range(_MESSAGES_A_TURN):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            frame = frames[0]
            result = header.parse(frame) if len(frames) == 1 else ParseResult.BAD_LENGTH
            if result != ParseResult.OK:
                self.counters.count_bad(result)
                continue
            readers = self._channels.get(header.channel)
            if readers is None:
                self.counters.unknown_channel += 1
                continue
            for channel in readers:
                if (line := self._sockets.line_of(channel, socket)) is not None:
                    self._changed(channel)
                    self._take_live(channel, frame, line, now_ns)

    def _take_live(self, channel: ChannelReceiver, frame: bytes, line: int, now_ns: int) -> None:
        header, machine = self._header, channel.machine
        if channel.mapped is not None:
            return  # sent before we said that we read the log
        if channel.record is None:
            return  # its type is not known yet; the log server is being asked, and what passes now is replayed
        if header.schema != channel.record.schema or header.size != channel.record.size:
            self.counters.wrong_schema += 1
            if machine.state == "JOINING":
                machine.problem = "its publisher sends records of another dtype"
        elif header.kind == Kind.DATA:
            records = channel.record.view(frame, HEADER_BYTES, header.count)
            machine.on_data(header.session, header.sequence, records, now_ns, line)
        elif header.kind in (Kind.HEARTBEAT, Kind.END):
            machine.on_heartbeat(header.session, header.sequence, now_ns, end=header.kind == Kind.END, line=line)
        else:
            self.counters.malformed += 1

    def _drain_answers(self, socket: Socket, now_ns: int) -> None:
        """To short questions, of whichever channel."""
        for _ in range(_MESSAGES_A_TURN):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                found = self._sockets.dealers.whose(socket, Reply.decode(frames[0]))
                if len(frames) > 2 or (found is not None and found[2].channel != found[0].machine.channel):
                    raise MalformedMessage("frames")
            except MalformedMessage:
                self.counters.bad_replies += 1
                continue
            if found is not None:
                channel, rung, reply = found
                self._changed(channel)
                self._take_reply(channel, rung, reply, frames[1:], now_ns)
                if socket.closed:  # an answer made us throw it away
                    return

    def _drain_replies(self, socket: Socket, channel: ChannelReceiver, rung: int, now_ns: int) -> None:
        self._changed(channel)
        for _ in range(_MESSAGES_A_TURN):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                reply = Reply.decode(frames[0])
                if len(frames) > 2 or reply.channel != channel.machine.channel:
                    raise MalformedMessage("frames")
            except MalformedMessage:
                self.counters.bad_replies += 1
                continue
            self._take_reply(channel, rung, reply, frames[1:], now_ns)
            if channel.dealers.get(rung) is not socket:
                return

    def _take_reply(self, channel: ChannelReceiver, rung: int, reply: Reply, frames: list[bytes], now_ns: int) -> None:
        first, records = 0, None
        if channel.climb is not None and reply.id != LOCATE_ID and not frames:
            step = channel.climb.take(rung, reply, 0, now_ns)
            if isinstance(step, Asked):
                self._sockets.ask(channel, step.request, now_ns, step.rung)
            if not isinstance(step, Reply):
                return
            reply = step
        known = channel.record is not None
        if reply.status == Status.INFO and not channel.learn(reply, self.counters):
            return
        if not known and channel.record is not None and channel.subscribed:
            self._sockets.make_lane(channel)
        if reply.id == LOCATE_ID:
            if reply.status == Status.INFO:
                self._logs.located(channel, reply, now_ns)
            return
        if frames:
            record, header = channel.record, self._header
            result = header.parse(frames[0])
            if result != ParseResult.OK:
                self.counters.count_bad(result)
                return
            if record is None or header.schema != record.schema or header.size != record.size:
                self.counters.wrong_schema += 1
                return
            first, records = header.sequence, record.view(frames[0], HEADER_BYTES, header.count)
            if channel.climb is not None:
                channel.climb.take(rung, reply, header.count, now_ns)
        elif reply.status in (Status.DATA, Status.SNAPSHOT):
            self.counters.bad_replies += 1
            return
        with channel.held(now_ns):
            channel.machine.on_reply(reply, now_ns, first, records)
