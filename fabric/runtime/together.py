"""Several nodes in one process, each in a thread of its own.

Each has its own logs, sockets, journal, checkpoint and page, as in a process of its own; what they share is the
interpreter, and their end: if one fails, the others stop in order, and all of them begin again together.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from fabric.rundir import RunDirectory
from fabric.runtime.process import NodeProcess

_SWITCH_S = 0.0005
"""How long one node may keep another one waiting that has been woken (5 ms is Python's own)."""


class Together:
    """``stop()`` may be called from a signal handler."""

    def __init__(self, run: RunDirectory, processes: Sequence[NodeProcess]) -> None:
        self._run = run
        self._processes = processes
        self._errors: list[BaseException] = []

    def stop(self) -> None:
        """Stop those that are asked to end; if none is named, all."""
        asked = [each for each in self._processes if self._run.stop_request(each.node.name).exists()]
        for process in asked or self._processes:
            process.stop()

    def run(self) -> None:
        """Until all have ended. Raises what the first one that failed did."""
        sys.setswitchinterval(_SWITCH_S)
        threads = [
            threading.Thread(target=self._live, args=(each,), name=f"fabric-node-{each.node.name}")
            for each in self._processes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _live(self, process: NodeProcess) -> None:
        try:
            process.run()
        except BaseException as error:
            self._errors.append(error)
            for each in self._processes:
                each.stop()
