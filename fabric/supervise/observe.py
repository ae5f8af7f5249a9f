"""Looking at a run from outside, over and over: rates, states, latencies and the use of the machine since the last look.

Nothing is asked of the running processes: everything stands in mapped files (logs' control pages, nodes' pages).
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.config.plan import make_plan
from fabric.config.saved import load_saved
from fabric.protocol.progress import CatchUp
from fabric.rundir import LATEST, RunDirectory
from fabric.runtime.page import NodePage, NodeState
from fabric.runtime.standby import standby_pid
from fabric.supervise.report import build_report, open_pages, summarise
from native.histogram import Histogram

_AT_REST = (NodeState.NEW.name, NodeState.STOPPED.name, NodeState.FAILED.name)
_RATES = ("published", "packets")
_EXTREMES = slice(2, 4)
"""Words of a histogram: the largest and smallest value since the start, which no difference tells for an interval."""


class Observer:
    """Looks at one run. ``look`` returns plain data: what stands there, and what happened since the last look."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.plan = make_plan(load_saved(run.path))
        self._before_s: float | None = None
        self._numbers: dict[str, int] = {}
        self._words: dict[str, npt.NDArray[np.uint64]] = {}
        self._catch_ups: dict[str, CatchUp] = {}

    def look(self, now_s: float | None = None) -> dict[str, Any]:
        """The report so far (docs/report.md) with rates: ``channels.*.records_per_second``, ``packets_per_second``,
        ``subscribers.*.behind`` (records), ``subscribers.*.progress`` of one that catches up (else null),
        ``hops.*.recent`` (the same as the hop, of the time since the last look),
        ``nodes.*.cpu`` (a fraction of one core), ``rss_bytes``, ``state``, ``pid``, ``alive``,
        ``standby_pid`` (0: none). ``ended`` is true where the run is over: what stands there is how it was last."""
        now_s = time.monotonic() if now_s is None else now_s
        elapsed_s = 0.0 if self._before_s is None else now_s - self._before_s
        self._before_s = now_s
        pages = open_pages(self.plan, self.run)
        report = build_report(self.plan, self.run, {}, ended="running", seconds=0.0)
        for key in ("ended", "seconds", "fault", "calls", "sources"):
            report.pop(key)
        report["interval_seconds"] = round(elapsed_s, 3)
        for name, entry in report["channels"].items():
            self._channel(name, entry, elapsed_s)
            for reader, counts in entry["subscribers"].items():
                node, _, port = reader.partition(".")
                self._subscriber(node, counts, entry, pages[node], self._port(node, name, port), now_s)
        for name, entry in report["hops"].items():
            entry["recent"] = self._recent(pages, name)
        for name in self.plan.nodes:
            report["nodes"][name] = self._node(pages.get(name), name, elapsed_s)
        report["ended"] = self._ended(report["nodes"])
        return report

    def _ended(self, nodes: dict[str, Any]) -> bool:
        """Is none of its processes there any more? A node that lives (``fabric run``, too) keeps a run going, and so does a
        supervisor that has not told yet how it ended: it may be starting nodes, or about to restart one."""
        if any(node["alive"] and node["state"] not in _AT_REST for node in nodes.values()):
            return False
        if (self.run.path / "report.json").exists():
            return True
        # The lock is not tried: that could keep a supervisor that starts just now from taking it.
        newest = (self.run.path.parent / LATEST).resolve() == self.run.path.resolve()
        try:
            return not newest or _usage(int((self.run.path.parent / "up.lock").read_bytes())) is None
        except (OSError, ValueError):
            return True

    def _port(self, node: str, channel: str, port: str) -> str:
        inputs = self.plan.nodes[node].section.inputs
        return port or next(key for key, value in inputs.items() if value == channel)

    def _rate(self, key: str, value: int, elapsed_s: float) -> float:
        before = self._numbers.get(key)
        self._numbers[key] = value
        return 0.0 if before is None or elapsed_s <= 0 or value < before else (value - before) / elapsed_s

    def _channel(self, name: str, entry: dict[str, Any], elapsed_s: float) -> None:
        for field, rate in zip(_RATES, ("records_per_second", "packets_per_second"), strict=True):
            entry[rate] = round(self._rate(f"{name}.{field}", entry.get(field, 0), elapsed_s), 1)

    def _subscriber(
        self, node: str, counts: dict[str, Any], entry: dict[str, Any], page: NodePage, port: str, now_s: float
    ) -> None:
        counts["stale"] = bool(page.get(f"in.{port}.stale"))
        same = page.get(f"in.{port}.session") == entry["session"]
        counts["behind"] = max(0, entry["last_sequence"] - page.get(f"in.{port}.delivered")) if same else None
        session, delivered = page.get(f"in.{port}.session"), page.get(f"in.{port}.delivered")
        catch_up = self._catch_ups.setdefault(f"{node}.{port}", CatchUp())
        under_way = counts["state"] == "RECOVERING" and counts["behind"] is not None
        catch_up.note(session, delivered, entry["last_sequence"], int(now_s * 1e9), under_way=under_way)
        now = catch_up.progress
        counts["progress"] = now and {
            "position": now.position, "target": now.target, "share": round(now.share, 4), "rate": round(now.rate, 1),
            "left_s": None if now.left_s is None else round(now.left_s, 1),
        }  # fmt: skip

    def _recent(self, pages: dict[str, NodePage], hop: str) -> dict[str, Any]:
        page = next(page for page in pages.values() if hop in page.histograms)
        words = page.histogram_words(hop)
        before = self._words.get(hop)
        self._words[hop] = words
        if before is None:
            return summarise(page.histograms[hop])
        # The page may have been made anew in between; then what stands there is all that is known.
        fresh = words - before if words[0] >= before[0] else words.copy()
        fresh[_EXTREMES] = words[_EXTREMES]
        recent = summarise(Histogram(bytearray(fresh.tobytes())))
        recent["max_ns"] = recent["p999_ns"]
        return recent

    def _node(self, page: NodePage | None, name: str, elapsed_s: float) -> dict[str, Any]:
        if page is None:
            return {"state": NodeState.NEW.name, "pid": 0, "alive": False, "cpu": 0.0, "rss_bytes": 0, "errors": 0,
                    "cycles": 0, "cycles_per_second": 0.0, "takeovers": 0, "standby_pid": 0}  # fmt: skip
        pid = page.get("pid")
        standby = standby_pid(self.run.node(name))
        usage = _usage(pid)
        cpu_s, rss_bytes = usage or (0.0, 0)
        return {
            "state": NodeState(page.get("state")).name,
            "pid": pid,
            "alive": usage is not None,
            "cpu": round(self._rate(f"{name}.{pid}.cpu", round(cpu_s * 1e6), elapsed_s) / 1e6, 3),
            "rss_bytes": rss_bytes or page.get("peak_rss_bytes"),
            "errors": page.get("errors"),
            "takeovers": page.get("takeovers"),
            "standby_pid": standby if _usage(standby) is not None else 0,
            "cycles": page.get("cycles"),
            "cycles_per_second": round(self._rate(f"{name}.cycles", page.get("cycles"), elapsed_s), 1),
        }


def _usage(pid: int) -> tuple[float, int] | None:
    """(CPU seconds so far, resident bytes) of a process as the operating system counts them; None where it is gone, or
    where there is no /proc."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (a path object costs more than the read)
            fields = file.read().rpartition(b")")[2].split()
        if fields[0] in (b"Z", b"X"):
            return None  # it has ended, and only its parent has not looked yet
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return (0.0, 0) if pid else None
    return None
