"""The receiving side: SUB sockets for live packets, a DEALER a channel for replays, one state machine a channel; and in place
of packets the mapped log, where a channel's is on this host.

``poll`` does all the work and can be called from a node's duty cycle or from a thread of its own; nothing else may touch
the sockets. What it takes in becomes runs and events in each channel's subscription.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import zmq

from fabric.channel import channel_id, channel_prefix
from fabric.clock import Clock, SystemClock
from fabric.protocol.requests import MalformedMessage, Op, Reply, Request, Status
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, PathWanted, Start
from fabric.records import RecordType
from fabric.transport.channels import ChannelReceiver, WireCounters
from fabric.transport.dialer import Dialer
from fabric.transport.logbell import LogBell
from fabric.transport.mapped import CannotMap, MappedLog, this_host
from fabric.transport.security import CurveClient
from fabric.transport.sockets import HIGH_WATER_PACKETS, Context, Socket, native_wire, new_socket
from native import wire
from native.follow import Followers, Found, Idle, LogCursor
from native.packet import HEADER_BYTES, Header, Kind, ParseResult
from native.wire import Inlet

__all__ = ["Arrived", "ChannelReceiver", "Receiver", "WireCounters"]

_INLET_RECORDS, _INLET_CONTROL, _INLET_EXTRA = wire.RECORDS, wire.CONTROL, wire.EXTRA

_PACKETS_A_POLL = 512
_TIME_STEP_NS = 2_000_000
_LEAST_RING_BYTES = 65_536
_MOST_RING_BYTES = 4 << 20
_LOCATE_AGAIN_NS = 1_000_000_000
_LOCATE_SOON_NS = 100_000_000
"""Where there is a log, but not one to be mapped yet."""
_LOCATE = 0
"""The id of requests that ask where the log is; those of the machines begin with 1."""


class Arrived:
    """What a ``poll`` has brought, as bits (plain numbers: an enum's would cost more than the poll)."""

    NOTHING: Final = 0
    LANES: Final = 1
    """Packets that were simply the next ones: records in lanes, past the machines."""
    MORE: Final = 2
    """Anything else."""


class Receiver:
    """All subscriptions of one thread."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        context: Context | None = None,
        receive_hwm: int = HIGH_WATER_PACKETS,
        jitter: random.Random | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self._counters = WireCounters()
        self.channels: dict[int, list[ChannelReceiver]] = {}
        """By channel id; one channel may have several readers."""
        self._context = context or zmq.Context.instance()
        self._receive_hwm = receive_hwm
        self._jitter = jitter or random.Random()
        self._poller = zmq.Poller()
        self._wake_lock = threading.RLock()  # a finalizer may wake from anywhere
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller.register(self._wake_read, zmq.POLLIN)
        self.on_descriptor: Callable[[int, bool], None] | None = None
        """Called with a socket's descriptor after it was opened (True) and before it is closed (False)."""
        self._subs: dict[tuple[str, CurveClient | None], Socket] = {}
        self._dealers: dict[Socket, ChannelReceiver] = {}
        self._dialer = Dialer(self._context)
        self._header = Header()
        # Its times are the machine's own clock: under any other, packets are parsed here.
        self._inlet = Inlet() if isinstance(self.clock, SystemClock) and native_wire() else None
        self._of_lane: dict[int, ChannelReceiver] = {}
        self._asking: set[ChannelReceiver] = set()
        """Those whose requests are under way."""
        self._live_channels = 0
        """Channels that packets are asked for of."""
        self._touched = True
        """A socket beside the inlet was used since they were looked at: its descriptor may have been signalled already."""
        if self._inlet is not None:
            self._inlet.add_fd(self._wake_read)
        self._stepped_ns = 0
        self._host = this_host()
        self._fed = Followers()
        """The cursors of mapped logs that feed machines here."""
        self._mapped: list[ChannelReceiver] = []
        self._bell: LogBell | None = None
        self._pumped = False
        self.rings_pulled = False
        """Coroutines read: whoever polls is told of what readers pull from mapped logs as well, and wakes them."""

    def subscribe(
        self,
        name: str,
        start: Start,
        *,
        data: str,
        replay: str,
        record: RecordType | None = None,
        limits: Limits,
        curve: CurveClient | None = None,
        path: PathWanted = "auto",
        pulled: bool = False,
    ) -> ChannelReceiver:
        """Begin to receive a channel. ``data`` and ``replay`` are endpoints, ``curve`` our keys where they are tcp; without
        ``record`` the type is learnt from the log server before anything is delivered. ``pulled``: a reader takes records
        from the mapped log itself, where there is one."""
        identity = channel_id(name)
        machine = Subscription(
            identity,
            start,
            limits,
            schema=record.schema if record else 0,
            jitter=lambda: 0.5 + self._jitter.random(),
        )
        channel = ChannelReceiver(name, machine, record, data, replay, curve, path=path, pulled=pulled)
        if path in ("ipc", "tcp") or not self._host or (curve is not None and path == "auto"):
            channel.locate_at_ns = None  # keys are there so that each connection proves who it is: files don't
        self.channels.setdefault(identity, []).append(channel)
        if path != "local":
            self._listen(channel)
        return channel

    def _listen(self, channel: ChannelReceiver) -> None:
        """Ask for live packets."""
        if channel.subscribed:
            return
        key = (channel.data_endpoint, channel.curve)
        sub = self._subs.get(key)
        if sub is None:
            # Send HWM 0: with the default, a SUB loses every subscription past the thousandth without a word.
            sub = new_socket(self._context, zmq.SUB, receive_hwm=self._receive_hwm, send_hwm=0)
            self._subs[key] = sub
            self._open(sub, *key)
        self._make_lane(channel)
        if self._pumped and self._inlet is not None:
            self._inlet.start_pump()
        with self._quiet_inlet():
            sub.setsockopt(zmq.SUBSCRIBE, channel_prefix(channel.machine.channel))
        channel.subscribed = True
        self._live_channels += 1

    def _listen_no_more(self, channel: ChannelReceiver) -> None:
        """Ask for live packets no longer; the connection stays, for when they are wanted again."""
        if channel.subscribed:
            sub = self._subs[channel.data_endpoint, channel.curve]
            with self._quiet_inlet():
                sub.setsockopt(zmq.UNSUBSCRIBE, channel_prefix(channel.machine.channel))  # libzmq counts
            channel.subscribed = False
            self._live_channels -= 1

    @contextlib.contextmanager
    def _quiet_inlet(self) -> Iterator[None]:
        """While one of its sockets is used here."""
        if self._inlet is None:
            yield
            return
        self._inlet.hold()
        try:
            yield
        finally:
            self._inlet.release()

    def _make_lane(self, channel: ChannelReceiver) -> None:
        """Where the channel's packets come in. Until its record type is known, all of them come to us as frames."""
        if self._inlet is None:
            return
        self._drop_lane(channel)
        machine, record = channel.machine, channel.record
        size = record.size if record else 1
        ring_bytes = max(_LEAST_RING_BYTES, min(machine.limits.max_queued_records * size, _MOST_RING_BYTES))
        lane = self._inlet.add_lane(
            machine.channel,
            record.schema if record else 0,
            size,
            machine.tracker,
            ring_bytes,
            record.dtype if record else None,
        )
        channel.use_lane(lane)
        self._of_lane[lane.id] = channel

    def _drop_lane(self, channel: ChannelReceiver) -> None:
        if (
            self._inlet is not None
            and channel.lane is not None
            and self._of_lane.pop(channel.lane.id, None) is not None
        ):
            with channel.lock:
                channel.stop_lane()
            self._inlet.remove_lane(channel.lane)

    def problem_of(self, channel: ChannelReceiver) -> str:
        """Why the channel's publisher or log server does not let us in, or is not the one of our keys; "" if that is not
        what keeps us apart. From any thread."""
        return self._dialer.problem_of(channel.data_endpoint, channel.curve) or self._dialer.problem_of(
            channel.replay_endpoint, channel.curve
        )

    @property
    def counters(self) -> WireCounters:
        """What arrived and was no packet or reply of ours, so far."""
        counted = dataclasses.replace(self._counters)
        if self._inlet is not None:
            for name in ("malformed", "bad_crc", "bad_version", "unknown_channel"):
                setattr(counted, name, getattr(counted, name) + getattr(self._inlet, name))
        return counted

    def poll(self, timeout_ns: int, idle: Idle = Idle.BLOCK) -> int:
        """Wait for packets or records at most this long, take in what is there, and say what it was. The wait is as ``idle``
        says (yielding is for mapped logs alone)."""
        ticket = self._fed.ticket()
        now_ns = self.clock.monotonic_ns()
        arrived: int = Arrived.NOTHING
        stepped = now_ns - self._stepped_ns >= _TIME_STEP_NS
        if stepped:
            if self._only_logs:
                arrived = self._take_ready(0)  # whoever woke us, handshakes
            self._step(now_ns)
        if self._mapped:
            arrived |= self._feed(now_ns)
        if self._only_logs:
            if not arrived:
                found = self._fed.wait(ticket, timeout_ns, idle)
                if found == Found.RECORDS:
                    return self._feed(self.clock.monotonic_ns())
                if found != Found.NOTHING:
                    self._stepped_ns = 0  # a log's state, or somebody woke us: look at everything, now
                    self._take_ready(0)
                    self._step(self.clock.monotonic_ns())
                    return Arrived.MORE
            return arrived
        if arrived:
            timeout_ns = 0
        if self._inlet is None:
            arrived |= self._take_ready(-(-timeout_ns // 1_000_000))  # rounded up: less than 1 ms is not none
        else:
            arrived |= self._take_from_inlet(timeout_ns, idle)
        if arrived > Arrived.LANES:
            if not stepped and self.clock.monotonic_ns() - self._stepped_ns >= _TIME_STEP_NS:
                self._step(self.clock.monotonic_ns())
            else:
                self._ask()
        return arrived

    @property
    def _only_logs(self) -> bool:
        """No socket has anything to bring: no live packets are asked for, and no answers waited for."""
        return not self._live_channels and not self._asking and bool(self.channels) and not self.rings_pulled

    def _take_from_inlet(self, timeout_ns: int, idle: Idle) -> int:
        """As ``_take_ready``, where live packets come in natively."""
        inlet = self._inlet
        assert inlet is not None
        arrived: int = Arrived.NOTHING
        if self._touched:
            self._touched = False
            arrived = self._take_ready(0)
        bits = inlet.wait(0 if arrived else timeout_ns, idle == Idle.SPIN)
        if bits & _INLET_RECORDS:
            arrived |= Arrived.LANES
        if bits & _INLET_EXTRA:
            arrived |= self._take_ready(0)
        if bits & _INLET_CONTROL:
            self._take_control()
            arrived |= Arrived.MORE
        return arrived

    def _take_control(self) -> None:
        """What was not simply the next packet, in the order in which it came."""
        assert self._inlet is not None
        now_ns = self.clock.monotonic_ns()
        touched: set[ChannelReceiver] = set()
        for _ in range(_PACKETS_A_POLL):
            if (taken := self._inlet.take_control()) is None:
                break
            lane, frame = taken
            channel = self._of_lane.get(lane.id)
            if channel is None or self._header.parse(frame) != ParseResult.OK:
                continue
            touched.add(channel)
            with channel.lock:
                channel.stop_lane()
                self._take_live(channel, frame, now_ns)
        for channel in touched:
            with channel.lock:
                channel.start_lane()

    def _take_ready(self, timeout_ms: int) -> int:
        """Wait for the sockets and take in what they have."""
        self._tend_bell()
        arrived: int = Arrived.NOTHING
        now_ns = 0
        for socket, _ in self._poller.poll(timeout_ms):
            now_ns = now_ns or self.clock.monotonic_ns()
            arrived = Arrived.MORE
            if isinstance(socket, int):
                if self._bell is not None and socket == self._bell.descriptor:
                    self._bell.clear()
                    self._feed(now_ns)
                    if not any(channel.behind for channel in self._mapped):
                        self._bell.rearm()  # else the reader does, when it has taken that
                    continue
                self._stepped_ns = 0  # woken: look at everything
                with contextlib.suppress(BlockingIOError):
                    os.read(socket, 4096)
                continue
            channel = self._dealers.get(socket)
            if self._dialer.is_watch(socket):
                self._dialer.take(socket, now_ns)
            elif socket.closed:  # a dealer that an answer before made us throw away
                continue
            elif channel is None:
                self._drain_live(socket, now_ns)
            else:
                self._drain_replies(socket, channel, now_ns)
        self._touched = arrived > Arrived.NOTHING
        return arrived

    def unsubscribe(self, channel: ChannelReceiver) -> None:
        """Receive it no longer; what it holds can still be taken."""
        identity = channel.machine.channel
        readers = self.channels.get(identity, [])
        if channel not in readers:
            return
        readers.remove(channel)
        if channel.dealer is not None:
            self._drop_dealer(channel)
        self._let_go(channel, self.clock.monotonic_ns())
        self._listen_no_more(channel)
        self._drop_lane(channel)
        self._asking.discard(channel)
        if not readers:
            del self.channels[identity]
        key = (channel.data_endpoint, channel.curve)
        if key in self._subs and not any((each.data_endpoint, each.curve) == key for each in self._all()):
            self._discard(self._subs.pop(key))

    def pump(self, *, on: bool) -> None:
        """Whether a thread without the GIL takes in packets while nobody polls: beside busy threads they still come in at once.
        Not with an event loop, which waits for the sockets' own descriptors."""
        self._pumped = on
        if self._inlet is not None and not on:
            self._inlet.stop_pump()
        elif self._inlet is not None and self._live_channels:
            self._inlet.start_pump()

    def wake(self) -> None:
        """End a ``poll`` that waits, from any thread."""
        self._fed.poke()
        with self._wake_lock, contextlib.suppress(BlockingIOError):  # full: it wakes anyway
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x")

    def descriptors(self) -> list[int]:
        """Of all sockets now open, for an event loop: signalled by edge, so drain with ``poll(0)`` until it is False."""
        sockets = [*self._subs.values(), *self._dealers, *self._dialer.watches()]
        return [*(int(socket.FD) for socket in sockets), *([self._bell.descriptor] if self._bell is not None else [])]

    def close(self) -> None:
        """Close the sockets; the channels keep their state and what they hold."""
        now_ns = self.clock.monotonic_ns()
        for channel in self._all():
            self._let_go(channel, now_ns)
            self._drop_lane(channel)
            channel.subscribed = False
        if self._bell is not None:
            self._poller.unregister(self._bell.descriptor)
            if self._inlet is not None:
                self._inlet.remove_fd(self._bell.descriptor)
            if self.on_descriptor is not None:
                self.on_descriptor(self._bell.descriptor, False)
            self._bell.close()
            self._bell = None
        if self._inlet is not None:
            self._inlet.stop_pump()
        for socket in [*self._subs.values(), *self._dealers]:
            self._discard(socket)
        self._subs.clear()
        self._dealers.clear()
        with self._wake_lock:  # after it nobody writes to a descriptor that may be another's by then
            if self._wake_read >= 0:
                self._poller.unregister(self._wake_read)
                if self._inlet is not None:
                    self._inlet.remove_fd(self._wake_read)
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._wake_read = self._wake_write = -1

    def _all(self) -> list[ChannelReceiver]:
        return [each for readers in self.channels.values() for each in readers]

    def _watch(self, socket: Socket) -> None:
        self._touched = True
        if self._inlet is None:
            self._poller.register(socket, zmq.POLLIN)
        elif socket.type == zmq.SUB:
            self._inlet.add_socket(socket.underlying, int(socket.FD))
        else:
            self._poller.register(socket, zmq.POLLIN)
            self._inlet.add_fd(int(socket.FD))
        if self.on_descriptor is not None:
            self.on_descriptor(int(socket.FD), True)

    def _open(self, socket: Socket, endpoint: str, curve: CurveClient | None) -> None:
        told = self._dialer.connect(socket, endpoint, curve)
        for each in (socket, told):
            if each is not None:
                self._watch(each)

    def _unwatch(self, socket: Socket) -> None:
        if self.on_descriptor is not None:
            self.on_descriptor(int(socket.FD), False)
        if self._inlet is None:
            self._poller.unregister(socket)
        elif socket.type == zmq.SUB:
            self._inlet.remove_socket(socket.underlying)
        else:
            self._poller.unregister(socket)
            self._inlet.remove_fd(int(socket.FD))

    def _discard(self, socket: Socket) -> None:
        if (told := self._dialer.watch_of(socket)) is not None:
            self._unwatch(told)
            self._dialer.forget(told)
        self._unwatch(socket)
        socket.close()

    def _step(self, now_ns: int) -> None:
        self._stepped_ns = now_ns
        self._dialer.dial_again(now_ns)
        for channel in self._all():
            if channel.mapped is not None:
                self._follow(channel, now_ns)
            elif channel.lane is not None and channel.lane.plain:
                channel.account_lane()
                channel.machine.on_time(now_ns)  # it is LIVE: nothing comes of it but STALE, and a question
            elif channel.lane is not None:
                with channel.held(now_ns):
                    channel.machine.on_time(now_ns)
            else:
                channel.machine.on_time(now_ns)
            if not channel.machine.waits_for_answer:
                self._asking.discard(channel)
            if channel.locate_at_ns is not None and now_ns >= channel.locate_at_ns:
                self._locate(channel, now_ns)
        self._ask()

    # Logs on this host

    def _locate(self, channel: ChannelReceiver, now_ns: int) -> None:
        """Ask where the channel's log is, until we are told."""
        channel.locate_at_ns = now_ns + _LOCATE_AGAIN_NS
        request = Request(_LOCATE, Op.STATUS, channel.machine.channel, 0, host=self._host)
        self._touched = True
        with contextlib.suppress(zmq.Again):
            self._dealer(channel).send(request.encode(), zmq.DONTWAIT)

    def _located(self, channel: ChannelReceiver, reply: Reply, now_ns: int) -> None:
        """Map the log that the log server names, if it is what it should be."""
        machine = channel.machine
        if channel.mapped is not None or channel.locate_at_ns is None:
            return
        directory = reply.extra.get("directory")
        try:
            if not isinstance(directory, str):
                if channel.path_wanted == "auto":
                    channel.locate_at_ns = None
                raise CannotMap("its log server does not offer the log to this host")
            channel.locate_at_ns = now_ns + _LOCATE_SOON_NS
            mapped = MappedLog.open(Path(directory), machine.channel, reply.session, machine.schema)
            if not mapped.alive(now_ns, machine.limits.stale_ns):
                raise CannotMap("its writer is not running")
            if not machine.session and machine.start.mode != "time":
                with channel.held(now_ns):
                    machine.on_reply(mapped.info(), now_ns)
            if machine.session != mapped.session:
                raise CannotMap("another session is being read")
        except CannotMap as problem:
            if channel.path_wanted == "local" and machine.state == "JOINING":
                machine.problem = str(problem)
            return
        channel.attach(mapped, now_ns)
        self._mapped.append(channel)
        self._know_cursor(channel)
        self._listen_no_more(channel)
        channel.locate_at_ns = None
        self._follow(channel, now_ns)

    def _follow(self, channel: ChannelReceiver, now_ns: int) -> None:
        before = channel.mapped
        if not channel.follow(now_ns):
            channel.detach(now_ns)
            self._mapped.remove(channel)
            if channel.path_wanted != "local":
                self._listen(channel)
            channel.locate_at_ns = now_ns
        if channel.mapped is not before and before is not None:
            self._forget_cursor(before.cursor)
            self._know_cursor(channel)

    def _let_go(self, channel: ChannelReceiver, now_ns: int) -> None:
        """The channel is not received any more."""
        if channel.mapped is not None:
            self._forget_cursor(channel.mapped.cursor)
        if channel in self._mapped:
            self._mapped.remove(channel)
        channel.leave(now_ns)

    def _know_cursor(self, channel: ChannelReceiver) -> None:
        """The channel has another mapped log, or none: wait for that one, and tell the bell."""
        if channel.mapped is not None and not channel.pulled:
            self._fed.add(channel.mapped.cursor)
        self._touched = True

    def _forget_cursor(self, cursor: LogCursor) -> None:
        self._fed.remove(cursor)
        if self._bell is not None:
            self._bell.remove(cursor)

    def _feed(self, now_ns: int) -> int:
        """Give the machines what their logs hold."""
        arrived: int = Arrived.NOTHING
        for channel in self._mapped:
            if channel.pulled:
                continue
            if channel.feed(now_ns):
                arrived = Arrived.MORE
        return arrived

    def _tend_bell(self) -> None:
        """Where sockets are waited for, or an event loop waits: a descriptor that tells of the mapped logs."""
        wanted = [
            channel.mapped.cursor
            for channel in self._mapped
            if channel.mapped is not None and (not channel.pulled or self.rings_pulled)
        ]
        if wanted and self._bell is None:
            self._bell = LogBell()
            self._poller.register(self._bell.descriptor, zmq.POLLIN)
            if self._inlet is not None:
                self._inlet.add_fd(self._bell.descriptor)
            if self.on_descriptor is not None:
                self.on_descriptor(self._bell.descriptor, True)
        if self._bell is not None:
            self._bell.tell_of(wanted)

    def rearm(self) -> None:
        """The reader has taken what there was: the bell may ring again."""
        if (bell := self._bell) is not None:  # whoever closes may be another thread
            bell.rearm()

    # Requests and replies

    def _ask(self) -> None:
        """Send what the machines want to ask."""
        for channel in self._all():
            machine = channel.machine
            if machine.reconnect and channel.dealer is not None:
                self._drop_dealer(channel)
            while machine.requests:
                request = machine.requests.popleft().encode()
                self._touched = True
                self._asking.add(channel)
                with contextlib.suppress(zmq.Again):  # not connected: it goes unanswered, like any that is lost
                    self._dealer(channel).send(request, zmq.DONTWAIT)

    def _dealer(self, channel: ChannelReceiver) -> Socket:
        if channel.dealer is None:
            channel.dealer = new_socket(self._context, zmq.DEALER)
            self._dealers[channel.dealer] = channel
            self._open(channel.dealer, channel.replay_endpoint, channel.curve)
        return channel.dealer

    def _drop_dealer(self, channel: ChannelReceiver) -> None:
        assert channel.dealer is not None
        del self._dealers[channel.dealer]
        self._discard(channel.dealer)
        channel.dealer = None

    def _drain_live(self, socket: Socket, now_ns: int) -> None:
        header = self._header
        for _ in range(_PACKETS_A_POLL):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            frame = frames[0]
            result = header.parse(frame) if len(frames) == 1 else ParseResult.BAD_LENGTH
            if result != ParseResult.OK:
                self._counters.count_bad(result)
                continue
            readers = self.channels.get(header.channel)
            if readers is None:
                self._counters.unknown_channel += 1
                continue
            for channel in readers:
                self._take_live(channel, frame, now_ns)

    def _take_live(self, channel: ChannelReceiver, frame: bytes, now_ns: int) -> None:
        header, machine = self._header, channel.machine
        if channel.mapped is not None:
            return  # sent before we said that we read the log
        if channel.record is None:
            return  # its type is not known yet; the log server is being asked, and what passes now is replayed
        if header.schema != channel.record.schema or header.size != channel.record.size:
            self._counters.wrong_schema += 1
            if machine.state == "JOINING":
                machine.problem = "its publisher sends records of another dtype"
        elif header.kind == Kind.DATA:
            machine.on_data(
                header.session, header.sequence, channel.record.view(frame, HEADER_BYTES, header.count), now_ns
            )
        elif header.kind in (Kind.HEARTBEAT, Kind.END):
            machine.on_heartbeat(header.session, header.sequence, now_ns, end=header.kind == Kind.END)
        else:
            self._counters.malformed += 1

    def _drain_replies(self, socket: Socket, channel: ChannelReceiver, now_ns: int) -> None:
        header = self._header
        for _ in range(_PACKETS_A_POLL):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                reply = Reply.decode(frames[0])
                if len(frames) > 2 or reply.channel != channel.machine.channel:
                    raise MalformedMessage("frames")
            except MalformedMessage:
                self._counters.bad_replies += 1
                continue
            first, records = 0, None
            known = channel.record is not None
            if reply.status == Status.INFO and not channel.learn(reply, self._counters):
                continue
            if not known and channel.record is not None and channel.subscribed:
                self._make_lane(channel)
            if reply.id == _LOCATE:
                if reply.status == Status.INFO:
                    self._located(channel, reply, now_ns)
                continue
            if len(frames) == 2:
                record = channel.record
                result = header.parse(frames[1])
                if result != ParseResult.OK:
                    self._counters.count_bad(result)
                    continue
                if record is None or header.schema != record.schema or header.size != record.size:
                    self._counters.wrong_schema += 1
                    continue
                first, records = header.sequence, record.view(frames[1], HEADER_BYTES, header.count)
            elif reply.status in (Status.DATA, Status.SNAPSHOT):
                self._counters.bad_replies += 1
                continue
            with channel.held(now_ns):
                channel.machine.on_reply(reply, now_ns, first, records)
            if channel.dealer is not socket:
                return
