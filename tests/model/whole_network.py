"""Simulated time and a simulated network: events in the order of their times, links that lose, repeat, hold back and damage."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from fabric.testing.clock import ManualClock

MS = 1_000_000


class Simulation:
    """Events by time; those of one moment in the order in which they were put in."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock()
        self.clock.advance(1_000 * MS)
        self.calm = False
        """The world has healed: no link does anything to what it carries but bring it."""
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._put = 0

    @property
    def now_ns(self) -> int:
        """Monotonic."""
        return self.clock.monotonic_ns()

    def after(self, delay_ns: int, event: Callable[[], None]) -> None:
        self._put += 1
        heapq.heappush(self._events, (self.now_ns + delay_ns, self._put, event))

    def run_until(self, time_ns: int) -> None:
        events, clock = self._events, self.clock
        while events and events[0][0] <= time_ns:
            at_ns, _, event = heapq.heappop(events)
            clock.advance(at_ns - clock.monotonic_ns())
            event()
        clock.advance(time_ns - clock.monotonic_ns())


@dataclass(frozen=True, slots=True)
class Weather:
    """What share of messages meets what, and how long they take."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    slow_ns: int = 1 * MS
    reorder_ns: int = 8 * MS

    @staticmethod
    def drawn(source: random.Random) -> Weather:
        """Fair in a third of all histories, else any."""
        if source.random() < 0.33:
            return Weather(slow_ns=source.choice((MS // 10, MS)))
        share = source.choice((0.02, 0.1, 0.25))
        drawn = [share * source.random() if source.random() < 0.6 else 0.0 for _ in range(4)]
        return Weather(*drawn, slow_ns=source.choice((MS // 10, MS, 3 * MS)))


class Link:
    """One way from one place to another. ``cut`` while nothing gets through."""

    def __init__(self, simulation: Simulation, weather: Weather) -> None:
        self._simulation = simulation
        self._weather = weather
        self._cut_until_ns = 0
        self._last_ns = 0

    @property
    def cut(self) -> bool:
        return not self._simulation.calm and self._simulation.now_ns < self._cut_until_ns

    def cut_for(self, time_ns: int) -> None:
        self._cut_until_ns = max(self._cut_until_ns, self._simulation.now_ns + time_ns)

    def carry(self, frames: list[bytes], arrive: Callable[[list[bytes]], None], *, has_crc: bool = False) -> None:
        """Bring the frames there, or not. ``has_crc``: the last of them tells of a damaged bit; others are lost instead."""
        simulation, weather, source = self._simulation, self._weather, self._simulation.random
        if simulation.calm:
            simulation.after(MS // 10, lambda: arrive(frames))
            return
        if self.cut or source.random() < weather.drop:
            return
        if source.random() < weather.corrupt:
            if not has_crc:
                return
            frames = [*frames[:-1], damaged(frames[-1], source)]
        copies = 2 if source.random() < weather.duplicate else 1
        for _ in range(copies):
            delay_ns = source.randrange(weather.slow_ns // 4, weather.slow_ns)
            if source.random() < weather.reorder:
                delay_ns += source.randrange(weather.reorder_ns)  # what comes behind it may pass it
            else:
                delay_ns = max(delay_ns, self._last_ns - simulation.now_ns)
                self._last_ns = simulation.now_ns + delay_ns
            simulation.after(delay_ns, lambda frames=frames: arrive(frames))


def damaged(frame: bytes, source: random.Random) -> bytes:
    """One bit is another."""
    changed = bytearray(frame)
    changed[source.randrange(len(frame))] ^= 1 << source.randrange(8)
    return bytes(changed)
