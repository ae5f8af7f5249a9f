"""Waiting for what comes in: no longer than it takes to come, and no wake-up is lost."""

from __future__ import annotations

import threading

from fabric.runtime.wake import Wake

LONG_NS = 60 * 10**9


def test_a_wait_ends_when_it_is_set_before_or_meanwhile() -> None:
    wake = Wake()
    for _ in range(3):
        wake.set()
    wake.wait(LONG_NS)
    thread = threading.Thread(target=wake.set)
    thread.start()
    wake.wait(LONG_NS)
    thread.join()
    wake.wait(0)
    wake.close()


def test_no_wake_up_is_lost_however_both_sides_interleave() -> None:
    wake, rounds = Wake(), 20_000
    made = taken = 0

    def make() -> None:
        nonlocal made
        for _ in range(rounds):
            made += 1
            wake.set()

    thread = threading.Thread(target=make)
    thread.start()
    while taken < rounds:
        if made > taken:
            taken = made
        else:
            wake.wait(LONG_NS)  # the test's own time limit is shorter
    thread.join()
    wake.close()


def test_a_late_set_is_harmless() -> None:
    wake = Wake()
    wake.close()
    wake.set()
    wake.close()
