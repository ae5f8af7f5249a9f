"""Exact resume: restore the checkpoint, make the journaled calls again, compare what is already committed, go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fabric.config.topology import Topology
from fabric.errors import DivergedReplay, FabricError
from fabric.log.paths import session_name
from fabric.log.reader import LogReader
from fabric.records import Records
from fabric.runtime.cycle import CycleRunner
from fabric.runtime.journal import Cycle, Entry, Kind, read_cycles
from fabric.runtime.ports import InputPort
from fabric.transport.publisher import ChannelPublisher
from fabric.transport.replay import fetch_range
from fabric.transport.security import CurveClient


class CannotResume(FabricError):
    """The journal, an input or the checkpoint does not reach back far enough."""


class ComparingSink:
    """Takes flushes of cycles that are made again: what is committed is compared, the rest is published (or, in
    playback, only counted)."""

    def __init__(self, log: LogReader, publisher: ChannelPublisher | None, position: int) -> None:
        self._publisher = publisher
        self._log = log
        self.position = position
        """The sequence of the next record that the node will give."""
        self.compared = 0

    def write(self, records: Records, now_ns: int) -> None:
        total, done = len(records), 0
        while done < total and self.position + done < self._log.next:
            try:
                committed = self._log.read(self.position + done, total - done)
            except IndexError:  # retention removed them: nothing to compare with
                done += min(total - done, self._log.first_available - self.position - done)
                continue
            # By bytes: numpy's own copy of a padded dtype leaves the padding undefined.
            again = np.frombuffer(bytearray(records[done : done + len(committed)].tobytes()), records.dtype)
            again["ts_publish_ns"] = committed["ts_publish_ns"]
            if again.tobytes() != committed.tobytes():
                self._raise_difference(again, committed, self.position + done)
            done += len(committed)
            self.compared += len(committed)
        if done < total and self._publisher is not None:
            self._publisher.write(records[done:], now_ns)
        self.position += total

    def _raise_difference(self, again: Records, committed: Records, first: int) -> None:
        rows = np.flatnonzero([a.tobytes() != b.tobytes() for a, b in zip(again, committed, strict=True)])
        row = int(rows[0])
        names = again.dtype.names or ()
        fields = [name for name in names if again[name][row].tobytes() != committed[name][row].tobytes()] or ["padding"]
        raise DivergedReplay(
            f"channel {self._log.channel!r}: record {first + row} differs when its cycle is run again, "
            f"in {', '.join(fields)}: was {committed[row]}, is {again[row]}",
            remedy="the node reads a clock, random numbers or shared state that it was not given, or its code changed; "
            'remove the run or set resume = "fresh"',
        )


class RangeFetcher:
    """Reads the records of journaled runs again: from this run's logs, or another fabric's log server (``where``: by
    channel, a directory or an endpoint, with ``curves``, our keys there), what these have no more from the ``archive``
    of the channel, likewise a directory or an endpoint, and snapshots from where they were kept."""

    def __init__(
        self,
        where: dict[str, Path | str],
        snapshots: Path,
        curves: Mapping[str, CurveClient] | None = None,
        archive: Mapping[str, Path | str] | None = None,
    ) -> None:
        self._where = where
        self._archive = archive or {}
        self._curves = curves or {}
        self._snapshots = snapshots
        self._open: dict[tuple[Path, int], LogReader] = {}

    def fetch(self, port: InputPort, entry: Entry) -> Records:
        """Raises CannotResume if they are not there any more."""
        if entry.kind == Kind.SNAPSHOT:
            try:
                return np.fromfile(snapshot_path(self._snapshots, port, entry), port.record.dtype)
            except OSError as error:
                raise CannotResume(f"input {port.channel!r}: the snapshot at {entry.first} is gone: {error}") from None
        where = self._where[port.channel]
        last = entry.first + entry.count - 1
        archived = self._archive.get(port.channel)
        if isinstance(where, str):
            curve = self._curves.get(port.channel)
            for endpoint in filter(None, (where, archived)):
                records = fetch_range(
                    str(endpoint), port.channel, port.record, entry.session, entry.first, last, curve=curve
                )
                if records is not None:
                    return records
            raise CannotResume(f"input {port.channel!r}: records {entry.first} to {last} can't be had from {where}")
        try:
            return self._read(where, entry)
        except (IndexError, FabricError) as error:
            if isinstance(archived, Path):
                with contextlib.suppress(IndexError, FabricError):
                    return self._read(archived, entry)
            raise CannotResume(f"input {port.channel!r}: records {entry.first} to {last} are gone: {error}") from None

    def _read(self, directory: Path, entry: Entry) -> Records:
        """Raises IndexError or FabricError where they are not there."""
        last = entry.first + entry.count - 1
        key = (directory, entry.session)
        if key not in self._open:
            self._open[key] = LogReader(directory / session_name(entry.session))
        views = [view for _, view in self._open[key].read_range(entry.first, last)]
        if sum(map(len, views)) != entry.count:
            raise IndexError(f"the log ends before record {last}")
        return views[0] if len(views) == 1 else np.concatenate(views)


def archives_of(topology: Topology, where: Mapping[str, Path | str]) -> dict[str, Path | str]:
    """Who has what the places in ``where`` (by channel) have no more: the archive's directory beside a log of this host, the
    endpoint that the channel names beside another fabric's log server, an archive's or else a standby's."""
    section = topology.archive
    found: dict[str, Path | str] = {}
    for channel, place in where.items():
        if isinstance(place, Path) and section is not None and channel in section.channels:
            found[channel] = section.directory / channel
        elif isinstance(place, str):
            section_of = topology.channels[channel]
            if other := section_of.archive or section_of.standby_replay:
                found[channel] = other
    return found


def snapshot_path(directory: Path, port: InputPort, entry: Entry) -> Path:
    return directory / f"{port.name}-{entry.session:016x}-{entry.first}.records"


def run_again(
    runner: CycleRunner,
    journal: LogReader,
    first: int,
    fetch: Callable[[InputPort, Entry], Records],
    on_start: Callable[[Entry], None] = lambda entry: None,
    on_cycle: Callable[[], None] = lambda: None,
) -> int:
    """Make all journaled calls from sequence ``first`` on again; returns how many cycles. The outputs' sinks compare;
    ``on_start`` is called at START entries, ``on_cycle`` after each cycle.

    Raises CannotResume, DivergedReplay, NodeFailed.
    """
    cycles = 0
    try:
        for cycle in read_cycles(journal, first):
            if isinstance(cycle, Cycle):
                runner.run(cycle.number, cycle.now_ns, runner.steps_again(cycle, fetch))
                cycles += 1
                on_cycle()
            else:
                on_start(cycle)
    except IndexError as error:
        raise CannotResume(f"the cycle journal does not reach back far enough: {error}") from None
    return cycles
