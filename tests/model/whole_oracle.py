"""What one reader was given, against what was published. Called with each run and event at the moment it goes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from whole_logs import FollowedLog, ModelLog

from fabric.protocol.events import (
    NO_ANSWER,
    NOT_RETAINED_UNKNOWN,
    SESSION_FORKED,
    SESSION_LEFT,
    Diverged,
    Ended,
    Event,
    Lost,
    Session,
    Skipped,
)
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, Origin, Run, Start


class Wrong(AssertionError):
    """What must not be."""


def must(condition: bool, what: str, *of: object) -> None:
    """``of``: what is told beside it; made into text only where that is wanted."""
    if not condition:
        raise Wrong(": ".join((what, *map(str, of))))


class Oracle:
    """One reader's stream. ``world`` tells what was published (``logs``) and what the archive has (``archived``)."""

    def __init__(self, world: Any, machine: Subscription, start: Start, limits: Limits, *, asks_archive: bool) -> None:
        self._world = world
        self._machine = machine
        self._start = start
        self._limits = limits
        self._asks_archive = asks_archive
        self._born_ns = self._since_ns = world.now_ns
        self.session = start.session
        self.position: int | None = start.sequence - 1 if start.session else None
        """All up to it was given or announced; None: an image is to say where it begins."""
        self.came: set[int] = set()
        """Of the session that is followed: what arrived here whole."""
        self.newer_ns: int | None = None
        """Since when something of a newer session has been heard."""
        self.ended = False
        self.received = self.skipped = self.lost = self.images = self.diverged = 0
        self._highest = 0
        self._had_after = 0
        """Of the session: records up to this one the reader never had, nor their effect."""
        self._skipped_to: int | None = None
        self._diverged: Diverged | None = None
        self._tail_unknown = False
        self._refused = 0
        self._before_unknown = False

    def heard(self, session: int, first: int, count: int) -> None:
        """A packet arrived here whole."""
        if session == self._machine.session == self.session:
            self.came.update(range(max(first, self._machine.delivered + 1), first + count))  # below it needs nothing
        elif session >> 32 > self.session >> 32 and self.session and self.newer_ns is None:
            self.newer_ns = self._world.now_ns
        self._highest = max(self._highest, session)

    def __call__(self, item: Run | Event) -> None:
        must(not self.ended, "after the end", item)
        must(self._diverged is None or isinstance(item, Session), "Diverged is followed by its session")
        must(
            self._skipped_to is None or (isinstance(item, Run) and item.origin is Origin.SNAPSHOT), "Skipped, no image"
        )
        match item:
            case Session():
                self._change(item)
            case Run() if item.origin is Origin.SNAPSHOT:
                self._take_image(item)
            case Run():
                self._take_run(item)
            case Lost():
                self._take_lost(item)
            case Skipped():
                self._follows(item.session, item.first, item.last)
                self.skipped += item.count
                self._skipped_to = item.last
                self._check_skipped(item)
            case Diverged():
                self._diverged = item
                self.diverged += 1
            case Ended():
                self._take_end(item)

    def finish(self) -> None:
        """The world has healed, and time has passed: all there is has come."""
        machine, log = self._machine, self._world.current
        state = f"{machine.state} at {machine.delivered} of {machine.seen}, oracle at {self.position}"
        if not self.ended:
            must(machine.state == "LIVE", f"{state}: not LIVE")
            must(
                machine.session == log.session,
                f"{state}: follows {machine.session:x}, the current one is {log.session:x}",
            )
            must(machine.plain, f"{state}: something is open")
            end = max(log.next - 1, machine.joined_at)
            must(machine.delivered == machine.seen == end, f"{state}: the log ends at {log.next - 1}")
            must(self.position in (None, machine.delivered), f"{state}: not all that is accounted for went out")
        must(not self._before_unknown, "that there may have been earlier records was not told")
        counters = machine.counters
        counted = (counters.received, counters.skipped, counters.lost, counters.snapshots)
        found = (self.received, self.skipped, self.lost, self.images)
        must(counted == found, f"counters (received, skipped, lost, snapshots) are {counted}, not {found}")

    # Sessions

    def _change(self, item: Session) -> None:
        if item.old == 0:
            must(self.session in (0, item.new), "it was to follow another session")
            self._join(item)
            return
        must(item.old == self.session, f"{item} while in {self.session:x}")
        must(item.new >> 32 > item.old >> 32, f"{item} goes back")
        self._leave(self._world.logs[item.old], self._world.logs[item.new])
        self.session = item.new
        self.position = None if self.position is None else 0
        self._since_ns = self._world.now_ns
        self.newer_ns = self._since_ns if self._highest >> 32 > item.new >> 32 else None
        self._had_after = 0
        self._refused = self._machine.counters.refused
        self._tail_unknown = False
        self.came.clear()

    def _join(self, item: Session) -> None:
        log: ModelLog = self._world.logs[item.new]
        self.session, self._since_ns = item.new, self._world.now_ns
        at = self._machine.joined_at
        match self._start.mode:
            case "first":
                self.position = log.base - 1
            case "at" | "resync":
                self.position = self._start.sequence - 1
            case "live":
                self.position = at
            case "time":
                self.position = at
                stamps = log.all["ts_publish_ns"]
                first = int(np.searchsorted(stamps, self._start.time_ns)) + 1
                self._before_unknown = at + 1 > first
                must(
                    at + 1 <= max(first, log.first_available),
                    f"begins at {at + 1}, after what is of that time: {first}",
                )
                known = first <= len(stamps) and self._world.committed_ns[item.new][first] < self._born_ns
                must(at + 1 >= first or not known, f"begins at {at + 1}, before what is of that time: {first}")
            case "snapshot":
                self.position = None
        must(self.position in (None, at) or self._start.mode == "resync", f"begins at {at}, not at {self.position}")
        if self.position is not None and not self._start.session:
            self._had_after = self.position

    def _leave(self, old: ModelLog, new: ModelLog) -> None:
        if self.position is None:
            must(self._start.mode == "snapshot", "nothing was promised")
            must(self._diverged is None, "diverged, and nothing was given")
            return
        end = old.next - 1
        must(self.position >= end or self._tail_unknown, f"left at {self.position}, its records up to {end} untold")
        for log in self._world.logs.values():
            between = old.session >> 32 < log.session >> 32 < new.session >> 32
            must(
                not (between and log.next > 1) or self._tail_unknown, f"passed over session {log.session:x} in silence"
            )
        beyond = max(new.fork_sequence, self._had_after)
        forked = new.parent_session == old.session and beyond < self.position
        wanted = Diverged(beyond + 1, self.position) if forked else None
        if not (self._tail_unknown and self._diverged is None):
            must(self._diverged == wanted, f"told {self._diverged}, not {wanted}")
        self._diverged = None

    # What goes out

    def _follows(self, session: int, first: int, last: int) -> None:
        must(session == self.session, "of another session", session, self.session)
        if self.position is None:
            self.position = self._had_after = self._machine.joined_at  # there is no image: it goes on as live
        must(first == self.position + 1, "does not follow", self.position, first, last)
        must(last >= first - 1, "is no range", first, last)
        self.position = last

    def _take_run(self, run: Run) -> None:
        self._follows(run.session, run.first, run.last)
        log = self._world.logs[run.session]
        must(run.last <= log.committed, "never published", run.first, run.last)
        must(len(run.records) == run.last - run.first + 1, "as many records as sequences")
        must(run.records.tobytes() == log.all[run.first - 1 : run.last].tobytes(), "other bytes", run.first, run.last)
        self.received += len(run.records)

    def _take_image(self, run: Run) -> None:
        log: ModelLog = self._world.logs[run.session]
        must(run.session == self.session, "an image of another session")
        must(run.last <= log.committed, "an image of what was never published")
        sequences = np.frombuffer(run.sequences, np.uint64).tolist()
        must(sorted(sequences) == sorted(log.newest(run.last).values()), f"the image as of {run.last} is another")
        wanted = log.all[np.array(sequences, np.int64) - 1].tobytes() if sequences else b""
        must(np.asarray(run.records).tobytes() == wanted, f"the image as of {run.last} has other bytes")
        joins = self.images + self.received + self.lost == 0 and self._start.mode == "resync"
        if self._skipped_to is not None:
            must(self._skipped_to == run.last, f"skipped to {self._skipped_to}, the image is as of {run.last}")
        else:
            must(self.position is None or joins, "an image in the stream, and nothing was skipped")
            must(self.position is None or run.last <= self.position, "it passes over what was not told")
        self._skipped_to = None
        self._had_after = 0
        self.position = run.last
        self.images += 1

    def _take_end(self, item: Ended) -> None:
        log: ModelLog = self._world.logs[item.session]
        must(item.session == self.session, "another session ended")
        must(log.ended, "its publisher goes on")
        beyond = self.images + self.received + self.lost == 0 and self._start.sequence > item.last
        must(beyond or self.position in (None, item.last), f"ended at {item.last}, given up to {self.position}")
        must(item.last == log.next - 1, f"ended at {item.last}, the log at {log.next - 1}")
        self.ended = True

    # What is not given

    def _take_lost(self, item: Lost) -> None:
        self._follows(item.session, item.first, item.last)
        self.lost += item.count
        if item.count == 0:
            if item.reason == NOT_RETAINED_UNKNOWN:
                must(self._before_unknown or self._world.logs[item.session].first_available > 1, "nothing was removed")
                self._before_unknown = False
            else:
                self._tail_unknown = True
            return
        self._check_waited(item)
        if self._machine.counters.refused > self._refused:
            return  # what came was not taken: the reader is slow
        arrived = [each for each in range(item.first, item.last + 1) if each in self.came]
        must(not arrived, f"{item}: {arrived[:3]} had arrived")

    def _check_waited(self, item: Lost) -> None:
        now_ns = self._world.now_ns
        if item.reason == NO_ANSWER:
            must(now_ns - self._since_ns >= self._limits.recovery_deadline_ns, f"{item}: given up too early")
            must(not self._world.healthy, f"{item}: somebody was there to be asked")
        elif item.reason == SESSION_LEFT:
            waited_ns = now_ns - (now_ns if self.newer_ns is None else self.newer_ns)
            must(waited_ns >= self._limits.session_deadline_ns, f"{item}: left after {waited_ns} ns")
        elif item.reason == SESSION_FORKED:
            logs = self._world.logs.values()
            forks = [log.fork_sequence for log in logs if log.parent_session == item.session]
            must(any(item.first > fork for fork in forks), f"{item}: nothing forked off before that", forks)
        else:
            for each in range(item.first, item.last + 1):
                must(not self._to_be_had(item.session, each), f"{item}: {each} could be had")

    def _check_skipped(self, item: Skipped) -> None:
        if self._start.mode == "resync" and self.images + self.received + self.lost == 0:
            return  # it begins with an image, wherever that is
        log: ModelLog = self._world.logs[item.session]
        gone = any(not self._to_be_had(item.session, each) for each in range(item.first, item.last + 1))
        must(gone, f"{item}: all of it could be had")
        must(item.last < log.first_available or log.gone, f"{item}: the log begins at {log.first_available}")

    def _to_be_had(self, session: int, sequence: int) -> bool:
        """The publisher's log has it; or the archive, where it is asked, has had it all the while. (What it once said that
        it lacks it is not asked for again.)"""
        log: ModelLog = self._world.logs[session]
        if log.has(sequence):
            return True
        kept: FollowedLog | None = self._world.store.sessions.get(session) if self._asks_archive else None
        return (
            kept is not None and kept.has(sequence) and kept.came_ns[sequence] <= self._since_ns and sequence < log.next
        )
