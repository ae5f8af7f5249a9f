"""How far a catch-up has come, reckoned from where it stands at what time."""

from __future__ import annotations

import pytest

from fabric.cli.tap import _Progress
from fabric.cli.top import _progress
from fabric.protocol.progress import WORTH_TELLING_RECORDS, CatchUp, CaughtUp, Progress

SECOND_NS = 1_000_000_000
SESSION, NEWER = 5 << 32 | 1, 6 << 32 | 1


def test_rate_and_time_left_are_of_what_still_has_to_come() -> None:
    catch_up = CatchUp()
    assert catch_up.note(SESSION, 1_000, 51_000, 0, under_way=True) is None
    first = catch_up.progress
    assert first is not None
    assert (first.position, first.target, first.rate, first.left_s, first.share) == (1_000, 51_000, 0.0, None, 0.0)
    catch_up.note(SESSION, 21_000, 56_000, 2 * SECOND_NS, under_way=True)
    now = catch_up.progress
    assert now is not None
    assert now.rate == pytest.approx(10_000)
    assert now.remaining == 35_000
    assert now.left_s == pytest.approx(35_000 / (10_000 - 2_500))  # 2,500 a second are published meanwhile
    assert now.share == pytest.approx(20_000 / 55_000)
    assert str(now) == "at 21,000 of 56,000 (36%), 10,000 records/s, 4.7 s left"


def test_one_that_does_not_come_nearer_has_no_end() -> None:
    catch_up = CatchUp()
    for second in range(4):
        catch_up.note(SESSION, 1_000 * second, 90_000 + 1_500 * second, second * SECOND_NS, under_way=True)
    assert catch_up.progress is not None
    assert catch_up.progress.rate == pytest.approx(1_000)
    assert catch_up.progress.left_s is None
    assert "unknown" in str(catch_up.progress)


def test_the_rate_is_of_the_last_seconds() -> None:
    catch_up = CatchUp()
    position = 0
    for tenth in range(200):
        position += 100 if tenth < 100 else 1_000
        catch_up.note(SESSION, position, 10_000_000, tenth * SECOND_NS // 10, under_way=True)
    assert catch_up.progress is not None
    assert catch_up.progress.rate == pytest.approx(10_000, rel=0.01)


def test_samples_do_not_grow_with_time_or_notes() -> None:
    catch_up = CatchUp()
    for note in range(20_000):
        catch_up.note(SESSION, note, 1_000_000, note * SECOND_NS // 1_000, under_way=True)
    assert len(catch_up._samples) <= 52


def test_a_large_one_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    catch_up = CatchUp()
    target = WORTH_TELLING_RECORDS + 10
    begun = catch_up.note(SESSION, 5, target, 0, under_way=True)
    assert isinstance(begun, Progress)
    assert begun.remaining == WORTH_TELLING_RECORDS + 5
    assert catch_up.note(SESSION, 7, target, SECOND_NS, under_way=True) is None
    over = catch_up.note(SESSION, target, target, 4 * SECOND_NS, under_way=False)
    assert over == CaughtUp(WORTH_TELLING_RECORDS + 5, 4.0)
    assert str(over) == "100,005 records in 4.0 s (25,001 a second)"
    assert catch_up.progress is None
    assert catch_up.note(SESSION, target, target, 5 * SECOND_NS, under_way=False) is None


def test_a_small_one_is_shown_and_not_told() -> None:
    catch_up = CatchUp()
    assert catch_up.note(SESSION, 0, WORTH_TELLING_RECORDS - 1, 0, under_way=True) is None
    assert catch_up.progress is not None
    assert catch_up.note(SESSION, 9, 9, 1, under_way=False) is None


def test_a_newer_session_is_another_catch_up() -> None:
    catch_up = CatchUp()
    catch_up.note(SESSION, 0, 2 * WORTH_TELLING_RECORDS, 0, under_way=True)
    catch_up.note(SESSION, 500, 2 * WORTH_TELLING_RECORDS, SECOND_NS, under_way=True)
    over = catch_up.note(NEWER, 0, 40, 2 * SECOND_NS, under_way=True)
    assert isinstance(over, CaughtUp)
    assert over.records == 500
    assert catch_up.progress is not None
    assert (catch_up.progress.begun, catch_up.progress.target, catch_up.progress.records) == (0, 40, 0)


def test_tap_tells_it_each_second_and_nothing_of_a_short_one() -> None:
    tap = _Progress()
    short = Progress(0, 5, 10, 5.0, 1.0, 5, 0.2)
    long = Progress(0, 5, 10, 5.0, 1.0, 5, 1.5)
    assert [tap.line(short, 10.0), tap.line(None, 10.1)] == ["", ""]
    assert tap.line(long, 11.0) == "# catching up: at 5 of 10 (50%), 5 records/s, 1.0 s left"
    assert tap.line(long, 11.5) == ""
    assert tap.line(long, 12.0) != ""
    assert [tap.line(None, 12.1), tap.line(None, 12.2)] == ["# caught up", ""]


def test_top_shows_it_in_a_few_words() -> None:
    shown = {"position": 5, "target": 10, "share": 0.5, "rate": 1_200_000.0, "left_s": 7.2}
    assert _progress(shown) == "50%, 1,200,000/s, 7s left"
    assert _progress(shown | {"left_s": None}) == "50%, 1,200,000/s"
