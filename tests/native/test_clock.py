"""The clock of stamps beside the system's."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from native.clock import stamp_counter, stamp_ns

NEAR_NS = 1_000
SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


def watch(seconds: float) -> tuple[int, int, int]:
    """Stamps, those that were further than a microsecond from both readings of the system's clock around them, and those that
    went back."""
    stamps = far = back = 0
    until_s, last_ns = time.monotonic() + seconds, 0
    while time.monotonic() < until_s:
        for _ in range(200):
            before_ns = time.time_ns()
            now_ns = stamp_ns()
            after_ns = time.time_ns()
            far += not before_ns - NEAR_NS <= now_ns <= after_ns + NEAR_NS
            back += now_ns < last_ns
            stamps, last_ns = stamps + 1, now_ns
    return stamps, far, back


def test_a_stamp_is_the_time() -> None:
    stamps, far, back = watch(1.2)  # the counter's rate is measured again meanwhile
    assert stamps > 10_000
    assert (far, back) == (0, 0), stamps


def test_each_thread_has_its_own_anchor() -> None:
    found: list[tuple[int, int, int]] = []
    threads = [threading.Thread(target=lambda: found.append(watch(0.1))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [(far, back) for _, far, back in found] == [(0, 0)] * 4


@pytest.mark.skipif(not SOURCE.exists(), reason="the system does not say by what it keeps time")
def test_the_counter_is_used_where_the_system_keeps_time_by_it() -> None:
    import platform

    by_tsc = SOURCE.read_text().strip() == "tsc" and platform.machine() == "x86_64"
    assert stamp_counter() == ("tsc" if by_tsc else "")
