"""The mapped logs of a receiver: finding out where a channel's log is, reading it in place of packets, and going back.

Who reads waits for the log itself (``ChannelReceiver.pulled``), or polls the receiver, which waits for those in ``fed``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fabric.protocol.requests import Op, Reply, Request
from fabric.transport.channels import ChannelReceiver
from fabric.transport.livesockets import LiveSockets
from fabric.transport.logbell import LogBell
from fabric.transport.mapped import CannotMap, MappedLog, this_host
from native.follow import Followers, LogCursor

_LOCATE_AGAIN_NS = 1_000_000_000
_LOCATE_SOON_NS = 100_000_000
"""Where there is a log, but not one to be mapped yet."""

LOCATE_ID = 0
"""The id of requests that ask where the log is; those of the machines begin with 1."""


class MappedLogs:
    """Used by whoever polls the receiver, but for ``rearm``. ``changed`` is called with a channel that is to be looked at."""

    def __init__(self, sockets: LiveSockets, changed: Callable[[ChannelReceiver], None]) -> None:
        self.host = this_host()
        self.fed = Followers()
        """The cursors that whoever polls waits for."""
        self.pulled = Followers()
        """Those that readers wait for themselves."""
        self.rings_pulled = False
        """Whoever polls is told of what readers pull as well."""
        self._sockets = sockets
        self._changed = changed
        self._fed_channels: list[ChannelReceiver] = []
        self._pulled_channels: list[ChannelReceiver] = []
        self._bell: LogBell | None = None
        self._bell_is_old = False
        self._fed_have_rung = False

    def may_be_mapped(self, channel: ChannelReceiver) -> bool:
        """Whether to ask where the log is at all."""
        if channel.path_wanted in ("ipc", "tcp") or not self.host:
            return False
        # Keys are there so that each connection proves who it is: files don't.
        return channel.curve is None or channel.path_wanted == "local"

    def locate(self, channel: ChannelReceiver, now_ns: int) -> None:
        """Ask where the channel's log is, until we are told."""
        channel.locate_at_ns = now_ns + _LOCATE_AGAIN_NS
        request = Request(LOCATE_ID, Op.STATUS, channel.machine.channel, 0, host=self.host)
        self._sockets.ask(channel, request, now_ns)

    def located(self, channel: ChannelReceiver, reply: Reply, now_ns: int) -> None:
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
        self._know(channel)
        self._sockets.listen_no_more(channel)
        channel.locate_at_ns = None
        self.follow(channel, now_ns)

    def follow(self, channel: ChannelReceiver, now_ns: int) -> None:
        """Look after a channel's log, and go over to another one or back to packets where that is over."""
        before = channel.mapped
        if not channel.follow(now_ns):
            channel.detach(now_ns)
            if channel.path_wanted != "local":
                self._sockets.listen(channel)
            channel.locate_at_ns = now_ns
        if channel.mapped is not before and before is not None:
            self._forget(channel, before.cursor)
            self._know(channel)

    def let_go(self, channel: ChannelReceiver, now_ns: int) -> None:
        """The channel is not received any more."""
        if channel.mapped is not None:
            self._forget(channel, channel.mapped.cursor)
        channel.leave(now_ns)

    def ready(self) -> list[ChannelReceiver]:
        """Those of whoever polls whose logs have records."""
        return [self._fed_channels[position] for position in self.fed.ready()] if self._fed_channels else []

    def ready_for_readers(self) -> list[ChannelReceiver]:
        """Those that readers wait for themselves, of whom whoever polls is told as well."""
        return [self._pulled_channels[position] for position in self.pulled.ready()] if self.rings_pulled else []

    # The bell, for waits that are for sockets and for event loops

    def tend_bell(self) -> None:
        """Let a descriptor tell of the logs."""
        if not self._bell_is_old:
            return
        self._bell_is_old = False
        wanted = [*self.fed.cursors(), *(self.pulled.cursors() if self.rings_pulled else ())]
        if wanted and self._bell is None:
            self._bell = LogBell()
            self._sockets.watch_descriptor(self._bell.descriptor)
        if self._bell is not None:
            self._bell.tell_of(wanted)

    def ring_for_pulled(self) -> None:
        """Coroutines read: whoever polls is to be told of what readers pull as well, and wakes them."""
        self._bell_is_old = self._bell_is_old or not self.rings_pulled
        self.rings_pulled = True
        self._sockets.touched = True

    def is_bell(self, descriptor: int) -> bool:
        return self._bell is not None and descriptor == self._bell.descriptor

    def heard(self) -> list[ChannelReceiver]:
        """The bell has rung: the channels that have records for readers, and ``fed`` is to be looked at."""
        assert self._bell is not None
        self._bell.clear()
        ready = self.ready_for_readers()
        if not ready:  # a log's state, where it was no reader who was faster
            for channel in self._pulled_channels:
                self._changed(channel)
        self._fed_have_rung = len(self.fed) > 0
        return ready

    def rearm_fed(self) -> None:
        """What there was in ``fed`` has been taken; readers do so themselves for what they pull."""
        if self._fed_have_rung:
            self._fed_have_rung = False
            self.rearm(self.fed.cursors())

    def rearm(self, cursors: Iterable[LogCursor]) -> None:
        """What there was of these has been taken: the bell may ring for them again."""
        if (bell := self._bell) is not None:  # whoever closes may be another thread
            bell.rearm(cursors)

    def descriptors(self) -> list[int]:
        return [self._bell.descriptor] if self._bell is not None else []

    def close(self) -> None:
        if self._bell is not None:
            self._sockets.unwatch_descriptor(self._bell.descriptor)
            self._bell.close()
            self._bell = None

    def _know(self, channel: ChannelReceiver) -> None:
        """The channel has another mapped log, or none: wait for that one."""
        self._changed(channel)
        self._bell_is_old = self._sockets.touched = True
        if channel.mapped is None:
            return
        if channel.pulled:
            self.pulled.add(channel.mapped.cursor)
            self._pulled_channels.append(channel)
        else:
            self.fed.add(channel.mapped.cursor)
            self._fed_channels.append(channel)

    def _forget(self, channel: ChannelReceiver, cursor: LogCursor) -> None:
        self._bell_is_old = True
        if channel.pulled:
            self.pulled.remove(cursor)
            self._pulled_channels.remove(channel)
        else:
            self.fed.remove(cursor)
            self._fed_channels.remove(channel)
        if self._bell is not None:
            self._bell.remove(cursor)
