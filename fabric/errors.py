"""Every error that the fabric raises, in one tree.

    FabricError                      .remedy: what to do about it
    ├── UserMistake                  the command line ends with exit code 2
    │   ├── ConfigError              .file .key
    │   ├── RecordTypeError          another dtype than the channel's, a bad record declaration
    │   ├── InputFileError           .file .line: a capture or table is missing, truncated or unreadable
    │   └── UnknownChannel           .channel .known
    ├── LogError                     .path
    │   ├── LogLocked                a second writer
    │   ├── LogDamaged               structure or checksum does not hold
    │   ├── LogFull                  no space left for the next segment
    │   ├── Superseded               .session: a newer session of the channel was begun by somebody else
    │   ├── StandbyLost              the `sync` standby does not answer, and nothing may be published without it
    │   └── LogMissing               no log at that path
    ├── AddressInUse                 .endpoint
    ├── NotConnected                 .channel .reason: no packet of the channel arrived in time
    ├── RecordsLost                  .channel .first .last .reason: raised at the hole, iteration goes on after it
    ├── SlowReader                   .channel .first .last .max_behind: raised before the records, iteration goes on with them
    ├── RequestFailed                .service .reason: a service did not do it
    ├── RequestTimedOut              .service .key: whether it was done is not known
    ├── Closed                       used after close(), or in a forked child
    ├── DivergedReplay               re-running the journal gave other output than what was committed
    └── NodeFailed                   a node's own code raised

A remedy is one sentence that a person can act on; ``str(error)`` contains it.
"""

from __future__ import annotations

from pathlib import Path


class FabricError(Exception):
    """Base of all errors of the fabric. ``exit_code`` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message} ({remedy})" if remedy else message)


class UserMistake(FabricError):
    """The caller's input is wrong; nothing was started or written."""

    exit_code = 2


class ConfigError(UserMistake):
    """A config value is wrong. ``file`` and ``key`` say where."""

    def __init__(self, message: str, *, file: str = "", key: str = "", remedy: str = "") -> None:
        self.file = file
        self.key = key
        where = ": ".join(part for part in (file, key) if part)
        super().__init__(f"{where}: {message}" if where else message, remedy=remedy)


class RecordTypeError(UserMistake):
    """A record declaration is wrong, or a channel carries another dtype than the one asked for."""


class InputFileError(UserMistake):
    """An input file (capture, table) can't be read. ``line`` is 1-based, 0 where it does not apply."""

    def __init__(self, message: str, *, file: str | Path, line: int = 0, remedy: str = "") -> None:
        self.file = str(file)
        self.line = line
        where = f"{file}:{line}" if line else str(file)
        super().__init__(f"{where}: {message}", remedy=remedy)


class UnknownChannel(UserMistake):
    """No such channel in the config or at the log server."""

    def __init__(self, channel: str, known: list[str], *, where: str = "") -> None:
        self.channel = channel
        self.known = known
        from difflib import get_close_matches

        close = get_close_matches(channel, known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"known channels: {', '.join(known) or 'none'}"
        super().__init__(f"{where + ': ' if where else ''}unknown channel {channel!r}", remedy=remedy)


class LogError(FabricError):
    """Something about a log on disk. ``path`` is the log's directory or the file in it."""

    def __init__(self, message: str, *, path: str | Path, remedy: str = "") -> None:
        self.path = str(path)
        super().__init__(f"{path}: {message}", remedy=remedy)


class LogLocked(LogError):
    """Another process writes this log."""

    exit_code = 2


class LogDamaged(LogError):
    """A file of the log does not have the structure, size or checksum that it should. It does not heal by itself."""


class LogFull(LogError):
    """The file system has no room for the next segment."""


class Superseded(LogError):
    """A newer session of the channel was begun by somebody else: this writer's records would be dropped by every reader that
    knows of it. Nothing more is written or sent."""

    def __init__(self, channel: str, session: int, *, path: str | Path) -> None:
        self.session = session
        super().__init__(
            f"channel {channel!r} was taken over by session {session:016x}: this writer stops",
            path=path,
            remedy="two publishers were started for one channel: stop one of them",
        )


class StandbyLost(LogError):
    """A publisher that may publish nothing without its `sync` standby has none that answers: it stops. What it was about to
    write is not committed, and nobody has seen it; the standby may have it."""

    def __init__(self, channel: str, waited: str, *, path: str | Path) -> None:
        super().__init__(
            f"channel {channel!r}: no standby has acknowledged the next records for {waited}: this writer stops",
            path=path,
            remedy='start the standby, or let it take over; on_lost = "go_on" publishes without one',
        )


class LogMissing(LogError):
    """There is no log at this path."""

    exit_code = 2


_OUTGOING_PORTS = 32_768
"""Linux takes the ports of outgoing connections from here on, by default."""


class AddressInUse(FabricError):
    """A socket could not be bound."""

    exit_code = 2

    def __init__(self, endpoint: str, reason: str) -> None:
        self.endpoint = endpoint
        remedy = "another process holds it: stop that one, or choose another endpoint"
        port = endpoint.rpartition(":")[2]
        if endpoint.startswith("tcp://") and port.isdecimal() and int(port) >= _OUTGOING_PORTS:
            remedy += f"; from {_OUTGOING_PORTS} on, connections of any process may be given a port"
        super().__init__(f"cannot listen on {endpoint}: {reason}", remedy=remedy)


class NotConnected(FabricError):
    """No packet of the channel arrived in time."""

    def __init__(self, channel: str, reason: str, *, remedy: str = "") -> None:
        self.channel = channel
        self.reason = reason
        super().__init__(f"channel {channel!r}: {reason}", remedy=remedy)


class RecordsLost(FabricError):
    """Records ``first`` to ``last`` (inclusive) can't be had any more. Raised at the hole; iterating goes on after it.

    ``last`` is ``first - 1`` where nobody can tell whether there were any (``reason`` says so).
    """

    def __init__(self, channel: str, first: int, last: int, reason: str) -> None:
        self.channel = channel
        self.first = first
        self.last = last
        self.reason = reason
        which = f"records {first} to {last} are lost" if last >= first else f"from record {first} on some may be lost"
        super().__init__(
            f"channel {channel!r}: {which}: {reason}",
            remedy="iterate again to go on after the hole, or pass on_lost= to be called instead",
        )


class SlowReader(FabricError):
    """The reader of a subscription with ``policy="fail"`` is too slow: records ``first`` to ``last`` (inclusive) are
    there, and ``first`` is the next one. None of them is lost: iterating goes on with it. Raised once each time that the
    reader falls behind by more than ``max_behind``.
    """

    def __init__(self, channel: str, first: int, last: int, max_behind: int) -> None:
        self.channel = channel
        self.first = first
        self.last = last
        self.max_behind = max_behind
        super().__init__(
            f"channel {channel!r}: records {first} to {last} wait to be read: {self.behind}, more than {max_behind}",
            remedy="iterate again to go on with them, or subscribe anew to begin with a snapshot",
        )

    @property
    def behind(self) -> int:
        """Records that wait."""
        return self.last - self.first + 1


class RequestFailed(FabricError):
    """A service answered that it does not know the service, that its handler raised (perhaps when part was done), or that
    the reply can't be sent: ``reason`` says which."""

    def __init__(self, service: str, reason: str) -> None:
        self.service = service
        self.reason = reason
        super().__init__(f"service {service!r}: {reason}")


class RequestTimedOut(FabricError):
    """No answer in time. Whether the request was carried out is not known."""

    def __init__(self, service: str, key: bytes, problem: str = "", *, remedy: str = "") -> None:
        self.service = service
        self.key = key
        super().__init__(f"service {service!r}: {problem or 'no answer in time'}", remedy=remedy)


class Closed(FabricError):
    """The object was closed, or belongs to the parent of this forked process."""


class DivergedReplay(FabricError):
    """Re-running journaled cycles gave other records than the ones already committed."""


class NodeFailed(FabricError):
    """A node's own code raised; the traceback is in the node's log."""
