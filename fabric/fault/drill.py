"""The timed part of ``fabric fault``: a loop over the supervisor's children that kills, pauses and cuts off, then turns
all faults off, waits until every reader has caught up, and asks for an orderly end.

    WAITING ──gate open──▶ FAULTS ──time over, or Ctrl-C──▶ DRAINING ──caught up, or given up──▶ ENDING
"""

from __future__ import annotations

import contextlib
import enum
import signal
import time
from collections.abc import Callable

from fabric.config.fault import LOG_SERVER
from fabric.config.topology import FaultSection
from fabric.errors import LogError
from fabric.fault.schedule import Moment, schedule
from fabric.log.reader import LogReader
from fabric.runtime.page import NodeState
from fabric.supervise.report import open_pages
from fabric.supervise.supervisor import Supervisor
from fabric.transport.faultpage import FaultPage

_SETTLED_NS = 1_200_000_000
"""A process is not killed before it has run for so long: one that dies at once counts as a crash loop."""
DRAIN_DEADLINE_NS = 30_000_000_000


class Stage(enum.Enum):
    WAITING = "waiting for the sources"
    FAULTS = "faults"
    DRAINING = "draining"
    ENDING = "ending"


class Drill:
    """Give ``step`` to a Supervisor as its ``show``: it is called some twenty times a second."""

    def __init__(
        self,
        section: FaultSection,
        seconds: float,
        say: Callable[[str, str], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.moments = schedule(section.actions, seconds, section.plan.seed)
        self.done: list[tuple[float, Moment]] = []
        """What was done, and when: seconds from the start of the sources."""
        self.left_behind: list[str] = []
        """Readers that had not caught up when the time for it was over."""
        self.stage = Stage.WAITING
        self._seconds_ns = int(seconds * 1e9)
        self._say = say
        self._clock_ns = clock_ns
        self._waiting = list(self.moments)
        self._asked_to_end = False
        self._began_ns = self._draining_ns = 0
        self._stopped: dict[int, tuple[str, int]] = {}  # pid of a stopped process to its name and when it goes on
        self._seen_ns: dict[int, int] = {}  # pid to when it was first seen running
        self._targets: dict[str, tuple[int, int]] = {}  # channel to (session, last sequence) when faults ended
        self._page: FaultPage | None = None

    def end(self, supervisor: Supervisor) -> None:
        """Asked for from outside: no more faults, and drain. Asked twice: end now."""
        if self._asked_to_end:
            self._go_on(supervisor, self._clock_ns(), everyone=True)  # one that stands still can't stop in order
            supervisor.stop()
        self._asked_to_end = True

    def step(self, supervisor: Supervisor) -> None:
        now_ns = self._clock_ns()
        if self._page is None and supervisor.fault is not None:
            self._page = FaultPage(supervisor.run_directory.path, list(supervisor.plan.topology.nodes))
        self._go_on(supervisor, now_ns)
        self._look(supervisor, now_ns)
        if self.stage is Stage.WAITING and supervisor.run_directory.gate.exists():
            self.stage, self._began_ns = Stage.FAULTS, now_ns
        if self.stage is Stage.FAULTS:
            self._act(supervisor, now_ns)
        over = self.stage is Stage.FAULTS and now_ns - self._began_ns >= self._seconds_ns
        if over or (self._asked_to_end and self.stage in (Stage.WAITING, Stage.FAULTS)):
            self._turn_off(supervisor, now_ns)
        if self.stage is Stage.DRAINING:
            self._drain(supervisor, now_ns)

    # Faults

    def _look(self, supervisor: Supervisor, now_ns: int) -> None:
        """Which processes run, and since when."""
        pages = open_pages(supervisor.plan, supervisor.run_directory)
        for name, child in supervisor.children.items():
            page = pages.get(name)
            at_work = name == LOG_SERVER or (
                page is not None and page.get("pid") == child.pid and page.get("state") >= NodeState.RUNNING
            )
            if child.pid is not None and at_work:
                self._seen_ns.setdefault(child.pid, now_ns)

    def _act(self, supervisor: Supervisor, now_ns: int) -> None:
        for moment in [each for each in self._waiting if each.at_ns <= now_ns - self._began_ns]:
            if self._do(supervisor, moment, now_ns):
                self._waiting.remove(moment)
                at_s = (now_ns - self._began_ns) / 1e9
                self.done.append((at_s, moment))
                lasts = f" for {moment.for_ns / 1e9:g} s" if moment.for_ns else ""
                self._say("fault", f"{at_s:.1f} s: {moment.do} {moment.node}{lasts}")

    def _do(self, supervisor: Supervisor, moment: Moment, now_ns: int) -> bool:
        """False: not yet, the process is only just starting, or stands still already."""
        if moment.do == "partition":
            assert self._page is not None
            self._page.cut(moment.node, now_ns + moment.for_ns)
            return True
        child = supervisor.children[moment.node]
        pid = child.pid
        if pid is None or now_ns - self._seen_ns.get(pid, now_ns) < _SETTLED_NS:
            return False
        if moment.do == "kill":
            child.signal(signal.SIGKILL)
            del self._seen_ns[pid]
            return True
        if pid in self._stopped:
            return False
        child.signal(signal.SIGSTOP)
        self._stopped[pid] = (moment.node, now_ns + moment.for_ns)
        return True

    def _go_on(self, supervisor: Supervisor, now_ns: int, *, everyone: bool = False) -> None:
        for pid, (name, until_ns) in list(self._stopped.items()):
            child = supervisor.children[name]
            if child.pid != pid:  # it was killed meanwhile
                del self._stopped[pid]
            elif everyone or now_ns >= until_ns:
                child.signal(signal.SIGCONT)
                del self._stopped[pid]

    # The end

    def _turn_off(self, supervisor: Supervisor, now_ns: int) -> None:
        if self._page is not None:
            self._page.turn_off()
        self._go_on(supervisor, now_ns, everyone=True)
        for channel in supervisor.plan.topology.channels:
            with contextlib.suppress(LogError):
                log = LogReader(supervisor.run_directory.channel_log(channel))
                self._targets[channel] = (log.session, log.next - 1)
        self.stage, self._draining_ns = Stage.DRAINING, now_ns
        at = f"{(now_ns - self._began_ns) / 1e9:.1f} s: " if self._began_ns else ""
        for moment in self._waiting:
            if not self._asked_to_end:
                due_s = moment.at_ns / 1e9
                self._say("fault", f"{at}{moment.node} was not at work long enough to {moment.do} it at {due_s:.1f} s")
        self._say("fault", f"{at}faults are off; waiting until every reader has caught up")

    def _drain(self, supervisor: Supervisor, now_ns: int) -> None:
        """Until everything that was published before faults ended has been delivered or announced."""
        behind = self._behind(supervisor)
        if behind and now_ns - self._draining_ns < DRAIN_DEADLINE_NS:
            return
        for reader in behind:
            self._say("fault", f"{reader}, {DRAIN_DEADLINE_NS // 10**9} s after the last fault")
        self.left_behind = behind
        self.stage = Stage.ENDING
        supervisor.stop()

    def _behind(self, supervisor: Supervisor) -> list[str]:
        pages = open_pages(supervisor.plan, supervisor.run_directory)
        behind = []
        for channel, (session, last) in self._targets.items():
            for node, port in supervisor.plan.readers(channel):
                page = pages.get(node)
                child = supervisor.children[node]
                if page is None or child.pid is None or page.get("pid") != child.pid:
                    behind.append(f"{node} is not running")
                    continue
                follows, delivered = page.get(f"in.{port}.session"), page.get(f"in.{port}.delivered")
                if last and (follows >> 32 < session >> 32 or (follows == session and delivered < last)):
                    behind.append(f"{node}.{port} has not caught up with {channel}: {delivered} of {last}")
        return behind
