"""``fabric tap``: see a channel's records as they pass."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from fabric.cli.completion import complete_config_and_channel
from fabric.cli.options import duration, json_option
from fabric.client import Batch, Client, connect
from fabric.client.connection import StartAt
from fabric.config.source import CONFIG_VARIABLE
from fabric.errors import ConfigError, NotConnected
from fabric.protocol.events import Lost
from fabric.protocol.progress import Progress
from fabric.protocol.types import State
from fabric.records import RecordType
from fabric.times import to_ns

_TELL_PROGRESS_S = 1.0
_HEAD = ("ts_event_ns", "ts_origin_ns", "ts_publish_ns", "instrument", "flags")


@click.command()
@click.argument("arguments", nargs=-1, metavar="[CONFIG|RUN_DIR] CHANNEL", shell_complete=complete_config_and_channel)
@click.option("--start", default="snapshot", help='"snapshot", "first", "live", a sequence, or a time in ISO form.')
@click.option("--count", type=click.IntRange(min=0), default=0, help="End after so many records.")
@click.option("--for", "for_text", metavar="DURATION", help="End after, e.g., 20s; a bare number is seconds.")
@click.option("--symbols", multiple=True, help='Only instruments that match, e.g. "BTC-*".')
@click.option("--fields", help="Only these fields, e.g. bid,ask.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="At most so many lines a second; says what it leaves out.",
)
@json_option
def tap(
    arguments: tuple[str, ...],
    start: str,
    count: int,
    for_text: str | None,
    symbols: tuple[str, ...],
    fields: str | None,
    rate: float | None,
    as_json: bool,
) -> None:
    """Print a channel's records, a line each; lost records are told where they are missing."""
    config, channel = _split(arguments)
    begin, seconds = _begin(start), _seconds(for_text)

    def lost(event: Lost) -> None:
        click.echo(f"# lost {event.first} to {event.last}: {event.reason}", err=True)

    deadline = None if seconds is None else time.monotonic() + seconds
    pace, progress = _Pace(rate), _Progress()
    left = count or -1
    with connect(config) as client:
        subscription = client.subscribe(channel, symbols=symbols or None, start=begin, on_lost=lost)
        try:
            subscription.wait_live(timeout=5.0 if seconds is None else min(5.0, max(seconds, 0.1)))
        except NotConnected:
            if subscription.state is not State.RECOVERING:  # it is there, and has much to catch up with
                raise
        if subscription.record is not None:
            _fields(fields, subscription.record)  # a mistake is told now, also where the channel is quiet
        names = client.known_symbols() or {} if _has_instruments(subscription.record) else {}
        _note_symbols(client, symbols)
        while left != 0:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            batch = subscription.poll(timeout=remaining)
            if batch is None:
                break
            if told := progress.line(subscription.progress, time.monotonic()):
                click.echo(told, err=True)
            chosen = _fields(fields, batch.record)
            if names is not None and not set(batch.records["instrument"].tolist()) <= set(names):
                names = client.instruments.symbols() if names else names
            for line in _lines(batch, chosen, names, pace, as_json):
                click.echo(line)
                left -= 1
                if left == 0:
                    break
    if pace.left_out:
        click.echo(f"# {pace.left_out:,} records were not shown (--rate {rate:g})", err=True)


class _Pace:
    """Lets through at most ``rate`` lines a second, and counts the others."""

    def __init__(self, rate: float | None) -> None:
        self._gap_s = 0.0 if rate is None else 1.0 / rate
        self._next_s = 0.0
        self.left_out = 0

    def passes(self) -> bool:
        if self._gap_s:
            now_s = time.monotonic()
            if now_s < self._next_s:
                self.left_out += 1
                return False
            self._next_s = now_s + self._gap_s
        return True


class _Progress:
    """What is said of a catch-up, now and then; nothing of one that is soon over."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._told = False

    def line(self, progress: Progress | None, now_s: float) -> str:
        """What to tell; mostly empty."""
        if progress is None:
            told, self._told = self._told, False
            return "# caught up" if told else ""
        if now_s < self._next_s or progress.seconds < _TELL_PROGRESS_S:
            return ""
        self._next_s, self._told = now_s + _TELL_PROGRESS_S, True
        return f"# catching up: {progress}"


def _split(arguments: tuple[str, ...]) -> tuple[str | None, str]:
    if len(arguments) == 2:
        return arguments[0], arguments[1]
    if len(arguments) == 1 and not Path(arguments[0]).is_file():
        if not os.environ.get(CONFIG_VARIABLE):
            raise ConfigError("no config given", remedy=f"fabric tap CONFIG {arguments[0]}, or set ${CONFIG_VARIABLE}")
        return None, arguments[0]
    raise click.UsageError("give a config (or set $FABRIC_CONFIG) and one channel")


def _begin(text: str) -> StartAt:
    if text.isdecimal():
        return int(text)
    if text[:1].isdecimal():
        try:
            time_given = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(
                f"{text!r} is not a time", key="--start", remedy="for example 2026-01-02T09:30:00Z"
            ) from None
        aware = time_given if time_given.tzinfo else time_given.replace(tzinfo=UTC)
        to_ns(aware)  # one that is out of range is refused before anything is connected
        return aware
    return text


def _seconds(text: str | None) -> float | None:
    """Of a duration with its unit, or of a bare number of seconds."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        return duration(text, "--for") / 1e9
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{text!r} is not a duration", key="--for", remedy="for example 20s")
    return seconds


def _note_symbols(client: Client, symbols: tuple[str, ...]) -> None:
    """Say so where the definitions are there and none of them matches: nothing would come, without a word."""
    if symbols and client.known_symbols() and not len(client.instruments.ids(*symbols)):
        click.echo(f"# no instrument matches {', '.join(symbols)} yet; waiting", err=True)


def _has_instruments(record: RecordType | None) -> bool:
    """Do its records speak of instruments, whose symbols stand elsewhere?"""
    return record is not None and record.key == ("instrument",) and "symbol" not in (record.dtype.names or ())


def _fields(text: str | None, record: RecordType) -> tuple[str, ...]:
    names = record.dtype.names or ()
    if text is None:
        return names
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in chosen:
        if name not in names:
            raise ConfigError(f"there is no field {name!r}", key="--fields", remedy=f"fields: {', '.join(names)}")
    return chosen


def _lines(batch: Batch, fields: tuple[str, ...], symbols: dict[int, str], pace: _Pace, as_json: bool) -> Iterator[str]:
    for sequence, row in zip(batch.sequences.tolist(), batch.records, strict=True):
        if not pace.passes():
            continue
        values = {name: _plain(row[name]) for name in fields}
        symbol = symbols.get(int(row["instrument"]))
        if as_json:
            kept = {name: _json(value) for name, value in values.items()}
            yield json.dumps({"sequence": sequence, **({"symbol": symbol} if symbol else {}), **kept})
            continue
        shown = [
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
        ]
        yield " ".join([str(sequence), *([symbol] if symbol else []), *shown])


def _plain(value: Any) -> Any:
    """Numbers, text and lists of these."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, list):
        return [_plain(each) for each in plain]
    return plain.decode("ascii", "replace") if isinstance(plain, bytes) else plain


def _json(plain: Any) -> Any:
    """The same, with null for what JSON has no number for: NaN and the infinities."""
    if isinstance(plain, list):
        return [_json(each) for each in plain]
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
