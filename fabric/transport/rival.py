"""Asking whether somebody else has taken channels over: the log server of a publisher's standby, or of a standby's primary.

A newer session of its own there (a higher epoch) ends our writers: two of them never write one session, and readers go over
to the newer one. But a writer learns of it only while the two hosts reach one another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import zmq

from fabric.channel import channel_id
from fabric.errors import Superseded
from fabric.log.sessions import sessions
from fabric.log.writer import LogWriter
from fabric.protocol.requests import MalformedMessage, Op, Reply, Request, Status
from fabric.transport.security import CurveClient, use_client_keys
from fabric.transport.sockets import Context, Socket, new_socket

_log = logging.getLogger("fabric.standby")
_EVERY_S = 1.0
_ANSWER_S = 0.3
_NEW_AFTER = 3
"""After so many questions without answer the connection is made anew."""


class RivalWatch:
    """Asks the log server at ``endpoint``. ``check`` comes before a log is opened, ``watch`` after it. Close it."""

    def __init__(self, endpoint: str, *, curve: CurveClient | None = None, context: Context | None = None) -> None:
        self._endpoint = endpoint
        self._curve = curve
        self._context = context or zmq.Context.instance()
        self._silent = 0
        self._writers: dict[int, LogWriter] = {}
        self._socket = self._connect()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def check(self, logs: Mapping[str, Path]) -> None:
        """Raises Superseded where a channel has a newer session there than its log here. No answer within 0.3 s is none:
        who is down has taken nothing over."""
        known = {channel_id(name): (name, directory) for name, directory in logs.items()}

        def compare(channel: int, session: int) -> None:
            name, directory = known[channel]
            if session >> 32 > max((each >> 32 for each in sessions(directory)), default=0):
                raise Superseded(name, session, path=directory)

        self._ask(list(known), compare)

    def watch(self, writers: Sequence[LogWriter]) -> None:
        """Ask once each second from now on, and fence the writers that were replaced."""
        self._writers = {writer.channel_id: writer for writer in writers}
        self._thread = threading.Thread(target=self._watch, name="fabric-rival", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._socket.close()

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                self._ask([each for each, writer in self._writers.items() if not writer.superseded], self._compare)
            except Exception:  # it has to go on: without it a writer would not learn that it was replaced
                _log.exception("asking %s failed", self._endpoint)

    def _compare(self, channel: int, session: int) -> None:
        writer = self._writers[channel]
        if session >> 32 > writer.session >> 32:
            _log.error(
                "channel %r was taken over by session %016x at %s: publishing stops",
                writer.channel, session, self._endpoint,
            )  # fmt: skip
            writer.fence(session)

    def _connect(self) -> Socket:
        socket = new_socket(self._context, zmq.DEALER)
        if self._endpoint.startswith("tcp://"):
            use_client_keys(socket, self._curve)
        socket.connect(self._endpoint)
        return socket

    def _ask(self, channels: Sequence[int], compare: Callable[[int, int], None]) -> None:
        """Tell ``compare`` of each channel which session is published there. One that is only followed there is ours, or will
        be gone when it has caught up."""
        waiting = set(channels)
        for channel in channels:
            try:
                self._socket.send(Request(1, Op.STATUS, channel, 0).encode(), zmq.DONTWAIT)
            except zmq.Again:
                break
        deadline_s = time.monotonic() + _ANSWER_S
        heard = not channels
        while waiting and self._socket.poll(max(0, int(1000 * (deadline_s - time.monotonic())))):
            frames = self._socket.recv_multipart(zmq.DONTWAIT)
            try:
                reply = Reply.decode(frames[0])
            except MalformedMessage:
                continue
            heard = True
            if reply.channel not in waiting:
                continue
            waiting.discard(reply.channel)
            if reply.status == Status.INFO and "complete" not in reply.extra:
                compare(reply.channel, reply.session)
        self._silent = 0 if heard else self._silent + 1
        if self._silent >= _NEW_AFTER:
            self._silent = 0
            self._socket.close()
            self._socket = self._connect()
