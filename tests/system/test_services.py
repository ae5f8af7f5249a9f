"""Requests and replies: carried out once however often they are sent, and every way in which there is no answer."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

import fabric
from fabric.errors import AddressInUse, Closed, UserMistake
from fabric.transport.services import KEY_BYTES, ServiceServer

pytestmark = pytest.mark.system


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "desk.toml"
    path.write_text('[nodes.feed]\nuse = "feed.simulated"\noutputs = { quote = "d.quote" }\n')
    return path


@pytest.fixture
def client(config: Path) -> Iterator[fabric.Client]:
    with fabric.connect(config) as made:
        yield made


def test_requests_find_their_service_by_name(config: Path, client: fabric.Client) -> None:
    with fabric.serve("desk.double", lambda body: {"twice": body["x"] * 2}, config=config) as service:
        assert client.request("desk.double", {"x": 21}) == {"twice": 42}
        assert client.request("desk.double", {"x": b"ab"}) == {"twice": b"abab"}
        assert (service.requests, service.repeated) == (2, 0)
        with pytest.raises(AddressInUse):
            fabric.serve("desk.double", print, config=config)
    with pytest.raises(fabric.RequestTimedOut, match="no answer in time") as caught:
        client.request("desk.double", {"x": 1}, timeout=0.3)
    assert len(caught.value.key) == KEY_BYTES
    client.close()
    with pytest.raises(Closed):
        client.request("desk.double")


def test_a_slow_request_is_sent_again_and_carried_out_once(config: Path, client: fabric.Client) -> None:
    calls: list[Any] = []
    enough = threading.Event()

    def slow(body: Any) -> int:
        calls.append(body)
        assert enough.wait(30)
        return len(calls)

    with fabric.serve("desk.slow", slow, config=config) as service:
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(client.request, "desk.slow", "once", timeout=30.0)
            began = time.monotonic()
            while time.monotonic() - began < 1.7:  # tries end after 0.5 s and 1 s more
                assert not answer.done()
                enough.wait(0.01)
            enough.set()
            assert answer.result(30) == 1
        assert calls == ["once"]
        assert service.repeated >= 1


def test_the_same_key_is_answered_the_same_and_never_carried_out_again(config: Path, client: fabric.Client) -> None:
    calls: list[Any] = []

    def count(body: Any) -> int:
        calls.append(body)
        if body == "bad":
            raise LookupError("no such order")
        return len(calls)

    with fabric.serve("desk.count", count, config=config):
        key = os.urandom(KEY_BYTES)
        assert [client.request("desk.count", "a", key=key) for _ in range(3)] == [1, 1, 1]
        assert client.request("desk.count", "b") == 2
        key = os.urandom(KEY_BYTES)
        for _ in range(2):
            with pytest.raises(fabric.RequestFailed, match=r"'desk.count': LookupError: no such order"):
                client.request("desk.count", "bad", key=key)
        assert calls == ["a", "b", "bad"]
        with pytest.raises(UserMistake, match="16 bytes, not 3"):
            client.request("desk.count", key=b"abc")


def test_kept_replies_are_bounded() -> None:
    server = ServiceServer("tcp://127.0.0.1:*", {"s": lambda body: body}, kept_replies=10)
    try:
        with fabric.connect() as client:
            keys = [os.urandom(KEY_BYTES) for _ in range(30)]
            for number, key in enumerate(keys):
                assert client.request("s", number, key=key, endpoint=server.endpoint) == number
            assert len(server._kept) == 10
            assert client.request("s", 99, key=keys[-1], endpoint=server.endpoint) == 29, "still kept"
            assert client.request("s", 99, key=keys[0], endpoint=server.endpoint) == 99, "forgotten"
    finally:
        server.close()


def test_many_threads_and_coroutines_at_a_time(config: Path, client: fabric.Client) -> None:
    with fabric.serve("desk.echo", lambda body: body, config=config) as service:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda n: client.request("desk.echo", n), range(200))) == list(range(200))

        async def main() -> list[Any]:
            return await asyncio.gather(*(client.request_async("desk.echo", n) for n in range(50)))

        assert asyncio.run(main()) == list(range(50))
        assert service.repeated == 0


def test_what_is_no_request_is_told_so_or_ignored(config: Path, client: fabric.Client) -> None:
    with fabric.serve("desk.echo", lambda body: object() if body == "odd" else body, config=config) as service:
        with zmq.Context.instance().socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(service.endpoint)
            for junk in (b"", b"\xff" * 50, msgpack.packb([1, b"short", "desk.echo", 1]), msgpack.packb([9, 1])):
                dealer.send(junk)
                assert dealer.poll(5000)
                assert msgpack.unpackb(dealer.recv())[2] == 4, "MALFORMED"
            dealer.send_multipart([b"two", b"frames"])
            dealer.send(msgpack.packb([1, bytes(range(16)), "desk.nothing", 1]))
            assert dealer.poll(5000)
            assert "there is no service 'desk.nothing' here; there is desk.echo" in str(msgpack.unpackb(dealer.recv()))
        with pytest.raises(fabric.RequestFailed, match="TypeError"):
            client.request("desk.echo", "odd")
        assert client.request("desk.echo", "even") == "even"


def test_over_tcp_with_keys(tmp_path: Path, waiting: Callable[..., Any]) -> None:
    (server_public, server_secret), (public, secret), (_, stranger) = (zmq.curve_keypair() for _ in range(3))
    files = {"server": server_secret, "ours": secret, "stranger": stranger}
    for name, key in files.items():
        (tmp_path / name).write_bytes(key)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    feed = '[nodes.feed]\nuse = "feed.simulated"\noutputs = { quote = "d.quote" }\n'
    table = f'{feed}[services."desk.echo"]\nendpoint = "tcp://127.0.0.1:{port}"\n'
    (tmp_path / "server.toml").write_text(
        f'{table}curve = {{ secret_key = {{ file = "server" }}, clients = ["{public.decode()}"] }}\n'
    )
    for name in ("ours", "stranger"):
        (tmp_path / f"{name}.toml").write_text(
            f'{table}curve = {{ secret_key = {{ file = "{name}" }}, server_key = "{server_public.decode()}" }}\n'
        )
    with fabric.serve("desk.echo", lambda body: body, config=tmp_path / "server.toml"):
        with fabric.connect(tmp_path / "ours.toml") as client:
            assert client.request("desk.echo", [1, "x"]) == [1, "x"]
        with fabric.connect(tmp_path / "stranger.toml") as client:
            with pytest.raises(fabric.RequestTimedOut, match="key"):
                client.request("desk.echo", 1, timeout=2.0)
