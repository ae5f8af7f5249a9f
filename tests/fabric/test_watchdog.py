"""When a process counts as hung: time without progress, counted only while somebody looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fabric.runtime.page import NodeState
from fabric.supervise.watchdog import LOOK_NS, MOST_NS, RESUMING_FACTOR, Watchdog, progress_of, stopped, traced

SECOND = 1_000_000_000


def first_hang_ns(watchdog: Watchdog, progress: object, until_ns: int, *, factor: int = 1) -> int | None:
    """When looking four times a second at something that stands still tells of a hang."""
    for now_ns in range(0, until_ns, LOOK_NS):
        if watchdog.look(progress, now_ns, factor=factor):
            return now_ns
    return None


def test_what_stands_still_for_its_patience_hangs_and_a_pause_of_two_seconds_does_not() -> None:
    assert first_hang_ns(Watchdog(5 * SECOND), (1, 3, 7), 2 * SECOND) is None
    assert first_hang_ns(Watchdog(5 * SECOND), (1, 3, 7), 10 * SECOND) == 5 * SECOND
    assert first_hang_ns(Watchdog(5 * SECOND), (1, 2, 7), 60 * SECOND, factor=6) == 30 * SECOND


def test_never_with_no_patience_nor_where_no_progress_is_expected() -> None:
    assert first_hang_ns(Watchdog(0), (1, 3, 7), 600 * SECOND) is None
    assert first_hang_ns(Watchdog(SECOND), None, 600 * SECOND) is None


def test_progress_starts_the_count_anew() -> None:
    watchdog = Watchdog(SECOND)
    for number in range(100):
        assert not watchdog.look((1, 3, number // 4), number * LOOK_NS)
    assert not watchdog.look(None, 101 * LOOK_NS)  # it is starting again
    assert [watchdog.look((2, 3, 0), (102 + number) * LOOK_NS) for number in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize("asleep_ns", [10 * SECOND, 3600 * SECOND, -5 * SECOND])
def test_a_machine_that_was_suspended_is_no_hang(asleep_ns: int) -> None:
    watchdog = Watchdog(SECOND)
    assert not watchdog.look((1, 3, 7), 0)
    assert not watchdog.look((1, 3, 7), asleep_ns)
    assert not watchdog.look((1, 3, 8), asleep_ns + LOOK_NS)
    assert MOST_NS < SECOND


def test_an_excuse_starts_the_count_anew() -> None:
    watchdog = Watchdog(SECOND)
    assert first_hang_ns(watchdog, (1, 3, 7), 2 * SECOND) == SECOND
    watchdog.excuse()
    assert not watchdog.look((1, 3, 7), SECOND + LOOK_NS)


def test_what_is_watched_depends_on_the_state() -> None:
    for state in (NodeState.NEW, NodeState.STARTING, NodeState.STOPPED, NodeState.FAILED):
        assert progress_of(1, state, 7) == (None, 1)
    for state in (NodeState.RUNNING, NodeState.DONE):
        assert progress_of(1, state, 7) == ((1, state, 7), 1)
    assert progress_of(1, NodeState.RESUMING, 7)[1] == RESUMING_FACTOR


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="there is no /proc")  # noqa: PTH110
def test_a_stopped_process_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while not stopped(process.pid):
            assert time.monotonic() < deadline
        assert not traced(process.pid)
        process.kill()
    assert not stopped(process.pid)
