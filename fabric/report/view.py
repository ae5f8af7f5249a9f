"""A run as its directory tells it: for the page, and for the sections that nodes add. Needs no node's code."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fabric.config.saved import SAVED
from fabric.errors import LogError
from fabric.log.image import newest_image
from fabric.log.reader import LogReader
from fabric.records import Records
from fabric.rundir import RunDirectory
from fabric.runtime.page import NodePage
from fabric.runtime.timeline import TIMELINE, TimelineView, read_timeline
from fabric.supervise.lives import Life, read_lives

_NOTHING = np.zeros(0, np.void(8).dtype)


class RunView:
    """One run, over or still going on. Raises LogMissing if the directory is not a run's.

    ``report`` is the object of docs/report.md; without it, the one that is kept in the directory, or nothing yet.
    """

    def __init__(self, path: Path, report: dict[str, Any] | None = None) -> None:
        self.path = path
        self.manifest = RunDirectory(path).manifest()
        self.report: dict[str, Any] = _json(path / "report.json") if report is None else report
        self._values: dict[str, Any] = _json(path / SAVED).get("values") or {}

    @property
    def started_ns(self) -> int:
        """UTC; 0 where it is not known."""
        return int(self.manifest.get("started_ns", 0))

    # Channels and their records

    def channels(self, record: str) -> list[str]:
        """The channels that carry this type of record, by its name, in the order of the config."""
        described: dict[str, Any] = self.manifest.get("channels", {})
        return [name for name, description in described.items() if description.get("name") == record]

    def inputs_of_writer(self, channel: str) -> list[str]:
        """What the node that writes this channel reads."""
        for node in self._nodes().values():
            if channel in node.get("outputs", {}).values():
                return list(node.get("inputs", {}).values())
        return []

    def image(self, channel: str) -> Records:
        """The last record for each key; empty if the channel's log is gone, or has no image."""
        with contextlib.suppress(LogError):
            log = LogReader(self.path / "logs" / channel)
            if log.record.image != "none":
                return np.frombuffer(newest_image(log).export()[0], log.record.dtype)
        return _NOTHING

    def newest(self, channel: str, count: int) -> Records:
        """The last records, at most so many; empty if the channel's log is gone."""
        with contextlib.suppress(LogError, IndexError):
            log = LogReader(self.path / "logs" / channel)
            first = max(log.first_available, log.next - count)
            views = [view for _, view in log.read_range(first, log.next - 1)]
            return np.concatenate(views) if views else log.record.zeros(0)
        return _NOTHING

    # Nodes

    def nodes(self) -> list[str]:
        return list(self.report.get("nodes") or self._nodes())

    def histograms(self) -> dict[str, Any]:
        """Words of the latency histograms (native.histogram), by hop, and by "call NODE"."""
        found: dict[str, Any] = {}
        for node in self.nodes():
            with contextlib.suppress(OSError, ValueError):
                page = NodePage.open(self.path / "nodes" / node / "page")
                for name in page.histograms:
                    found[f"call {node}" if name == "call" else name] = page.histogram_words(name)
        return found

    def timelines(self) -> dict[str, TimelineView]:
        """By node, for those that have inputs."""
        read = {node: read_timeline(self.path / "nodes" / node / TIMELINE) for node in self.nodes()}
        return {node: timeline for node, timeline in read.items() if timeline is not None}

    def lives(self) -> dict[str, list[Life]]:
        """By process, oldest first; empty for a run without a supervisor."""
        return read_lives(self.path)

    def last_ns(self) -> int:
        """The last moment that anything of the run is known of; UTC."""
        known = [timeline.ended_ns for timeline in self.timelines().values()]
        known += [max(life.started_ns, life.ended_ns) for lives in self.lives().values() for life in lives]
        return max([self.started_ns, *known])

    def _nodes(self) -> dict[str, Any]:
        nodes: dict[str, Any] = self._values.get("nodes", {})
        return nodes


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return content
    return {}
