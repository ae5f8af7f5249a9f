"""A worker as its parent sees it: started, asked, answered in time or not, and ended in any case."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fabric.bench.job import Job
from fabric.errors import FabricError

_END_S = 3.0


class RunFailed(FabricError):
    """A run did not give what it must: records are missing or wrong, a process ended or was too slow."""


def interrupt(process: subprocess.Popen[Any], wait_s: float) -> None:
    """End a process as Ctrl-C does; kill it where it has not ended in time. Nothing where it has ended already."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Worker:
    """``python -m fabric.bench.worker`` with a pipe each way. What it prints besides goes to a file."""

    def __init__(self, role: str, job: Job) -> None:
        self.role, self.job = role, job
        self._errors = Path(job.directory) / f"{role}{job.reader}.txt"
        command = [sys.executable, "-m", "fabric.bench.worker", role, json.dumps(job.plain())]
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        self._rest = b""

    def tell(self, command: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self._failure(f"has ended before {command!r}") from None

    def answer(self, command: str, deadline_s: float) -> dict[str, Any]:
        """The next answer, which must be one to ``command``. Raises RunFailed."""
        line = self._line(command, deadline_s)
        content: dict[str, Any] = json.loads(line)
        if "failed" in content:
            raise self._failure(f"failed at {command!r}: {content['why']}")
        return content

    def ask(self, command: str, deadline_s: float, **arguments: Any) -> dict[str, Any]:
        self.tell(command, **arguments)
        return self.answer(command, deadline_s)

    def _line(self, command: str, deadline_s: float) -> bytes:
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        while b"\n" not in self._rest:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
                raise self._failure(f"has not answered {command!r} in time")
            part = os.read(pipe, 65536)
            if not part:
                code = self.process.wait(_END_S)
                how = "was ended at its deadline" if code == -14 else f"ended with code {code}"
                raise self._failure(f"{how} during {command!r}")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _failure(self, what: str) -> RunFailed:
        said = self._errors.read_text(errors="replace").strip().splitlines()
        last = f" ({said[-1][:200]})" if said else ""
        return RunFailed(f"{self.job.contestant}: its {self.role} {what}{last}")

    def end(self) -> None:
        """It goes now, if it has not; no zombie stays."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not written yet has no reader any more
                    continue
