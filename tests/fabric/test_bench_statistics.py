"""The bench's own arithmetic: percentiles, ratios, the disturbance rule, rounds, the check of records, plot and JSON."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess

import numpy as np
import pytest

from fabric.bench import records as layout
from fabric.bench.case import Case, Options
from fabric.bench.disturbance import SHARE, SLACK_NS, Snapshot, disturbed, idle_ticks, others_share
from fabric.bench.goals import GOALS
from fabric.bench.job import FLOOD, PACED, Contestant
from fabric.bench.output import result_plain, result_text
from fabric.bench.page import render
from fabric.bench.peers import c_code
from fabric.bench.plot import percentile_plot
from fabric.bench.process import RunFailed
from fabric.bench.results import curve_of, result_of
from fabric.bench.rounds import Runs, complete, race
from fabric.bench.single import Measured
from fabric.bench.statistics import histogram_of, percentile, percentiles, ratio_of_pairs
from fabric.cli.main import run_cli

# Percentiles and ratios


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed():
    rng = random.Random(1)
    for count in (1, 2, 3, 10, 99, 100, 101, 1000):
        values = np.sort(np.array([rng.randrange(10**6) for _ in range(count)]))
        for percent in (0.1, 50.0, 90.0, 99.0, 99.9, 100.0):
            found = percentile(values, percent)
            assert np.count_nonzero(values <= found) >= percent / 100 * count - 1e-6
            assert np.count_nonzero(values < found) < percent / 100 * count + 1e-6
    assert math.isnan(percentile(np.zeros(0), 50.0))


def test_percentiles_of_one_to_a_thousand():
    values = np.arange(1000, 0, -1)
    assert percentiles(values) == {"50": 500.0, "90": 900.0, "99": 990.0, "99.9": 999.0, "max": 1000.0}


def test_the_histogram_has_the_same_percentiles_within_its_digits():
    values = np.random.default_rng(1).lognormal(10.0, 1.0, 5000).astype(np.int64)
    histogram = histogram_of(values)
    assert histogram.count == len(values)
    for name, exact in percentiles(values).items():
        if name != "max":
            assert histogram.percentile_ns(float(name)) == pytest.approx(exact, rel=0.01)


def test_a_ratio_is_of_pairs_and_not_of_medians():
    # The machine is ten times slower in half of the rounds: each pair still says two.
    speed = np.array([1.0, 10.0] * 8)
    ratio = ratio_of_pairs(list(2.0 * speed), list(speed))
    assert (ratio.median, ratio.low, ratio.high, ratio.pairs) == (2.0, 2.0, 2.0, 16)


def test_the_interval_holds_the_median_and_is_the_same_each_time():
    rng = np.random.default_rng(5)
    ours, theirs = rng.normal(1.0, 0.05, 15), rng.normal(3.0, 0.3, 15)
    ratio = ratio_of_pairs(list(theirs), list(ours))
    assert ratio.low < ratio.median < ratio.high
    assert 2.5 < ratio.low < ratio.high < 3.5
    assert ratio == ratio_of_pairs(list(theirs), list(ours))


def test_there_must_be_pairs():
    with pytest.raises(ValueError, match="pairs"):
        ratio_of_pairs([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="pairs"):
        ratio_of_pairs([], [])


# The disturbance rule

STAT = """cpu  100 0 50 1000 20 1 2 30 0 0
cpu0 60 0 30 400 10 1 1 10 5 0
cpu1 40 0 20 600 10 0 1 20 0 0
intr 12345
cpu7 is not one of them
"""


def test_idle_time_of_the_counted_cpus():
    assert idle_ticks(STAT, []) == (400 + 10 + 600 + 10, 2)
    assert idle_ticks(STAT, [1]) == (600 + 10, 1)


def test_a_run_is_disturbed_by_what_others_used_and_not_by_itself():
    busy_ns = 1_900_000_000
    before = Snapshot(0, 500, 2)
    after = Snapshot(1_000_000_000, 500 + 2_000_000_000 - busy_ns, 2)  # one second of two CPUs, almost all of it used
    assert others_share(before, after, busy_ns) == 0.0
    assert not disturbed(others_share(before, after, busy_ns - SLACK_NS))
    most_ns = int(SHARE * 2e9) + SLACK_NS
    assert not disturbed(others_share(before, after, busy_ns - most_ns + 1_000_000))
    assert disturbed(others_share(before, after, busy_ns - most_ns - 1_000_000))


def test_nothing_is_disturbed_where_the_system_does_not_tell():
    assert others_share(None, Snapshot(1, 1, 1), 0) == 0.0
    assert others_share(Snapshot(5, 0, 1), Snapshot(5, 9, 1), 0) == 0.0


# Rounds


def contestant(name: str, *, ours: bool = False) -> Contestant:
    return Contestant(name, "", "ipc", frozenset({PACED, FLOOD}), "none", ours=ours)


OURS, PEER = contestant("ours ipc", ours=True), contestant("peer ipc")


def measured(rate: float = 100.0, others: float = 0.0) -> Measured:
    return Measured(rate, 1.0, others)


def test_contestants_take_turns_and_are_paired_by_round():
    order = []

    def measure(job, cpus):
        order.append(job.contestant)
        return measured(300.0 if job.contestant == "ours ipc" else 100.0)

    case = Case("throughput", "x")
    runners = race(case, [OURS, PEER], Options(rounds=4), [0, 1], measure=measure)
    assert order == ["ours ipc", "peer ipc"] * 5  # a first run each, to know how much a second is
    (comparison,) = result_of(case, runners).comparisons
    assert (comparison.ratio.median, comparison.ratio.pairs) == (3.0, 4)


def test_a_disturbed_run_is_repeated_at_once():
    answers = iter([measured(), measured(others=0.5), measured(7.0), measured(8.0)])
    (runs,) = race(Case("throughput", "x"), [OURS], Options(rounds=2), [], measure=lambda job, cpus: next(answers))
    assert [run.rate for run in runs.good] == [7.0, 8.0]
    assert (runs.dropped, runs.filled) == (1, 0)


def test_a_round_that_stays_disturbed_is_dropped_and_made_again():
    count = 0

    def measure(job, cpus):
        nonlocal count
        count += 1
        return measured(float(count), 0.5 if 2 <= count <= 4 else 0.0)

    (runs,) = race(Case("throughput", "x"), [OURS], Options(rounds=2), [], measure=measure)
    assert runs.kept[0] is None
    assert [run.rate for run in runs.good] == [5.0, 6.0]
    assert (runs.dropped, runs.filled) == (3, 0)


def test_always_disturbed_ends_and_the_output_says_so():
    random_share = random.Random(3)
    case = Case("throughput", "x")
    (runs,) = race(
        case, [OURS], Options(rounds=4), [],
        measure=lambda job, cpus: measured(others=0.2 + random_share.random()),
    )  # fmt: skip
    assert len(runs.good) == runs.filled == 4
    assert max(run.others for run in runs.good) <= sorted(run.others for _, run in runs.disturbed)[12]
    assert "disturbed in 4 of 4 rounds" in result_text(result_of(case, [runs]))


def test_rounds_are_completed_whole_so_that_there_are_pairs():
    # In even rounds ours is always disturbed, in odd ones the peer: no round is complete by itself.
    case = Case("throughput", "x")
    first: set[str] = set()

    def measure(job, cpus):
        if job.contestant not in first:  # the run that tells how much a second is
            first.add(job.contestant)
            return measured()
        turn = job.seed % 2 == (0 if job.contestant == "ours ipc" else 1)
        return measured(others=0.2 + job.seed / 10 if turn else 0.0)

    runners = race(case, [OURS, PEER], Options(rounds=4), [], measure=measure)
    assert [len(runs.kept) for runs in runners] == [6, 6]
    assert complete(runners) == [0, 1, 2, 3]  # the least disturbed
    (comparison,) = result_of(case, runners).comparisons
    assert comparison.ratio.pairs == 4
    assert [runs.filled for runs in runners] == [2, 2]


def test_who_fails_is_out_and_the_others_go_on():
    def measure(job, cpus):
        if job.contestant == "peer ipc" and job.seed == 2:
            raise RunFailed("peer ipc: 99 records arrived, 100 were sent")
        return measured()

    case = Case("throughput", "x")
    result = result_of(case, race(case, [OURS, PEER], Options(rounds=4), [], measure=measure))
    assert [row.contestant.name for row in result.rows] == ["ours ipc"]
    assert "FAILED peer ipc: 99 records arrived" in result_text(result)


# The check of what arrived


@pytest.mark.parametrize("size", [64, 128, 1024])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_change_of_what_was_sent_is_found(size, channels):
    sent = layout.make(30, size, channels, seed=4)
    assert layout.problem_of(sent, 30, size, channels, 4) == ""
    assert "29 records arrived" in layout.problem_of(sent[1:], 30, size, channels, 4)
    assert "number is" in layout.problem_of(sent[[*range(30)][::-1]], 30, size, channels, 4)
    assert layout.problem_of(sent, 30, size, channels, 5)
    twice = sent.copy()
    twice[7] = twice[6 if channels == 1 else 4]
    assert layout.problem_of(twice, 30, size, channels, 4)
    for byte in [*range(32, size, 8)]:
        changed = np.frombuffer(bytearray(sent.tobytes()), np.uint8).copy()
        changed[17 * size + byte] ^= 1
        assert layout.problem_of(changed.view(sent.dtype), 30, size, channels, 4)


def test_channels_may_overtake_one_another_but_not_themselves():
    sent = layout.make(9, 64, 3)
    assert layout.problem_of(sent[[0, 3, 6, 2, 5, 1, 4, 8, 7]], 9, 64, 3) == ""
    assert layout.problem_of(sent[[3, 0, 6, 2, 5, 1, 4, 8, 7]], 9, 64, 3)


def test_values_packed_by_hand_are_the_record():
    made = layout.make(5, 64)
    packed = b"".join(layout.WHOLE.pack(0, 0, 0, 0, 1, n, n * 0.5, n * 0.5 + 0.25, n % 1000 + 1.0) for n in range(5))
    assert packed == made.tobytes()


# C, where it can be compiled


def test_without_a_compiler_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert c_code._build.__wrapped__()[1] == "there is no C compiler"
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'peers.c:1: error: broken' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert c_code._build.__wrapped__()[1] == "it does not compile: peers.c:1: error: broken"
    assert not [*tmp_path.rglob("*.so")]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_c_is_compiled_once_and_without_warnings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    made, why = c_code._build.__wrapped__()
    assert why == ""
    first_ns = made.stat().st_mtime_ns
    assert c_code._build.__wrapped__() == (made, "")
    assert made.stat().st_mtime_ns == first_ns
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(c_code._SOURCE)]
    assert subprocess.run(command, check=False).returncode == 0


# Goals


def test_a_goal_is_met_by_the_lower_end_of_the_interval(monkeypatch):
    monkeypatch.setitem(GOALS, ("latency", "same-cpu <b>", "ours ipc", "peer ipc"), 1.5)
    result = latency_result()
    assert result.comparisons[0].met is True
    assert "1.5 met" in result_text(result)
    monkeypatch.setitem(GOALS, ("latency", "same-cpu <b>", "ours ipc", "peer ipc"), 2.5)
    assert "2.5 MISSED" in result_text(latency_result())


# Plot, page, JSON


def latency_result():
    rng = np.random.default_rng(2)
    case = Case("latency", "same-cpu <b>", PACED, rate=1000.0)
    runners = []
    for entered, scale in ((OURS, 1.0), (PEER, 2.0)):
        runs = Runs(entered, 1000)
        for _ in range(3):
            values = (scale * rng.lognormal(10.0, 0.5, 1000)).astype(np.int64)
            runs.kept.append(Measured(1000.0, 2.0, 0.0, {}, values, values))
        runners.append(runs)
    return result_of(case, runners)


def test_the_curve_rises_and_ends_where_values_do():
    curve = curve_of(histogram_of(np.arange(1, 1001, dtype=np.int64) * 1000))
    assert curve[0][0] == 0.0
    assert 99.8 < curve[-1][0] <= 99.9 + 1e-6
    assert [value for _, value in curve] == sorted(value for _, value in curve)
    assert curve_of(histogram_of(np.zeros(0, np.int64))) == []


def test_the_plot_has_every_contestant_and_needs_no_network():
    result = latency_result()
    page = render([result], {"cpu": "A & B"}, {"<i>": "not installed"})
    assert page.count("<path") > 4
    assert "ours ipc (block)" in page
    assert "peer ipc (block)" in page
    assert "A &amp; B" in page
    assert "<b>" not in page.replace("<b>Nothing", "")
    assert "&lt;i&gt;" in page
    for word in ("http://", "https://", "<script", "<link", "url("):
        assert word not in page


def test_a_plot_of_nothing_is_a_plot():
    assert "<svg" in percentile_plot("nothing", {"a": []})
    assert "<svg" in percentile_plot("one value", {"a": [(0.0, 5)]})


def test_json_has_every_figure_and_no_nan():
    plain = json.loads(json.dumps(result_plain(latency_result()), allow_nan=False))
    ours, peer = plain["contestants"]
    assert ours["verified"] is True
    assert ours["latency_ns"]["50"] < ours["latency_ns"]["99.9"]
    assert len(ours["runs"]) == 3
    (ratio,) = plain["ratios"]
    assert (ratio["ours"], ratio["peer"], ratio["pairs"]) == ("ours ipc", "peer ipc", 3)
    assert ratio["median"] == pytest.approx(peer["latency_ns"]["50"] / ours["latency_ns"]["50"], rel=0.1)
    assert "CPU a" in plain["topology"]


# The command line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["latencies"], "did you mean 'latency'"),
        (["--rounds", "0"], "--rounds 0"),
        (["--seconds", "900"], "--seconds 900"),
        (["--rate", "5"], "--rate 5"),
        (["--json", "/nowhere/at/all.json"], "there is no folder"),
        (["--html", "/nowhere/at/all.html"], "there is no folder"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(arguments, says, capsys):
    assert run_cli(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
