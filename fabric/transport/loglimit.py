"""Warnings that a peer can cause, kept from filling the log."""

from __future__ import annotations

import logging
import time

EVERY_S = 10.0
AT_MOST = 20


class LogLimit:
    """The same line once in ten seconds, and twenty different ones; how many were held back is told with the next."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._held_back = 0

    def warning(self, log: logging.Logger, line: str) -> bool:
        """Log it, unless it was just logged; returns whether."""
        now_s = time.monotonic()
        self._told = {each: told_s for each, told_s in self._told.items() if now_s - told_s < EVERY_S}
        if line in self._told or len(self._told) >= AT_MOST:
            self._held_back += 1
            return False
        more = f" ({self._held_back} such messages were held back)" if self._held_back else ""
        self._held_back = 0
        self._told[line] = now_s
        log.warning("%s%s", line, more)
        return True
