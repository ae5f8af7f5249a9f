"""The receiving side: SUB sockets for live packets, a DEALER a channel for replays, one state machine a channel.

``poll`` does all the work and can be called from a node's duty cycle or from a thread of its own; nothing else may touch
the sockets. What it takes in becomes runs and events in each channel's subscription.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable

import zmq

from fabric.channel import channel_id, channel_prefix
from fabric.clock import Clock, SystemClock
from fabric.protocol.requests import MalformedMessage, Reply, Status
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, Start
from fabric.records import RecordType
from fabric.transport.channels import ChannelReceiver, WireCounters
from fabric.transport.dialer import Dialer
from fabric.transport.security import CurveClient
from fabric.transport.sockets import HIGH_WATER_PACKETS, Context, Socket, new_socket
from native.packet import HEADER_BYTES, Header, Kind, ParseResult

__all__ = ["ChannelReceiver", "Receiver", "WireCounters"]

_PACKETS_A_POLL = 512
_TIME_STEP_NS = 2_000_000


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
        self.counters = WireCounters()
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
        self._stepped_ns = 0

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
    ) -> ChannelReceiver:
        """Begin to receive a channel. ``data`` and ``replay`` are endpoints, ``curve`` our keys where they are tcp; without
        ``record`` the type is learnt from the log server before anything is delivered."""
        identity = channel_id(name)
        machine = Subscription(
            identity,
            start,
            limits,
            schema=record.schema if record else 0,
            jitter=lambda: 0.5 + self._jitter.random(),
        )
        channel = ChannelReceiver(name, machine, record, data, replay, curve)
        self.channels.setdefault(identity, []).append(channel)
        sub = self._subs.get((data, curve))
        if sub is None:
            # Send HWM 0: with the default, a SUB loses every subscription past the thousandth without a word.
            sub = new_socket(self._context, zmq.SUB, receive_hwm=self._receive_hwm, send_hwm=0)
            self._subs[data, curve] = sub
            self._open(sub, data, curve)
        sub.setsockopt(zmq.SUBSCRIBE, channel_prefix(identity))
        return channel

    def problem_of(self, channel: ChannelReceiver) -> str:
        """Why the channel's publisher or log server does not let us in, or is not the one of our keys; "" if that is not
        what keeps us apart. From any thread."""
        return self._dialer.problem_of(channel.data_endpoint, channel.curve) or self._dialer.problem_of(
            channel.replay_endpoint, channel.curve
        )

    def poll(self, timeout_ns: int) -> bool:
        """Wait for packets at most this long, take in what is there; True if anything arrived."""
        now_ns = self.clock.monotonic_ns()
        if now_ns - self._stepped_ns >= _TIME_STEP_NS:
            self._step(now_ns)
        ready = self._poller.poll(-(-timeout_ns // 1_000_000))  # rounded up: less than a millisecond is not none
        now_ns = self.clock.monotonic_ns()
        for socket, _ in ready:
            if isinstance(socket, int):
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
        if now_ns - self._stepped_ns >= _TIME_STEP_NS:
            self._step(now_ns)
        elif ready:
            self._ask()
        return bool(ready)

    def unsubscribe(self, channel: ChannelReceiver) -> None:
        """Receive it no longer; what it holds can still be taken."""
        identity = channel.machine.channel
        readers = self.channels.get(identity, [])
        if channel not in readers:
            return
        readers.remove(channel)
        if channel.dealer is not None:
            self._drop_dealer(channel)
        key = (channel.data_endpoint, channel.curve)
        others = [each for each in self._all() if (each.data_endpoint, each.curve) == key]
        sub = self._subs[key]
        sub.setsockopt(zmq.UNSUBSCRIBE, channel_prefix(identity))  # libzmq counts how often it was subscribed
        if not readers:
            del self.channels[identity]
        if not others:
            del self._subs[key]
            self._discard(sub)

    def wake(self) -> None:
        """End a ``poll`` that waits, from any thread."""
        with self._wake_lock, contextlib.suppress(BlockingIOError):  # full: it wakes anyway
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x")

    def descriptors(self) -> list[int]:
        """Of all sockets now open, for an event loop: signalled by edge, so drain with ``poll(0)`` until it is False."""
        return [int(socket.FD) for socket in [*self._subs.values(), *self._dealers, *self._dialer.watches()]]

    def close(self) -> None:
        """Close the sockets; the channels keep their state and what they hold."""
        for socket in [*self._subs.values(), *self._dealers]:
            self._discard(socket)
        self._subs.clear()
        self._dealers.clear()
        with self._wake_lock:  # after it nobody writes to a descriptor that may be another's by then
            if self._wake_read >= 0:
                self._poller.unregister(self._wake_read)
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._wake_read = self._wake_write = -1

    def _all(self) -> list[ChannelReceiver]:
        return [each for readers in self.channels.values() for each in readers]

    def _watch(self, socket: Socket) -> None:
        self._poller.register(socket, zmq.POLLIN)
        if self.on_descriptor is not None:
            self.on_descriptor(int(socket.FD), True)

    def _open(self, socket: Socket, endpoint: str, curve: CurveClient | None) -> None:
        told = self._dialer.connect(socket, endpoint, curve)
        for each in (socket, told):
            if each is not None:
                self._watch(each)

    def _discard(self, socket: Socket) -> None:
        if (told := self._dialer.watch_of(socket)) is not None:
            self._poller.unregister(told)
            if self.on_descriptor is not None:
                self.on_descriptor(int(told.FD), False)
            self._dialer.forget(told)
        self._poller.unregister(socket)
        if self.on_descriptor is not None:
            self.on_descriptor(int(socket.FD), False)
        socket.close()

    def _step(self, now_ns: int) -> None:
        self._stepped_ns = now_ns
        self._dialer.dial_again(now_ns)
        for channel in self._all():
            channel.machine.on_time(now_ns)
        self._ask()

    def _ask(self) -> None:
        """Send what the machines want to ask."""
        for channel in self._all():
            machine = channel.machine
            if machine.reconnect and channel.dealer is not None:
                self._drop_dealer(channel)
            while machine.requests:
                request = machine.requests.popleft().encode()
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
                self.counters.count_bad(result)
                continue
            readers = self.channels.get(header.channel)
            if readers is None:
                self.counters.unknown_channel += 1
                continue
            for channel in readers:
                self._take_live(channel, frame, now_ns)

    def _take_live(self, channel: ChannelReceiver, frame: bytes, now_ns: int) -> None:
        header, machine = self._header, channel.machine
        if channel.record is None:
            return  # its type is not known yet; the log server is being asked, and what passes now is replayed
        if header.schema != channel.record.schema or header.size != channel.record.size:
            self.counters.wrong_schema += 1
            if machine.state == "JOINING":
                machine.problem = "its publisher sends records of another dtype"
        elif header.kind == Kind.DATA:
            machine.on_data(
                header.session, header.sequence, channel.record.view(frame, HEADER_BYTES, header.count), now_ns
            )
        elif header.kind in (Kind.HEARTBEAT, Kind.END):
            machine.on_heartbeat(header.session, header.sequence, now_ns, end=header.kind == Kind.END)
        else:
            self.counters.malformed += 1

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
                self.counters.bad_replies += 1
                continue
            first, records = 0, None
            if reply.status == Status.INFO and not channel.learn(reply, self.counters):
                continue
            if len(frames) == 2:
                record = channel.record
                result = header.parse(frames[1])
                if result != ParseResult.OK:
                    self.counters.count_bad(result)
                    continue
                if record is None or header.schema != record.schema or header.size != record.size:
                    self.counters.wrong_schema += 1
                    continue
                first, records = header.sequence, record.view(frames[1], HEADER_BYTES, header.count)
            elif reply.status in (Status.DATA, Status.SNAPSHOT):
                self.counters.bad_replies += 1
                continue
            channel.machine.on_reply(reply, now_ns, first, records)
            if channel.dealer is not socket:
                return
