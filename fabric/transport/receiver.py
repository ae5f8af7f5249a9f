"""The receiving side: live packets, replays, mapped logs, and one state machine a channel that they all lead to.

``poll`` does the work and can be called from a node's duty cycle or from a thread of its own; nothing else may touch the
sockets (``livesockets``) or look after the logs (``mappedlogs``). Most records never pass through here: readers take them
from a channel's lane or mapped log (``ChannelReceiver.pull``). What else comes becomes runs and events in the channel's
machine. ``take_changed`` and ``take_ripe`` say which channels have anything new.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections import deque
from collections.abc import Sequence
from typing import Final

import zmq

from fabric.channel import channel_id
from fabric.clock import Clock, SystemClock
from fabric.protocol.channellines import line_name
from fabric.protocol.ladder import Rung
from fabric.protocol.lines import LineState
from fabric.protocol.requests import Reply, Request
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, PathWanted, Start
from fabric.records import RecordType
from fabric.transport.arrivals import Arrivals
from fabric.transport.channels import ChannelReceiver, WireCounters
from fabric.transport.climb import Asked
from fabric.transport.livesockets import LiveSockets
from fabric.transport.mappedlogs import MappedLogs
from fabric.transport.security import CurveClient
from fabric.transport.sockets import HIGH_WATER_PACKETS, Context
from native import wire
from native.follow import Found, Idle
from native.wire import Lane

__all__ = ["Arrived", "ChannelReceiver", "Receiver", "WireCounters"]

_log = logging.getLogger("fabric.receiver")
_INLET_RECORDS, _INLET_CONTROL, _INLET_EXTRA = wire.RECORDS, wire.CONTROL, wire.EXTRA
_FOUND_NOTHING, _FOUND_RECORDS, _SPIN = int(Found.NOTHING), int(Found.RECORDS), int(Idle.SPIN)

_TIME_STEP_NS = 2_000_000
_RESTING_STEP_NS = 20_000_000
"""Where no channel waits for anything but its next records."""
_ROUND_NS = 100_000_000
"""Every channel is looked at once in this time, also where nothing happens."""
_LEAST_A_STEP = 32
_TOO_MANY_NS = 20_000_000
"""Until it is asked again, where too many replays are under way."""


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
        self.channels: dict[int, list[ChannelReceiver]] = {}
        """By channel id; one channel may have several readers."""
        self._jitter = jitter or random.Random()
        # Natively times are the machine's own clock: under any other, packets are parsed here.
        native = isinstance(self.clock, SystemClock)
        self.sockets = LiveSockets(context or zmq.Context.instance(), receive_hwm, native=native)
        self.logs = MappedLogs(self.sockets, self._change)
        self._arrivals = Arrivals(self.channels, self.sockets, self.logs, self._change)
        self._changed: dict[ChannelReceiver, None] = {}
        self._busy: dict[ChannelReceiver, None] = {}
        """Those that are looked at in each step; the others rest."""
        self._asking: set[ChannelReceiver] = set()
        """Those whose requests are under way."""
        self._rota: deque[ChannelReceiver] = deque()
        self._stepped_ns = 0

    def subscribe(
        self,
        name: str,
        start: Start,
        *,
        data: str | Sequence[str],
        replay: str | Sequence[Rung],
        record: RecordType | None = None,
        limits: Limits,
        curve: CurveClient | None = None,
        standbys: Sequence[str] = (),
        path: PathWanted = "auto",
        pulled: bool = False,
    ) -> ChannelReceiver:
        """Begin to receive a channel. ``data`` and ``replay`` are endpoints, ``curve`` our keys where they are tcp; several
        ``data`` are lines, on each of which its publisher sends the same, several ``replay`` the rungs that are asked for
        what is missing, the log server first; ``standbys``: where live packets come from once a standby has taken over.
        Without ``record`` the type is learnt from the log server before anything is delivered. ``pulled``: its reader waits
        for the mapped log by itself, where there is one."""
        rungs = (Rung("log", replay),) if isinstance(replay, str) else tuple(replay)
        lines = (data,) if isinstance(data, str) else tuple(data)
        if len(lines) > 1:  # each has accounts of its own there
            lines, standbys = (*lines, *standbys), ()
        identity = channel_id(name)
        machine = Subscription(
            identity,
            start,
            limits,
            schema=record.schema if record else 0,
            jitter=lambda: 0.5 + self._jitter.random(),
            lines=len(lines),
        )
        channel = ChannelReceiver(
            name, machine, record, lines, rungs, curve, standbys=standbys, path=path, pulled=pulled
        )
        if not self.logs.may_be_mapped(channel):
            channel.locate_at_ns = None
        self.channels.setdefault(identity, []).append(channel)
        self._rota.append(channel)
        self._change(channel)
        self.sockets.add_reader(channel)
        if path != "local":
            self.sockets.listen(channel)
        return channel

    def unsubscribe(self, channel: ChannelReceiver) -> None:
        """Receive it no longer; what it holds can still be taken."""
        identity = channel.machine.channel
        readers = self.channels.get(identity, [])
        if channel not in readers:
            return
        readers.remove(channel)
        if not readers:
            del self.channels[identity]
        self._rota.remove(channel)
        self.logs.let_go(channel, self.clock.monotonic_ns())
        self.sockets.remove_reader(channel, self._rota)
        self._asking.discard(channel)
        for known in (self._busy, self._changed):
            known.pop(channel, None)

    def problem_of(self, channel: ChannelReceiver) -> str:
        """Why the channel's publisher or log server does not let us in, or is not the one of our keys; "" if that is not
        what keeps us apart. From any thread."""
        problem_of = self.sockets.dialer.problem_of
        where = (*channel.line_endpoints, *channel.standby_endpoints, *(rung.endpoint for rung in channel.rungs))
        problems = (problem_of(each, channel.curve) for each in where)
        return next(filter(None, problems), "")

    @property
    def counters(self) -> WireCounters:
        """What arrived and was no packet or reply of ours, so far."""
        counted = dataclasses.replace(self._arrivals.counters)
        if (inlet := self.sockets.inlet) is not None:
            for name in ("malformed", "bad_crc", "bad_version", "unknown_channel"):
                setattr(counted, name, getattr(counted, name) + getattr(inlet, name))
        return counted

    @property
    def rests(self) -> bool:
        """No channel waits for anything but its next records."""
        return not self._busy

    # Turning it

    def poll(self, timeout_ns: int, idle: Idle = Idle.BLOCK) -> int:
        """Wait for packets or records at most this long, take in what is there, and say what it was. The wait is as ``idle``
        says (yielding is for mapped logs alone)."""
        logs, now_ns = self.logs, self.clock.monotonic_ns()
        logs.rearm_fed()
        ticket = logs.fed.ticket()
        arrived: int = Arrived.NOTHING
        only_logs = self._only_logs
        stepped = self._step_is_due(now_ns)
        if stepped:
            if only_logs or self._asking:
                arrived = self._take_ready(0)  # whoever woke us, handshakes; answers, before they are found to be late
            self._step(now_ns)
            only_logs = self._only_logs
        arrived |= self._look_at_logs()
        if only_logs:
            return arrived or self._wait_for_logs(ticket, timeout_ns, idle)
        if arrived:
            timeout_ns = 0
        if self.sockets.inlet is None:
            arrived |= self._take_ready(-(-timeout_ns // 1_000_000))  # rounded up: less than 1 ms is not none
        else:
            arrived |= self._take_from_inlet(timeout_ns, idle)
        if arrived > Arrived.LANES:
            if not stepped and self._step_is_due(now_ns := self.clock.monotonic_ns()):
                self._step(now_ns)
            else:
                self._ask(self._busy)
        return arrived

    def lane_to_take(self, channel: ChannelReceiver) -> Lane | None:
        """The channel's lane, where all that can come next are the next records there, and nothing else is to be done here
        before somebody waits for them; else None, and ``poll`` is to be called."""
        lane = channel.lane
        if channel.mapped is not None or channel.gone or lane is None or not lane.plain or channel.machine.out:
            return None
        busy = self.sockets.touched or self._asking or self._changed or len(self.logs.fed)
        return None if busy or self._step_is_due(self.clock.monotonic_ns()) else lane

    def drained(self, arrived: int) -> bool:
        """Whether the ``poll`` that returned this has left nothing in the sockets: else it is to be called again."""
        return arrived == Arrived.LANES and self.sockets.inlet is not None and self.sockets.inlet.drained

    def take_changed(self) -> dict[ChannelReceiver, None]:
        """The channels of which anything is new but next records in their lanes, since this was asked last."""
        changed, self._changed = self._changed, {}
        return changed

    def take_ripe(self) -> list[ChannelReceiver]:
        """The channels whose lanes got records since this was asked last."""
        return self.sockets.ready_channels()

    def pump(self, *, on: bool) -> None:
        """Whether a thread without the GIL takes in packets while nobody polls: beside busy threads they still come in at once.
        Not with an event loop, which waits for the sockets' own descriptors."""
        self.sockets.pump(on=on)

    def wake(self) -> None:
        """End a ``poll`` that waits, from any thread."""
        self.logs.fed.poke()
        self.sockets.wake()

    def descriptors(self) -> list[int]:
        """Of all that is now open, for an event loop: signalled by edge, so drain with ``poll(0)`` until it is 0."""
        return [*self.sockets.descriptors(), *self.logs.descriptors()]

    def take_lanes(self) -> bool:
        """Take in what the live sockets have, where nothing else is to be done here: only lanes have changed then, and
        ``take_ripe`` says which. False: ``poll`` is to be called."""
        inlet = self.sockets.inlet
        busy = inlet is None or self.sockets.touched or self._asking or self._changed
        if busy or self._step_is_due(self.clock.monotonic_ns()):
            return False
        assert inlet is not None
        return not inlet.wait(0) & ~_INLET_RECORDS and inlet.drained

    def close(self) -> None:
        """Close the sockets; the channels keep their state and what they hold."""
        now_ns = self.clock.monotonic_ns()
        for channel in self._rota:
            self.logs.let_go(channel, now_ns)
            self.sockets.drop_lane(channel)
            channel.subscribed = False
        self.logs.close()
        self.sockets.close()

    @property
    def _only_logs(self) -> bool:
        """No socket has anything to bring: no live packets are asked for, and no answers waited for."""
        return bool(not self.sockets.live_channels and not self._asking and self._rota and not self.logs.rings_pulled)

    def _look_at_logs(self) -> int:
        ready = self.logs.ready()
        for channel in ready:
            self._changed[channel] = None
        return Arrived.MORE if ready else Arrived.NOTHING

    def _wait_for_logs(self, ticket: int, timeout_ns: int, idle: Idle) -> int:
        found = self.logs.fed.wait(ticket, timeout_ns, idle)
        if found == _FOUND_NOTHING:
            return Arrived.NOTHING
        if found != _FOUND_RECORDS:  # a log's state, or somebody woke us: look at everything, now
            self._look_at_all()
            self._take_ready(0)
            self._step(self.clock.monotonic_ns())
        self._look_at_logs()
        return Arrived.MORE

    def _take_from_inlet(self, timeout_ns: int, idle: Idle) -> int:
        """As ``_take_ready``, where live packets come in natively."""
        inlet = self.sockets.inlet
        assert inlet is not None
        arrived: int = Arrived.NOTHING
        if self.sockets.touched:
            self.sockets.touched = False
            arrived = self._take_ready(0)
        bits = inlet.wait(0 if arrived else timeout_ns, idle == _SPIN)
        if bits & _INLET_RECORDS:
            arrived |= Arrived.LANES
        if bits & _INLET_EXTRA:
            arrived |= self._take_ready(0)
        if bits & _INLET_CONTROL:
            self._arrivals.take_control(self.clock.monotonic_ns())
            arrived |= Arrived.MORE
        return arrived

    def _take_ready(self, timeout_ms: int) -> int:
        """Wait for the sockets and take in what they have."""
        self.logs.tend_bell()
        arrived: int = Arrived.NOTHING
        now_ns = 0
        for socket, _ in self.sockets.poller.poll(timeout_ms):
            now_ns = now_ns or self.clock.monotonic_ns()
            arrived = Arrived.MORE
            if not isinstance(socket, int):
                self._arrivals.take(socket, now_ns)
            elif self.logs.is_bell(socket):
                self._changed.update(dict.fromkeys(self.logs.heard()))
                self._look_at_logs()
            else:
                self.sockets.woken()
                self._look_at_all()
        self.sockets.touched = arrived > Arrived.NOTHING
        return arrived

    # Time

    def _step_is_due(self, now_ns: int) -> bool:
        return now_ns - self._stepped_ns >= (_TIME_STEP_NS if self._busy else _RESTING_STEP_NS)

    def _change(self, channel: ChannelReceiver) -> None:
        """Something happened to its machine: its reader is to look, and so are we in the next steps."""
        self._changed[channel] = None
        self._busy[channel] = None

    def _look_at_all(self) -> None:
        """A reader has made room, above all: nothing rests."""
        self._stepped_ns = 0
        self._busy.update(dict.fromkeys(self._rota))

    def _step(self, now_ns: int) -> None:
        """Let time pass for those that something is to be done for, and for some of those that rest."""
        some = min(len(self._rota), max(_LEAST_A_STEP, len(self._rota) * (now_ns - self._stepped_ns) // _ROUND_NS))
        self._stepped_ns = now_ns
        self.sockets.dialer.dial_again(now_ns)
        looked_at = list(self._busy)
        for _ in range(some):
            channel = self._rota[0]
            self._rota.rotate(-1)
            if channel not in self._busy:
                looked_at.append(channel)
        for channel in looked_at:
            self._look_after(channel, now_ns)
        self._ask(looked_at)
        for channel in looked_at:
            if channel.rests:
                self._busy.pop(channel, None)
                self.sockets.dealers.let_rest(channel, now_ns)
            else:
                self._change(channel)

    def _look_after(self, channel: ChannelReceiver, now_ns: int) -> None:
        machine = channel.machine
        stale, lane = machine.stale, channel.lane
        if channel.mapped is not None:
            opened = channel.mapped.cursor.open
            self.logs.follow(channel, now_ns)
            if opened and channel.closed_cursor:
                self._changed[channel] = None  # its reader is to open the cursor again
        elif lane is None or lane.plain:
            channel.account_lane()
            machine.on_time(now_ns)  # where it is LIVE nothing comes of it but STALE, and a question
        else:
            with channel.held(now_ns):
                machine.on_time(now_ns)
        if channel.locate_at_ns is not None and now_ns >= channel.locate_at_ns:
            self.logs.locate(channel, now_ns)
        if machine.lines is not None:
            _tell_lines(channel, machine.lines.take_told())
        if machine.stale != stale or (channel.closed_cursor and channel.behind):
            self._changed[channel] = None

    def _ask(self, channels: dict[ChannelReceiver, None] | list[ChannelReceiver]) -> None:
        """Send what their machines want to ask."""
        for channel in channels:
            machine = channel.machine
            if machine.reconnect:
                rung, now_ns = 0, self.clock.monotonic_ns()
                if channel.climb is not None:
                    rung = channel.climb.timed_out(now_ns)
                    machine.put_off(
                        now_ns
                    )  # its breaker says how long that rung is left alone; another one may be asked
                self.sockets.dealers.timed_out(channel, rung, now_ns)
            while machine.requests:
                self._asking.add(channel)
                self._send(channel, machine.requests.popleft())
            if not machine.waits_for_answer:
                self._asking.discard(channel)

    def _send(self, channel: ChannelReceiver, request: Request) -> None:
        """To whoever is to be asked."""
        now_ns = self.clock.monotonic_ns()
        if channel.climb is None:
            if not self.sockets.ask(channel, request, now_ns):
                channel.machine.put_off(now_ns + _TOO_MANY_NS)
            return
        channel.climb.follow(channel.machine.session)
        step = channel.climb.route(request, now_ns)
        if isinstance(step, Asked):
            if not self.sockets.ask(channel, step.request, now_ns, step.rung):
                channel.machine.put_off(now_ns + _TOO_MANY_NS)
        elif isinstance(step, Reply):
            with channel.held(now_ns):
                channel.machine.on_reply(step, now_ns)
            self._change(channel)
        else:
            channel.machine.put_off(step)


def _tell_lines(channel: ChannelReceiver, told: list[tuple[int, LineState]]) -> None:
    for line, state in told:
        where = f"channel {channel.name!r}: line {line_name(line)} ({channel.line_endpoints[line]})"
        if state is LineState.LOST:
            _log.warning("%s is lost: nothing comes on it, and the channel goes on without it", where)
        else:
            _log.warning("%s is back", where)
