"""The event loops in which contestants receive, by name."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec


def why_missing(loop: str) -> str:
    """Why there is no such loop here; "" if there is, or none is asked for."""
    return "uvloop is not installed" if loop == "uvloop" and find_spec("uvloop") is None else ""


def new_loop(loop: str) -> asyncio.AbstractEventLoop:
    if loop == "uvloop":
        import uvloop

        made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return made
    return asyncio.new_event_loop()
