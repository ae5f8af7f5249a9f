"""``fabric log export``: a channel's log as a Parquet, Arrow or CSV file."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from fabric.errors import ConfigError, UserMistake
from fabric.frames import to_batch
from fabric.log.reader import LogReader
from fabric.log.slice import symbols_beside
from fabric.times import to_ns

_FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".csv": "csv"}
_ROWS_A_BATCH = 262_144


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--from", "begin", help="First sequence, or a time in ISO form (UTC unless it says otherwise).")
@click.option("--until", "end", help="Last sequence, or a time; records published before it.")
@click.option("--ids", is_flag=True, help="Keep instrument ids as numbers, also where their symbols are known.")
@click.option("--force", is_flag=True, help="Replace TARGET where it exists.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def export(path: Path, target: Path, begin: str | None, end: str | None, ids: bool, force: bool, quiet: bool) -> None:
    """Write PATH (a channel's log, or a run's directory) to TARGET: a .parquet, .arrow or .csv file, or a folder (a name
    without a suffix) for one Parquet file a channel. Times are UTC timestamps, instruments their symbols."""
    from fabric.cli.log import find_logs

    logs = find_logs(path)
    _check_target(target)
    if target.suffix in _FORMATS:
        if len(logs) != 1:
            raise UserMistake(f"{path} holds {len(logs)} logs", remedy="name one of them, or a folder as the target")
        targets = [target]
    else:
        logs = [each for each in logs if not each.name.startswith("@")]
        targets = [target / f"{LogReader(each).channel}.parquet" for each in logs]
    for file in targets:
        if file.exists() and not force:
            raise UserMistake(f"{file} is there already", remedy="give --force to replace it")
    for directory, file in zip(logs, targets, strict=True):
        log = LogReader(directory)
        first, stop = _bounds(log, begin, end)
        _make_folder(file.parent)
        symbols = None if ids else symbols_beside(log.directory)
        if symbols is not None and "symbol" in (log.record.dtype.names or ()):
            symbols = None  # definitions themselves keep their numbers
        with _progress(log.channel, stop - first, quiet) as advance:
            rows = _write(log, first, stop, file, symbols, advance)
        sequences = f", sequences {first:,} to {stop - 1:,}" if rows else ""
        click.echo(f"{file}: {f'{rows:,}' if rows else 'no'} records of {log.channel}{sequences}")


def _check_target(target: Path) -> None:
    """Raises UserMistake for a file of a kind that we can't write, or in a folder that is not there."""
    if target.suffix and target.suffix not in _FORMATS and not target.is_dir():
        raise UserMistake(
            f"{target}: can't write {target.suffix!r} files",
            remedy=f"known: {', '.join(_FORMATS)}; a folder is a name without a suffix",
        )
    if not target.parent.is_dir():
        raise UserMistake(f"{target}: there is no folder {target.parent}", remedy="make it, or name another one")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserMistake(f"can't write {folder}: {error.strerror or error}") from None


def _bounds(log: LogReader, begin: str | None, end: str | None) -> tuple[int, int]:
    first = log.first_available if begin is None else _sequence(log, begin, "--from")
    stop = log.next if end is None else _sequence(log, end, "--until") + (end.isdecimal())
    if first < log.first_available:
        raise ConfigError(
            f"sequence {first:,} is no longer retained",
            key="--from",
            remedy=f"the first one is {log.first_available:,}",
        )
    return first, max(first, min(stop, log.next))


def _sequence(log: LogReader, text: str, key: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        time_given = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no sequence and no time", key=key, remedy="for example 2026-01-02T09:30:00Z"
        ) from None
    aware = time_given if time_given.tzinfo else time_given.replace(tzinfo=UTC)
    return log.find_time(to_ns(aware))


def _write(
    log: LogReader, first: int, stop: int, file: Path, symbols: dict[int, str] | None, advance: Callable[[int], None]
) -> int:
    """Write into a file beside the target, and rename it when it is whole: nothing half-written stays."""
    half = file.with_name(f".{file.name}.{os.getpid()}")
    rows = 0
    try:
        with contextlib.ExitStack() as stack:
            writer: Any = None
            for batch in _batches(log, first, stop, symbols):
                writer = writer or stack.enter_context(_writer(half, _FORMATS[file.suffix], batch.schema))
                writer.write_batch(batch)
                rows += batch.num_rows
                advance(batch.num_rows)
        half.replace(file)
    except IndexError as error:
        raise UserMistake(f"retention has removed records meanwhile: {error}", remedy="export again") from None
    except OSError as error:
        raise UserMistake(f"can't write {file}: {error.strerror or error}") from None
    finally:
        half.unlink(missing_ok=True)
    return rows


def _batches(log: LogReader, first: int, stop: int, symbols: dict[int, str] | None) -> Iterator[Any]:
    position = first
    while position < stop:
        records = log.read(position, min(_ROWS_A_BATCH, stop - position))
        yield to_batch(records, symbols, whole_dictionary=True)
        position += len(records)
    if first >= stop:
        yield to_batch(log.record.zeros(0), symbols, whole_dictionary=True)


def _writer(file: Path, kind: str, schema: Any) -> Any:
    try:
        pa = importlib.import_module("pyarrow")
        if kind == "parquet":
            return importlib.import_module("pyarrow.parquet").ParquetWriter(str(file), schema, compression="zstd")
        if kind == "csv":
            return _Plain(importlib.import_module("pyarrow.csv"), file, schema)
    except ImportError:
        raise UserMistake("pyarrow is not installed", remedy="pip install 'zmq-market-fabric[arrow]'") from None
    return pa.ipc.new_file(str(file), schema)


class _Plain:
    """CSV knows no dictionaries: symbols are written out."""

    def __init__(self, csv: Any, file: Path, schema: Any) -> None:
        self._pa = importlib.import_module("pyarrow")
        fields = [
            self._pa.field(field.name, field.type.value_type if hasattr(field.type, "value_type") else field.type)
            for field in schema
        ]
        self._schema = self._pa.schema(fields)
        self._writer = csv.CSVWriter(str(file), self._schema)

    def write_batch(self, batch: Any) -> None:
        columns = [column.cast(field.type) for column, field in zip(batch.columns, self._schema, strict=True)]
        self._writer.write_batch(self._pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


@contextlib.contextmanager
def _progress(channel: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    if quiet or not sys.stderr.isatty():
        yield lambda count: None
        return
    with click.progressbar(length=total, label=channel, file=sys.stderr, show_pos=True) as bar:
        yield bar.update
