"""Who is asked for what one channel lacks: its rungs of replay (fabric.protocol.ladder), and what its machine learns of
their answers. No socket here: the receiver has one for each rung.

The machine asks one question at a time and knows of no rungs. So a replay goes to the rung that may have its lowest part,
the rest is asked next; "not here" becomes "gone" only once every rung has said so.

Everything else is for a publisher's log server: it alone knows where its session ends. That is the first rung; where a standby
has taken over, the standby's, which knows what it went on from as well. So what is asked of a session that is not the one
followed goes to the standbys first, and who does not know passes the question on. A rung that did not answer is asked last.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fabric.protocol.breaker import BreakerState
from fabric.protocol.ladder import NOTHING, Ladder, Rung
from fabric.protocol.requests import Op, Reply, Request, Status

_log = logging.getLogger("fabric.receiver")
_NOT_HERE = (Status.UNKNOWN_SESSION, Status.UNKNOWN_CHANNEL)
STANDBY = "standby"
"""Begins the names of rungs that are log servers of standbys."""


@dataclass(slots=True)
class RungCounts:
    """One rung of a channel's ladder. Each number only ever grows."""

    name: str
    state: BreakerState = BreakerState.CLOSED
    opened: int = 0
    """How often it was left alone because it did not answer."""
    requests: int = 0
    records: int = 0
    """Replayed by it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What goes to whom."""

    rung: int
    request: Request


class Climb:
    """The way up of one channel. ``name`` is the channel's, for messages; times are monotonic nanoseconds."""

    def __init__(self, name: str, rungs: Sequence[Rung], jitter: Callable[[], float]) -> None:
        self._name = name
        self._ladder = Ladder(rungs, jitter=jitter, listener=self._tell)
        self._counts = [RungCounts(rung.name) for rung in rungs]
        self._asked: Asked | None = None
        self._session = 0
        self._kept_elsewhere = False
        """Of the session whose log is gone some rung has records."""
        self._standbys = [number for number, rung in enumerate(rungs) if rung.name.startswith(STANDBY)]
        self._home: dict[int, int] = {}
        """Session to the rung whose publisher's log that is, or which knows what it went on from."""
        self._late: set[int] = set()
        """Rungs that did not answer the last question about a session."""
        self._next_asked: list[int] = []
        """Who is asked the same, if this one does not know."""
        self._denied = False

    def counts(self) -> list[RungCounts]:
        """Of each rung, lowest first."""
        for counts, breaker in zip(self._counts, self._ladder.breakers, strict=True):
            counts.state, counts.opened = breaker.state, breaker.opened
        return [dataclasses.replace(counts) for counts in self._counts]

    def follow(self, session: int) -> None:
        """The machine is in this session: what was said of another one holds no more."""
        if session != self._session:
            self._session = session
            self._ladder.restart()

    def route(self, request: Request, now_ns: int) -> Asked | Reply | int:
        """Whom to ask; or an answer that needs nobody, or the time before which nobody may be asked."""
        if request.op != Op.REPLAY:
            first, *self._next_asked = self._order(request.session)
            self._denied = self._kept_elsewhere = False
            return self._ask(first, request, now_ns)
        plan = self._ladder.plan(request.ranges, now_ns, self._home.get(request.session, 0))
        if plan.gone:
            return self._gone(request.id, request.channel, request.session)
        if not plan.asks:
            assert plan.wait_until_ns is not None
            return plan.wait_until_ns
        rung, ranges = min(plan.asks, key=lambda ask: ask[1][0])  # what is lowest keeps all above it waiting
        return self._ask(rung, dataclasses.replace(request, ranges=ranges), now_ns)

    def timed_out(self, now_ns: int) -> int:
        """Nothing came for too long: the rung that was asked."""
        asked, self._asked = self._asked, None
        if asked is None:
            return 0
        self._ladder.failed(asked.rung, now_ns)
        if asked.request.op != Op.REPLAY:
            self._late.add(asked.rung)
        return asked.rung

    def take(self, rung: int, reply: Reply, records: int, now_ns: int) -> Reply | Asked | None:
        """A rung's reply, with so many records: what the machine is to be told, or whom to ask in addition; None: nothing."""
        asked = self._asked
        answers = asked is not None and asked.rung == rung and asked.request.id == reply.id
        if reply.status == Status.DATA:
            self._counts[rung].records += records
        if (
            not answers
        ):  # of an earlier question: records are of use; that somebody lacks some is no word of all the others
            lacks = reply.status == Status.UNAVAILABLE or reply.status in _NOT_HERE
            return reply if reply.status == Status.DATA or not (rung or lacks) else None
        assert asked is not None
        current = reply.session == self._session
        if asked.request.op != Op.REPLAY:
            return self._take_status(asked, reply, now_ns)
        if reply.status == Status.BAD_REQUEST or (reply.status == Status.UNKNOWN_CHANNEL and not rung):
            self._ladder.failed(rung, now_ns)  # damaged, or started anew and without the log: who else?
            return reply
        if reply.status in _NOT_HERE:
            if current:
                self._ladder.knows_nothing(rung)
            all_said = self._ladder.begins == NOTHING
            return reply if rung == 0 and all_said else self._gone(reply.id, reply.channel, reply.session, reply)
        if reply.status == Status.UNAVAILABLE:
            self._ladder.answered(rung, reply.first_available if current else None)
            return dataclasses.replace(reply, first_available=self._ladder.begins)
        if reply.part >= reply.total:
            self._ladder.answered(rung)
        if rung and reply.status == Status.INFO:  # it has not got so far; where the session ends it does not know
            return dataclasses.replace(reply, status=Status.BAD_REQUEST)
        return reply

    # Inside

    def _ask(self, rung: int, request: Request, now_ns: int) -> Asked:
        self._ladder.asked(rung, now_ns)
        self._counts[rung].requests += 1
        self._asked = Asked(rung, request)
        return self._asked

    def _order(self, session: int) -> list[int]:
        """Whom to ask about a session (0: the current one), one after the other."""
        known = self._home.get(session or self._session)
        # What is current an archive, which may be behind, can't say.
        order = list(range(len(self._counts))) if session else [0, *(each for each in self._standbys if each)]
        if known is not None:
            order.sort(key=lambda rung: rung != known)
        elif session not in (0, self._session):
            order.sort(key=lambda rung: rung not in self._standbys)
        order.sort(key=lambda rung: rung in self._late)
        return order

    def _take_status(self, asked: Asked, reply: Reply, now_ns: int) -> Reply | Asked:
        """An archive, or a standby that still follows, may know the end of a session: if it has all of it."""
        rung, request = asked.rung, asked.request
        self._late.discard(rung)
        if reply.part >= reply.total:
            self._ladder.answered(rung)
        if reply.status == Status.INFO and "complete" not in reply.extra:
            self._home[reply.session] = rung
            if reply.parent == self._session:
                self._home[reply.parent] = rung  # up to where it forks off, which is all that is of use
        about = request.op == Op.STATUS and request.session
        unknown = reply.status == Status.UNKNOWN_SESSION and about
        self._denied = self._denied or bool(unknown and rung == self._home.get(request.session, 0))
        elsewhere = (rung != 0 or bool(self._standbys)) and reply.status in (*_NOT_HERE, Status.BAD_REQUEST)
        partial = rung != 0 and reply.status == Status.INFO and reply.extra.get("complete", True) is not True
        self._kept_elsewhere = self._kept_elsewhere or partial or reply.extra.get("replays") is True
        if not (unknown or elsewhere or partial):
            if reply.status == Status.UNKNOWN_SESSION:
                return self._session_gone(request, reply)
            return reply
        if self._next_asked:
            return self._ask(self._next_asked.pop(0), request, now_ns)
        if self._denied:
            return self._session_gone(request, reply)
        return Reply(reply.id, Status.BAD_REQUEST, reply.channel, request.session)

    def _session_gone(self, request: Request, reply: Reply) -> Reply:
        """Nobody knows where the session ends; whether somebody has some of it."""
        kept = self._kept_elsewhere or (request.op == Op.SNAPSHOT and self._ladder.begins != NOTHING)
        return Reply(
            reply.id, Status.UNKNOWN_SESSION, reply.channel, request.session, extra={"replays": True} if kept else {}
        )

    def _gone(self, identity: int, channel: int, session: int, reply: Reply | None = None) -> Reply:
        """What none of the rungs has, as one of them would say it."""
        part, total = (reply.part, reply.total) if reply is not None else (1, 1)
        return Reply(
            identity, Status.UNAVAILABLE, channel, session, first_available=self._ladder.begins, part=part, total=total
        )

    def _tell(self, rung: Rung, before: BreakerState, now: BreakerState) -> None:
        if now is BreakerState.OPEN and before is BreakerState.CLOSED:
            _log.warning("channel %r: the %s at %s does not answer", self._name, rung.name, rung.endpoint)
        elif now is BreakerState.CLOSED:
            _log.warning("channel %r: the %s at %s answers again", self._name, rung.name, rung.endpoint)
