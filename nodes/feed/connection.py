"""The connection of a live feed: a thread that keeps one websocket up, and records whatever comes and goes.

Nothing is computed here. What was read is committed to the recording before the node is told of it (``wake``), with our
clock as of reading it; so are a connection's begin and end, and what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

import picows

from fabric.clock import Clock
from fabric.units import format_ns
from nodes.feed.backoff import Backoff
from nodes.feed.deribit_session import DeribitSession
from nodes.feed.link import MAX_MESSAGE_BYTES, Link
from nodes.feed.recorder import Recorder
from nodes.feed.session_settings import SessionCounters, SessionSettings

_QUIET = logging.getLogger("fabric.websocket")
_QUIET.setLevel(logging.ERROR)  # what happens to a connection is told here, in our words
_CONNECT_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 1.0


class Connection:
    """One venue, for as long as the node lives. ``url`` is ws:// or wss://; without ``tls`` the system's certificates
    are trusted."""

    def __init__(
        self,
        url: str,
        settings: SessionSettings,
        recorder: Recorder,
        backoff: Backoff,
        *,
        tls: ssl.SSLContext | None,
        wake: Callable[[], None],
        clock: Clock,
        log: logging.Logger,
    ) -> None:
        self.url = url
        self.counters = SessionCounters()
        self.connects = 0
        self.crash: BaseException | None = None
        """A mistake in this code ended the thread; the node's thread is to raise it."""
        self._problem = "not connected yet"
        self._settings = settings
        self._recorder = recorder
        self._backoff = backoff
        self._tls = tls
        self._wake = wake
        self._clock = clock
        self._log = log
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="fabric-connection", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def close(self) -> bool:
        """End the session and the thread. True if the thread has ended, so that nothing more is recorded."""
        self._stopping.set()
        self._call(self._closing.set)
        self._thread.join(2 * _CLOSE_TIMEOUT_S + 1)
        return not self._thread.is_alive()

    def resubscribe(self, channels: Sequence[str]) -> None:
        """From any thread: subscribe to these anew, if there is a session."""

        def ask() -> None:
            if self._link is not None:
                self._link.resubscribe(channels)

        self._call(ask)

    def status(self) -> dict[str, Any]:
        """For the report; ``problem`` is "" while there is a session."""
        link = self._link
        session = link.session if link is not None else None
        return {
            "url": self.url,
            "problem": "" if session is not None else self._problem,
            "connects": self.connects,
            "subscribed": len(session.subscribed) if session is not None else 0,
            **{name: getattr(self.counters, name) for name in SessionCounters.__slots__},
        }

    def _call(self, function: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile: the thread is at its end
                loop.call_soon_threadsafe(function)

    # In the thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                self._loop = runner.get_loop()
                runner.run(self._live())
        except BaseException as error:
            self.crash = error
            self._wake()
        finally:
            self._loop = None

    async def _live(self) -> None:
        while not self._stopping.is_set():
            self._problem = await self._one_connection()
            if self._stopping.is_set():
                return
            pause_ns = self._backoff.next_ns()
            self._log.warning("%s: %s; trying again in %s", self.url, self._problem, format_ns(pause_ns))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause_ns / 1e9)

    async def _one_connection(self) -> str:
        """Connect, and stay until it ends; returns why."""
        link = Link(self._recorder, self._new_session, self._clock, self._tell)
        connecting = asyncio.ensure_future(
            picows.ws_connect(
                lambda: link,
                self.url,
                ssl_context=self._tls,
                websocket_handshake_timeout=_CONNECT_TIMEOUT_S,
                max_frame_size=MAX_MESSAGE_BYTES,
                max_redirects=0,
                logger_name=_QUIET,
                use_aiofastnet=False,  # its own TLS tells of a refused certificate with a traceback
            )
        )
        await self._until_closing(connecting, _CONNECT_TIMEOUT_S)
        if not connecting.done():
            connecting.cancel()
        try:
            transport, _ = await connecting
        except asyncio.CancelledError:
            return why_not(TimeoutError())
        except (OSError, TimeoutError, picows.WSError, ValueError) as error:
            return link.reason or why_not(error)
        self._link = link
        self.connects += 1
        self._log.info("%s: connected", self.url)
        ended = asyncio.ensure_future(transport.wait_disconnected())
        await self._until_closing(ended)
        if link.session is not None and link.session.ready:
            self._backoff.reset()
        link.end("the connection was lost" if ended.done() else "closed by this node")
        await asyncio.wait((ended,), timeout=_CLOSE_TIMEOUT_S)
        if not ended.done():
            ended.cancel()
        elif not ended.cancelled():
            ended.exception()  # taken, so that nobody logs it: the link has told the end already
        self._link = None
        if link.crash is not None:
            raise link.crash
        return link.reason

    async def _until_closing(self, work: asyncio.Future[Any], timeout_s: float | None = None) -> None:
        """Until ``work`` is done, this object is closed, or the time is up."""
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait((closing, work), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()

    def _new_session(self) -> DeribitSession:
        return DeribitSession(self._settings, self._clock.monotonic_ns(), self.counters)

    def _tell(self, text: str) -> None:
        self._log.warning("%s: %s", self.url, text)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop needs less of the processor for TLS; without it all is the same."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def why_not(error: Exception) -> str:
    """One line that says what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {error.verify_message or error.reason} (check the address; if the venue has "
            "a certificate of its own, set ca_file)"
        )
    if isinstance(error, ssl.SSLError):
        return f"no TLS there: {error.reason or error} (check the address: ws:// or wss://, and the port)"
    if isinstance(error, TimeoutError):
        return f"no answer within {_CONNECT_TIMEOUT_S:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nobody listens there"
    if isinstance(error, OSError):
        return f"can't connect: {error.strerror or error or type(error).__name__}"
    return f"no websocket there: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"
