"""What ``fabric up`` shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from fabric.supervise.report import build_report
from fabric.units import format_ns

if TYPE_CHECKING:
    from rich.table import Table

    from fabric.supervise.supervisor import Supervisor

_PLAIN_EVERY_S = 2.0
_TABLE_EVERY_S = 0.5


class View(Protocol):
    """Takes output lines and looks at the supervisor from time to time."""

    def say(self, name: str, line: str) -> None: ...
    def show(self, supervisor: Supervisor) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_view(plain: bool) -> View:
    """The live table needs the extra ``report`` (rich)."""
    return PlainView() if plain or importlib.util.find_spec("rich") is None else TableView()


def say_line(name: str, line: str) -> None:
    """One line on standard error; that nobody reads it any more is no reason to end a fabric."""
    with contextlib.suppress(OSError):
        print(f"[{name}] {line}", file=sys.stderr, flush=True)


class PlainView:
    """A line for each line, and one that sums up, every two seconds."""

    def __init__(self) -> None:
        self._shown_s = 0.0

    def say(self, name: str, line: str) -> None:
        say_line(name, line)

    def show(self, supervisor: Supervisor) -> None:
        now_s = time.monotonic()
        if now_s - self._shown_s < _PLAIN_EVERY_S:
            return
        self._shown_s = now_s
        report = current_report(supervisor)
        flows = ", ".join(f"{name} {entry['published']:,}" for name, entry in report["channels"].items())
        totals = subscriber_totals(report)
        self.say(
            "up",
            f"{supervisor.seconds:.0f} s: {flows}; missed {totals['missed']:,}, recovered {totals['recovered']:,}, "
            f"lost {totals['lost']:,}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class TableView:
    """rich's live display: channels and their readers, hops, nodes, the last lines of output."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._lines: deque[str] = deque(maxlen=6)
        self._shown_s = 0.0
        self._published: dict[str, tuple[float, int]] = {}
        self._open = False

    def say(self, name: str, line: str) -> None:
        if self._open:
            self._lines.append(f"[{name}] {line}")
        else:
            say_line(name, line)

    def show(self, supervisor: Supervisor) -> None:
        now_s = time.monotonic()
        if now_s - self._shown_s < _TABLE_EVERY_S:
            return
        self._shown_s = now_s
        from rich.console import Group
        from rich.text import Text

        report = current_report(supervisor)
        title = f"{supervisor.plan.topology.fabric}  {supervisor.seconds:.0f} s  (Ctrl-C stops)"
        parts = [self._channels(report, title, now_s), self._nodes(report, supervisor)]
        self._live.update(Group(*parts, Text("\n".join(self._lines), style="dim")), refresh=True)

    def _channels(self, report: dict[str, Any], title: str, now_s: float) -> Table:
        from rich.table import Table

        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for column in ("channel", "records", "rec/s", "reader", "state", "received", "missed", "recovered", "lost"):
            table.add_column(column, justify="left" if column in ("channel", "reader", "state") else "right")
        for name, entry in report["channels"].items():
            before_s, before = self._published.get(name, (now_s, entry["published"]))
            rate = (entry["published"] - before) / (now_s - before_s) if now_s > before_s else 0.0
            self._published[name] = (now_s, entry["published"])
            readers = list(entry["subscribers"].items()) or [("", {})]
            for position, (node, counts) in enumerate(readers):
                head = [name, f"{entry['published']:,}", f"{rate:,.0f}"] if position == 0 else ["", "", ""]
                tail = [f"{counts[key]:,}" if counts else "" for key in ("received", "missed", "recovered", "lost")]
                table.add_row(*head, node, counts.get("state", ""), *tail)
        return table

    def _nodes(self, report: dict[str, Any], supervisor: Supervisor) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("node", "state", "cycles", "restarts", "errors"):
            table.add_column(column, justify="left" if column in ("node", "state") else "right")
        states = supervisor.states()
        for name, entry in report["nodes"].items():
            cycles, restarts, errors = entry["cycles"], entry["restarts"], entry["errors"]
            table.add_row(name, states[name].name, f"{cycles:,}", str(restarts), str(errors))
        for hop, entry in report["hops"].items():
            table.add_row(hop, "", f"p50 {format_ns(entry['p50_ns'])}", f"p99 {format_ns(entry['p99_ns'])}", "")
        return table

    def __enter__(self) -> Self:
        self._open = True
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._open = False
        for line in self._lines:
            print(line, file=sys.stderr)


def current_report(supervisor: Supervisor) -> dict[str, Any]:
    """The report as it stands now."""
    return build_report(
        supervisor.plan, supervisor.run_directory, supervisor.children, ended="running", seconds=supervisor.seconds
    )


def subscriber_totals(report: dict[str, Any]) -> dict[str, int]:
    """Sums over all readers of all channels."""
    totals = dict.fromkeys(("received", "gaps", "missed", "recovered", "skipped", "lost", "duplicates"), 0)
    for channel in report["channels"].values():
        for counts in channel["subscribers"].values():
            for name in totals:
                totals[name] += counts[name]
    return totals
