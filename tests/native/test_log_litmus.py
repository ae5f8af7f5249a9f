"""The log's memory ordering as a program of its own, plainly and under ThreadSanitizer; broken on purpose it must fail."""

from __future__ import annotations

import pytest
from litmus import NATIVE, RACE, TESTS, needs_compiler, program, run, sanitized

pytestmark = needs_compiler
COMMIT = (TESTS / "log_litmus.c",)
FOLLOW = (TESTS / "follow_litmus.c", NATIVE / "log_follow_impl.c")


def test_nothing_is_torn_or_late(tmp_path):
    binary = program(tmp_path, COMMIT)
    assert binary is not None
    done = run(binary)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wake_up_that_is_left_out_is_noticed(tmp_path):
    binary = program(tmp_path, COMMIT, "-DBROKEN_WAKE")
    assert binary is not None
    assert run(binary).returncode == 1


def test_thread_sanitizer_finds_no_race(tmp_path):
    done = run(sanitized(tmp_path, COMMIT))
    assert done.returncode == 0, done.stderr[:3000]


def test_a_commit_without_release_is_a_race(tmp_path):
    done = run(sanitized(tmp_path, COMMIT, "-DBROKEN_COMMIT"))
    assert done.returncode == RACE, done.stdout
    assert "data race" in done.stderr


# Several logs at once


def test_nobody_who_sleeps_on_several_logs_misses_a_commit_or_a_poke(tmp_path):
    binary = program(tmp_path, FOLLOW)
    assert binary is not None
    done = run(binary)
    print(done.stdout)  # how long a sleep lasted beyond a commit
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "broken", ["BROKEN_WAKE", "BROKEN_LOOK", pytest.param("BROKEN_POKE", marks=pytest.mark.soak)]
)  # the poke's needs a moment that a busy machine may not give
def test_a_sleep_that_goes_on_is_noticed(tmp_path, broken):
    binary = program(tmp_path, FOLLOW, "-DCOMMITS=20000", f"-D{broken}")
    assert binary is not None
    assert run(binary).returncode == 1


def test_thread_sanitizer_finds_no_race_between_followers(tmp_path):
    done = run(sanitized(tmp_path, FOLLOW, "-DCOMMITS=20000", "-DPOKES=3000"))
    assert done.returncode == 0, done.stdout + done.stderr[:3000]
