"""What one input of a node was really given, by its cycle journal, against what its channel's log holds. Pure.

Nothing here looks at what the subscriber says of itself. Every record of every session must have been delivered once and in
order, or its range announced (Skipped, Lost, Diverged); whatever else there is, is a Finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fabric.runtime.journal import Entry, Kind


@dataclass(frozen=True, slots=True)
class Published:
    """One session's log: records ``base`` to ``next - 1``, of which those from ``first_available`` on are still there."""

    base: int
    next: int
    first_available: int
    gone: bool = False
    """The log is gone; how far it went at least is known from the session that forked off it, or its writer's journal."""

    @property
    def count(self) -> int:
        return self.next - self.base


@dataclass(frozen=True, slots=True)
class Finding:
    """Records ``first`` to ``last`` of a session, and what is wrong with them."""

    what: str
    session: int
    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        records = f"record {self.first}" if self.first == self.last else f"records {self.first} to {self.last}"
        return f"session {self.session:016x}, {records}: {self.what}"


NEVER_TOLD = "neither delivered nor announced"
TWICE = "delivered twice"
OUT_OF_ORDER = "delivered, or announced, out of order"
NEVER_PUBLISHED = "delivered, but not in the log"
TOLD_TWICE = "announced as missing, but passed already"
SWITCHED = "delivered of a session that was not announced"


@dataclass(slots=True)
class Walk:
    """The account of one input: records, over all sessions."""

    sessions: Mapping[int, Published]
    open_end: bool = False
    """The writer went on when the reader was stopped: what it published after that is not owed."""
    after: int = 0
    """Records published after the reader's end, where that is open."""
    published: int = 0
    delivered: int = 0
    skipped: int = 0
    lost: int = 0
    lost_but_there: int = 0
    """Of the lost ones, those that the log still holds."""
    before: int = 0
    """Below the snapshot that it began with: never promised."""
    unknown: list[int] = field(default_factory=list)
    """Sessions whose logs are gone: whether they held more than was delivered is not known."""
    again: int = 0
    """Delivered a second time after a snapshot that a node without state began anew with."""
    from_snapshots: int = 0
    """Records of snapshots; no part of what was delivered."""
    findings: list[Finding] = field(default_factory=list)
    session: int = 0
    position: int = 0
    """All up to this sequence was delivered, announced or found missing."""
    _missing: list[tuple[int, int]] = field(default_factory=list)
    _tail_unknown: bool = False

    def take(self, entry: Entry) -> None:
        """The next entry of this input."""
        last = entry.first + entry.count - 1
        match entry.kind:
            case Kind.SESSION:
                if entry.session != self.session:
                    self._leave()
                    self._follow(entry.session)
            case Kind.DATA:
                self._switch(entry, last)
                self.delivered += entry.count
                self._pass(entry.first, last, announced=False)
            case Kind.SKIPPED | Kind.LOST:
                self._switch(entry, last)
                if entry.kind is Kind.SKIPPED:
                    self.skipped += entry.count
                else:
                    self.lost += entry.count
                    self._tail_unknown = self._tail_unknown or not entry.count
                    there = self.sessions.get(entry.session)
                    if there is not None:
                        self.lost_but_there += max(
                            0, min(last + 1, there.next) - max(entry.first, there.first_available)
                        )
                self._pass(entry.first, last, announced=True)
            case Kind.SNAPSHOT:
                self._snapshot(entry)
            case Kind.DIVERGED:  # what it had delivered above the fork has no place in the session that follows
                pass
            case Kind.ENDED if entry.first > self.position:
                self._miss(self.position + 1, entry.first)

    def finish(self) -> None:
        """The journal is over: the rest of the log must have been delivered too, and the sessions after it."""
        self._leave(last=True)
        for session, log in self.sessions.items():
            if session >> 32 > self.session >> 32 and self.open_end:
                self.after += log.count
            elif session >> 32 > self.session >> 32:
                self.published += log.count
                if log.count:
                    self.findings.append(Finding(NEVER_TOLD, session, log.base, log.next - 1))
        self.session = 0

    @property
    def undetected(self) -> int:
        """Records that something is wrong with in silence."""
        return sum(finding.count for finding in self.findings)

    @property
    def missing(self) -> int:
        return sum(each.count for each in self.findings if each.what == NEVER_TOLD)

    def sum_fails(self) -> str:
        """published = delivered once + skipped + lost + never promised + missing; "" if so."""
        repeated = sum(each.count for each in self.findings if each.what in (TWICE, TOLD_TWICE, NEVER_PUBLISHED))
        accounted = self.delivered - self.again - repeated + self.skipped + self.lost + self.before + self.missing
        if accounted == self.published:
            return ""
        return f"published {self.published:,}, but accounted for {accounted:,}"

    # Inside

    def _follow(self, session: int) -> None:
        self.session = session
        log = self.sessions.get(session)
        self.position = log.base - 1 if log is not None else 0
        self._tail_unknown = False

    def _leave(self, *, last: bool = False) -> None:
        """The end of a session, for this reader: what its log holds beyond was never told."""
        if not self.session:
            return
        log = self.sessions.get(self.session)
        if log is None:  # it was removed, with its records: what was delivered of it is all that is known
            self.published += self.position
            self.unknown.append(self.session)
        else:
            self.published += max(log.count, self.position - log.base + 1) if log.gone else log.count
            tail = log.next - 1 - self.position
            if tail > 0 and last and self.open_end:
                self.after += tail
                self.published -= tail
            elif tail > 0 and self._tail_unknown:  # told as lost, without saying how many
                self.lost += tail
                self.lost_but_there += min(tail, log.next - log.first_available)
            elif tail > 0:
                self._miss(self.position + 1, log.next - 1)
        self.findings += [Finding(NEVER_TOLD, self.session, first, last) for first, last in self._missing]
        self._missing.clear()

    def _switch(self, entry: Entry, last: int) -> None:
        if entry.session != self.session:
            if self.session:
                self.findings.append(Finding(SWITCHED, entry.session, entry.first, last))
                self._leave()
            self._follow(entry.session)

    def _miss(self, first: int, last: int) -> None:
        self._missing.append((first, last))
        self.position = last

    def _pass(self, first: int, last: int, *, announced: bool) -> None:
        if last < first:
            return
        if first > self.position + 1:
            self._miss(self.position + 1, first - 1)
        if first <= self.position:
            self._passed_again(first, min(last, self.position), TOLD_TWICE if announced else TWICE)
        log = self.sessions.get(self.session)
        if log is not None and not log.gone and not announced and last >= log.next:
            self.findings.append(Finding(NEVER_PUBLISHED, self.session, max(first, log.next, self.position + 1), last))
        self.position = max(self.position, last)

    def _passed_again(self, first: int, last: int, what: str) -> None:
        """Below the position: what was found missing came late, the rest a second time."""
        left: list[tuple[int, int]] = []
        late: list[tuple[int, int]] = []
        for begin, end in self._missing:
            inner = max(begin, first), min(end, last)
            if inner[0] > inner[1]:
                left.append((begin, end))
                continue
            late.append(inner)
            left += [part for part in ((begin, inner[0] - 1), (inner[1] + 1, end)) if part[0] <= part[1]]
        self._missing = left
        at = first
        for begin, end in [*sorted(late), (last + 1, last)]:
            if at < begin:
                self.findings.append(Finding(what, self.session, at, begin - 1))
            if begin <= end:
                self.findings.append(Finding(OUT_OF_ORDER, self.session, begin, end))
            at = end + 1

    def _snapshot(self, entry: Entry) -> None:
        """The state as of ``first``. What it passes over was announced before; one that a life begins with stands for
        everything below it, and may be older than what was delivered to the life before."""
        fresh = not self.session or entry.session != self.session
        if fresh:
            self._leave()
            self._follow(entry.session)
        self.from_snapshots += entry.count
        log = self.sessions.get(entry.session)
        begin = log.base if log is not None else 1
        if self.position < begin:
            self.before += entry.first - self.position
        elif entry.first > self.position:
            self._miss(self.position + 1, entry.first)
        else:
            self.again += self.position - entry.first
        self.position = entry.first
