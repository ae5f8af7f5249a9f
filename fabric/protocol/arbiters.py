"""Many numberings on the same lines, by key: the channels of a feed, or the chain of each instrument."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from fabric.protocol.arbitration import Arbiter
from fabric.protocol.arbitration_types import ArbitrationLimits, ArbitrationReport, Item
from fabric.protocol.lines import Lines

Key = TypeVar("Key", bound=Hashable)


class Arbiters(Generic[Key]):
    """One arbiter a key, made when the key is first heard. A line is alive, or lost, for all keys at once.

    Items come with their key; LineLost and LineBack with None. Channels whose lines fail apart from one another (each
    with multicast groups of its own) are better served by an Arbiter each.
    """

    def __init__(
        self,
        lines: tuple[str, ...] = ("A", "B"),
        limits: ArbitrationLimits | None = None,
        make: Callable[[Key, Lines, ArbitrationLimits], Arbiter] | None = None,
    ) -> None:
        self.limits = limits or ArbitrationLimits()
        self.lines = Lines(lines, self.limits.stale_ns)
        self._make = make or (lambda _, lines, limits: Arbiter(lines, limits))
        self._arbiters: dict[Key, Arbiter] = {}
        self._unsettled: dict[Key, None] = {}  # in the order in which they came to wait
        self._items: deque[tuple[Key | None, Item]] = deque()

    def on_packet(
        self, key: Key, line: str, first: int, count: int, payload: Any, now_ns: int, session: Hashable = None
    ) -> None:
        self.on_time(now_ns)
        back = self.lines.heard(line, now_ns)
        if back is not None:
            self._items.append((None, back))
        arbiter = self[key]
        arbiter.on_packet(line, first, count, payload, now_ns, session)
        self._drain(key, arbiter)

    def on_heartbeat(self, key: Key, line: str, next_sequence: int, now_ns: int, session: Hashable = None) -> None:
        self.on_packet(key, line, next_sequence, 0, None, now_ns, session)

    def on_time(self, now_ns: int) -> None:
        for lost in self.lines.check(now_ns):
            self._items.append((None, lost))
        for key in list(self._unsettled):
            arbiter = self._arbiters[key]
            arbiter.on_time(now_ns)
            self._drain(key, arbiter)

    def recover(self, key: Key, first: int, count: int, payload: Any, now_ns: int) -> None:
        arbiter = self[key]
        arbiter.recover(first, count, payload, now_ns)
        self._drain(key, arbiter)

    def resume_at(self, key: Key, sequence: int, now_ns: int, session: Hashable = None) -> bool:
        arbiter = self[key]
        done = arbiter.resume_at(sequence, now_ns, session)
        self._drain(key, arbiter)
        return done

    def take(self) -> tuple[Key | None, Item] | None:
        return self._items.popleft() if self._items else None

    def __iter__(self) -> Iterator[tuple[Key | None, Item]]:
        """What there is to take."""
        while self._items:
            yield self._items.popleft()

    def __getitem__(self, key: Key) -> Arbiter:
        arbiter = self._arbiters.get(key)
        if arbiter is None:
            arbiter = self._arbiters[key] = self._make(key, self.lines, self.limits)
        return arbiter

    def reports(self) -> dict[Key, ArbitrationReport]:
        return {key: arbiter.report() for key, arbiter in self._arbiters.items()}

    def _drain(self, key: Key, arbiter: Arbiter) -> None:
        while (item := arbiter.take()) is not None:
            self._items.append((key, item))
        if arbiter.settled:
            self._unsettled.pop(key, None)
        else:
            self._unsettled[key] = None
