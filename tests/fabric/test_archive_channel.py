"""What an archived channel writes down, of what its subscription hands out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fabric
from fabric.archive import channel as archive_channel
from fabric.archive.channel import ArchivedChannel
from fabric.log import LogOptions, LogReader
from fabric.log.paths import session_name
from fabric.protocol.events import SESSION_LEFT_UNKNOWN, Diverged, Lost, Session
from fabric.protocol.types import Origin, Run
from fabric.records import Flags, Records

NUMBER = fabric.record("archived_number", value="u8")
S, NEWER = 5 << 32 | 1, 6 << 32 | 2
NOW = 1_700_000_000_000_000_000


def run(first: int, count: int, session: int = S, *, ends: bool = True) -> Run:
    records: Records = NUMBER.build(count, value=np.arange(first, first + count), ts_publish_ns=NOW)
    if ends:
        records["flags"][-1] = Flags.LAST_IN_EVENT
    return Run(Origin.LIVE, session, first, first + count - 1, records)


def archived(path: Path, *items: object) -> ArchivedChannel:
    made = ArchivedChannel("numbers", path, LogOptions(2 << 16, 0, 1 << 16))
    for item in items:
        made.take(item, NUMBER, None, NOW)  # type: ignore[arg-type]
    return made


def test_where_a_session_ends_that_nobody_knows_is_not_claimed_nor_how_the_next_one_goes_on(tmp_path: Path) -> None:
    unknown = Lost(S, 4, 3, SESSION_LEFT_UNKNOWN)
    made = archived(tmp_path, Session(0, S), run(1, 3), unknown, Session(S, NEWER), run(1, 1, NEWER))
    made.close()
    newer = LogReader(tmp_path)
    assert (newer.session, newer.control.parent_session, newer.control.fork_sequence) == (NEWER, 0, 0)


@pytest.mark.parametrize(("diverged", "fork"), [((), 3), ((Diverged(2, 3),), 1)])
def test_how_the_next_one_goes_on_is_kept_where_it_is_known(
    tmp_path: Path, diverged: tuple[Diverged, ...], fork: int
) -> None:
    archived(tmp_path, Session(0, S), run(1, 3), *diverged, Session(S, NEWER)).close()
    control = LogReader(tmp_path).control
    assert (control.parent_session, control.fork_sequence) == (S, fork)


@pytest.mark.parametrize(("diverged", "kept"), [((), 8), ((Diverged(6, 8),), 5), ((Diverged(3, 8),), 3)])
def test_of_an_event_that_was_cut_what_is_below_the_fork_is_kept(
    tmp_path: Path, diverged: tuple[Diverged, ...], kept: int
) -> None:
    made = archived(tmp_path, Session(0, S), run(1, 3), run(4, 5, ends=False), *diverged, Session(S, NEWER))
    made.close()
    assert not made.log
    log = LogReader(tmp_path / session_name(S))
    assert [int(each) for _, view in log.read_range(1, log.next - 1) for each in view["value"]] == list(
        range(1, kept + 1)
    )
    fork = diverged[0].first - 1 if diverged else kept
    assert LogReader(tmp_path).control.fork_sequence == fork


def test_an_event_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_channel, "MOST_PARTIAL_RECORDS", 10)
    made = archived(tmp_path, Session(0, S), run(1, 6, ends=False))
    assert made.log is not None
    assert made.log.next == 1
    made.take(run(7, 6, ends=False), NUMBER, None, NOW)
    assert made.log.next == 13
    made.take(run(13, 2), NUMBER, None, NOW)
    assert (made.log.next, made.counters.partial_most) == (15, 12)
    made.close()
    log = LogReader(tmp_path)
    assert [int(each) for _, view in log.read_range(1, 14) for each in view["value"]] == list(range(1, 15))
