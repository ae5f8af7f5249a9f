"""Who is asked for what a channel lacks, and what its machine learns of the answers."""

from __future__ import annotations

from fabric.protocol.breaker import BreakerState
from fabric.protocol.ladder import Rung
from fabric.protocol.requests import Op, Reply, Request, Status
from fabric.transport.climb import Asked, Climb

CHANNEL, SESSION, OTHER = 7, 5 << 32 | 1, 4 << 32 | 9
LOG, ARCHIVE = 0, 1
RUNGS = (Rung("log", "tcp://log:1"), Rung("archive", "tcp://archive:1"))
MS = 1_000_000


def made() -> Climb:
    climb = Climb("numbers", RUNGS, lambda: 1.0)
    climb.follow(SESSION)
    return climb


def replay(identity: int, *ranges: tuple[int, int]) -> Request:
    return Request(identity, Op.REPLAY, CHANNEL, SESSION, ranges)


def reply(identity: int, status: Status, session: int = SESSION, **more: int) -> Reply:
    return Reply(identity, status, CHANNEL, session, **more)


def asked(climb: Climb, request: Request, now_ns: int = 0) -> tuple[int, tuple[tuple[int, int], ...]]:
    step = climb.route(request, now_ns)
    assert isinstance(step, Asked)
    return step.rung, step.request.ranges


def test_what_the_log_has_no_more_is_asked_of_the_archive_and_gone_only_when_both_say_so() -> None:
    climb = made()
    assert asked(climb, replay(1, (1, 100))) == (LOG, ((1, 100),))
    told = climb.take(LOG, reply(1, Status.UNAVAILABLE, first_available=60), 0, 0)
    assert isinstance(told, Reply)
    assert (told.status, told.first_available) == (Status.UNAVAILABLE, 0)  # nothing is gone
    assert asked(climb, replay(2, (1, 100))) == (ARCHIVE, ((1, 59),))  # what is lowest comes first
    told = climb.take(ARCHIVE, reply(2, Status.UNAVAILABLE, first_available=10, total=2), 0, 0)
    assert isinstance(told, Reply)
    assert (told.first_available, told.total) == (10, 2)
    climb.take(ARCHIVE, reply(2, Status.DATA, part=2, total=2), 50, 0)
    assert asked(climb, replay(3, (60, 100))) == (LOG, ((60, 100),))
    gone = climb.route(replay(4, (5, 5), (60, 60)), 0)
    assert isinstance(gone, Reply)
    assert (gone.id, gone.status, gone.first_available) == (4, Status.UNAVAILABLE, 10)
    assert [(each.requests, each.records) for each in climb.counts()] == [(2, 0), (1, 50)]


def test_another_session_is_asked_for_anew() -> None:
    climb = made()
    climb.route(replay(1, (1, 9)), 0)
    climb.take(LOG, reply(1, Status.UNAVAILABLE, first_available=60), 0, 0)
    climb.follow(OTHER)
    assert asked(climb, Request(2, Op.REPLAY, CHANNEL, OTHER, ((1, 9),)))[0] == LOG


def test_a_log_server_that_does_not_answer_is_left_alone_for_a_while() -> None:
    climb = made()
    for attempt in range(3):
        assert asked(climb, replay(attempt, (1, 9)), attempt)[0] == LOG
        assert climb.timed_out(attempt) == LOG
    assert climb.counts()[LOG].state is BreakerState.OPEN
    assert asked(climb, replay(4, (1, 9)), 10)[0] == ARCHIVE
    for attempt in range(5, 8):
        climb.timed_out(10)
        step = climb.route(replay(attempt, (1, 9)), 10)
    assert isinstance(step, int)  # nobody, before that time
    assert step == 2 + 20 * MS
    assert asked(climb, replay(9, (1, 9)), step)[0] == LOG
    climb.take(LOG, reply(9, Status.DATA), 9, step)
    assert climb.counts()[LOG].state is BreakerState.HALF_OPEN


def test_an_archive_never_tells_where_a_session_ends_unless_it_has_all_of_it() -> None:
    climb = made()
    climb.route(replay(1, (1, 9)), 0)
    climb.take(LOG, reply(1, Status.UNAVAILABLE, first_available=60), 0, 0)
    assert asked(climb, replay(2, (1, 9)))[0] == ARCHIVE
    told = climb.take(ARCHIVE, reply(2, Status.INFO, next=5), 0, 0)  # it is not so far
    assert isinstance(told, Reply)
    assert told.status == Status.BAD_REQUEST
    assert climb.counts()[ARCHIVE].state is BreakerState.CLOSED
    for complete in (False, True):
        assert asked(climb, Request(3, Op.STATUS, CHANNEL, SESSION)) == (LOG, ())
        further = climb.take(LOG, reply(3, Status.UNKNOWN_SESSION), 0, 0)
        assert isinstance(further, Asked)
        assert further.rung == ARCHIVE
        info = Reply(3, Status.INFO, CHANNEL, SESSION, next=10, extra={"complete": complete})
        told = climb.take(ARCHIVE, info, 0, 0)
        assert isinstance(told, Reply)
        assert told.status == (Status.INFO if complete else Status.UNKNOWN_SESSION)


def test_a_log_that_is_gone_is_no_verdict_while_the_archive_may_have_it() -> None:
    climb = made()
    climb.route(replay(1, (1, 9)), 0)
    told = climb.take(LOG, reply(1, Status.UNKNOWN_SESSION), 0, 0)
    assert isinstance(told, Reply)
    assert (told.status, told.first_available) == (Status.UNAVAILABLE, 0)
    assert asked(climb, replay(2, (1, 9)))[0] == ARCHIVE
    told = climb.take(ARCHIVE, reply(2, Status.UNKNOWN_CHANNEL), 0, 0)
    assert isinstance(told, Reply)
    assert told.status == Status.UNAVAILABLE
    assert told.first_available > 1 << 62  # nobody has any of it


def test_late_answers_of_an_archive_are_good_for_their_records_only() -> None:
    climb = made()
    climb.route(replay(1, (1, 9)), 0)
    assert climb.take(ARCHIVE, reply(9, Status.UNKNOWN_SESSION), 0, 0) is None
    data = reply(9, Status.DATA)
    assert climb.take(ARCHIVE, data, 3, 0) is data


def test_that_the_log_server_lacks_something_is_no_verdict_although_it_answers_late() -> None:
    """The machine has asked something else since: a newer session was heard of."""
    climb = made()
    climb.route(replay(1, (1, 9)), 0)
    climb.route(Request(2, Op.STATUS, CHANNEL, SESSION), 0)
    assert climb.take(LOG, reply(1, Status.UNAVAILABLE, first_available=60), 0, 0) is None
    assert climb.take(LOG, reply(1, Status.UNKNOWN_SESSION), 0, 0) is None
    info = reply(1, Status.INFO, next=5)
    assert climb.take(LOG, info, 0, 0) is info


def test_a_log_that_is_gone_of_which_the_archive_has_a_part_is_no_loss() -> None:
    for partly in (False, True):
        climb = made()
        climb.route(Request(3, Op.STATUS, CHANNEL, SESSION), 0)
        climb.take(LOG, reply(3, Status.UNKNOWN_SESSION), 0, 0)
        answer = Reply(3, Status.INFO, CHANNEL, SESSION, next=10, extra={"complete": False})
        told = climb.take(ARCHIVE, answer if partly else reply(3, Status.UNKNOWN_SESSION), 0, 0)
        assert isinstance(told, Reply)
        assert (told.status, told.extra) == (Status.UNKNOWN_SESSION, {"replays": True} if partly else {})


def test_an_image_of_a_log_that_is_gone_is_not_to_be_had_but_perhaps_its_records() -> None:
    climb = made()
    climb.route(Request(3, Op.SNAPSHOT, CHANNEL, SESSION), 0)
    told = climb.take(LOG, reply(3, Status.UNKNOWN_SESSION), 0, 0)
    assert isinstance(told, Reply)
    assert told.extra == {"replays": True}


STANDBY, THIRD = 1, 2
WITH_STANDBY = (Rung("log", "tcp://log:1"), Rung("standby", "tcp://standby:1"), Rung("archive", "tcp://archive:1"))
NEWER = 6 << 32 | 3


def with_standby() -> Climb:
    climb = Climb("numbers", WITH_STANDBY, lambda: 1.0)
    climb.follow(SESSION)
    return climb


def status(identity: int, session: int) -> Request:
    return Request(identity, Op.STATUS, CHANNEL, session)


def test_of_a_newer_session_the_standby_is_asked_first_and_then_the_others() -> None:
    climb = with_standby()
    assert asked(climb, status(1, SESSION))[0] == LOG
    assert asked(climb, status(2, NEWER))[0] == STANDBY
    further = climb.take(STANDBY, reply(2, Status.UNKNOWN_SESSION, NEWER), 0, 0)
    assert isinstance(further, Asked)
    assert further.rung == LOG, "the publisher itself has begun it"
    told = climb.take(LOG, reply(2, Status.INFO, NEWER), 0, 0)
    assert isinstance(told, Reply)
    assert told.status == Status.INFO


def test_who_has_the_newer_session_replays_the_older_one_up_to_the_fork() -> None:
    climb = with_standby()
    assert asked(climb, replay(1, (1, 9)))[0] == LOG
    assert climb.timed_out(0) == LOG
    asked(climb, status(2, NEWER))
    told = climb.take(STANDBY, reply(2, Status.INFO, NEWER, parent=SESSION, fork=9), 0, 0)
    assert isinstance(told, Reply)
    assert asked(climb, replay(3, (1, 9)))[0] == STANDBY
    climb.follow(NEWER)
    assert asked(climb, Request(4, Op.REPLAY, CHANNEL, NEWER, ((1, 9),)))[0] == STANDBY
    assert asked(climb, status(5, NEWER))[0] == STANDBY
    assert asked(climb, status(6, 0))[0] == STANDBY, "what is current is known where the current one is published"


def test_a_standby_that_still_follows_is_not_believed_about_an_end() -> None:
    climb = with_standby()
    asked(climb, status(1, 0))
    assert climb.timed_out(0) == LOG
    assert asked(climb, status(2, 0))[0] == STANDBY, "who did not answer is asked last"
    follows = Reply(2, Status.INFO, CHANNEL, SESSION, next=10, extra={"complete": False})
    further = climb.take(STANDBY, follows, 0, 0)
    assert isinstance(further, Asked)
    assert further.rung == LOG, "an archive can't say what is current"
    climb.timed_out(0)
    asked(climb, status(3, SESSION))
    climb.take(STANDBY, reply(3, Status.UNKNOWN_SESSION), 0, 0)
    climb.take(THIRD, reply(3, Status.UNKNOWN_SESSION), 0, 0)
    assert climb.timed_out(0) == LOG, "its word alone would be that the session is gone"


def test_nobody_is_said_to_have_lost_a_session_by_who_never_had_it() -> None:
    climb = with_standby()
    asked(climb, status(1, NEWER))
    climb.take(STANDBY, reply(1, Status.UNKNOWN_CHANNEL, NEWER), 0, 0)
    climb.take(LOG, reply(1, Status.BAD_REQUEST, NEWER), 0, 0)
    told = climb.take(THIRD, reply(1, Status.UNKNOWN_SESSION, NEWER), 0, 0)
    assert isinstance(told, Reply)
    assert told.status == Status.BAD_REQUEST
