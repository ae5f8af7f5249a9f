"""Who answers: the log server of the publisher's host, and the archive with what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from whole_logs import CHANNEL, NAME, FollowedLog, ModelLog
from whole_network import MS, Link, Simulation
from whole_sockets import Inbox, ModelRouter

from fabric.archive.channel import ArchivedChannel
from fabric.log.follower import Followed
from fabric.protocol.requests import Request
from fabric.protocol.types import Start
from fabric.records import RecordType
from fabric.transport.logserver import LogServer, _ServedSession
from native.image import KeyedImage
from native.log import LogState

Find = Callable[[int], ModelLog | FollowedLog | None]
"""The log of a session; of the current one for 0."""
LOGS, ARCHIVE = Path("/publisher"), Path("/archive")
_SERVE_AGAIN_NS = MS // 5


class Served(_ServedSession):
    """A log in memory, as one that was opened."""

    def __init__(self, log: Any) -> None:
        self.reader = log
        self._image = None
        self._followed = log if isinstance(log, FollowedLog) else None

    def image(self, at_least: int) -> KeyedImage:
        kept = self.reader.first_available - 1
        return self.reader.image(kept if at_least and kept >= at_least else self.reader.next - 1)


class ModelServer(LogServer):
    """The log server itself; only where it finds its logs is another place."""

    def __init__(self, router: ModelRouter, clock: Any, find: dict[Path, Find]) -> None:
        where = [path if path in find else None for path in (LOGS, ARCHIVE)]
        published, archived = where if where[0] else (where[1], None)
        super().__init__(
            ["ipc://model"],
            lambda channel: published if channel == CHANNEL else None,
            clock=clock,
            context=router,  # type: ignore[arg-type]
            offers_logs=False,
            archive=lambda channel: archived if channel == CHANNEL else None,
        )
        self._find_session = find
        self._served: dict[Path, Served] = {}

    def _session(self, directory: Path, request: Request) -> Served | None:
        log = self._find_session[directory](request.session)
        if log is None:
            return None
        if log.directory not in self._served:
            self._served[log.directory] = Served(log)
        return self._served[log.directory]


class ServerPlace:
    """A log server's process: up, down, or stopped for a while."""

    def __init__(self, simulation: Simulation, find: dict[Path, Find]) -> None:
        self._simulation = simulation
        self._find = find
        self._down_until_ns = self._stalled_until_ns = 0
        self._due = False
        self._dealers: dict[bytes, tuple[Inbox, Link, Callable[[Inbox, list[bytes]], None]]] = {}
        self._start()

    @property
    def up(self) -> bool:
        return self._simulation.calm or self._simulation.now_ns >= self._down_until_ns

    def kill(self, for_ns: int) -> None:
        """What it was asked is forgotten."""
        self._down_until_ns = self._simulation.now_ns + for_ns
        self._start()

    @property
    def _stalled_ns(self) -> int:
        return 0 if self._simulation.calm else self._stalled_until_ns - self._simulation.now_ns

    def heal(self) -> None:
        """It goes on at once."""
        self._due = False
        self._serve_after(0)

    def stall(self, for_ns: int) -> None:
        self._stalled_until_ns = self._simulation.now_ns + for_ns

    def take(self, dealer: Inbox, back: Link, arrive: Callable[[Inbox, list[bytes]], None], request: bytes) -> None:
        """A request has come; the answer goes ``back``."""
        if not self.up:
            return
        self._dealers[dealer.identity] = dealer, back, arrive
        self.router.requests.append([dealer.identity, request])
        self._serve_after(0)

    def _start(self) -> None:
        self.router = ModelRouter(self._answer)
        self.server = ModelServer(self.router, self._simulation.clock, self._find)

    def _serve_after(self, delay_ns: int) -> None:
        if not self._due:
            self._due = True
            self._simulation.after(max(delay_ns, self._stalled_ns), self._serve)

    def _serve(self) -> None:
        self._due = False
        if self._stalled_ns > 0:
            self._serve_after(0)
        elif self.up and self.server.serve_once(0):
            self._serve_after(_SERVE_AGAIN_NS)

    def _answer(self, peer: bytes, frames: list[bytes]) -> None:
        dealer, back, arrive = self._dealers[peer]
        if dealer.closed:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        back.carry(frames, lambda arrived: arrive(dealer, arrived), has_crc=len(frames) == 2)


class Store:
    """What the archive has on its disk."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.sessions: dict[int, FollowedLog] = {}
        self.current: FollowedLog | None = None

    def find(self, session: int) -> FollowedLog | None:
        return self.sessions.get(session) if session else self.current

    def open(self, kind: RecordType, followed: Followed) -> FollowedLog:
        """As FollowerLog opens the log of a session, or goes on with it."""
        if self.current is not None and self.current.session == followed.session:
            return self.current
        assert followed.session not in self.sessions, "it was left for another one"
        if self.current is not None:
            self.current.state = LogState.SUPERSEDED
        self.current = self.sessions[followed.session] = FollowedLog(kind, followed, self._now)
        return self.current


class ModelArchived(ArchivedChannel):
    """The archive's channel; only its log is another."""

    def __init__(self, store: Store) -> None:
        super().__init__(NAME, ARCHIVE, None)  # type: ignore[arg-type]
        self._store = store

    def start(self, now_ns: int) -> Start:
        self.log = self._store.current  # type: ignore[assignment]
        return Start.first() if self.log is None else Start.at(self.log.next, self.log.session)

    def _open(self, followed: Followed, record: RecordType, now_ns: int) -> None:
        self.log = self._store.open(record, followed)  # type: ignore[assignment]
