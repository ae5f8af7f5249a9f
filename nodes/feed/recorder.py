"""What a connection writes into its recording: lines of a capture, stamped with our clock."""

from __future__ import annotations

from collections.abc import Callable

from fabric.clock import Clock
from nodes.feed.recording import RecordingWriter

_CONNECTED, _ENDED, _SENT = "<->", "<x>", "<-"


class Recorder:
    """Used by the connection's thread; ``committed`` may be read by any. ``url`` has no spaces."""

    def __init__(self, url: str, recording: RecordingWriter, clock: Clock, wake: Callable[[], None]) -> None:
        self.committed = recording.next
        """Lines below this number can be read."""
        self._recording = recording
        self._clock = clock
        self._wake = wake
        self._where = url.encode()
        self._sent = f"{url} {_SENT} ".encode()

    def received(self, payload: bytes) -> None:
        """One message. Line ends become spaces: JSON has them between its tokens only."""
        if b"\n" in payload or b"\r" in payload:
            payload = payload.replace(b"\n", b" ").replace(b"\r", b" ")
        self._recording.append(b"%b: %b\n" % (self._stamp(), payload))

    def sent(self, payload: bytes) -> None:
        """One message of ours."""
        self._recording.append(b"%b%b: %b\n" % (self._sent, self._stamp(), payload))

    def connected(self) -> None:
        """A connection begins."""
        self._recording.append(b"%b %b %b\n" % (self._where, _CONNECTED.encode(), self._stamp()))

    def ended(self, reason: str) -> None:
        """It is over."""
        text = " ".join(reason.split()).encode()
        self._recording.append(b"%b %b %b: %b\n" % (self._where, _ENDED.encode(), self._stamp(), text))

    def commit(self) -> None:
        """Make it readable, then wake the reader. Raises LogError; nothing of it is there then."""
        self._recording.commit()
        if self._recording.next != self.committed:
            self.committed = self._recording.next
            self._wake()

    def _stamp(self) -> bytes:
        return b"%d.%09d" % divmod(self._clock.now_ns(), 10**9)
