"""The log server: answers for the logs of one host, read-only. One ROUTER socket, one thread or process.

Publishing never waits for it, and it goes on while a publisher is down. Questions are answered at once; replays go out in
parts, of all clients in turns.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import zmq

from fabric.clock import Clock, SystemClock
from fabric.errors import FabricError, LogError
from fabric.log.holes import FollowedHoles, LogHoles
from fabric.log.image import load_image, newest_image
from fabric.log.paths import CURRENT, boot_id, session_name
from fabric.log.reader import LogReader
from fabric.protocol.requests import MalformedMessage, Op, Reply, Request, Status
from fabric.records import Records
from fabric.transport.listener import Listener
from fabric.transport.security import ServerKeys
from fabric.transport.sockets import Context, new_socket
from fabric.transport.turns import Turns
from native.image import KeyedImage
from native.log import LogState
from native.packet import HEADER_BYTES, MAX_BYTES, Kind, encode

_log = logging.getLogger("fabric.logserver")
_SEQUENCE_BYTES = 8
_POLL_MS = 50
_MAX_BYTES_A_REQUEST = 32 << 20
"""Whatever a request asks for, its answer is bounded; the client asks again for the rest."""
_MAX_OPEN_SESSIONS = 1024
_NO_HOLES = LogHoles()
_REQUESTS_A_TURN = 64
_PARTS_A_TURN = 16
"""Then it is looked whether somebody else has asked."""
_FULL_PAUSE_MS = 1
_FULL_PATIENCE_NS = 2_000_000_000
"""A client whose socket takes nothing for so long is given up: it will ask again."""


def reply_of(
    reader: LogReader, identity: int, channel: int, status: Status, part: int = 1, total: int = 1, **extra: object
) -> Reply:
    """A reply with what the log's control page says now."""
    return Reply(
        identity,
        status,
        channel,
        reader.session,
        reader.base,
        reader.first_available,
        reader.next,
        int(reader.state),
        reader.control.parent_session,
        reader.control.fork_sequence,
        part,
        total,
        dict(extra),
    )


def info_of(reader: LogReader, identity: int, channel: int) -> Reply:
    """What a log says of itself."""
    record = reader.record
    return reply_of(
        reader, identity, channel, Status.INFO, schema=record.schema, image=record.image, record=record.describe()
    )


class _ServedSession:
    """An open log and the image that follows it."""

    def __init__(self, reader: LogReader) -> None:
        self.reader = reader
        self._image: KeyedImage | None = None
        self._followed = FollowedHoles.of(reader.directory)

    @property
    def follower(self) -> bool:
        """Written by an archive: it may have holes, and has no image."""
        return self._followed is not None

    def holes(self) -> LogHoles:
        """As they are now."""
        return _NO_HOLES if self._followed is None else self._followed.now

    @property
    def whole(self) -> bool:
        """Of a follower's: all that the publisher's session had is known."""
        return self.reader.state != LogState.OPEN and not self.holes().open_end

    def has(self, sequence: int, holes: LogHoles) -> int:
        """How many records from this one on can be read in one piece; 0 if this one is not here."""
        reader = self.reader
        if not reader.first_available <= sequence < reader.next or holes.at(sequence) is not None:
            return 0
        in_segment = reader.control.segment_records - (sequence - reader.base) % reader.control.segment_records
        end = min(reader.next, holes.begins_after(sequence) or reader.next)
        return min(in_segment, end - sequence)

    def begins_after(self, sequence: int, holes: LogHoles) -> int | None:
        """The first record above a sequence, which is not here, that is."""
        at = max(sequence, self.reader.first_available)
        while (hole := holes.at(at)) is not None:
            at = hole[1] + 1
        return at if at < self.reader.next else None

    def image(self, at_least: int) -> KeyedImage:
        """The newest image; or, for ``at_least`` > 0, the one kept beside the log if that is good enough."""
        if at_least:
            kept = load_image(self.reader.directory, self.reader.record)
            if kept.as_of >= at_least:
                return kept
        self._image = newest_image(self.reader, self._image)
        return self._image


@dataclasses.dataclass(slots=True)
class _Replay:
    """What is left of one answer."""

    request: Request
    served: _ServedSession
    pieces: deque[tuple[_ServedSession, int, int]]
    """(log, first sequence, count), one for each part."""
    number: int
    total: int
    stuck_ns: int | None = None
    """Since when its client takes nothing."""


class LogServer:
    """Serves the logs that ``find`` names: channel id to the channel's log directory, or None.

    Binds ``endpoints`` (raises AddressInUse). Call ``serve_once`` in a loop, or ``start`` a thread. ``curve``: keys of tcp
    endpoints, for all of them or by endpoint. ``offers_logs``: tell readers on this host where the logs are, so that they
    may map them. ``archive``: directories of followers' logs on this host, from which is replayed what the publisher's logs
    have no more. ``cut``: channels whose replies are kept back for now, on purpose. ``replay_rate``: bytes a second of replays
    at most, to all clients together; 0: no limit.
    """

    def __init__(
        self,
        endpoints: list[str],
        find: Callable[[int], Path | None],
        *,
        clock: Clock | None = None,
        context: Context | None = None,
        crc: bool = True,
        curve: ServerKeys = None,
        offers_logs: bool = True,
        archive: Callable[[int], Path | None] | None = None,
        cut: Callable[[int], bool] | None = None,
        replay_rate: int = 0,
    ) -> None:
        self._find = find
        self._find_archived = archive or (lambda _: None)
        self._cut = cut
        self._host = boot_id() if offers_logs else b""
        self._clock = clock or SystemClock()
        self._crc = crc
        context = context or zmq.Context.instance()
        self._socket = new_socket(context, zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        # Else what a full or vanished client can't take is dropped without a word, and is replayed for nobody.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._turns: Turns[_Replay] = Turns(replay_rate)
        try:
            self._listener = Listener(context, self._socket, endpoints, curve)
        except BaseException:
            self._socket.close()
            raise
        self.endpoints = self._listener.endpoints
        self._open: dict[tuple[Path, int], _ServedSession] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.requests = 0
        self.malformed = 0
        self.replayed_records = 0
        self.replays_most = 0
        """Replays that waited for their turn at the same time."""

    def start(self) -> LogServer:
        """Serve from a daemon thread."""
        self._thread = threading.Thread(target=self._serve, name="fabric-logserver", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._listener.close()
        self._socket.close()
        self._listener.release()

    @property
    def refused_clients(self) -> int:
        """Handshakes with clients that were not let in: a wrong key, or none. One that tries again counts again."""
        return self._listener.refused

    def gauges(self) -> dict[str, int]:
        """What is buffered now and was at most, and what was answered so far."""
        return {
            "replays": len(self._turns),
            "replays_most": self.replays_most,
            "open_sessions": len(self._open),
            "requests": self.requests,
            "malformed": self.malformed,
            "replayed_records": self.replayed_records,
        }

    def _serve(self) -> None:
        while not self._stop.is_set():
            self.serve_once(_POLL_MS)

    def serve_once(self, timeout_ms: int) -> bool:
        """Wait at most this long for a request, answer what is there, and send some parts of replays; True if there was
        anything to do."""
        wait_ns = self._turns.wait_ns(self._clock.monotonic_ns())
        if wait_ns is not None:
            timeout_ms = min(timeout_ms, -(-wait_ns // 1_000_000))
        ready = self._socket.poll(timeout_ms)
        self._listener.check()
        asked = 0
        while ready and asked < _REQUESTS_A_TURN and self._take_request():
            asked += 1
        return self._send_parts() or asked > 0

    def _take_request(self) -> bool:
        try:
            frames = self._socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return False
        try:
            if len(frames) != 2:
                raise MalformedMessage("frames")
            request = Request.decode(frames[1])
        except MalformedMessage:
            self.malformed += 1
            return True
        self.requests += 1
        try:
            self._answer(frames[0], request)
        except Exception as error:  # a damaged or vanishing log, or a defect of ours: this request only
            expected = isinstance(error, FabricError | OSError | IndexError)
            _log.warning("request for channel %016x failed: %r", request.channel, error, exc_info=not expected)
            self._send(frames[0], Reply(request.id, Status.BAD_REQUEST, request.channel, request.session))
        return True

    # Answers

    def _answer(self, peer: bytes, request: Request) -> None:
        directory = self._find(request.channel)
        if directory is None:
            return self._send(peer, Reply(request.id, Status.UNKNOWN_CHANNEL, request.channel, request.session))
        served = self._session(directory, request)
        archived = self._archived(request)
        if served is None and archived is not None and (archived.whole or request.op == Op.REPLAY):
            served, archived = archived, None  # the publisher's log of that session is gone
        if served is None:
            status = Status.UNKNOWN_SESSION if request.session else Status.UNKNOWN_CHANNEL
            extra = {"replays": True} if archived is not None else {}
            return self._send(peer, Reply(request.id, status, request.channel, request.session, extra=extra))
        if request.op == Op.STATUS:
            return self._send(peer, self._info(request, served))
        if request.op == Op.REPLAY:
            return self._replay(peer, request, [served] if archived is None else [served, archived])
        if served.follower and (request.op == Op.SNAPSHOT or served.holes().ranges):
            return self._send(peer, Reply(request.id, Status.BAD_REQUEST, request.channel, request.session))
        if request.op == Op.FIND:
            return self._send(peer, self._found(request, served))
        return self._snapshot(peer, request, served)

    def _archived(self, request: Request) -> _ServedSession | None:
        """What the archive has of a session that is asked for by name."""
        directory = self._find_archived(request.channel) if request.session else None
        try:
            return self._session(directory, request) if directory is not None else None
        except (FabricError, OSError) as error:
            _log.debug("the archive's log can't be read: %s", error)
            return None

    def _session(self, directory: Path, request: Request) -> _ServedSession | None:
        """The session asked for (0: the current one), opened once; None if there is no log of it."""
        session = request.session
        if session == 0:
            try:
                session = int((directory / CURRENT).resolve(strict=True).name, 16)
            except (OSError, ValueError):
                return None
        key = (directory, session)
        if key not in self._open:
            if not (directory / session_name(session)).is_dir():
                return None
            if len(self._open) >= _MAX_OPEN_SESSIONS:
                self._open.pop(next(iter(self._open)))
            self._open[key] = _ServedSession(LogReader(directory / session_name(session)))
        return self._open[key]

    def _reply(
        self, request: Request, served: _ServedSession, status: Status, part: int = 1, total: int = 1, **extra: object
    ) -> Reply:
        return reply_of(served.reader, request.id, request.channel, status, part, total, **extra)

    def _info(self, request: Request, served: _ServedSession) -> Reply:
        info = info_of(served.reader, request.id, request.channel)
        if served.follower:
            info.extra["complete"] = served.whole
        if request.host and request.host == self._host and not served.follower:
            info.extra["directory"] = str(served.reader.directory)
        return info

    def _found(self, request: Request, served: _ServedSession) -> Reply:
        """An INFO that also says where a time is."""
        info, reader = self._info(request, served), served.reader
        at = reader.find_time(request.ranges[0][0]) if request.ranges else reader.next
        info.extra["at"] = at
        info.extra["whole"] = at > reader.first_available or reader.first_available == reader.base
        return info

    def _replay(self, peer: bytes, request: Request, sources: list[_ServedSession]) -> None:
        """What is asked for, each piece from the first source that has it. Where none has, that is said first, and only of
        what comes before all else that is sent: the client takes all below for gone."""
        served, packet_records = sources[0], (MAX_BYTES - HEADER_BYTES) // sources[0].reader.record.size
        holes = [source.holes() for source in sources]
        pieces: list[tuple[_ServedSession, int, int]] = []
        available, credit = 0, _MAX_BYTES_A_REQUEST
        for at, last in request.ranges:
            while at <= min(last, served.reader.next - 1) and credit > 0:
                source, count = next(
                    ((each, has) for each, gone in zip(sources, holes, strict=True) if (has := each.has(at, gone))),
                    (served, 0),
                )
                if count == 0 and pieces:
                    credit = 0
                elif count == 0:
                    begins = [each.begins_after(at, gone) for each, gone in zip(sources, holes, strict=True)]
                    at = available = min((each for each in begins if each is not None), default=served.reader.next)
                else:
                    count = min(packet_records, last - at + 1, count)
                    pieces.append((source, at, count))
                    at += count
                    credit -= count * served.reader.record.size
        total = len(pieces) + (available > 0)
        if available:
            unavailable = self._reply(request, served, Status.UNAVAILABLE, 1, total)
            self._send(peer, dataclasses.replace(unavailable, first_available=available))
        elif not pieces:
            self._send(peer, self._info(request, served))
        if pieces:
            self._turns.add(peer, _Replay(request, served, deque(pieces), 1 + (available > 0), total))
            self.replays_most = max(self.replays_most, len(self._turns))

    def _send_parts(self) -> bool:
        """Of each client's replay one part, and so on; True if any went out."""
        sent = False
        for _ in range(_PARTS_A_TURN):
            if (turn := self._turns.next(self._clock.monotonic_ns())) is None:
                break
            sent = self._send_part(*turn) or sent
        return sent

    def _send_part(self, peer: bytes, replay: _Replay) -> bool:
        source, first, count = replay.pieces[0]
        try:
            records = source.reader.read(first, count)
        except (IndexError, LogError, OSError):  # retention passed it since: the next answer says UNAVAILABLE
            records = None
        size = 0
        if records is not None:
            packet = self._packet(Kind.DATA, source, first, len(records), records)
            reply = self._reply(replay.request, replay.served, Status.DATA, replay.number, replay.total)
            size = len(packet)
            try:
                self._send_frames(peer, reply, packet)
            except zmq.Again:
                return self._wait_for(peer, replay)
            except zmq.ZMQError as error:
                _log.debug("a client is gone: %s", error)
                self._turns.drop(peer)
                return False
            self.replayed_records += len(records)
        replay.pieces.popleft()
        replay.number += 1
        replay.stuck_ns = None
        if not replay.pieces:
            self._turns.done(peer)
        self._turns.sent(peer, size)
        return True

    def _wait_for(self, peer: bytes, replay: _Replay) -> bool:
        """Its socket is full: the others go on, and it is tried again, for a while."""
        now_ns = self._clock.monotonic_ns()
        replay.stuck_ns = replay.stuck_ns or now_ns
        if now_ns - replay.stuck_ns > _FULL_PATIENCE_NS:
            self._turns.drop(peer)
        else:
            self._turns.sent(peer, 0)
            self._socket.poll(_FULL_PAUSE_MS)
        return False

    def _snapshot(self, peer: bytes, request: Request, served: _ServedSession) -> None:
        reader = served.reader
        if reader.record.image == "none":
            return self._send(peer, self._reply(request, served, Status.NO_IMAGE))
        image = served.image(request.ranges[0][0] if request.ranges else 0)
        records, sequences = image.export()
        size = reader.record.size
        per_packet = (MAX_BYTES - HEADER_BYTES) // size
        total = max(1, -(-image.count // per_packet))
        for part in range(total):
            begin = part * per_packet
            count = min(per_packet, image.count - begin)
            packet = self._packet(
                Kind.SNAPSHOT, served, image.as_of, count, memoryview(records)[begin * size : (begin + count) * size]
            )
            numbers = sequences[begin * _SEQUENCE_BYTES : (begin + count) * _SEQUENCE_BYTES]
            reply = self._reply(request, served, Status.SNAPSHOT, part + 1, total, sequences=numbers)
            self._send(peer, reply, packet)
        return None

    def _packet(
        self, kind: Kind, served: _ServedSession, sequence: int, count: int, records: memoryview | Records
    ) -> bytes:
        reader = served.reader
        return encode(
            kind,
            reader.control.channel,
            reader.session,
            sequence,
            self._clock.now_ns(),
            reader.record.schema,
            reader.record.size,
            count,
            records,
            self._crc,
        )

    def _send(self, peer: bytes, reply: Reply, packet: bytes | None = None) -> None:
        try:
            self._send_frames(peer, reply, packet)
        except zmq.ZMQError as error:  # the peer is gone or full: it will ask again
            _log.debug("no answer could be sent: %s", error)

    def _send_frames(self, peer: bytes, reply: Reply, packet: bytes | None) -> None:
        if self._cut is not None and self._cut(reply.channel):
            return
        frames = [peer, reply.encode()] if packet is None else [peer, reply.encode(), packet]
        self._socket.send_multipart(frames, zmq.DONTWAIT)
