"""Fetching a range of records from a log server, blocking: for resume, where nothing else can go on meanwhile."""

from __future__ import annotations

import time

import numpy as np
import zmq

from fabric.channel import channel_id
from fabric.protocol.requests import MalformedMessage, Op, Reply, Request, Status
from fabric.records import Records, RecordType
from fabric.transport.security import CurveClient, use_client_keys
from fabric.transport.sockets import Context, new_socket
from native.packet import HEADER_BYTES, Header, ParseResult

_TRY_S = 1.0
_MAX_RECORDS_A_REQUEST = 16_384


def fetch_range(
    endpoint: str,
    channel: str,
    record: RecordType,
    session: int,
    first: int,
    last: int,
    *,
    timeout: float = 10.0,
    context: Context | None = None,
    curve: CurveClient | None = None,
) -> Records | None:
    """Records ``first`` to ``last`` (inclusive) of a session; None if nothing comes for ``timeout`` seconds, or the log
    server says that it has not got them."""
    deadline = time.monotonic() + timeout
    identity, position, parts = channel_id(channel), first, []
    while position <= last:
        upper = min(last, position + _MAX_RECORDS_A_REQUEST - 1)
        got, gone = _ask(
            endpoint, record, Request(1, Op.REPLAY, identity, session, ((position, upper),)), context, curve
        )
        for begin, records in got:
            if begin == position:
                parts.append(records)
                position += len(records)
                deadline = time.monotonic() + timeout
        if gone or time.monotonic() > deadline:
            return None
    return np.concatenate(parts)


def _ask(
    endpoint: str, record: RecordType, request: Request, context: Context | None, curve: CurveClient | None
) -> tuple[list[tuple[int, Records]], bool]:
    """One request on a socket of its own: what came, and whether the log server said that it has not got all."""
    socket = new_socket(context or zmq.Context.instance(), zmq.DEALER)
    header = Header()
    got: list[tuple[int, Records]] = []
    try:
        use_client_keys(socket, curve)
        socket.connect(endpoint)
        socket.send(request.encode())
        while socket.poll(int(_TRY_S * 1000)):
            frames = socket.recv_multipart()
            try:
                reply = Reply.decode(frames[0])
            except MalformedMessage:
                continue
            if reply.status != Status.DATA:
                return got, True  # unavailable, unknown, or beyond the end
            if len(frames) == 2 and header.parse(frames[1]) == ParseResult.OK and header.schema == record.schema:
                got.append((header.sequence, record.view(frames[1], HEADER_BYTES, header.count)))
            if reply.part >= reply.total:
                break
    finally:
        socket.close()
    return got, False
