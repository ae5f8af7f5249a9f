"""Faults put into the sending of live packets on purpose, from a seed: a machine without socket or clock.

    offer(packet, now)  ──▶  off?  ──▶  cut?  ──▶  drop  ──▶  corrupt  ──▶  duplicate  ──▶  reorder, delay  ──▶  packets to send
                                                                                  │                │
    due(now)            ◀── held back: until their time, or until enough others have passed ◀──────┘

Every packet takes the same draws whatever happens to it, so that another share of one fault leaves the others' decisions as
they were. Faults are counted by ``tally``, which comes with each packet.
"""

from __future__ import annotations

import enum
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

from fabric.errors import ConfigError
from fabric.units import parse_duration_ns

_EXAMPLE = "write drop=0.01,duplicate=0.01,seed=7"
MAX_HELD_PACKETS = 1024
"""Held back at a time; where one more would be, the oldest leaves."""
_MOST_OVERTAKERS = 8


class Fault(enum.IntEnum):
    """What was done to a packet. One that is corrupted counts as dropped too: nobody may take it."""

    DROPPED = 0
    DUPLICATED = 1
    REORDERED = 2
    DELAYED = 3
    CORRUPTED = 4
    CUT = 5
    """Was to leave while its publisher was cut off."""


SHARES = ("drop", "duplicate", "reorder", "delay", "corrupt")
"""The faults of single packets, by the names that users give their shares."""


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What share of a publisher's live packets (heartbeats too) meets which fault, each decided by itself.

    drop        not sent
    duplicate   sent, and a copy of it within ``delay_for_ns``
    reorder     held back until 1 to 8 later packets have left, at most ``delay_for_ns``
    delay       held back for up to ``delay_for_ns``
    corrupt     sent with one bit flipped: for packets with a CRC, which then nobody takes
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    corrupt: float = 0.0
    delay_for_ns: int = 20_000_000
    seed: int = 0

    @staticmethod
    def parse(text: str) -> FaultPlan:
        """``"drop=0.01,reorder=0.02,delay_for=5ms,seed=7"``. Raises ConfigError."""
        shares: dict[str, float] = {}
        seed, delay_for_ns = 0, FaultPlan().delay_for_ns
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            try:
                if name in SHARES:
                    shares[name] = float(value)
                elif name == "seed":
                    seed = int(value)
                elif name == "delay_for":
                    delay_for_ns = parse_duration_ns(value)
                else:
                    known = ", ".join((*SHARES, "delay_for", "seed"))
                    raise ConfigError(f"unknown fault {name!r}", key="--fault", remedy=f"{_EXAMPLE}; known: {known}")
            except ValueError as error:
                what = str(error) if name == "delay_for" else f"{part!r}: not a number"
                raise ConfigError(what, key="--fault", remedy=_EXAMPLE) from None
        plan = FaultPlan(**shares, delay_for_ns=delay_for_ns, seed=seed)
        plan.check("--fault")
        return plan

    @property
    def touches_packets(self) -> bool:
        return any(getattr(self, name) for name in SHARES)

    def check(self, key: str) -> None:
        """Raises ConfigError for a share that is none."""
        for name in SHARES:
            share = getattr(self, name)
            if not 0.0 <= share < 1.0:
                raise ConfigError(f"{name}={share} is not a share", key=key, remedy=f"0 <= {name} < 1")

    def __str__(self) -> str:
        shares = [f"{name}={getattr(self, name):g}" for name in SHARES if name == "drop" or getattr(self, name)]
        if self.delay_for_ns != FaultPlan().delay_for_ns:
            shares.append(f"delay_for={self.delay_for_ns}ns")
        return ",".join((*shares, f"seed={self.seed}"))

    def injector(self, name: str, gate: Gate | None = None, life: int = 0) -> FaultInjector:
        """The injector of one publisher: same plan, name and life, same decisions. ``life``: how often its process was
        started before, so that each one meets faults of its own."""
        return FaultInjector(self, random.Random(f"{self.seed}/{name}/{life}" if life else f"{self.seed}/{name}"), gate)


assert {field.name for field in fields(FaultPlan)} == {*SHARES, "delay_for_ns", "seed"}


class Gate(Protocol):
    """What is told from outside while packets flow."""

    @property
    def off(self) -> bool:
        """No faults any more: everything goes out as it is."""

    @property
    def cut_until_ns(self) -> int:
        """CLOCK_MONOTONIC: nothing goes out before."""


@dataclass(slots=True)
class OpenGate:
    """Nothing is told from outside, or what a test says."""

    off: bool = False
    cut_until_ns: int = 0


@dataclass(slots=True, order=True)
class _HeldPacket:
    due_ns: int
    number: int
    overtakers: int
    """Leaves as soon as this many others have left; 0: by time alone."""
    packet: bytes
    tally: Callable[[Fault], None]


class FaultInjector:
    """Decides packet by packet. Times are CLOCK_MONOTONIC nanoseconds."""

    def __init__(self, plan: FaultPlan, source: random.Random, gate: Gate | None = None) -> None:
        self.plan = plan
        self._random = source.random
        self._gate = gate or OpenGate()
        self._held: list[_HeldPacket] = []  # a heap by time
        self._number = 0

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def next_due_ns(self) -> int | None:
        """When ``due`` has something to give; None: nothing is held back."""
        return self._held[0].due_ns if self._held else None

    def offer(self, packet: bytes, now_ns: int, tally: Callable[[Fault], None]) -> list[bytes]:
        """A packet that is to be sent: what is to be sent now, in this order."""
        plan, draw = self.plan, self._random
        drop, corrupt, duplicate, reorder, delay, where, when, later = [draw() for _ in range(8)]
        gone = self.due(now_ns)
        if self._gate.off:
            return [*gone, packet]
        if now_ns < self._gate.cut_until_ns:
            tally(Fault.CUT)
            return gone
        if drop < plan.drop:
            tally(Fault.DROPPED)
            return gone
        if corrupt < plan.corrupt:
            tally(Fault.CORRUPTED)
            tally(Fault.DROPPED)
            packet = flip_bit(packet, int(where * len(packet) * 8))
        if duplicate < plan.duplicate:
            tally(Fault.DUPLICATED)
            gone += self._hold(packet, now_ns + int(later * plan.delay_for_ns), 0, _count_nothing)
        if reorder < plan.reorder:
            tally(Fault.REORDERED)
            overtakers = 1 + int(when * _MOST_OVERTAKERS)
            return [*gone, *self._hold(packet, now_ns + plan.delay_for_ns, overtakers, tally)]
        if delay < plan.delay:
            tally(Fault.DELAYED)
            return [*gone, *self._hold(packet, now_ns + int(when * plan.delay_for_ns), 0, tally)]
        return [*gone, packet, *self._overtaken()]

    def due(self, now_ns: int) -> list[bytes]:
        """What was held back long enough; everything once faults are off. What would leave while cut off is lost."""
        off, cut = self._gate.off, now_ns < self._gate.cut_until_ns
        gone: list[bytes] = []
        while self._held and (off or self._held[0].due_ns <= now_ns):
            held = heapq.heappop(self._held)
            if cut and not off:
                held.tally(Fault.CUT)
            else:
                gone.append(held.packet)
        return gone

    def release(self) -> list[bytes]:
        """Everything that is held back, in order of its time: the publisher closes."""
        gone = [held.packet for held in sorted(self._held)]
        self._held.clear()
        return gone

    def _hold(self, packet: bytes, due_ns: int, overtakers: int, tally: Callable[[Fault], None]) -> list[bytes]:
        self._number += 1
        heapq.heappush(self._held, _HeldPacket(due_ns, self._number, overtakers, packet, tally))
        return [heapq.heappop(self._held).packet] if len(self._held) > MAX_HELD_PACKETS else []

    def _overtaken(self) -> list[bytes]:
        """One packet has left: which of those held back for order follow it."""
        gone: list[bytes] = []
        for held in sorted(each for each in self._held if each.overtakers):
            held.overtakers -= 1
            if not held.overtakers:
                gone.append(held.packet)
                self._held.remove(held)
        if gone:
            heapq.heapify(self._held)
        return gone


def flip_bit(packet: bytes, bit: int) -> bytes:
    """A copy of the packet with one bit another."""
    changed = bytearray(packet)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _count_nothing(fault: Fault) -> None:
    """Of a copy: what becomes of it is of no account."""
