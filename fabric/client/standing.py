"""``fabric.stand_by``: a program of one's own as the standby of a channel that is published on another host."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fabric.channel import channel_id, check_channel_name
from fabric.client.publishing import ChannelWriter, Inherited, default_log_dir
from fabric.clock import Clock, SystemClock
from fabric.config.load import LEAST_TAKEOVER_NS
from fabric.errors import Closed, ConfigError, FabricError
from fabric.log.writer import LogOptions
from fabric.protocol.ladder import Rung
from fabric.protocol.types import Limits
from fabric.records import RecordType
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import Publisher
from fabric.transport.security import CurveClient, CurveServer
from fabric.transport.sockets import check_endpoint
from fabric.units import Duration

if TYPE_CHECKING:  # loaded where something is followed
    from fabric.standby.following import FollowState, Source

_log = logging.getLogger("fabric.standby")
_TURN_NS = 20_000_000


def stand_by(
    channel: str,
    record: RecordType,
    *,
    primary: tuple[str, str],
    listen: str | Sequence[str],
    replay: str,
    sync: str = "",
    takeover_after: str | int | None = None,
    log_dir: str | Path | None = None,
    options: LogOptions | None = None,
    curve: CurveServer | None = None,
    primary_curve: CurveClient | None = None,
    clock: Clock | None = None,
) -> StandbyWriter:
    """Follow a channel into a log of one's own, and publish it once its primary is gone.

    ``primary``: where it publishes, and its log server; ``sync``: its endpoint for a standby that is to have each record before
    anybody sees it (``fabric.Standby``), "" to follow like any reader. ``listen`` and ``replay`` are our own endpoints, with
    ``curve`` keys: the log server answers there from the beginning, live packets come after the takeover.

    ``takeover_after``: the silence (no packet, no heartbeat, no answer of its log server) after which the primary counts as
    gone; without it only ``take_over()`` does. Silence may be a broken network: nobody can promise then that the primary does
    not publish as well. The newer session wins: readers that hear of it drop the other one's records, and the primary stops
    when it learns of it.

    Raises ConfigError, AddressInUse, LogLocked.
    """
    from fabric.standby.following import Source, attentive

    check_channel_name(channel)
    lines = [listen] if isinstance(listen, str) else list(listen)
    for endpoint in (*lines, replay):
        check_endpoint(endpoint)
    for endpoint in (*primary, *filter(None, [sync])):
        check_endpoint(endpoint, listens=False)
    try:
        silence_ns = None if takeover_after is None else int(Duration(takeover_after))
    except ValueError as error:
        raise ConfigError(f"takeover_after: {error}", key=channel) from None
    if silence_ns is not None and silence_ns < LEAST_TAKEOVER_NS:
        raise ConfigError(
            f"takeover_after={takeover_after!r} is shorter than 500ms", key=channel, remedy="heartbeats come each 100ms"
        )
    directory = default_log_dir(channel) if log_dir is None else Path(log_dir)
    limits = attentive(Limits(), silence_ns)
    source = Source(
        channel,
        directory,
        (primary[0],),
        (Rung("log", primary[1]),),
        options or LogOptions(),
        record,
        limits,
        primary_curve,
    )
    return StandbyWriter(source, record, lines, replay, sync, silence_ns, curve, clock or SystemClock())


class StandbyWriter:
    """A standby. ``wait`` returns the open channel once it has taken over. Use it in ``with``, or ``close`` it."""

    def __init__(
        self,
        source: Source,
        record: RecordType,
        listen: list[str],
        replay: str,
        sync: str,
        silence_ns: int | None,
        curve: CurveServer | None,
        clock: Clock,
    ) -> None:
        from fabric.standby.following import Following

        self.channel = source.name
        self._source, self._record, self._listen, self._replay = source, record, listen, replay
        self._silence_ns, self._curve, self._clock = silence_ns, curve, clock
        self._pid = os.getpid()
        self._done = threading.Event()
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._writer: ChannelWriter | None = None
        self._error: BaseException | None = None
        self._warned = False
        self._server = LogServer([replay], {channel_id(source.name): source.directory}.get, curve=curve).start()
        try:
            # It stands before there is anything to send: who subscribes has not to connect first when that day comes.
            self._publisher = Publisher(listen, clock=clock, curve=curve)
            try:
                self._following = Following([source], sync=sync, clock=clock)
            except BaseException:
                self._publisher.close()
                raise
        except BaseException:
            self._server.close()
            raise
        self.data_endpoint = self._publisher.endpoints[0]
        self.replay_endpoint = self._server.endpoints[0]
        self._thread = threading.Thread(target=self._run, name="fabric-standby", daemon=True)
        self._thread.start()

    @property
    def state(self) -> FollowState:
        """How far it is, while it follows."""
        return self._following.states()[self.channel]

    @property
    def position(self) -> tuple[int, int]:
        """The session that is followed, and the last record of it that is here; (0, 0): none yet."""
        return self._following.positions()[self.channel]

    def wait(self, timeout: float | None = None) -> ChannelWriter | None:
        """The open channel, once the primary is gone and this is its publisher; None if that has not come within ``timeout``
        seconds. Raises what made it impossible (LogFull, RecordTypeError), and Closed."""
        if self._pid != os.getpid():
            raise Closed("this standby belongs to the parent of this process")
        self._done.wait(timeout)
        if self._error is not None:
            raise self._error
        return self._writer

    def take_over(self, timeout: float | None = 10.0) -> ChannelWriter:
        """Now, whether the primary is heard or not: it stops when it learns of it. Raises FabricError where nothing was ever
        followed, and what ``wait`` raises."""
        if not self._done.is_set() and not self._following.ready():
            raise FabricError(
                f"channel {self.channel!r}: nothing was followed yet, so a new session could not say what it goes on from",
                remedy="wait until the primary was heard, or publish with fabric.publish",
            )
        self._asked.set()
        writer = self.wait(timeout)
        if writer is None:
            raise FabricError(f"channel {self.channel!r}: not taken over within {timeout} s")
        return writer

    def close(self) -> None:
        """Follow no longer; the channel is closed, if it was taken over. Any number of times."""
        if self._pid != os.getpid() or self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        if self._writer is not None:
            self._writer.close()
            return
        self._following.close()
        self._publisher.close()
        self._server.close()
        if self._error is None:
            self._error = Closed(f"the standby of channel {self.channel!r} is closed")
        self._done.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Its thread

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._following.turn(_TURN_NS)
                if self._asked.is_set() or self._silent():
                    self._go_on()
                    return
        except BaseException as error:  # it belongs to who waits
            self._error = error
            _log.error("channel %r: it is followed no longer: %s", self.channel, error)
        finally:
            self._done.set()

    def _silent(self) -> bool:
        silent_ns = self._following.silent_ns(self._clock.monotonic_ns())
        if self._silence_ns is None or silent_ns < self._silence_ns:
            return False
        if self._following.ready():
            return True
        if not self._warned:
            self._warned = True
            _log.warning("channel %r: its primary is silent, and nothing was followed yet: it waits on", self.channel)
        return False

    def _go_on(self) -> None:
        from fabric.transport.rival import RivalWatch

        followed = self._following.end()[0]
        rival = RivalWatch(self._source.rungs[0].endpoint, curve=self._source.curve)
        self._writer = ChannelWriter(
            self.channel, self._record, self._listen, self._replay, self._source.directory, self._source.options,
            self._curve, "", self._clock, inherited=Inherited(self._server, self._publisher, followed.lock, rival),
        )  # fmt: skip
        _log.warning(
            "channel %r: taken over; session %016x goes on from record %d of session %016x%s",
            self.channel, self._writer.session, followed.last, followed.session,
            "" if followed.in_sync else ", which was not in sync: readers that have more are told",
        )  # fmt: skip
        self._following.tell({self.channel: self._writer.session})
        self._following.close()
