"""A live source as its node sees it: config checked, a recording to read, and (live only) a connection that fills it.

Resume and playback read the same recording, and never connect.
"""

from __future__ import annotations

import importlib.util
import logging
import random
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from fabric.clock import Clock, SystemClock
from fabric.errors import ConfigError
from nodes.feed.backoff import Backoff
from nodes.feed.recorder import Recorder
from nodes.feed.recording import RecordedLine, RecordingLimits, RecordingReader, RecordingWriter
from nodes.feed.session_settings import SessionSettings

if TYPE_CHECKING:
    from nodes.feed.connection import Connection

SCHEMES = ("ws://", "wss://")
RECORDINGS = "recordings"
_URL = re.compile(r"wss?://[!-~]+")


class LiveSettings(NamedTuple):
    """What a live source needs beside what the session asks for."""

    url: str
    session: SessionSettings
    limits: RecordingLimits
    reconnect_min_ns: int
    reconnect_max_ns: int
    ca_file: Path | None
    lines_per_poll: int


class LiveSource:
    """``node`` names it in errors and its recording in ``folder`` (the fabric's data directory; None only where nothing
    is ever read, as in a check of a config)."""

    def __init__(self, node: str, settings: LiveSettings, folder: Path | None, log: logging.Logger) -> None:
        """Raises ConfigError."""
        self.next: int | None = None
        """The first line that was not given yet; None: from where the recording ends when it connects."""
        self._node = node
        self._settings = settings
        self._log = log
        self._directory = folder / RECORDINGS / node if folder is not None else None
        self._tls = self._checked_tls()
        self._reader: RecordingReader | None = None
        self._writer: RecordingWriter | None = None
        self._recorder: Recorder | None = None
        self._connection: Connection | None = None
        if importlib.util.find_spec("picows") is None:
            raise ConfigError(
                "a live source needs a websocket library that is not installed",
                key=f"nodes.{node}.source",
                remedy="pip install 'zmq-market-fabric[feeds]'",
            )

    def _checked_tls(self) -> ssl.SSLContext | None:
        key = f"nodes.{self._node}."
        url, ca_file = self._settings.url, self._settings.ca_file
        try:
            parts = urlsplit(url)
            valid = bool(_URL.fullmatch(url) and parts.hostname and (parts.port is None or parts.port > 0))
        except ValueError:
            valid = False
        if not valid or parts.username is not None:
            raise ConfigError(
                f"{url!r} is not a websocket address",
                key=key + "source",
                remedy='such as "wss://www.deribit.com/ws/api/v2"',
            )
        if parts.scheme == "ws":
            if ca_file is not None:
                raise ConfigError("is of no use with ws://", key=key + "ca_file", remedy="remove it, or write wss://")
            return None
        context = ssl.create_default_context()
        if ca_file is not None:
            try:
                context.load_verify_locations(ca_file)
            except ssl.SSLError:
                raise ConfigError(f"{ca_file} holds no certificate in PEM form", key=key + "ca_file") from None
            except OSError as error:
                raise ConfigError(f"{ca_file}: {error.strerror}", key=key + "ca_file") from None
        return context

    # Live

    def connect(self, wake: Callable[[], None], clock: Clock | None = None) -> None:
        """Take the recording's lock and start the connection. Raises LogError."""
        from nodes.feed.connection import Connection

        assert self._directory is not None, "a live source needs a folder for its recording"
        clock, settings = clock or SystemClock(), self._settings
        self._writer = RecordingWriter(self._directory, settings.limits)
        if self.next is None:
            self.next = self._writer.next
        self._writer.floor = self.next
        self._recorder = Recorder(settings.url, self._writer, clock, wake)
        self._connection = Connection(
            settings.url,
            settings.session,
            self._recorder,
            # Drawn anew in each process: two feeds that lose a venue together must not come back together.
            Backoff(settings.reconnect_min_ns, settings.reconnect_max_ns, random.Random().random),
            tls=self._tls,
            wake=wake,
            clock=clock,
            log=self._log,
        )
        self._connection.start()

    def received(self) -> tuple[int, int]:
        """(first, count) of the lines that can be given now."""
        if self._connection is None or self._recorder is None:
            return 0, 0
        if self._connection.crash is not None:
            raise self._connection.crash
        assert self.next is not None
        return self.next, min(self._recorder.committed - self.next, self._settings.lines_per_poll)

    def resubscribe(self, channels: Sequence[str]) -> None:
        """Ask for new snapshots, if there is a connection."""
        if channels and self._connection is not None:
            self._connection.resubscribe(channels)

    def on_checkpointed(self, next_line: int | None) -> None:
        """Files wholly below ``next_line``, the ``next`` of a checkpoint, may go from now on."""
        if self._writer is not None and next_line is not None:
            self._writer.floor = next_line

    def close(self) -> None:
        """End the connection; the recording stays."""
        if self._connection is not None and self._connection.close() and self._writer is not None:
            self._writer.close()
        self._writer = None
        if self._reader is not None:
            self._reader.close()

    def status(self) -> dict[str, Any]:
        """Of the connection, for the report; empty where there is none."""
        return self._connection.status() if self._connection is not None else {}

    # Live, in resume and in playback

    def read(self, first: int, count: int) -> Iterator[RecordedLine]:
        """These lines. Raises LogError if they are not there (any more)."""
        if self._reader is None:
            assert self._directory is not None, "a live source needs a folder for its recording"
            self._reader = RecordingReader(self._directory)
        self.next = first + count
        return self._reader.read(first, count)
