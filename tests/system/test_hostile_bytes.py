"""Garbage beside every good message, on both sockets of a reader: it gets each record once, and nothing else, and says so."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

import fabric
from fabric.protocol.requests import MalformedMessage, Reply
from native.packet import Header, ParseResult, encode

pytestmark = pytest.mark.system
NUMBER = fabric.record("hostile_number", value="u8")
TOTAL = 4000


class Noise:
    """Stands between a publisher and a reader: passes on every message, packets with a checksum, and adds others."""

    def __init__(self, upstream: tuple[str, str], here: tuple[str, str], seed: int, drop: float) -> None:
        self.passed = self.added = self.added_replies = 0
        self._chance = random.Random(seed)
        self._drop = drop
        self._context: zmq.Context[Any] = zmq.Context()
        self._sub = self._socket(zmq.XSUB, connect=upstream[0])
        self._pub = self._socket(zmq.XPUB, bind=here[0])
        self._dealer = self._socket(zmq.DEALER, connect=upstream[1])
        self._router = self._socket(zmq.ROUTER, bind=here[1])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _socket(self, kind: int, *, connect: str = "", bind: str = "") -> Any:
        made = self._context.socket(kind)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0)):  # it drops nothing but on purpose
            made.setsockopt(option, value)
        made.connect(connect) if connect else made.bind(bind)
        return made

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._context.destroy(0)

    def _run(self) -> None:
        poller = zmq.Poller()
        for each in (self._sub, self._pub, self._dealer, self._router):
            poller.register(each, zmq.POLLIN)
        asked: list[bytes] = []
        while not self._over.is_set():
            for found, _ in poller.poll(20):
                message = found.recv_multipart()
                if found is self._pub:
                    self._sub.send_multipart(message)
                elif found is self._sub:
                    self._pass_packet(message)
                elif found is self._router:
                    asked = [message[0]]
                    self._dealer.send(self._chance.randbytes(self._chance.randrange(60)))
                    self._dealer.send_multipart(message[1:])
                else:
                    for _ in range(self._chance.randint(0, 2)):
                        self._router.send_multipart([*asked, *self._bad_reply(message[0])])
                        self.added_replies += 1
                    self._router.send_multipart([*asked, *message])

    def _pass_packet(self, message: list[bytes]) -> None:
        header = Header()
        if header.parse(message[0]) == ParseResult.OK:
            records = message[0][48:]
            good = encode(
                header.kind, header.channel, header.session, header.sequence, header.sent_ns, header.schema,
                header.size, header.count, records, crc=True,
            )  # fmt: skip
        for _ in range(self._chance.randint(0, 3)):
            bad = self._bad_packet(good)
            if header.parse(bad) != ParseResult.OK:
                # The subscription matches by the first bytes: what has others is not even sent.
                self._pub.send(bad)
                self.added += bad[:8] == good[:8]
        if self._chance.random() >= self._drop:
            self._pub.send(good)
        self.passed += 1

    def _bad_packet(self, good: bytes) -> bytes:
        chance = self._chance
        kind = chance.randrange(4)
        if kind == 0:
            return good[:8] + chance.randbytes(chance.randrange(200))
        if kind == 1:
            return good[: chance.randrange(8, len(good))]
        if kind == 2:
            return good + chance.randbytes(chance.randint(1, 9))
        at = chance.randrange(8, len(good))
        return good[:at] + bytes([good[at] ^ (1 << chance.randrange(8))]) + good[at + 1 :]

    def _bad_reply(self, meta: bytes) -> list[bytes]:
        chance = self._chance
        while True:
            at = chance.randrange(len(meta))
            bad = chance.choice((meta[:at], chance.randbytes(chance.randrange(80)), meta[:at] + b"\xc1" + meta[at:]))
            try:
                Reply.decode(bad)
            except MalformedMessage:
                return [bad, chance.randbytes(60)][: chance.randint(1, 2)]


@pytest.mark.parametrize("wire_of", ["native", "pyzmq"])
@pytest.mark.parametrize("drop", [0.0, 0.05])
def test_a_reader_in_noise(
    drop: float,
    wire_of: str,
    sockets: Any,
    short_directory: Path,
    tmp_path: Path,
    waiting: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = 17
    print("seed", seed)
    monkeypatch.setenv("FABRIC_WIRE", "" if wire_of == "native" else wire_of)
    here = (f"ipc://{short_directory}/noisy-data", f"ipc://{short_directory}/noisy-replay")
    with fabric.publish("numbers", NUMBER, listen=sockets[0], replay=sockets[1], log_dir=tmp_path / "log") as out:
        noise = Noise(sockets, here, seed, drop)
        try:
            with fabric.subscribe("numbers", data=here[0], replay=here[1], path="ipc", start="first") as numbers:
                numbers.wait_live(10)
                waiting(lambda: noise.passed, "a heartbeat: the subscription has arrived")
                got: list[int] = []
                for first in range(1, TOTAL + 1, 5):
                    out.send(value=np.arange(first, first + 5))
                    while (batch := numbers.poll()) is not None:
                        got += batch.records["value"].tolist()
                out.end()
                for batch in numbers:
                    assert batch.sequences.tolist() == batch.records["value"].tolist()
                    got += batch.records["value"].tolist()
                assert got == list(range(1, TOTAL + 1))
                counters, wire = numbers.counters, numbers.wire
                assert (counters.received, counters.lost, counters.skipped) == (TOTAL, 0, 0)
                assert (counters.missed > 0) == (drop > 0)
                assert counters.missed == counters.recovered
                noise_told = lambda: wire.malformed + wire.bad_crc + wire.bad_version + wire.unknown_channel  # noqa: E731
                assert noise.added > 500
                waiting(lambda: noise_told() == noise.added, "each bad packet to be counted, once", 5)
                assert wire.bad_replies == noise.added_replies
                assert wire.wrong_schema == 0
        finally:
            noise.close()
