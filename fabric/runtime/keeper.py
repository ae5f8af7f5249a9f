"""Writes a node's checkpoints and reports beside its duty cycle: to replace a file may take as long as the disk likes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from fabric.log.paths import write_atomically

_log = logging.getLogger("fabric.runtime")


class Keeper:
    """One set of files at a time: what comes while it writes is not taken, and nothing waits in line.

    ``keep`` and the calls of ``done`` belong to the thread of the duty cycle, which asks with ``look``.
    """

    def __init__(self) -> None:
        self._files: dict[Path, bytes] = {}
        self._done: Callable[[OSError | None], None] | None = None
        self._error: OSError | None = None
        self._written = threading.Event()
        self._wanted = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._ending = False

    @property
    def busy(self) -> bool:
        return self._done is not None

    def keep(self, files: dict[Path, bytes], done: Callable[[OSError | None], None]) -> None:
        """Replace the files one after the other, up to the first that can't be; ``done`` is told. Not while ``busy``."""
        assert not self.busy
        self._files, self._done, self._error = files, done, None
        self._written.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
            self._thread.start()
        self._wanted.release()

    def look(self) -> None:
        """Call ``done`` if the files have been written."""
        if self._done is not None and self._written.is_set():
            done, self._done = self._done, None
            done(self._error)

    def settle(self) -> None:
        """Wait for what is being written, and call its ``done``."""
        if self.busy:
            self._written.wait()
            self.look()

    def close(self) -> None:
        self.settle()
        if self._thread is not None:
            self._ending = True
            self._wanted.release()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            if self._ending:
                return
            try:
                for path, content in self._files.items():
                    write_atomically(path, content)
            except OSError as error:
                self._error = error
            finally:
                self._files = {}
                self._written.set()
