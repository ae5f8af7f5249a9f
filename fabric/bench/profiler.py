"""Where the time of a run goes: ``perf`` samples of all its threads while the clock runs, grouped by what they were doing.

Linux with ``perf`` only, as root or with kernel.perf_event_paranoid <= 1. Samples are of processor time (``cpu-clock``), so that
virtual machines without counters have them too; what sleeps has none.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fabric.bench.process import RunFailed, interrupt

_PERF_S = 10.0
SAMPLES_A_SECOND = 4_999
"""Of each busy CPU; no divisor of anything that runs by a timer."""
_HEAD = re.compile(r"^(?P<comm>.+?)\s+(?P<pid>\d+)/(?P<tid>\d+)\s*$")
_FRAME = re.compile(r"^\s+(?P<address>[0-9a-f]+) (?P<symbol>.+) \((?P<object>.+)\)$")
_SYSCALL = re.compile(r"__(?:x64|arm64|se)_sys_(\w+)")
_FAULTS = ("exc_page_fault", "do_page_fault", "do_mem_abort")
_MALLOC = re.compile(r"(malloc|calloc|realloc|free|malloc_consolidate|tcache|unlink_chunk|sysmalloc|arena)")


@dataclass(slots=True)
class Profile:
    """Samples by (role, thread), and what each was doing."""

    doing: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    symbols: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    def seconds(self, thread: tuple[str, str], what: str) -> float:
        return self.doing[thread][what] / SAMPLES_A_SECOND

    def merge(self, other: Profile) -> None:
        for thread, doing in other.doing.items():
            self.doing.setdefault(thread, Counter()).update(doing)
            self.symbols.setdefault(thread, Counter()).update(other.symbols[thread])

    @property
    def threads(self) -> list[tuple[str, str]]:
        """The busiest first."""
        return sorted(self.doing, key=lambda thread: -self.doing[thread].total())


def missing() -> str:
    """Why nothing can be sampled here; "" if it can."""
    if shutil.which("perf") is None:
        return "perf is not installed (Debian: apt-get install linux-perf)"
    paranoid = Path("/proc/sys/kernel/perf_event_paranoid")
    if os.geteuid() and int(paranoid.read_text()) > 1:
        return "kernel.perf_event_paranoid is above 1: run it as root, or lower it"
    return ""


@contextmanager
def sampled(pids: Iterable[int], data: Path) -> Iterator[None]:
    """What these processes do while the block runs is sampled into ``data``. Raises RunFailed."""
    with ExitStack() as stack:
        tell, told = (_pipe(stack) for _ in range(2))
        which = f"-e cpu-clock -F {SAMPLES_A_SECOND} -g -m 1024 -D -1 --control=fd:{tell[0]},{told[1]}"
        process = subprocess.Popen(
            ["perf", "record", "-q", *which.split(), "-p", ",".join(map(str, pids)), "-o", str(data)],
            pass_fds=(tell[0], told[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        stack.callback(interrupt, process, _PERF_S)
        if not _order(process, tell[1], told[0], b"enable\n"):
            interrupt(process, _PERF_S)
            said = process.stderr.read() if process.stderr is not None else b""
            raise RunFailed(f"perf does not sample: {said.decode(errors='replace').strip()[-300:]}")
        yield
        _order(process, tell[1], told[0], b"disable\n")  # it ends by itself with the last of the processes


def _pipe(stack: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends


def _order(process: subprocess.Popen[bytes], tell: int, told: int, what: bytes) -> bool:
    """Tell perf, and wait until it has done so; False if it has ended, or has not in time."""
    os.write(tell, what)  # a pipe that nobody reads takes so few bytes as well
    until_s = time.monotonic() + _PERF_S
    while process.poll() is None and time.monotonic() < until_s:
        if select.select([told], [], [], 0.05)[0]:
            return bool(os.read(told, 16))
    return False


def read(data: Path, roles: Mapping[int, str]) -> Profile:
    """The samples of these processes (pid to role). Raises RunFailed."""
    command = ["perf", "script", "--no-inline", "-i", str(data), "-F", "comm,pid,tid,ip,sym,dso"]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        raise RunFailed(f"perf can't read its samples: {said.stderr.strip()[-300:]}")
    profile = Profile()
    add(profile, said.stdout, roles)
    return profile


def add(profile: Profile, script: str, roles: Mapping[int, str]) -> None:
    """The samples of what ``perf script`` printed: a line with the thread, then its frames, innermost first."""
    for block in script.split("\n\n"):
        lines = block.strip("\n").splitlines()
        head = _HEAD.match(lines[0]) if lines else None
        frames = [match for match in map(_FRAME.match, lines[1:]) if match]
        if head is None or not frames or int(head["pid"]) not in roles:
            continue
        main = head["pid"] == head["tid"]
        thread = roles[int(head["pid"])], "main" if main else head["comm"]
        named = [(match["symbol"].partition("+")[0], match["object"]) for match in frames]
        profile.doing.setdefault(thread, Counter())[doing(named)] += 1
        profile.symbols.setdefault(thread, Counter())[f"{named[0][0]} ({Path(named[0][1]).name})"] += 1


def doing(frames: list[tuple[str, str]]) -> str:
    """What a sample counts as, by its frames (symbol, object), innermost first."""
    symbol, where = frames[0]
    name = Path(where).name
    if where.startswith(("[kernel", "[guest", "[k")) or name.endswith(".ko"):
        return _kernel([each for each, _ in frames])
    if "vdso" in where:
        return "clock"
    if name.startswith(("libc.", "libc-", "ld-linux", "libpthread", "libstdc++", "libm.")):
        return "malloc and free" if _MALLOC.search(symbol) else "C library"
    if "libzmq" in name:
        return "libzmq"
    if name.startswith(("libpython", "python")):
        return "Python"
    if f"{os.sep}native{os.sep}" in where:
        return "fabric, native"
    module = name.partition(".")[0]
    return "numpy" if module == "_multiarray_umath" else module


def _kernel(symbols: list[str]) -> str:
    for symbol in symbols:
        if any(fault in symbol for fault in _FAULTS):
            return "kernel: page fault"
        if found := _SYSCALL.search(symbol):
            return f"kernel: {found[1]}"
    return "kernel: interrupts, switches"
