"""How far a reader's catching up has come: position, target, rate, time left. Pure: time is a parameter."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WORTH_TELLING_RECORDS = 100_000
"""Who has at least so many to catch up with is told when it begins and when it is over."""
_WINDOW_NS = 5_000_000_000
_SAMPLE_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class Progress:
    """A catch-up that is under way, at one moment."""

    begun: int
    """All up to this sequence was here when it began."""
    position: int
    """All up to this sequence is here, or was told to be missing."""
    target: int
    """The last sequence that is known to exist."""
    rate: float
    """Records a second, over the last five seconds; 0 in the beginning."""
    left_s: float | None
    """Until it is through, at the pace of the last five seconds; None: not known yet, or as much is published meanwhile."""
    records: int
    """Gone over so far."""
    seconds: float

    @property
    def remaining(self) -> int:
        return self.target - self.position

    @property
    def share(self) -> float:
        """0 to 1, of what there is by now."""
        return (self.position - self.begun) / max(1, self.target - self.begun)

    def __str__(self) -> str:
        left = "time left unknown" if self.left_s is None else f"{self.left_s:,.1f} s left"
        return f"at {self.position:,} of {self.target:,} ({self.share:.0%}), {self.rate:,.0f} records/s, {left}"


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """One that is over."""

    records: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.records:,} records in {self.seconds:,.1f} s ({self.records / max(self.seconds, 1e-9):,.0f} a second)"


class CatchUp:
    """Watches one channel of one reader. ``note`` it now and then, while something is to be caught up with and once after."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        """As of the last note; None: nothing is to be caught up with."""
        self._session = 0
        self._samples: deque[tuple[int, int, int]] = deque()
        """(time, position, target), one each tenth of a second."""
        self._told = False
        self._begun: tuple[int, int] = (0, 0)

    def note(
        self, session: int, position: int, target: int, now_ns: int, *, under_way: bool
    ) -> Progress | CaughtUp | None:
        """Where it stands. Returns what is worth telling: a large one when it is first seen to be, and when it is over."""
        over = None
        if self.progress is not None and (not under_way or session != self._session):
            over = CaughtUp(
                position - self._begun[1] if session == self._session else self.progress.records,
                (now_ns - self._begun[0]) / 1e9,
            )
            self.progress = None
            self._samples.clear()
        if under_way:
            if self.progress is None:
                self._session, self._begun = session, (now_ns, position)
            self.progress = self._measure(position, target, now_ns)
        if over is not None:
            told, self._told = self._told, False
            return over if told else None
        if self.progress is not None and not self._told and self.progress.remaining >= WORTH_TELLING_RECORDS:
            self._told = True
            return self.progress
        return None

    def _measure(self, position: int, target: int, now_ns: int) -> Progress:
        samples = self._samples
        if not samples or now_ns - samples[-1][0] >= _SAMPLE_NS:
            samples.append((now_ns, position, target))
        while len(samples) > 2 and now_ns - samples[1][0] >= _WINDOW_NS:
            samples.popleft()
        before_ns, before, aimed = samples[0]
        seconds = (now_ns - before_ns) / 1e9
        rate = (position - before) / seconds if seconds > 0 else 0.0
        nearer = rate - (target - aimed) / seconds if seconds > 0 else 0.0  # it is published meanwhile, too
        begun_ns, begun = self._begun
        return Progress(
            begun,
            position,
            target,
            rate,
            (target - position) / nearer if nearer > 0 else None,
            position - begun,
            (now_ns - begun_ns) / 1e9,
        )
