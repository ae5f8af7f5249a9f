"""Following a publisher's channels from another host: one receiver, one connection to its `sync` endpoint, a log a channel.

    async   subscriptions, as any reader's
    sync    the same until a channel has caught up; then each write comes over the `sync` connection before anybody sees it,
            and the subscription rests. Where that connection falls silent, it goes on

One thread turns it.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from fabric.clock import Clock, SystemClock
from fabric.errors import FabricError, RecordTypeError
from fabric.log.writer import LogOptions
from fabric.protocol.ladder import Rung
from fabric.protocol.requests import MalformedMessage
from fabric.protocol.syncmessages import FromPrimary
from fabric.protocol.types import Limits, PathWanted
from fabric.records import RecordType
from fabric.standby.channel import StandbyChannel
from fabric.transport.channels import ChannelReceiver
from fabric.transport.receiver import Receiver
from fabric.transport.security import CurveClient, use_client_keys
from fabric.transport.sockets import Context, Socket, new_socket

_log = logging.getLogger("fabric.standby")
_MAINTAIN_EVERY_NS = 50_000_000
_MS_NS = 1_000_000
_MESSAGES_A_TURN = 4096
_LAST_TURNS = 40
_LAST_TURN_NS = 5_000_000
_LEAST_STALE_NS = 200_000_000


class FollowState(enum.StrEnum):
    """Of one channel at a standby."""

    JOINING = "JOINING"
    """Nothing of it is here yet."""
    BEHIND = "BEHIND"
    """Records are known to exist that are not here."""
    FOLLOWING = "FOLLOWING"
    """All that was heard of is here; the publisher waits for nothing."""
    IN_SYNC = "IN_SYNC"
    """Nobody sees what is not here."""


@dataclass(frozen=True, slots=True)
class Source:
    """A channel and where its primary is. ``record``: None: learnt from its log server."""

    name: str
    directory: Path
    data: tuple[str, ...]
    rungs: tuple[Rung, ...]
    options: LogOptions = field(default_factory=LogOptions)
    record: RecordType | None = None
    limits: Limits = field(default_factory=Limits)
    curve: CurveClient | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """What was followed of a channel when it ended here: the lock of its log is the new writer's."""

    source: Source
    record: RecordType
    session: int
    last: int
    lock: int
    in_sync: bool
    """Nobody saw what is not here, by the primary's last word."""


def attentive(limits: Limits, silence_ns: int | None) -> Limits:
    """So that the primary's log server is asked well before so long a silence is over: what answers is not gone."""
    if not silence_ns:
        return limits
    return dataclasses.replace(limits, stale_ns=min(limits.stale_ns, max(_LEAST_STALE_NS, silence_ns // 3)))


def scheme_of(endpoint: str) -> PathWanted:
    """Records come by sockets, also where the primary should be on this host: that is what is relied on when it is not."""
    return "tcp" if endpoint.startswith("tcp://") else "ipc"


class _One:
    """A channel, its log, and its subscription while there is one."""

    def __init__(self, source: Source, channel: StandbyChannel) -> None:
        self.source = source
        self.channel = channel
        self.receiver: ChannelReceiver | None = None
        self.record = source.record
        self.heard_ns: int | None = None

    @property
    def state(self) -> FollowState:
        if self.channel.log is None:
            return FollowState.JOINING
        if self.channel.in_sync:
            return FollowState.IN_SYNC
        machine = self.receiver.machine if self.receiver is not None else None
        if machine is not None and machine.session and machine.plain and self.channel.next > machine.seen:
            return FollowState.FOLLOWING
        return FollowState.BEHIND


class Following:
    """``sync``: the primary's endpoint for it, or "": async. Raises LogLocked, LogFull."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        sync: str = "",
        clock: Clock | None = None,
        context: Context | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._receiver = Receiver(clock=self._clock)
        self._dealer: Socket | None = None
        self._began_ns = self._clock.monotonic_ns()
        self._maintained_ns = 0
        who = secrets.token_bytes(8) if sync else b""
        self._all = [_One(each, StandbyChannel(each.name, each.directory, each.options, who)) for each in sources]
        self._by_identity = {each.channel.identity: each for each in self._all}
        try:
            for each in self._all:
                self._subscribe(each)
            if sync:
                self._dealer = new_socket(context or zmq.Context.instance(), zmq.DEALER)
                self._dealer.setsockopt(zmq.MAXMSGSIZE, -1)
                if sync.startswith("tcp://"):
                    use_client_keys(self._dealer, sources[0].curve)
                self._dealer.connect(sync)
        except BaseException:
            self.close()
            raise

    def states(self) -> dict[str, FollowState]:
        """By channel."""
        return {each.channel.name: each.state for each in self._all}

    def positions(self) -> dict[str, tuple[int, int]]:
        """By channel: the session that is followed, and the last record of it that is here; (0, 0): none yet."""
        return {
            each.channel.name: (log.session, log.next - 1) if (log := each.channel.log) is not None else (0, 0)
            for each in self._all
        }

    def silent_ns(self, now_ns: int) -> int:
        """For how long nothing at all has come from the primary: no packet, no answer of its log server, nothing over the
        `sync` connection."""
        return now_ns - max((each.heard_ns or self._began_ns for each in self._all), default=now_ns)

    def turn(self, timeout_ns: int) -> bool:
        """Take in what there is, waiting for it at most so long; True if anything came. Raises LogFull, RecordTypeError."""
        subscribed = any(each.receiver is not None for each in self._all)
        came = False
        if self._dealer is None:
            self._receiver.poll(timeout_ns)
        else:
            came = self._hear(_MS_NS if subscribed else timeout_ns)
            if subscribed:
                self._receiver.poll(0)
        for each in self._all:
            came = self._take(each) or came
        now_ns = self._clock.monotonic_ns()
        for each in self._all:
            self._look_after(each, now_ns)
        if now_ns - self._maintained_ns >= _MAINTAIN_EVERY_NS:
            self._maintained_ns = now_ns
            for each in self._all:
                each.channel.maintain(self._clock.now_ns(), now_ns)
        return came

    def ready(self) -> bool:
        """Something of each channel is here: it could be taken over."""
        return all(each.channel.log is not None for each in self._all)

    def end(self) -> list[Followed]:
        """Follow no longer: what has come is taken in, the logs are closed, and their locks kept. Raises FabricError where a
        channel was never followed: a new session of it could not say what it forks off."""
        for _ in range(_LAST_TURNS):
            if not self.turn(_LAST_TURN_NS):
                break
        if never := [each.channel.name for each in self._all if each.channel.log is None or each.record is None]:
            raise FabricError(
                f"nothing was ever followed of {', '.join(never)}: there is nothing to go on from",
                remedy="wait until its primary is heard, or start it as a publisher of its own",
            )
        ended = []
        for each in self._all:
            log, record = each.channel.log, each.record
            assert log is not None
            assert record is not None
            session, last, lock = log.session, log.next - 1, log.close_keeping_lock()
            each.channel.log = None
            ended.append(Followed(each.source, record, session, last, lock, each.channel.was_in_sync))
        return ended

    def tell(self, sessions: dict[str, int]) -> None:
        """Say to the primary, if it hears us, which sessions have taken its channels over."""
        if self._dealer is None:
            return
        for each in self._all:
            if session := sessions.get(each.channel.name):
                self._say(each.channel.taken(session))

    def close(self) -> None:
        """The logs stay, and can be gone on with."""
        self._receiver.close()
        if self._dealer is not None:
            self._dealer.close(linger=200)
            self._dealer = None
        for each in self._all:
            each.channel.close()

    # Inside

    def _subscribe(self, each: _One) -> None:
        source = each.source
        each.receiver = self._receiver.subscribe(
            source.name,
            each.channel.start(self._clock.now_ns()),
            data=source.data,
            replay=source.rungs,
            record=each.record,
            limits=source.limits,
            curve=source.curve,
            path=scheme_of(source.data[0]),
        )

    def _take(self, each: _One) -> bool:
        receiver = each.receiver
        if receiver is None:
            return False
        if receiver.machine.failure:
            raise RecordTypeError(f"channel {receiver.name!r}: {receiver.machine.failure}")
        took = False
        while (item := receiver.take()) is not None:
            assert receiver.record is not None
            each.record = receiver.record
            each.channel.take(item, receiver.record, receiver.machine.info, self._clock.now_ns())
            took = True
        return took

    def _look_after(self, each: _One, now_ns: int) -> None:
        """What has been heard, what is to be said, and which of the two ways it takes."""
        channel, receiver = each.channel, each.receiver
        times = [each.heard_ns, channel.heard_ns]
        if receiver is not None:
            receiver.account_lane()
            machine = receiver.machine
            times += [machine.heard_ns if machine.active else None, machine.answered_ns]
        each.heard_ns = max((time for time in times if time is not None), default=None)
        if self._dealer is None:
            return
        quiet = channel.heard_ns is None or now_ns - channel.heard_ns > each.source.limits.stale_ns
        if receiver is None and (quiet or not channel.in_sync):
            _log.warning("channel %r: not in sync with its primary any more; it is followed as before", channel.name)
            channel.leave()
            self._subscribe(each)
        elif receiver is not None and channel.in_sync and not quiet:
            self._receiver.unsubscribe(receiver)
            self._take(each)
            each.receiver = None
            _log.info("channel %r: in sync with its primary", channel.name)
        near = each.state in (FollowState.FOLLOWING, FollowState.IN_SYNC)
        if (message := channel.due(now_ns, near=near)) is not None:
            self._say(message)

    def _hear(self, timeout_ns: int) -> bool:
        """The `sync` connection."""
        dealer, came = self._dealer, False
        assert dealer is not None
        if not dealer.poll(max(0, -(-timeout_ns // _MS_NS))):
            return False
        for _ in range(_MESSAGES_A_TURN):
            try:
                frames = dealer.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            came = True
            try:
                message = FromPrimary.decode(frames[0])
            except MalformedMessage:
                continue
            if (each := self._by_identity.get(message.channel)) is not None:
                frame = frames[1] if len(frames) > 1 else None
                answer = each.channel.take_message(message, frame, self._clock.monotonic_ns())
                if answer is not None:
                    self._say(answer)
        return came

    def _say(self, message: bytes) -> None:
        assert self._dealer is not None
        try:
            self._dealer.send(message, zmq.DONTWAIT)
        except zmq.ZMQError as error:  # full: it is said again
            _log.debug("the primary could not be told: %s", error)
