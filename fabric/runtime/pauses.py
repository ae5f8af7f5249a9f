"""How often the garbage collector stopped a node's process, and for how long: counted on its page."""

from __future__ import annotations

import gc
import time

from fabric.runtime.page import NodePage


class GcPauses:
    """Counts from ``start`` to ``stop``. Collections of all threads stop all of them, so one count a process."""

    def __init__(self, page: NodePage) -> None:
        self._page = page
        self._began_ns = 0

    def start(self) -> None:
        gc.callbacks.append(self._told)

    def stop(self) -> None:
        if self._told in gc.callbacks:
            gc.callbacks.remove(self._told)

    def _told(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began_ns = time.monotonic_ns()
        elif self._began_ns:
            took_ns = time.monotonic_ns() - self._began_ns
            page = self._page
            page.add("gc_pauses")
            page.add("gc_ns", took_ns)
            if took_ns > page.get("gc_longest_ns"):
                page.set("gc_longest_ns", took_ns)
