"""Whether a log on disk is whole: structure of every file, checksums where there are any, order of the records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabric.errors import FabricError, LogDamaged, LogMissing
from fabric.log.holes import LogHoles, load_holes
from fabric.log.image import load_image
from fabric.log.paths import CONTROL, CURRENT, DESCRIPTION, HOLES, IMAGE, SIDECAR, WAIT, read_description, segment_name
from fabric.log.segments import CRC_BLOCK_BYTES, segment_files
from fabric.records import Flags, Records, RecordType
from native.log import PAGE_BYTES, Control
from native.packet import crc32c


@dataclass(slots=True)
class VerifyReport:
    """What ``verify_log`` found. Numbers are 0 where the control page can't be read; no problems: the log is whole."""

    path: str
    channel: str = ""
    session: int = 0
    state: str = ""
    base: int = 0
    first_available: int = 0
    next: int = 0
    checked_by_checksum: int = 0
    """Segments whose every byte was compared with a sidecar's checksum."""
    checked_by_structure: int = 0
    """Segments without a (readable) sidecar: presence, size and the records' times only."""
    holes: list[tuple[int, int]] = field(default_factory=list)
    """Of a follower's log: what it never had, or was damaged when it was opened."""
    problems: list[str] = field(default_factory=list)


def verify_log(directory: Path) -> VerifyReport:
    """Check a channel's current session, or one session's own directory; also while its writer is running.

    Damage of any kind is listed in ``problems``, each beginning with the file's name. Raises LogMissing if there is no
    log at all.
    """
    chosen = directory
    if (directory / CURRENT).is_symlink():
        chosen = directory / CURRENT
        if not chosen.is_dir():
            return VerifyReport(str(directory), problems=[f"{CURRENT}: names a session that is not there"])
    if not any((chosen / name).exists() for name in (CONTROL, DESCRIPTION)) and not segment_files(chosen):
        raise LogMissing("no log here", path=directory, remedy="give a channel's or a session's directory")
    return _Verification(chosen.resolve()).run()


class _Verification:
    def __init__(self, session_directory: Path) -> None:
        self._directory = session_directory
        self._report = VerifyReport(str(session_directory))
        self._record: RecordType | None = None
        self._control: Control | None = None
        self._last_stamp_ns = 0
        self._holes: LogHoles | None = None
        """Of a follower's log."""

    def run(self) -> VerifyReport:
        self._check_description()
        self._check_pages()
        try:
            self._holes = load_holes(self._directory)
        except LogDamaged as error:
            self._problem(HOLES, error.message.partition(f"{HOLES}: ")[2] or error.message)
        self._report.holes = self._holes.ranges if self._holes is not None else []
        files = dict(segment_files(self._directory))
        if self._control is None:
            for begin, path in files.items():  # sidecars can be compared without the page
                self._check_bytes(begin, path)
        else:
            self._check_names(files)
            for begin in sorted(begin for begin in files if self._expected(begin)):
                try:
                    self._check_segment(begin, files[begin])
                except OSError as error:
                    if not self._removed_since(begin + self._segment_records):
                        self._problem(files[begin].name, f"can't be read: {error.strerror}")
            self._check_image()
        return self._report

    def _problem(self, name: str, text: str) -> None:
        self._report.problems.append(f"{name}: {text}")

    # The small files

    def _check_description(self) -> None:
        try:
            description = read_description(self._directory)
            self._report.channel = description["channel"]
            self._record = RecordType.from_description(description["record"])
        except LogMissing:
            self._problem(DESCRIPTION, "is missing")
        except LogDamaged as error:
            self._problem(DESCRIPTION, error.message.partition(f"{DESCRIPTION}: ")[2] or error.message)
        except FabricError as error:
            self._problem(DESCRIPTION, error.message)

    def _read_control(self) -> Control | None:
        """A copy of the control page as it is now."""
        content = (self._directory / CONTROL).read_bytes()
        return Control(content) if len(content) >= PAGE_BYTES else None

    def _check_pages(self) -> None:
        report = self._report
        try:
            control = self._read_control()
        except OSError as error:
            self._problem(CONTROL, f"can't be read: {error.strerror}")
            return
        if control is None:
            self._problem(CONTROL, "is truncated")
            return
        if not control.valid:
            self._problem(CONTROL, "is not the control page of a log")
            return
        report.session, report.state, report.base = control.session, control.state.name, control.base
        report.first_available, report.next = control.first_available, control.next
        if self._record is not None and (control.schema, control.record_bytes) != (
            self._record.schema,
            self._record.size,
        ):
            self._problem(CONTROL, f"states records of another type than {DESCRIPTION}")
            self._record = None
        if not report.base <= report.first_available <= report.next:
            self._problem(
                CONTROL,
                f"first available {report.first_available} is not between base {report.base} and next {report.next}",
            )
            return
        wait = self._directory / WAIT
        if not wait.exists():
            self._problem(WAIT, "is missing")
        elif wait.stat().st_size < PAGE_BYTES:
            self._problem(WAIT, "is truncated")
        self._control = control

    # Segments

    def _expected(self, begin: int) -> bool:
        """Committed records that retention has left lie in the segment that begins here."""
        report, records = self._report, self._segment_records
        aligned = (begin - report.base) % records == 0
        return aligned and begin + records > report.first_available and begin < report.next

    @property
    def _segment_records(self) -> int:
        assert self._control is not None
        return self._control.segment_records

    def _check_names(self, files: dict[int, Path]) -> None:
        """Every segment from the first available record to the commit is there, and none between two places."""
        report, records = self._report, self._segment_records
        for begin, path in files.items():
            if begin < report.base or (begin - report.base) % records:
                self._problem(path.name, f"no segment begins at {begin}: each has {records} records")
        wanted = report.first_available - (report.first_available - report.base) % records
        for begin in [*sorted(begin for begin in files if self._expected(begin)), report.next]:
            if wanted < begin and not self._removed_since(begin) and not self._in_hole(wanted, begin - 1):
                self._problem(
                    segment_name(wanted), f"is missing: committed records {wanted} to {begin - 1} are not there"
                )
            wanted = begin + records

    def _in_hole(self, first: int, last: int) -> bool:
        hole = self._holes.at(max(first, self._report.first_available)) if self._holes is not None else None
        return hole is not None and hole[1] >= last

    def _removed_since(self, end: int) -> bool:
        """Retention went on while this looked, past everything below ``end``."""
        try:
            control = self._read_control()
        except OSError:
            return False
        return control is not None and control.first_available >= end

    def _check_segment(self, begin: int, path: Path) -> None:
        assert self._control is not None
        report, records, record_bytes = self._report, self._segment_records, self._control.record_bytes
        size = path.stat().st_size
        if size != records * record_bytes:
            report.checked_by_structure += 1
            self._problem(path.name, f"has {size} bytes, not {records * record_bytes}")
            return
        self._check_bytes(begin, path)
        if self._record is not None:
            first = max(begin, report.first_available)
            last = min(begin + records, report.next) - 1
            self._check_records(first, np.memmap(path, self._record.dtype, mode="r")[first - begin : last + 1 - begin])

    def _check_bytes(self, begin: int, path: Path) -> None:
        """Compare with the sidecar, where there is one."""
        sidecar = path.with_suffix(SIDECAR)
        try:
            stated = json.loads(sidecar.read_bytes())
            damaged = list(_damaged_blocks(path, stated))
            problem = self._misfit(begin, stated)
        except FileNotFoundError:
            self._report.checked_by_structure += 1  # not full, or not sealed yet
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._report.checked_by_structure += 1
            self._problem(sidecar.name, f"is not a sidecar: {error!r}")
            return
        self._report.checked_by_checksum += 1
        if problem:
            self._problem(sidecar.name, problem)
        record_bytes = stated["record_bytes"]
        for block, start, end in damaged:
            first, last = begin + start // record_bytes, begin + (end - 1) // record_bytes
            self._problem(
                path.name,
                f"block {block} (bytes {start} to {end - 1}, sequences {first} to {last}) does not match its checksum",
            )

    def _misfit(self, begin: int, stated: dict[str, Any]) -> str:
        """What the sidecar states of another segment than this one."""
        expected: dict[str, int] = {"base": begin}
        if self._control is not None:
            expected |= {
                "session": self._control.session,
                "schema": self._control.schema,
                "record_bytes": self._control.record_bytes,
                "count": self._control.segment_records,
            }
        wrong = [f"{name} {stated[name]!r}, not {value}" for name, value in expected.items() if stated[name] != value]
        return f"states {'; '.join(wrong)}" if wrong else ""

    def _check_records(self, first: int, records: Records) -> None:
        """Times go up; the last committed record ends an event."""
        stamps = np.concatenate([[self._last_stamp_ns], records["ts_publish_ns"]])
        if self._holes is not None and self._holes.ranges:
            for begin, end in self._holes.ranges:
                stamps[max(0, begin - first) + 1 : max(0, end + 1 - first) + 1] = 0
            stamps = np.where(stamps == 0, np.maximum.accumulate(stamps), stamps)
        back = np.flatnonzero(np.diff(stamps) < 0)
        if len(back):
            sequence = first + int(back[0])
            more = f" ({len(back)} times in this segment)" if len(back) > 1 else ""
            self._problem(
                segment_name(sequence - (sequence - self._report.base) % self._segment_records),
                f"ts_publish_ns goes back at sequence {sequence}{more}",
            )
        self._last_stamp_ns = int(stamps[-1])
        at_end = first + len(records) == self._report.next and not self._in_hole(
            self._report.next - 1, self._report.next - 1
        )
        if at_end and not records["flags"][-1] & Flags.LAST_IN_EVENT:
            self._problem(
                CONTROL, f"the commit is not at an event's end: sequence {self._report.next - 1} is inside one"
            )

    def _check_image(self) -> None:
        if self._record is None or self._record.image == "none" or self._holes is not None:
            return
        try:
            image = load_image(self._directory, self._record)
            control = self._read_control()  # as late as the image: retention may have gone on
        except LogDamaged as error:
            self._problem(IMAGE, error.message.partition(f"{IMAGE}: ")[2] or error.message)
            return
        except OSError as error:
            self._problem(IMAGE, f"can't be read: {error.strerror}")
            return
        if image.as_of + 1 < self._report.first_available:
            self._problem(
                IMAGE,
                f"is as of {image.as_of}, but retention has removed everything below {self._report.first_available}",
            )
        if control is not None and image.as_of >= control.next:
            self._problem(IMAGE, f"is as of {image.as_of}, which is not committed yet: next is {control.next}")
        return


def _damaged_blocks(path: Path, stated: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """(block, first byte, end) of each block whose checksum is another one. Raises for what is not a sidecar."""
    size, block_bytes = stated["count"] * stated["record_bytes"], stated["crc32c_block_bytes"]
    if stated["record_bytes"] <= 0 or block_bytes != CRC_BLOCK_BYTES:
        raise ValueError("sizes")
    if len(stated["crc32c"]) != -(-size // block_bytes):
        raise ValueError(f"{len(stated['crc32c'])} checksums for {size} bytes")
    with path.open("rb") as file:
        for block, expected in enumerate(stated["crc32c"]):
            start = block * block_bytes
            end = min(start + block_bytes, size)
            if crc32c(file.read(end - start)) != expected:
                yield block, start, end
