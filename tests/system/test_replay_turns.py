"""The log server between several clients: turns, a limit, and clients that have gone or take nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

import fabric
from fabric.channel import channel_id
from fabric.log import LogOptions, LogWriter
from fabric.protocol.requests import Op, Reply, Request, Status
from fabric.testing import ManualClock
from fabric.transport.logserver import LogServer

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", value="u8")
IDENTITY = channel_id("numbers")
TOTAL = 100_000
MIB = 1 << 20


class Client:
    """Asks with a socket of its own."""

    def __init__(self, endpoint: str) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.replies: list[Reply] = []
        self.bytes = 0

    def ask(self, op: Op, session: int, *ranges: tuple[int, int]) -> None:
        self.socket.send(Request(1, op, IDENTITY, session, ranges).encode())

    def take(self) -> None:
        while self.socket.poll(0):
            frames = self.socket.recv_multipart()
            self.replies.append(Reply.decode(frames[0]))
            self.bytes += sum(map(len, frames[1:]))


class Served:
    def __init__(self, directory: Path, **options: int) -> None:
        self.writer = LogWriter(directory / "log", "numbers", IDENTITY, NUMBER, LogOptions(), now_ns=1)
        self.writer.write(NUMBER.build(TOTAL, value=np.arange(1, TOTAL + 1)), 2)
        self.clock = ManualClock(10**18)
        self.endpoint = f"ipc://{directory}/replay"
        find = {IDENTITY: directory / "log"}.get
        self.server = LogServer([self.endpoint], find, clock=self.clock, **options)
        self.clients = [Client(self.endpoint) for _ in range(2)]

    def serve_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.server.serve_once(1)
            for client in self.clients:
                client.take()
            assert time.monotonic() < deadline, [len(client.replies) for client in self.clients]

    def close(self) -> None:
        for client in self.clients:
            client.socket.close()
        self.server.close()
        self.writer.close()


@pytest.fixture
def served(short_directory: Path) -> Iterator[Callable[..., Served]]:
    opened: list[Served] = []

    def serve(**options: int) -> Served:
        opened.append(Served(short_directory, **options))
        return opened[-1]

    yield serve
    for each in opened:
        each.close()


def test_a_long_replay_does_not_hold_up_a_short_one_nor_a_question(served: Callable[..., Served]) -> None:
    it = served(replay_rate=MIB)
    long, short = it.clients
    long.ask(Op.REPLAY, it.writer.session, (1, TOTAL))
    it.serve_until(lambda: long.replies)
    short.ask(Op.REPLAY, it.writer.session, (5, 9))
    short.ask(Op.STATUS, 0)
    it.serve_until(lambda: short.replies and it.server.requests == 3)
    assert [reply.status for reply in short.replies] == [Status.INFO], "it waits for nobody"

    def through(client: Client, count: int) -> bool:
        it.clock.advance(10_000_000)
        return len(client.replies) == count

    it.serve_until(lambda: through(short, 2))
    assert short.replies[1].status == Status.DATA
    assert len(long.replies) < 10 < long.replies[0].total, "a part of each in turn"
    it.serve_until(lambda: through(long, long.replies[0].total))
    assert [reply.part for reply in long.replies] == list(range(1, long.replies[0].total + 1))
    assert it.server.replayed_records == TOTAL + 5


def test_replays_keep_to_the_limit_and_questions_do_not_wait(served: Callable[..., Served]) -> None:
    it = served(replay_rate=MIB)
    one, other = it.clients
    for client in it.clients:
        client.ask(Op.REPLAY, it.writer.session, (1, TOTAL))
    it.serve_until(lambda: len(one.replies) + len(other.replies) >= 1)
    for _ in range(20):
        it.server.serve_once(0)
    other.ask(Op.STATUS, 0)
    it.serve_until(lambda: any(reply.status == Status.INFO for reply in other.replies))
    assert one.bytes + other.bytes <= 2 * 65_536, "the clock stands still"
    before = one.bytes + other.bytes
    for _ in range(40):
        it.clock.advance(50_000_000)
        for _ in range(5):
            it.server.serve_once(0)
    it.serve_until(lambda: one.bytes + other.bytes > before + 1.5 * MIB)
    assert one.bytes + other.bytes <= before + 2 * MIB + 65_536
    # Each has its turn; the first one may have had two before the other had asked.
    it.serve_until(lambda: abs(one.bytes - other.bytes) <= 2 * 65_536)


def test_a_client_that_has_gone_costs_nothing_more(served: Callable[..., Served]) -> None:
    it = served(replay_rate=MIB)
    gone, other = it.clients
    gone.ask(Op.REPLAY, it.writer.session, (1, TOTAL))
    it.serve_until(lambda: gone.replies)
    gone.socket.close()
    it.clients.remove(gone)
    other.ask(Op.REPLAY, it.writer.session, (1, 10))

    def through() -> bool:
        it.clock.advance(50_000_000)
        return bool(other.replies) and len(it.server._turns) == 0

    it.serve_until(through)
    assert it.server.replayed_records < TOTAL // 2
