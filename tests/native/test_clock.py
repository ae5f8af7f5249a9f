"""The clock of stamps beside the system's."""

from __future__ import annotations

import platform
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from native.clock import anchored, stamp_counter, stamp_ns

NEAR_NS = 1_000
SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


@dataclass
class Watched:
    stamps: int = 0
    far: int = 0
    """Further than a microsecond from both readings of the system's clock around it."""
    by_counter: int = 0
    stepped: bool = False
    """The system's clock was set meanwhile: then a stamp may lag for a millisecond."""


def watch(seconds: float) -> Watched:
    found = Watched()
    until_s, offset_ns = time.monotonic() + seconds, time.time_ns() - time.monotonic_ns()
    while time.monotonic() < until_s:
        for _ in range(200):
            before_ns = time.time_ns()
            now_ns = stamp_ns()
            after_ns = time.time_ns()
            found.far += not before_ns - NEAR_NS <= now_ns <= after_ns + NEAR_NS
            found.stamps += 1
            found.by_counter += anchored()
    found.stepped = abs(time.time_ns() - time.monotonic_ns() - offset_ns) > 100_000
    return found


def test_a_stamp_is_the_time() -> None:
    found = watch(1.2)  # the counter's rate is measured again meanwhile
    assert found.stamps > 10_000
    assert found.far == 0 or found.stepped, found
    if stamp_counter():
        assert found.by_counter > found.stamps // 2, found


def test_each_thread_has_its_own_anchor() -> None:
    found: list[Watched] = []
    threads = [threading.Thread(target=lambda: found.append(watch(0.1))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 4
    assert all(each.far == 0 or each.stepped for each in found), found


def test_who_stamps_seldom_reads_the_systems_clock() -> None:
    stamp_ns()
    time.sleep(0.02)  # longer than an anchor holds
    stamp_ns()
    assert not anchored()


@pytest.mark.skipif(not SOURCE.exists(), reason="the system does not say by what it keeps time")
def test_the_counter_is_used_where_the_system_keeps_time_by_it() -> None:
    by_tsc = SOURCE.read_text().strip() == "tsc" and platform.machine() == "x86_64"
    assert stamp_counter() == ("tsc" if by_tsc else "")
