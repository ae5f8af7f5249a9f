"""One supervised process: start, output with the node's name, restart with backoff, crash-loop stop, resource use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import IO

from fabric.runtime.child import HOPELESS
from fabric.supervise.lives import Lives
from fabric.supervise.watchdog import Watchdog, stopped, traced
from fabric.units import format_ns

MISTAKE = 2
"""Exit code for the user's mistake; like HOPELESS, it needs no second try."""

CRASH_LOOP_COUNT = 5
CRASH_LOOP_NS = 30_000_000_000
HANG_LOOP = 60
"""So many times the watchdog's patience is what hangs are counted over."""
_BACKOFF_MIN_NS = 100_000_000
_BACKOFF_MAX_NS = 5_000_000_000
_SHORT_LIFE_NS = 1_000_000_000


class Child:
    """A process that should be running. ``output`` gets each line it prints, with its name."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        log_file: Path,
        output: Callable[[str, str], None],
        lives: Lives,
        *,
        watchdogs_ns: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.nodes = tuple(watchdogs_ns or ())
        """The nodes that it runs."""
        self._lives = lives
        self._lives_of = self.nodes if len(self.nodes) > 1 else (name,)
        self.restarts = 0
        self.takeovers = 0
        """Ends after which its standby went on."""
        self.hangs = 0
        """Lives that the watchdog ended."""
        self.standby: Child | None = None
        self.watchdogs = {each: Watchdog(patience_ns) for each, patience_ns in (watchdogs_ns or {}).items()}
        """By what makes progress in it: its nodes."""
        self._hung = False
        self._patience_ns = 0
        """Of the watchdog that ended it last."""
        self._hang_ends: list[int] = []
        self.cpu_seconds = 0.0
        self.peak_rss_bytes = 0
        self.exit_code: int | None = None
        """Of the last life, once it is over; negative: killed by that signal."""
        self.gave_up = ""
        self._arguments = arguments
        self._log_file = log_file
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: IO[bytes] | None = None
        self._partial = b""
        self._log_failed = False
        self._ends: list[int] = []
        self._started_ns = 0
        self._restart_at_ns = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        self._started_ns = time.monotonic_ns()
        self._tell_started()
        command = [sys.executable, "-m", "fabric.runtime.child", *self._arguments, "--parent", str(os.getpid())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops everyone in order
        )
        self._pipe = self._process.stdout
        assert self._pipe is not None
        os.set_blocking(self._pipe.fileno(), False)

    def step(self, now_ns: int, *, stopping: bool, may_start: bool = True) -> None:
        """Pass on output, notice an end, restart when it is time."""
        self._read_output()
        if self._process is not None:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                seconds = usage.ru_utime + usage.ru_stime
                self._ended(os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss, now_ns, stopping=stopping)
        elif may_start and not stopping and not self.gave_up and now_ns >= self._restart_at_ns:
            self.restarts += 1
            self.start()

    def _ended(self, code: int, cpu_seconds: float, peak_rss_kib: int, now_ns: int, *, stopping: bool) -> None:
        assert self._process is not None
        self._read_output()
        if self._partial:
            self._pass_on([self._partial])
            self._partial = b""
        self._process.returncode = code
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        self.exit_code = code
        self.cpu_seconds += cpu_seconds
        self.peak_rss_bytes = max(self.peak_rss_bytes, peak_rss_kib * 1024)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hung, self._hung = self._hung, False
        if hung:
            how = f"hung and was {how}"
        for each in self._lives_of:
            self._lives.ended(each, how)
        if stopping and code == 0:
            return
        # Somebody's kill of a process that worked is not the process's failure; one that dies at once is.
        from_outside = code in (0, -signal.SIGKILL, -signal.SIGTERM) and now_ns - self._started_ns > _SHORT_LIFE_NS
        self._ends = [end for end in self._ends if now_ns - end < CRASH_LOOP_NS]
        if hung:
            self._hang_ends = [end for end in self._hang_ends if now_ns - end < HANG_LOOP * self._patience_ns]
            self._hang_ends.append(now_ns)
        elif not from_outside:
            self._ends.append(now_ns)
        if code in (MISTAKE, HOPELESS):  # another try would end the same
            self.gave_up = how
        elif len(self._ends) >= CRASH_LOOP_COUNT:
            self.gave_up = f"{how}, {len(self._ends)} times within {CRASH_LOOP_NS // 10**9} s"
        elif len(self._hang_ends) >= CRASH_LOOP_COUNT:
            self.gave_up = f"{how}, {len(self._hang_ends)} times"
        pause = min(_BACKOFF_MIN_NS << max(0, len(self._ends) - 1), _BACKOFF_MAX_NS)
        self._restart_at_ns = now_ns + pause
        if stopping:
            self._output(self.name, how)
            return
        if self.standby is not None and self.standby.running and not self.gave_up:
            self._output(self.name, f"{how}; its standby goes on")
            self._adopt(self.standby, now_ns)
            return
        self._output(self.name, f"{how}; " + ("not restarted" if self.gave_up else f"restart in {pause / 1e9:.1f} s"))

    def watch(self, of: str, progress: Hashable, now_ns: int, *, factor: int = 1) -> None:
        """Kill it if ``of`` hangs in it; ``progress``: see ``Watchdog.look``. Its lock is free once the kernel has ended it,
        and no sooner. A process in the middle of a system call that can't be interrupted ends after that."""
        pid, watchdog = self.pid, self.watchdogs[of]
        if pid is None or self._hung:
            return
        if progress is None and stopped(pid):
            progress = (pid, "stopped")
        if not watchdog.look(progress, now_ns, factor=factor):
            return
        if traced(pid):
            watchdog.excuse()
            return
        self._hung = True
        self.hangs += 1
        self._patience_ns = watchdog.patience_ns
        who = f"{of}: " if len(self.nodes) > 1 else ""
        self._output(self.name, f"{who}no progress for {format_ns(watchdog.patience_ns * factor)}: killed")
        self.signal(signal.SIGKILL)

    def _adopt(self, standby: Child, now_ns: int) -> None:
        """The standby's process, which has taken the lock by now or is about to, is this one's."""
        self.takeovers += 1
        self._process, self._pipe, self._partial = standby._process, standby._pipe, standby._partial
        self._started_ns = now_ns
        standby._process, standby._pipe, standby._partial = None, None, b""
        standby._restart_at_ns = now_ns + _BACKOFF_MIN_NS
        self._lives.ended(standby.name, "took over")
        self._tell_started()

    def _tell_started(self) -> None:
        for each in self._lives_of:
            self._lives.started(each)

    def _read_output(self) -> None:
        if self._pipe is None:
            return
        while chunk := os_read(self._pipe.fileno()):
            self._partial += chunk
        *lines, self._partial = self._partial.split(b"\n")
        if lines:
            self._pass_on(lines)

    def _pass_on(self, lines: list[bytes]) -> None:
        try:
            with self._log_file.open("ab") as file:
                file.writelines(line + b"\n" for line in lines)
        except OSError as error:  # a full disk must not end what watches over everything
            if not self._log_failed:
                self._output(self.name, f"can't write {self._log_file}: {error.strerror}")
            self._log_failed = True
        for line in lines:
            self._output(self.name, line.decode("utf-8", "replace"))

    def signal(self, number: int) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)


def os_read(descriptor: int) -> bytes:
    """What is there, or nothing; never blocks."""
    try:
        return os.read(descriptor, 65_536)
    except BlockingIOError:
        return b""
