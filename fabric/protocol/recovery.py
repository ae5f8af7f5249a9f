"""Asking a log server: one request at a time, a timeout, backoff with jitter, snapshots gathered whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fabric.protocol.requests import Op, Reply, Request, Status

if TYPE_CHECKING:
    from fabric.protocol.types import Counters, Limits

_BLIND = (Status.UNKNOWN_CHANNEL, Status.BAD_REQUEST)


class Recovery:
    """The requests of one subscription. Ids only account for what is under way: any answer is used."""

    def __init__(self, channel: int, limits: Limits, counters: Counters, jitter: Callable[[], float] | None) -> None:
        self.requests: deque[Request] = deque()
        self._channel = channel
        self._limits = limits
        self._counters = counters
        self._jitter = jitter or (lambda: 1.0)
        self._next_id = 1
        self._under_way: Request | None = None
        self._progress_ns = 0
        self._useless = 0  # answers and timeouts in a row that brought nothing: backoff grows with it
        self._not_before_ns = 0
        self._reconnect = False
        self._snapshot: dict[int, tuple[Any, Any]] = {}

    @property
    def under_way(self) -> bool:
        return self._under_way is not None

    def idle(self, now_ns: int) -> bool:
        """True if a request may be sent now. Notices that one has timed out."""
        if self._under_way is not None:
            if now_ns - self._progress_ns <= self._limits.request_timeout_ns:
                return False
            self._counters.timeouts += 1
            self._under_way = None
            self._reconnect = True  # a late answer must not be taken for the next one's, and the peer may be dead
            self._back_off(now_ns)
        return now_ns >= self._not_before_ns

    def ask(self, op: Op, session: int, ranges: tuple[tuple[int, int], ...], now_ns: int) -> None:
        request = Request(self._next_id, op, self._channel, session, ranges)
        self._next_id += 1
        self._under_way = request
        self._progress_ns = now_ns
        self._snapshot.clear()
        self._counters.requests += 1
        self.requests.append(request)

    def probe(self, now_ns: int, session: int) -> None:
        """The channel is silent: ask the log server whether there is a tail; not too often."""
        self.ask(Op.STATUS, session, (), now_ns)
        self._not_before_ns = now_ns + self._limits.stale_ns

    def put_off(self, until_ns: int) -> None:
        """Nobody may be asked now: as if nothing had been asked, and again at that time."""
        self._under_way = None
        self._not_before_ns = until_ns

    def restart(self) -> None:
        """What matters has changed: forget what is under way and the backoff."""
        self._under_way = None
        self._useless = 0
        self._not_before_ns = 0

    def take_reconnect(self) -> bool:
        reconnect, self._reconnect = self._reconnect, False
        return reconnect

    def on_reply(self, reply: Reply, now_ns: int, first: int, records: Any) -> tuple[int, int, Any, Any] | None:
        """Account for a reply; returns (as_of, session, records, sequences) when a snapshot is whole."""
        under_way = self._under_way
        if under_way is None or reply.id != under_way.id:
            return None
        self._progress_ns = now_ns
        whole = None
        if reply.status == Status.SNAPSHOT:
            self._snapshot[reply.part] = (records, reply.extra.get("sequences", b""))
            if len(self._snapshot) == reply.total:
                parts = [self._snapshot[part] for part in sorted(self._snapshot)]
                whole = (first, reply.session, _merge([part[0] for part in parts]), b"".join(part[1] for part in parts))
                self._snapshot.clear()
        if reply.part >= reply.total:
            self._under_way = None
            useless = reply.status in _BLIND or (under_way.op == Op.REPLAY and reply.status == Status.INFO)
            if useless:
                self._back_off(now_ns)
            else:
                self._useless = 0
        return whole

    def _back_off(self, now_ns: int) -> None:
        pause = min(self._limits.backoff_min_ns << min(self._useless, 20), self._limits.backoff_max_ns)
        self._useless += 1
        self._not_before_ns = now_ns + int(pause * self._jitter())


def _merge(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [item for part in parts for item in part]
