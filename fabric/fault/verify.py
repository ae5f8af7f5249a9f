"""After a run: every record of every log on disk against what every node was really given.

Three sources that do not know of one another are compared: the logs (what was published), the cycle journals (what each
input was given, in which order), and the nodes' own output, made again from both (``fabric play``): a record that had
other bytes when it came in would have led to another output. What the subscribers counted themselves is only compared, in
the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fabric.config.plan import Plan
from fabric.errors import FabricError, LogError, NodeFailed
from fabric.fault.walk import Published, Walk
from fabric.log.paths import session_name
from fabric.log.reader import LogReader
from fabric.log.sessions import sessions
from fabric.log.verify import verify_log
from fabric.rundir import RunDirectory, in_use
from fabric.runtime.journal import Cycle, Kind, read_cycles
from fabric.runtime.page import NodePage
from fabric.runtime.play import play_node
from fabric.runtime.resume import CannotResume
from fabric.supervise.report import open_pages

_PER_INPUT = frozenset((Kind.DATA, Kind.SNAPSHOT, Kind.LOST, Kind.SKIPPED, Kind.SESSION, Kind.DIVERGED, Kind.ENDED))


class NotVerifiable(FabricError):
    """The run does not hold what it would have to be compared with."""


@dataclass(slots=True)
class Account:
    """One reader of one channel. Records, unless the name says otherwise."""

    channel: str
    reader: str
    """``node.port``."""
    published: int
    delivered: int
    skipped: int
    lost: int
    lost_but_there: int
    undetected: int
    recovered: int
    """Had been missed live and came from the log; as the reader counted."""
    from_snapshots: int
    duplicates: int
    """Came again and were dropped; as the reader counted."""


@dataclass(slots=True)
class Verification:
    """What was found. ``problems``: one line each, naming channel, reader and range; none, and the run holds."""

    accounts: list[Account] = field(default_factory=list)
    published: int = 0
    """In all logs, each record once; also what is known of logs that are gone."""
    undetected: int = 0
    sums: int = 0
    """How many equations were checked."""
    compared: int = 0
    """Records of output that were made again and compared byte by byte."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def total(self, name: str) -> int:
        return sum(getattr(account, name) for account in self.accounts)

    def line(self) -> str:
        """The one line at the end."""
        lost = f"{self.total('lost'):,} lost"
        if there := self.total("lost_but_there"):
            lost += f" (the logs still hold {there:,} of them)"
        failed = "" if self.ok else f"; FAILED: {len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        sums = f"{self.sums} sums hold" if self.ok else f"{self.sums} sums checked"
        return (
            f"verified: {self.published:,} published, {self.total('delivered'):,} delivered to {len(self.accounts)} readers, "
            f"{self.total('duplicates'):,} duplicates dropped, "
            f"{self.total('recovered'):,} recovered from logs, {self.total('from_snapshots'):,} records from snapshots, "
            f"{self.total('skipped'):,} skipped, {lost}, {self.undetected:,} undetected; "
            f"{self.compared:,} outputs made again; {sums}{failed}"
        )


def verify_run(
    plan: Plan,
    run: RunDirectory,
    *,
    others: Sequence[RunDirectory] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Verify a run that is over. ``others``: runs of the fabrics, on this host, that publish what this one reads from
    elsewhere. ``say`` is told what is under way. Raises NotVerifiable if a journal is not whole."""
    if in_use(run.logs):
        raise NotVerifiable("this fabric is running", remedy="stop it first")
    result = Verification()
    pages = open_pages(plan, run)
    written = [name for name in plan.topology.channels if plan.topology.writer(name)]
    logs = {name: _published(run.channel_log(name), result) for name in written}
    say("checking the logs")
    for channel, held in logs.items():
        for session in [session for session, log in held.items() if not log.gone]:
            damage = verify_log(run.channel_log(channel) / session_name(session)).problems
            result.problems += [f"{channel}: the log of session {session:016x} is damaged: {each}" for each in damage]
            result.sums += 1
    elsewhere: dict[str, Path] = {}
    for name in plan.topology.channels:
        for other in others:
            if name not in written and (found := _published(other.channel_log(name), result)):
                logs[name], elsewhere[name] = found, other.channel_log(name)
    for name in plan.upstream_first():
        say(f"{name}: what it was given, by its journal")
        _verify_node(plan, run, name, logs, pages.get(name), result)
    result.published = sum(log.count for held in logs.values() for log in held.values())
    for name in plan.upstream_first():
        say(f"{name}: making its calls again")
        _play(plan, run, name, logs, elsewhere, result)
    return result


def _published(directory: Path, result: Verification) -> dict[int, Published]:
    """By session, oldest first; empty for a channel that nothing was written to."""
    found: dict[int, Published] = {}
    for session in sessions(directory) if directory.is_dir() else []:
        try:
            log = LogReader(directory / session_name(session))
        except LogError as error:
            result.problems.append(f"{directory.name}: {error}")
            continue
        control = log.control
        if control.parent_session and control.parent_session not in found:  # swept when a newer session began
            end = control.fork_sequence + 1
            found[control.parent_session] = Published(log.base, end, end, gone=True)
        found[session] = Published(log.base, log.next, log.first_available)
    return dict(sorted(found.items()))


def _verify_node(
    plan: Plan,
    run: RunDirectory,
    name: str,
    logs: dict[str, dict[int, Published]],
    page: NodePage | None,
    result: Verification,
) -> None:
    node = plan.nodes[name].make(plan.topology.directory)
    inputs = [port for port in node.input_ports.values() if port.connected]
    outputs = [port.channel for port in node.output_ports.values() if port.connected]
    walks: dict[int, Walk] = {}
    for position, port in enumerate(inputs):
        if port.channel in logs:
            walks[position] = Walk(logs[port.channel], open_end=plan.topology.writer(port.channel) is None)
        else:
            result.notes.append(
                f"{port.channel} to {name}.{port.name}: published by another fabric, not verified; "
                "`fabric verify --with` takes that fabric's run"
            )
    try:
        journal = LogReader(run.journal(name))
    except LogError:
        raise NotVerifiable(f"node {name!r} has no cycle journal in this run: it never ran") from None
    if journal.first_available > journal.base:
        raise NotVerifiable(
            f"retention has removed the beginning of the cycle journal of node {name!r}",
            remedy="runs of `fabric fault` keep it whole; those of `fabric up` keep the last 64 MiB",
        )
    _walk(journal, name, walks, outputs, logs, result)
    for position, walk in walks.items():
        port = inputs[position]
        walk.finish()
        where = f"{port.channel} to {name}.{port.name}"
        result.undetected += walk.undetected
        result.problems += [f"{where}: {finding}" for finding in walk.findings]
        result.notes += [
            f"{where}: the log of session {session:016x} is gone; whether it held more than was delivered is not known"
            for session in walk.unknown
        ]
        if walk.after:
            result.notes.append(f"{where}: {walk.after:,} records were published after it was stopped")
        counted = {key: page.get(f"in.{port.name}.{key}") if page else 0 for key in ("recovered", "duplicates")}
        result.accounts.append(
            Account(
                port.channel, f"{name}.{port.name}", walk.published, walk.delivered, walk.skipped, walk.lost,
                walk.lost_but_there, walk.undetected, counted["recovered"], walk.from_snapshots, counted["duplicates"],
            )
        )  # fmt: skip
        _check_sums(walk, where, port.name, page, result)


def _walk(
    journal: LogReader,
    name: str,
    walks: dict[int, Walk],
    outputs: list[str],
    logs: dict[str, dict[int, Published]],
    result: Verification,
) -> None:
    number = 0
    stands: dict[tuple[int, int], int] = {}  # output and session to the sequence that it will write next
    newest: dict[int, int] = {}
    for cycle in read_cycles(journal, journal.base):
        if not isinstance(cycle, Cycle):
            continue
        if cycle.number != number + 1:
            result.problems.append(f"{name}: its journal goes from cycle {number:,} to {cycle.number:,}")
        number = cycle.number
        for entry in cycle.entries:
            if entry.kind in _PER_INPUT and entry.port in walks:
                walks[entry.port].take(entry)
            elif entry.kind is Kind.OUTPUT:
                place = (entry.port, entry.session)
                older = entry.session >> 32 < newest.get(entry.port, 0) >> 32
                if older or entry.first < stands.get(place, 0):
                    result.problems.append(
                        f"{outputs[entry.port]}: went back to record {entry.first} in cycle {number:,}"
                    )
                stands[place], newest[entry.port] = entry.first, entry.session
    for (position, session), stood in stands.items():
        result.sums += 1
        held = logs[outputs[position]]
        log = held.get(session)
        if log is None:  # swept when newer sessions began; its writer's journal knows it, but for a last cycle
            held[session] = Published(1, stood, stood, gone=True)
            logs[outputs[position]] = dict(sorted(held.items()))
            if session == newest[position] and stood > 1:
                result.problems.append(f"{outputs[position]}: the log of its last session, {session:016x}, is gone")
        elif not log.gone and log.next < stood:
            result.problems.append(
                f"{outputs[position]}: its log ends at record {log.next - 1}, but {name} had written {stood - 1} records"
            )


def _check_sums(walk: Walk, where: str, port: str, page: NodePage | None, result: Verification) -> None:
    result.sums += 1
    if fails := walk.sum_fails():
        result.problems.append(f"{where}: {fails}")
    if page is None:
        result.notes.append(f"{where}: its page is gone, its own counters are not compared")
        return
    for name, found in (("received", walk.delivered), ("skipped", walk.skipped), ("lost", walk.lost)):
        result.sums += 1
        if (counted := page.get(f"in.{port}.{name}")) != found:
            result.problems.append(f"{where}: it counted {counted:,} records {name}, its journal says {found:,}")


def _play(
    plan: Plan,
    run: RunDirectory,
    name: str,
    logs: dict[str, dict[int, Published]],
    elsewhere: dict[str, Path],
    result: Verification,
) -> None:
    """The node's calls made again from the logs: its output must come out the same, byte by byte, and all of it."""
    if not plan.nodes[name].section.outputs:
        result.notes.append(f"{name}: has no output, so the bytes it was given are not verified")
        return
    try:
        played = play_node(plan, run, name, elsewhere)
    except NodeFailed as error:
        result.problems.append(f"{name}: made again from the logs, it fails where it did not in the run: {error}")
        return
    except (CannotResume, LogError, IndexError) as error:
        result.notes.append(f"{name}: the bytes it was given are not verified: {error}")
        return
    result.compared += sum(played.records.values())
    if played.difference:
        result.undetected += 1
        result.problems.append(f"{name}: made again from the logs, its output is another: {played.difference}")
        return
    for channel, compared in played.records.items():
        held = logs[channel]
        if len(held) == 1:
            (log,) = held.values()
            result.sums += 1
            if compared != log.next - log.first_available:
                result.problems.append(
                    f"{channel}: holds {log.next - log.first_available:,} records, of which {compared:,} were made again"
                )
