"""What a standby keeps of a channel: by its subscription and its `sync` connection at once, over lives of its primary; and
what is begun where it ends."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import fabric
from fabric.channel import channel_id
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.log.follower import Followed, FollowerLog
from fabric.protocol.events import Diverged, Session
from fabric.protocol.syncmessages import FromPrimary, FromStandby, Kind
from fabric.protocol.types import Origin, Run
from fabric.records import Flags, Records
from fabric.standby.channel import StandbyChannel

NUMBER = fabric.record("number", value="u8")
IDENTITY = channel_id("numbers")
TINY = LogOptions(retain_bytes=1 << 20, segment_bytes=16 * NUMBER.size)
SESSION, NEWER = 5 << 32 | 1, 6 << 32 | 1
WHO, LIFE, OTHER_LIFE = b"W" * 8, 7, 8


def make(first: int, count: int, *, whole: bool = True, salt: int = 0) -> Records:
    records = NUMBER.build(count, value=np.arange(first, first + count) + salt)
    records["ts_publish_ns"] = 10**18 + first
    if whole:
        records["flags"][-1] = Flags.LAST_IN_EVENT
    return records


def opened(tmp_path: Path, who: bytes = WHO) -> StandbyChannel:
    channel = StandbyChannel("numbers", tmp_path / "log", TINY, who)
    channel.start(1)
    channel.take(Session(0, SESSION), NUMBER, None, 1)
    return channel


def run(channel: StandbyChannel, first: int, records: Records) -> None:
    item = Run(Origin.LIVE, SESSION, first, first + len(records) - 1, records)
    channel.take(item, NUMBER, None, 1)


def say(
    channel: StandbyChannel, kind: Kind, following: int, records: Records | None = None, **more: object
) -> FromStandby:
    """What the channel answers to a message of its primary."""
    settings = {"session": SESSION, "life": LIFE, "gated": True, **more}
    message = FromPrimary(kind, IDENTITY, next=following, **settings)  # type: ignore[arg-type]
    answer = channel.take_message(message, None if records is None else records.tobytes(), 1)
    return FromStandby.decode(answer) if answer is not None else FromStandby(Kind.ACK, 0, 0, 0, 0, WHO)


def join(channel: StandbyChannel, following: int, life: int = LIFE) -> FromStandby:
    asked = say(channel, Kind.CUT, following, life=life)
    assert (asked.kind, asked.life) == (Kind.JOIN, life)
    say(channel, Kind.JOINED, following, life=life)
    return asked


def values(directory: Path, session: int = SESSION) -> list[int]:
    log = LogReader(directory / f"{session:016x}")
    return [int(each) for _, view in log.read_range(log.first_available, log.next - 1) for each in view["value"]]


def test_a_write_is_acknowledged_once_it_is_in_the_log(tmp_path: Path) -> None:
    channel = opened(tmp_path)
    run(channel, 1, make(1, 10))
    join(channel, 11)
    answer = say(channel, Kind.WRITE, 11, make(11, 30))  # through segments
    assert (answer.kind, answer.next, answer.session) == (Kind.ACK, 41, SESSION)
    assert values(tmp_path / "log") == list(range(1, 41))
    assert channel.in_sync
    assert channel.log is not None
    assert channel.log.confirmed == 11, "what nobody may have seen yet"
    say(channel, Kind.ALIVE, 41)
    assert channel.log.confirmed == 41
    channel.close()


def test_what_is_above_a_hole_waits_and_is_not_acknowledged(tmp_path: Path) -> None:
    channel = opened(tmp_path)
    run(channel, 1, make(1, 10))
    join(channel, 21)
    assert say(channel, Kind.WRITE, 21, make(21, 5)).channel == 0, "nothing is said"
    assert not channel.in_sync
    assert channel.next == 11
    run(channel, 11, make(11, 10))  # the subscription brings the rest
    assert channel.next == 26
    assert say(channel, Kind.WRITE, 26, make(26, 1)).next == 27
    assert values(tmp_path / "log") == list(range(1, 27))
    channel.close()


def test_both_ways_bring_everything_once_whatever_comes_first(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(30):
        channel = opened(tmp_path / str(number))
        join(channel, 1)
        events, at = [], 1
        for _ in range(40):
            events.append((at, rng.randrange(1, 12)))
            at += events[-1][1]
        packets = [
            (first + part, min(4, count - part), first + count)
            for first, count in events
            for part in range(0, count, 4)
        ]
        sent = shown = 0  # by the sync connection, by the subscription, which follows it
        while shown < len(packets):
            # What is published has been given to the standby, or the connection was broken for a while.
            if sent < len(events) and (rng.random() < 0.5 or packets[shown][2] > events[sent][0] + events[sent][1]):
                if rng.random() < 0.8:
                    say(channel, Kind.WRITE, events[sent][0], make(*events[sent]))
                sent += 1
            elif sent == len(events) or packets[shown][2] <= events[sent][0]:
                first, count, end = packets[shown]
                run(channel, first, make(first, count, whole=first + count == end))
                shown += 1
        channel.close()
        assert values(tmp_path / str(number) / "log") == list(range(1, at)), seed


def test_what_another_life_never_committed_is_cut_off(tmp_path: Path) -> None:
    channel = opened(tmp_path)
    run(channel, 1, make(1, 10))
    join(channel, 11)
    say(channel, Kind.WRITE, 11, make(11, 40))  # and then the primary is killed before its commit
    assert channel.next == 51
    asked = join(channel, 11, OTHER_LIFE)
    assert asked.next == 11
    assert (channel.next, channel.cut_off) == (11, 40)
    answer = say(channel, Kind.WRITE, 11, make(11, 3, salt=1000), life=OTHER_LIFE)
    assert answer.next == 14
    assert values(tmp_path / "log") == [*range(1, 11), 1011, 1012, 1013]
    channel.close()


def test_a_message_of_a_life_that_it_has_not_joined_changes_nothing(tmp_path: Path) -> None:
    channel = opened(tmp_path)
    run(channel, 1, make(1, 10))
    join(channel, 11)
    assert say(channel, Kind.WRITE, 11, make(11, 5), life=OTHER_LIFE).channel == 0
    assert not channel.joined
    assert channel.next == 11
    assert say(channel, Kind.WRITE, 11, make(11, 5)).channel == 0, "not before it has joined again"
    channel.close()


@pytest.mark.parametrize("killed", [False, True])
def test_the_writer_that_goes_on_begins_a_session_that_forks_off(tmp_path: Path, killed: bool) -> None:
    channel = opened(tmp_path)
    run(channel, 1, make(1, 40))
    run(channel, 41, make(41, 3, whole=False))  # an event whose end has not come is in no log
    log = channel.log
    assert log is not None
    lock = log.close_keeping_lock()
    if killed:
        log.control.clean_close = False
    writer = LogWriter(tmp_path / "log", "numbers", IDENTITY, NUMBER, TINY, now_ns=10**9, lock=lock)
    assert (writer.control.parent_session, writer.control.fork_sequence) == (SESSION, 40)
    assert writer.session >> 32 > SESSION >> 32
    writer.write(make(1, 5), 10**18)
    writer.close()
    again = LogWriter(tmp_path / "log", "numbers", IDENTITY, NUMBER, TINY, now_ns=10**9)
    assert (again.session, again.next) == (writer.session, 6), "a session of its own is gone on with"
    again.close()
    assert values(tmp_path / "log") == list(range(1, 41))


def test_it_follows_to_a_newer_session_and_keeps_where_that_forked(tmp_path: Path) -> None:
    channel = opened(tmp_path)
    run(channel, 1, make(1, 10))
    join(channel, 11)
    say(channel, Kind.WRITE, 11, make(11, 5))  # never committed: the newer session forks off before it
    channel.take(Session(SESSION, NEWER), NUMBER, None, 1)
    assert channel.log is not None
    assert (channel.log.control.parent_session, channel.log.control.fork_sequence) == (SESSION, 10)
    channel.close()
    assert values(tmp_path / "log") == list(range(1, 11))

    other = opened(tmp_path / "other")
    run(other, 1, make(1, 10))
    other.take(Diverged(8, 10), NUMBER, None, 1)
    other.take(Session(SESSION, NEWER), NUMBER, None, 1)
    assert other.log is not None
    assert other.log.control.fork_sequence == 7
    other.close()


def test_who_comes_back_goes_on_in_what_it_followed(tmp_path: Path) -> None:
    channel = opened(tmp_path)
    run(channel, 1, make(1, 20))
    channel.close()
    again = StandbyChannel("numbers", tmp_path / "log", TINY, WHO)
    start = again.start(1)
    assert (start.session, start.sequence) == (SESSION, 21)
    again.close()


def test_cut_back_goes_over_segments_and_the_log_can_be_written_on(tmp_path: Path) -> None:
    log = FollowerLog(tmp_path, "numbers", IDENTITY, NUMBER, TINY, Followed(SESSION, 0, 0, 1), now_ns=1)
    log.follow(1, make(1, 20))
    log.confirm(20)
    log.follow(21, make(21, 60))
    log.maintain(1, 1)  # seals what is full
    assert log.cut_back() == 61
    assert (log.next, log.confirmed) == (20, 20)
    assert log.cut_back() == 0
    log.follow(20, make(20, 50, salt=1))
    log.maintain(1, 1)
    log.close()
    assert values(tmp_path) == [*range(1, 20), *range(21, 71)]
    again = FollowerLog(tmp_path, "numbers", IDENTITY, NUMBER, TINY, Followed(SESSION, 0, 0, 1), now_ns=1)
    assert (again.damaged, again.next) == (0, 70)
    again.close()
