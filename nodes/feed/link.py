"""One websocket connection: frames to messages, messages to recording and session, and what the session sends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

import picows

from fabric.clock import Clock
from fabric.errors import LogError
from nodes.feed.deribit_session import DeribitSession
from nodes.feed.recorder import Recorder

MAX_MESSAGE_BYTES = 15 * 1024 * 1024
"""Below what a line of a capture may have."""
_CONTENT = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION)
_TOLD_AT_MOST = 100
"""By one connection: what a venue sends must not fill the disk with log lines."""


class Link(picows.WSListener):
    """Lives as long as its connection; ``reason`` then says why it ended."""

    def __init__(
        self, recorder: Recorder, new_session: Callable[[], DeribitSession], clock: Clock, tell: Callable[[str], None]
    ) -> None:
        super().__init__()
        self.reason = ""
        self.crash: Exception | None = None
        """A mistake in this code: picows would log it in a line, and go on."""
        self.session: DeribitSession | None = None
        self._recorder = recorder
        self._new_session = new_session
        self._clock = clock
        self._tell = tell
        self._told = 0
        self._transport: picows.WSTransport | None = None
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf

    # What picows calls

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        try:
            self._recorder.connected()
            self.session = self._new_session()
            self._after(self.session)
            self._flush()
        except Exception as error:
            self._crashed(error)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        try:
            if self.session is not None and not self.reason:
                self._on_frame(self.session, frame)
        except Exception as error:
            self._crashed(error)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.end("the connection was lost")

    def _crashed(self, error: Exception) -> None:
        self.crash = error
        self.end(f"a mistake in this program: {error!r}")

    def _on_frame(self, session: DeribitSession, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            text = frame.get_close_message() or b"no reason given"
            self.end(f"closed by the venue: {bytes(text).decode('utf-8', 'replace')[:200]}")
            return
        if frame.msg_type not in _CONTENT:
            return
        payload = frame.get_payload_as_bytes()
        if not frame.fin or self._parts:
            if not self._is_whole(payload, frame.fin):
                return
            payload = b"".join(self._parts)
            self._parts.clear()
            self._parts_bytes = 0
        self._recorder.received(payload)
        session.on_message(payload, self._clock.monotonic_ns())
        if not session.quiet:
            self._after(session)
        if frame.last_in_buffer:
            self._flush()
        elif not self._flushing:
            # What else was read comes first: one write for all of it, and not later than this turn of the loop.
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    # What its owner calls, in the loop's thread

    def resubscribe(self, channels: Sequence[str]) -> None:
        """See ``DeribitSession.resubscribe``."""
        if self.session is not None and not self.reason:
            self.session.resubscribe(channels, self._clock.monotonic_ns())
            self._after(self.session)
            self._flush()

    def end(self, reason: str) -> None:
        """Record the end, once, and disconnect."""
        if self.reason:
            return
        self.reason = reason
        if self._timer is not None:
            self._timer.cancel()
        if self.session is not None:
            self._recorder.ended(reason)
            self._flush()
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(picows.WSCloseCode.OK)
            self._transport.disconnect()

    def _is_whole(self, part: bytes, fin: bool) -> bool:
        self._parts.append(part)
        self._parts_bytes += len(part)
        if self._parts_bytes > MAX_MESSAGE_BYTES:
            self.end(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
            return False
        return fin

    def _after(self, session: DeribitSession) -> None:
        """What the session wants done after it was given something."""
        for message in session.out:
            self._recorder.sent(message)
            assert self._transport is not None
            self._transport.send(picows.WSMsgType.TEXT, message)
        session.out.clear()
        for text in session.told:
            self._told += 1
            if self._told <= _TOLD_AT_MOST:
                self._tell(text)
        session.told.clear()
        if session.failure:
            self.end(session.failure)
        else:
            self._set_timer(session)

    def _set_timer(self, session: DeribitSession) -> None:
        """An earlier one replaces the one that runs; a later one is set when that one has gone off."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + max(0.0, session.due_ns - self._clock.monotonic_ns()) / 1e9
        if at_s < self._timer_at_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at_s = loop.call_at(at_s, self._on_timer, session), at_s

    def _on_timer(self, session: DeribitSession) -> None:
        self._timer, self._timer_at_s = None, math.inf
        if not self.reason:
            session.on_time(self._clock.monotonic_ns())
            self._after(session)
            self._flush()

    def _flush(self) -> None:
        self._flushing = False
        try:
            self._recorder.commit()
        except LogError as error:  # a full disk: nothing is taken in that can't be kept
            self.end(str(error))
            self.reason = str(error)
