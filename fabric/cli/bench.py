"""``fabric bench``: latency and throughput of this fabric's client beside other libraries, in the same run."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from fabric.bench.case import DEFAULT_RATES, Options
from fabric.bench.programs import DEFAULT, MODULES
from fabric.errors import UserMistake
from fabric.log.paths import write_atomically
from fabric.report.write import check_report_file

_MOST_RATE = 1_000_000.0


@click.command()
@click.argument("programs", nargs=-1, metavar="[PROGRAM ...]")
@click.option("--peers", is_flag=True, help="Also beside C code and every other library that is installed.")
@click.option("--only", metavar="NAME", multiple=True, help="These contestants and no others; may be repeated.")
@click.option("--rounds", type=int, default=15, show_default=True, help="Pairs of runs: every contestant runs in each.")
@click.option("--seconds", type=float, default=1.0, show_default=True, help="About how long a run sends.")
@click.option("--rate", "rates", type=float, multiple=True, help="Records a second of `latency`; may be repeated.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything to a JSON file.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write a page with percentile plots.")
@click.option("--quick", is_flag=True, help="A few seconds: does it work? Its figures mean nothing.")
def bench(
    programs: tuple[str, ...],
    peers: bool,
    only: tuple[str, ...],
    rounds: int,
    seconds: float,
    rates: tuple[float, ...],
    json_file: Path | None,
    html_file: Path | None,
    quick: bool,
) -> int:
    """Measure latency and throughput beside other libraries, in interleaved rounds of the same run.

    PROGRAM: latency, throughput (these two by default), throughput-batch, python-send, fanout, channels, sizes, gil,
    asyncio, or all. Each prints its topology. A ratio above 1 is in favour of ours.
    """
    named = _programs(programs)
    options = _options(peers, only, rounds, seconds, rates, quick)
    for file, key in ((json_file, "--json"), (html_file, "--html")):
        if file is not None:
            check_report_file(file, key)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: every process and file is cleared away
    from fabric.bench import outcome

    finished = outcome.run(named, options, click.echo, _progress)
    if json_file is not None:
        _write(json_file, json.dumps(finished.plain(), indent=1, allow_nan=False), "--json")
    if html_file is not None:
        _write(html_file, finished.page(), "--html")
    return 1 if finished.failed else 0


def _programs(named: tuple[str, ...]) -> list[str]:
    from difflib import get_close_matches

    for name in named:
        if name not in MODULES and name != "all":
            close = get_close_matches(name, [*MODULES, "all"], n=1)
            known = f"did you mean {close[0]!r}?" if close else f"programs: {', '.join(MODULES)}, all"
            raise UserMistake(f"fabric bench: there is no program {name!r}", remedy=known)
    if "all" in named:
        return list(MODULES)
    return list(dict.fromkeys(named or DEFAULT))


def _options(
    peers: bool, only: tuple[str, ...], rounds: int, seconds: float, rates: tuple[float, ...], quick: bool
) -> Options:
    _check_names(only)
    if not 1 <= rounds <= 1000:
        raise UserMistake(f"--rounds {rounds}: not from 1 to 1000", remedy="15 give a useful interval")
    if not 0.05 <= seconds <= 60:
        raise UserMistake(f"--seconds {seconds:g}: not from 0.05 to 60", remedy="1 is enough for most machines")
    for rate in rates:
        if not 10 <= rate <= _MOST_RATE:
            raise UserMistake(f"--rate {rate:g}: not from 10 to {_MOST_RATE:,.0f} records a second")
    if quick:
        return Options(rounds=1, seconds=0.2, rates=rates or (1_000.0,), peers=peers, quick=True, only=only)
    return Options(rounds, seconds, rates or DEFAULT_RATES, peers, only=only)


def _check_names(only: tuple[str, ...]) -> None:
    if not only:
        return
    from fabric.bench.registry import contestants

    for name in only:
        if name not in contestants():
            raise UserMistake(f"--only {name!r}: there is no such contestant", remedy=", ".join(contestants()))


def _progress(text: str) -> None:
    """On a terminal only: one line that is written over."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}" if text else "\r\x1b[K", nl=False, err=True)


def _write(file: Path, content: Any, key: str) -> None:
    try:
        write_atomically(file, content.encode())
    except OSError as error:
        raise UserMistake(f"{key}: can't write {file}: {error.strerror}") from None
