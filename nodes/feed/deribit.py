"""The node ``feed.deribit``: Deribit's websocket, live or recorded, to quotes, trades, books, marks and definitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from fabric.errors import ConfigError
from fabric.location import Location
from fabric.records import Records
from fabric.runtime.node import Source
from fabric.runtime.ports import Output, OutputPort
from nodes.feed.capture import CaptureLine, CaptureReader, capture_files, check_capture, parse_line
from nodes.feed.definitions import Row, records_of
from nodes.feed.deribit_decoder import DecodeError, DeribitDecoder, Event
from nodes.feed.deribit_live import live_settings
from nodes.feed.instruments import InstrumentIds
from nodes.feed.live import SCHEMES, LiveSource

_MAX_SPEED = "max"
_FACTOR = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_KEPT_MALFORMED_LINES = 20
_LIVE_LOOK_NS = 1_000_000_000
_DEFAULT_CURRENCIES = ["BTC", "ETH"]
_DEFAULT_KINDS = ["option", "future"]
_DEFAULT_CHANNELS = ["ticker", "book", "trades"]
_LOG_EVERY = 1000
"""After the first ones, only every so many malformed lines (or breaks) are logged."""


class DeribitFeed(Source):
    """Plays a capture, or takes in a venue: each received message is one event. Live, ``ts_origin_ns`` is our clock when
    its bytes were read; of a capture, when it is played.

    The REST answers of ``instruments``, if given, come before the capture, so that tick sizes and contract sizes are
    the venue's own; without them they follow from the instruments' names. Their messages are counted too. Live, the
    venue is asked for them.
    """

    instrument = Output("instrument")
    quote = Output("quote")
    trade = Output("trade", optional=True)
    book = Output("book", optional=True)
    mark = Output("mark", optional=True)

    source: Location
    """``capture:PATH``: a recording, plain or .gz, or the directory of a live session's; or ``wss://…``."""
    speed: str = "max"
    """``"max"``, or a factor of recorded time such as ``"1"`` or ``"0.5"``."""
    instruments: Location | None = None
    """A recording of get_instruments answers."""
    max_lines_per_poll: int = 1

    # Live only
    currencies: list[str] = _DEFAULT_CURRENCIES
    kinds: list[str] = _DEFAULT_KINDS
    channels: list[str] = _DEFAULT_CHANNELS
    interval: str = "100ms"
    """``"100ms"``, ``"agg2"`` or ``"raw"``."""
    max_instruments: int = 10_000
    channels_per_request: int = 250
    instruments_every: str = "5m"
    heartbeat: str = "10s"
    reconnect_min: str = "250ms"
    reconnect_max: str = "30s"
    max_burst: int = 256
    """Lines a cycle, at most, when catching up."""
    ca_file: Path | None = None
    recording_file: str = "64MiB"
    recording_retain: str = "1GiB"

    _live: LiveSource | None = None

    def on_start(self) -> None:
        if self.max_lines_per_poll < 1:
            raise ConfigError("must be at least 1", key=f"nodes.{self.name}.max_lines_per_poll")
        self._factor = self._speed_factor()
        self._captures: list[Path] = []
        self._main_index = 0
        if self.source.startswith(SCHEMES):
            self._live = LiveSource(self.name, live_settings(self), self.state_dir, self.log)
        else:
            self._find_captures()
        self.finite = self._live is None
        self._decoder = DeribitDecoder(InstrumentIds.lease(self.name, self.state_dir))
        self._capture_index = 0
        self._cursor = 0
        """Number of the last line taken from the current file, ``_file``."""
        self._file = self._captures[0] if self._captures else Path()
        self._start_now_ns: int | None = None
        """Our clock when the main capture's first line was due."""
        self._first_recv_ns = 0
        self._last_recv_ns = 0
        self._malformed = 0
        self._malformed_lines: list[dict[str, Any]] = []
        self._reader: CaptureReader | None = None

    def _find_captures(self) -> None:
        """Raises ConfigError, InputFileError."""
        if self.instruments is not None:
            self._captures += capture_files(self.instruments, f"nodes.{self.name}.instruments")
        self._main_index = len(self._captures)
        self._captures += capture_files(self.source, f"nodes.{self.name}.source")
        for index, path in enumerate(self._captures):
            if index <= self._main_index:  # the files of a recording behind its first may hold anything
                check_capture(path)

    def _speed_factor(self) -> Fraction | None:
        text = str(self.speed).strip()
        if text == _MAX_SPEED:
            return None
        factor = Fraction(text) if _FACTOR.fullmatch(text) else Fraction(0)
        if factor <= 0:
            raise ConfigError(
                f"{self.speed!r} is not a speed",
                key=f"nodes.{self.name}.speed",
                remedy='write "max", or a factor of recorded time above 0 such as "1" or "10"',
            )
        return factor

    def on_own_image(self, output: OutputPort, records: Records) -> None:
        if output is self.instrument:
            self.adopt(records)

    def adopt(self, records: Records) -> None:
        """Take over ids and definitions from INSTRUMENT records that this feed published before."""
        self._decoder.adopt(records)

    @property
    def decoder(self) -> DeribitDecoder:
        """Counters, broken books and the channels to subscribe to anew."""
        return self._decoder

    def _peek(self) -> CaptureLine | None:
        """The next line, of whichever capture it is in; None when all were read."""
        while self._capture_index < len(self._captures):
            if self._reader is None:
                path = self._captures[self._capture_index]
                self._reader = CaptureReader(path, after_line=self._cursor, recv_ns=self._last_recv_ns)
            line = self._reader.peek()
            if line is not None:
                return line
            self._reader.close()
            self._reader = None
            self._capture_index += 1
            self._cursor = 0
            self._last_recv_ns = 0
        return None

    def _due_ns(self, line: CaptureLine, now_ns: int) -> int:
        in_main = self._capture_index >= self._main_index
        if self._factor is None or self._start_now_ns is None or not in_main or not self._first_recv_ns:
            return now_ns
        recorded_ns = max(0, line.recv_ns - self._first_recv_ns)
        return self._start_now_ns + recorded_ns * self._factor.denominator // self._factor.numerator

    # Live: the runtime asks for what was received, journals it, and gives it back

    def connect(self, wake: Callable[[], None]) -> None:
        if self._live is not None:
            self._live.connect(wake)

    def received(self) -> tuple[int, int]:
        return self._live.received() if self._live is not None else (0, 0)

    def on_received(self, first: int, count: int, now_ns: int) -> None:
        live = self._live
        assert live is not None, "only a live source receives"
        for recorded in live.read(first, count):
            self._file, self._cursor = recorded.file, recorded.line
            line = parse_line(recorded.line, recorded.content, self._last_recv_ns)
            if line is not None:
                self._last_recv_ns = line.recv_ns
                # A clock that was set back must not make an origin that is later than its record.
                self._decode(line, min(line.recv_ns, now_ns))
        # Taken out in every case, so that a life that does not connect (playback) comes by the same state.
        wanted, self._decoder.resubscribe = self._decoder.resubscribe, []
        live.resubscribe(wanted)

    def on_checkpointed(self, state: Mapping[str, Any]) -> None:
        if self._live is not None:
            self._live.on_checkpointed(state["live_next"])

    def disconnect(self) -> None:
        if self._live is not None:
            self._live.close()

    # Recorded

    def next_due_ns(self, now_ns: int) -> int | None:
        if self._live is not None:
            return now_ns + _LIVE_LOOK_NS
        line = self._peek()
        return None if line is None else self._due_ns(line, now_ns)

    def on_poll(self, now_ns: int) -> None:
        for _ in range(self.max_lines_per_poll):
            line = self._peek()
            if line is None or self._due_ns(line, now_ns) > now_ns:
                return
            if self._capture_index >= self._main_index and not self._first_recv_ns:
                self._start_now_ns = now_ns
                self._first_recv_ns = line.recv_ns
            self._take(line, now_ns)

    def _take(self, line: CaptureLine, now_ns: int) -> None:
        assert self._reader is not None
        self._reader.take()
        self._file, self._cursor = self._captures[self._capture_index], line.number
        self._last_recv_ns = line.recv_ns
        self._decode(line, now_ns)

    def _decode(self, line: CaptureLine, ts_origin_ns: int) -> None:
        if line.problem:
            self._note_malformed(line, line.problem)
            return
        if line.mark:
            self._emit(self._decoder.on_mark(ts_origin_ns))
            return
        try:
            event = self._decoder.decode(line.payload, ts_origin_ns)
        except DecodeError as error:
            self._note_malformed(line, str(error))
            return
        self._emit(event)

    def _emit(self, event: Event) -> None:
        if event.instrument:
            _append(self.instrument, event.instrument)
        if event.quote:
            _append(self.quote, event.quote)
        if event.mark:
            _append(self.mark, event.mark)
        if event.book:
            _append(self.book, event.book)
        if event.trade:
            _append(self.trade, event.trade)
        for found in event.breaks:
            if _is_logged(self._decoder.chain_breaks):
                self.log.warning(
                    "%s:%d: book of %s: a change follows %d, but the last one seen is %s; the book is stale until its "
                    "next snapshot",
                    self._file,
                    self._cursor,
                    found.instrument,
                    found.prev_change_id,
                    "none" if found.last_change_id is None else found.last_change_id,
                )

    def _note_malformed(self, line: CaptureLine, reason: str) -> None:
        path = self._file
        self._malformed += 1
        if len(self._malformed_lines) < _KEPT_MALFORMED_LINES:
            self._malformed_lines.append({"file": str(path), "line": line.number, "reason": reason})
        if _is_logged(self._malformed):
            self.log.warning("%s:%d: malformed, skipped: %s", path, line.number, reason)

    def report(self) -> dict[str, Any]:
        status = {"connection": self._live.status()} if self._live is not None else {}
        return {
            **status,
            "messages": self._decoder.messages,
            "malformed": self._malformed,
            "records": dict(self._decoder.records),
            "chain_breaks": self._decoder.chain_breaks,
            "disconnects": self._decoder.disconnects,
            "malformed_lines": [dict(line) for line in self._malformed_lines],
        }

    def checkpoint(self) -> dict[str, Any]:
        return {
            "capture_index": self._capture_index,
            "cursor": self._cursor,
            "start_now_ns": self._start_now_ns,
            "first_recv_ns": self._first_recv_ns,
            "last_recv_ns": self._last_recv_ns,
            "malformed": self._malformed,
            "malformed_lines": [dict(line) for line in self._malformed_lines],
            "decoder": self._decoder.checkpoint(),
            "live_next": self._live.next if self._live is not None else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._capture_index = int(state["capture_index"])
        self._cursor = int(state["cursor"])
        self._start_now_ns = None if state["start_now_ns"] is None else int(state["start_now_ns"])
        self._first_recv_ns = int(state["first_recv_ns"])
        self._last_recv_ns = int(state["last_recv_ns"])
        self._malformed = int(state["malformed"])
        self._malformed_lines = [dict(line) for line in state["malformed_lines"]]
        self._decoder.restore(state["decoder"])
        if self._live is not None:
            self._live.next = state["live_next"]
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _append(port: OutputPort, rows: list[Row]) -> None:
    if port.connected:
        port.append(records_of(port.record, rows))


def _is_logged(count: int) -> bool:
    return count <= _KEPT_MALFORMED_LINES or count % _LOG_EVERY == 0
