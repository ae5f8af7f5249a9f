"""``fabric log inspect|verify|export``: what is in a log, whether it is whole, and its records as a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from fabric.cli.export import export
from fabric.cli.options import json_option
from fabric.log.paths import CURRENT, DESCRIPTION, HOLES, session_name
from fabric.log.reader import LogReader
from fabric.log.sessions import sessions
from fabric.log.verify import verify_log
from fabric.rundir import MANIFEST
from fabric.units import format_bytes


@click.group()
def log() -> None:
    """Look at logs on disk. PATH is a run's directory, a channel's log, or one session of it."""


log.add_command(export)


def find_logs(path: Path) -> list[Path]:
    """The log directories at or below ``path``."""
    if (path / MANIFEST).exists():
        path = path / "logs"
    if (path / CURRENT).exists() or (path / DESCRIPTION).exists():
        return [path]
    found = sorted(child for child in path.iterdir() if (child / CURRENT).exists()) if path.is_dir() else []
    return found or [path]


@log.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--records", "show", type=int, default=0, help="Also print the last N records.")
@json_option
def inspect(path: Path, show: int, as_json: bool) -> None:
    """Session, sequences, retention and size of each log."""
    for directory in find_logs(path):
        reader = LogReader(directory)
        facts = {
            "path": str(reader.directory),
            "channel": reader.channel,
            "record": reader.record.name,
            "record_bytes": reader.record.size,
            "session": f"{reader.session:016x}",
            "parent_session": f"{reader.control.parent_session:016x}",
            "state": reader.state.name,
            "base": reader.base,
            "first_available": reader.first_available,
            "next": reader.next,
            "bytes": len(reader) * reader.record.size,
        }
        first = max(reader.first_available, reader.next - show)
        rows = [row for _, view in reader.read_range(first, reader.next - 1) for row in view] if show else []
        if as_json:
            facts["records"] = [
                {
                    name: None if value != value else value
                    for name, value in zip(row.dtype.names, row.tolist(), strict=True)
                }
                for row in rows
            ]
            click.echo(json.dumps(facts, default=_text))
            continue
        click.echo(
            f"{facts['channel']}: {facts['record']} records {facts['first_available']:,} to {reader.next - 1:,}, "
            f"{format_bytes(len(reader) * reader.record.size)}, session {facts['session']} {facts['state']}"
        )
        for row in rows:
            click.echo(f"  {row}")


@log.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def verify(path: Path, as_json: bool) -> int:
    """Check structure and checksums of each log; exit code 1 if any is damaged."""
    damaged = False
    for directory in [session for found in find_logs(path) for session in _sessions_of(found)]:
        report = verify_log(directory)
        damaged = damaged or bool(report.problems)
        if as_json:
            click.echo(json.dumps(dataclasses.asdict(report), default=_text))
            continue
        click.echo(
            f"{report.channel}: {'DAMAGED' if report.problems else 'ok'}, records {report.first_available:,} to "
            f"{report.next - 1:,}; {report.checked_by_checksum} segments by checksum, "
            f"{report.checked_by_structure} by structure only"
            + (f"; {len(report.holes)} holes" if report.holes else "")
        )
        for problem in report.problems:
            click.echo(f"  {problem}")
    return 1 if damaged else 0


def _sessions_of(directory: Path) -> list[Path]:
    """All that an archive keeps of a channel; of a publisher's log the current session."""
    kept = [directory / session_name(session) for session in sessions(directory)]
    return kept if (directory / CURRENT).exists() and any((each / HOLES).exists() for each in kept) else [directory]


def _text(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
