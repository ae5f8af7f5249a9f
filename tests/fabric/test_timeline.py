"""The timeline of a node's inputs and the lives of processes: bins, folding, going on after a kill, damage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fabric.runtime.gauges import STATES
from fabric.runtime.timeline import BINS, COUNTS, FIRST_WIDTH_NS, STALE_BIT, Timeline, read_timeline
from fabric.supervise.lives import Life, Lives, read_lives

LIVE, RECOVERING = 1 << STATES.index("LIVE"), 1 << STATES.index("RECOVERING")
BEGAN = 1_700_000_000 * 10**9
INPUTS = [("quote", "d.quote"), ("greeks", "d.greeks")]
NOTHING = (0, 0, 0, 0, 0)


def counts(missed: int, recovered: int = 0, lost: int = 0) -> tuple[int, ...]:
    return tuple({"missed": missed, "recovered": recovered, "lost": lost}.get(name, 0) for name in COUNTS)


def started(path: Path) -> Timeline:
    timeline = Timeline(path, INPUTS)
    timeline.start_from([NOTHING, NOTHING])
    return timeline


def test_what_is_new_goes_into_the_bin_of_its_time(tmp_path: Path) -> None:
    timeline = started(tmp_path / "t")
    timeline.note(BEGAN + 7, [counts(2), NOTHING], [LIVE, LIVE])
    timeline.note(BEGAN + FIRST_WIDTH_NS, [counts(2, 1), counts(5)], [RECOVERING, LIVE | STALE_BIT])
    timeline.note(BEGAN + 4 * FIRST_WIDTH_NS, [counts(3, 3, 1), counts(5)], [LIVE, LIVE])
    view = read_timeline(tmp_path / "t")
    assert view is not None
    assert (view.began_ns, view.width_ns, view.inputs) == (BEGAN, FIRST_WIDTH_NS, INPUTS)
    assert view.ended_ns == BEGAN + 5 * FIRST_WIDTH_NS
    assert view.bins["missed"].tolist() == [[2, 0, 0, 0, 1], [0, 5, 0, 0, 0]]
    assert view.bins["recovered"].tolist() == [[0, 1, 0, 0, 2], [0, 0, 0, 0, 0]]
    assert view.bins["lost"].tolist() == [[0, 0, 0, 0, 1], [0] * 5]
    # Between two looks nothing else was to be seen, and a bin holds all that was seen in it.
    assert view.bins["states"].tolist() == [
        [LIVE, RECOVERING, LIVE, LIVE, LIVE],
        [LIVE, LIVE | STALE_BIT, LIVE, LIVE, LIVE],
    ]


def test_a_run_longer_than_all_bins_keeps_every_count_in_a_file_of_the_same_size(tmp_path: Path) -> None:
    path = tmp_path / "t"
    timeline = started(path)
    size = path.stat().st_size
    looks = 5 * BINS
    for look in range(looks):
        timeline.note(BEGAN + look * FIRST_WIDTH_NS, [counts(look + 1), counts(0, look)], [LIVE, LIVE])
    view = read_timeline(path)
    assert view is not None
    assert path.stat().st_size == size
    assert view.width_ns == 8 * FIRST_WIDTH_NS
    assert view.bins.shape == (2, 5 * BINS // 8)
    assert (view.bins["missed"][0] == 8).all()
    assert view.bins["recovered"][1].sum() == looks - 1
    assert (view.bins["states"] == LIVE).all()


def test_without_room_for_a_fold_nothing_ends_and_nothing_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fabric.runtime.timeline.write_atomically", full)
    timeline = started(tmp_path / "t")
    for look in (0, BINS, 2 * BINS):
        timeline.note(BEGAN + look * FIRST_WIDTH_NS, [counts(look + 1), NOTHING], [LIVE, LIVE])
    view = read_timeline(tmp_path / "t")
    assert view is not None
    assert (view.width_ns, view.bins.shape) == (FIRST_WIDTH_NS, (2, BINS))
    assert view.bins["missed"][0][[0, BINS - 1]].tolist() == [1, 2 * BINS]


def test_another_life_goes_on_and_the_time_between_is_nobodys(tmp_path: Path) -> None:
    timeline = started(tmp_path / "t")
    timeline.note(BEGAN, [counts(4), NOTHING], [LIVE, LIVE])
    again = Timeline(tmp_path / "t", INPUTS)  # the first one was killed: never closed
    again.start_from([counts(4), NOTHING])
    again.note(BEGAN + 3 * FIRST_WIDTH_NS, [counts(6, 4), NOTHING], [LIVE, LIVE])
    view = read_timeline(tmp_path / "t")
    assert view is not None
    assert view.bins["missed"][0].tolist() == [4, 0, 0, 2]
    assert view.bins["recovered"][0].tolist() == [0, 0, 0, 4]
    assert view.bins["states"][0].tolist() == [LIVE, 0, 0, LIVE]


def test_clocks_that_step_and_jump(tmp_path: Path) -> None:
    timeline = started(tmp_path / "t")
    timeline.note(BEGAN, [counts(1), NOTHING], [LIVE, LIVE])
    timeline.note(BEGAN - 10**12, [counts(2), NOTHING], [LIVE, LIVE])
    timeline.note(BEGAN + 10**18, [counts(3), NOTHING], [LIVE, LIVE])
    view = read_timeline(tmp_path / "t")
    assert view is not None
    assert (view.bins["missed"].sum(), view.bins["missed"][0][0]) == (3, 2)


def test_other_inputs_begin_anew_and_damage_is_no_timeline(tmp_path: Path) -> None:
    path = tmp_path / "t"
    started(path).note(BEGAN, [counts(1), NOTHING], [LIVE, LIVE])
    assert read_timeline(path) is not None
    Timeline(path, INPUTS[:1])
    assert read_timeline(path) is None, "nothing noted yet"
    path.write_bytes(os.urandom(5000))
    assert read_timeline(path) is None
    path.write_bytes(b"")
    assert read_timeline(path) is None
    assert read_timeline(tmp_path / "none") is None
    with pytest.raises(ValueError, match="too many inputs"):
        Timeline(path, [(f"port{n}", "c" * 60) for n in range(100)])


def test_lives_pair_starts_with_ends(tmp_path: Path) -> None:
    times = iter(range(10, 100, 10))
    lives = Lives(tmp_path, lambda: next(times))
    lives.started("feed")
    lives.started("risk")
    lives.ended("feed", "killed by SIGKILL")
    lives.started("feed")
    with (tmp_path / "lives").open("a") as file:
        file.write('{"process": "fe')  # cut short
    assert read_lives(tmp_path) == {
        "feed": [Life(10, 30, "killed by SIGKILL"), Life(40)],
        "risk": [Life(20)],
    }
    assert read_lives(tmp_path / "none") == {}


def test_lives_never_fail_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Lives(tmp_path / "none").started("feed")
    monkeypatch.setattr("fabric.supervise.lives._MOST_LINES", 3)
    lives = Lives(tmp_path, lambda: 1)
    for _ in range(9):
        lives.started("feed")
    assert len(read_lives(tmp_path)["feed"]) == 3
