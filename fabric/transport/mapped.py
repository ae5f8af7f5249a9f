"""The same-host path: a channel's log, mapped and read in place of packets.

A reader asks the log server where the log is (STATUS with our ``host``), and maps it if it is that of this host's boot,
of the session announced, and its writer lives. From then on records are views of the log; the subscription machine stays
what it was, and goes back to packets when the log is taken away.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from fabric.errors import FabricError
from fabric.log.paths import CONTROL, CURRENT, boot_id, session_name
from fabric.log.reader import LogReader
from fabric.protocol.requests import Reply
from fabric.transport.logserver import info_of
from native.follow import LogCursor
from native.log import LogState

_NO_HOST = bytes(16)


def this_host() -> bytes:
    """What STATUS asks with; empty where the system does not tell one boot from another."""
    host = boot_id()
    return b"" if host == _NO_HOST else host


class CannotMap(Exception):
    """Why a log can't be read by mapping, in words for a user."""


class MappedLog:
    """One session's log and this reader's cursor in it. ``now_ns`` is CLOCK_MONOTONIC, as the log's own ``alive_ns`` is."""

    def __init__(self, reader: LogReader, channel: int) -> None:
        self.reader = reader
        self.channel = channel
        self.session = reader.session
        self.cursor = LogCursor(reader.control, reader.map_whole, reader.record.dtype, reader.base)
        self._inode = _inode(reader.directory)

    @staticmethod
    def open(directory: Path, channel: int, session: int, schema: int) -> MappedLog:
        """Raises CannotMap."""
        try:
            reader = LogReader(directory)
        except (FabricError, OSError) as error:
            raise CannotMap(f"its log can't be mapped: {error}") from None
        control = reader.control
        if control.boot_id != boot_id():
            raise CannotMap("its log is of another boot of this host")
        if control.channel != channel or control.session != session:
            raise CannotMap("the log there is of another session")
        if schema not in (0, reader.record.schema):
            raise CannotMap("its log holds records of another dtype")
        return MappedLog(reader, channel)

    @property
    def next(self) -> int:
        return self.reader.next

    @property
    def ended(self) -> bool:
        return self.reader.state == LogState.ENDED

    @property
    def superseded(self) -> bool:
        return self.reader.state == LogState.SUPERSEDED

    def alive(self, now_ns: int, stale_ns: int) -> bool:
        """Its writer was seen within that time, or has ended it in good order."""
        return now_ns - self.reader.control.alive_ns <= stale_ns or self.ended

    def removed(self) -> bool:
        """Its directory is gone, or another log stands there under the same name."""
        return _inode(self.reader.directory) != self._inode

    def info(self) -> Reply:
        """What the log says of itself, as a log server would."""
        return info_of(self.reader, 0, self.channel)

    def successor(self) -> MappedLog | None:
        """The log of the channel's current session, if that is another one by now and can be mapped."""
        directory = self.reader.directory.parent
        with contextlib.suppress(OSError, ValueError, CannotMap):
            session = int((directory / CURRENT).readlink().name, 16)
            if session != self.session:
                return MappedLog.open(
                    directory / session_name(session), self.channel, session, self.reader.record.schema
                )
        return None


def _inode(directory: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        stat = (directory / CONTROL).stat()
        return stat.st_dev, stat.st_ino
    return None
