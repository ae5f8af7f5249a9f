"""Requests and replies: carried out once however often they are sent, and every way in which there is no answer."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
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
from fabric.bench.ports import free_endpoints
from fabric.errors import AddressInUse, Closed, UserMistake
from fabric.transport.services import KEY_BYTES, LIFE_BYTES, MAX_BODY_BYTES, VERSION, Requester, ServiceServer

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
            nothing, key = msgpack.packb(None), bytes(range(16))
            junk_bodies = ([VERSION, b"short", "desk.echo", nothing, b""], [VERSION, key, "desk.echo", 1, b""], [9, 1])
            for junk in (b"", b"\xff" * 50, *map(msgpack.packb, junk_bodies)):
                dealer.send(junk)
                assert dealer.poll(5000)
                assert msgpack.unpackb(dealer.recv())[2] == 4, "MALFORMED"
            dealer.send_multipart([b"two", b"frames"])
            dealer.send(msgpack.packb([VERSION, key, "desk.nothing", nothing, b""]))
            assert dealer.poll(5000)
            _, echoed, outcome, _, life = msgpack.unpackb(dealer.recv())
            assert (echoed, outcome, len(life)) == (key, 5, LIFE_BYTES), "OTHER_LIFE"
            dealer.send(msgpack.packb([VERSION, key, "desk.nothing", nothing, life]))
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
    (endpoint,) = free_endpoints(1)
    feed = '[nodes.feed]\nuse = "feed.simulated"\noutputs = { quote = "d.quote" }\n'
    table = f'{feed}[services."desk.echo"]\nendpoint = "{endpoint}"\n'
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


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_no_request_ends_the_service(config: Path, client: fabric.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # What pytest captures of the log must be UTF-8 for its own processes.
    monkeypatch.setattr(logging.getLogger("fabric.services"), "disabled", True)
    errors: dict[str, BaseException] = {
        "surrogate": ValueError("\udc80"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "long": ValueError("x" * (2 * MAX_BODY_BYTES)),
        "unprintable": Unprintable(),
    }

    def handler(body: Any) -> Any:
        if body in errors:
            raise errors[body]
        return body

    said = {
        "surrogate": r"ValueError: \\udc80",
        "exit": "SystemExit: 3",
        "interrupt": "KeyboardInterrupt",
        "long": "ValueError: xxx",
        "unprintable": "Unprintable: .its text can't be had",
    }
    with fabric.serve("desk.echo", handler, config=config):
        for body, text in said.items():
            with pytest.raises(fabric.RequestFailed, match=text):
                client.request("desk.echo", body, timeout=10.0)
            assert client.request("desk.echo", 1) == 1


def test_an_error_of_the_server_itself_ends_one_try_only(
    config: Path, client: fabric.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, calls = ServiceServer._answer, 0

    def fails_once(self: ServiceServer, frame: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("unexpected")
        return answer(self, frame)

    monkeypatch.setattr(ServiceServer, "_answer", fails_once)
    with fabric.serve("desk.echo", lambda body: body, config=config):
        assert client.request("desk.echo", 1, timeout=30.0) == 1


def test_what_a_reply_may_be(config: Path, client: fabric.Client) -> None:
    largest = b"x" * (MAX_BODY_BYTES - 5)  # msgpack puts 5 bytes before it
    replies: dict[str, Any] = {
        "numbered": {1: "a", b"k": None},
        "largest": largest,
        "larger": largest + b"x",
        "much larger": bytes(5 << 20),
        "odd": {(1, 2): 3},
        "object": object(),
    }
    with fabric.serve("desk.reply", lambda body: replies[body], config=config):
        assert client.request("desk.reply", "numbered") == {1: "a", b"k": None}
        assert client.request("desk.reply", "largest") == largest
        for body, size in (("larger", MAX_BODY_BYTES + 1), ("much larger", (5 << 20) + 5)):
            with pytest.raises(fabric.RequestFailed, match=f"carried out.*reply of {size} bytes is more than 1048576"):
                client.request("desk.reply", body, timeout=10.0)
        with pytest.raises(fabric.RequestFailed, match="the reply can't be read: TypeError"):
            client.request("desk.reply", "odd", timeout=10.0)
        with pytest.raises(fabric.RequestFailed, match=r"carried out.*not plain data: None, bool.*TypeError"):
            client.request("desk.reply", "object", timeout=10.0)


def test_what_a_request_may_be(config: Path, client: fabric.Client) -> None:
    largest = b"x" * (MAX_BODY_BYTES - 5)
    endless: list[Any] = []
    endless.append(endless)
    with fabric.serve("desk.echo", lambda body: body, config=config) as service:
        assert client.request("desk.echo", {1: largest[:-8]}) == {1: largest[:-8]}
        assert client.request("desk.echo", largest) == largest
        served = service.requests
        with pytest.raises(UserMistake, match=r"'desk.echo'.*body of 1048577 bytes is more than 1048576"):
            client.request("desk.echo", largest + b"x")
        for body in (object(), {1, 2}, 1 << 64, "\udc80", endless):
            with pytest.raises(UserMistake, match=r"'desk.echo'.*send plain data: None, bool"):
                client.request("desk.echo", body)
        for key, text in (("a" * KEY_BYTES, "16 bytes, not str"), (b"", "16 bytes, not 0")):
            with pytest.raises(UserMistake, match=text):
                client.request("desk.echo", key=key)  # type: ignore[arg-type]
        with pytest.raises(UserMistake):
            client.request("no name", endpoint=service.endpoint)
        assert service.requests == served
        with pytest.raises(fabric.RequestFailed, match="request's body can't be read: TypeError"):
            client.request("desk.echo", {(1, 2): 3})


def test_whose_reply_is_no_longer_kept_is_not_carried_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.transport.services.KEPT_BYTES", 10_000)
    calls: list[Any] = []
    server = ServiceServer("tcp://127.0.0.1:*", {"s": lambda body: calls.append(body) or bytes(900)}, kept_replies=20)
    try:
        with fabric.connect() as client:
            keys = [os.urandom(KEY_BYTES) for _ in range(50)]
            for key in keys:
                client.request("s", key=key, endpoint=server.endpoint)
            assert server._kept_bytes == sum(len(server._kept[key]) for key in server._whole) <= 10_000
            assert list(server._kept) == keys[-20:]
            assert client.request("s", key=keys[-1], endpoint=server.endpoint) == bytes(900)
            with pytest.raises(
                fabric.RequestFailed, match=r"carried out before, and its reply of \d+ bytes is no longer"
            ):
                client.request("s", key=keys[-20], endpoint=server.endpoint)
            assert len(calls) == 50
    finally:
        server.close()


SERVED = """
import os, sys, threading
import fabric
endpoint, done = sys.argv[1:]

def order(body):
    with open(done, "a") as file:
        file.write(f"{body}\\n")
    if body == "slow":
        threading.Event().wait()
    return os.getpid()

with fabric.serve("desk.order", order, endpoint=endpoint):
    print("ready", flush=True)
    threading.Event().wait()
"""


class Server:
    """A server in a process of its own; ``done`` has a line for each request that it carried out."""

    def __init__(self, endpoint: str, done: Path) -> None:
        command = [sys.executable, "-c", SERVED, endpoint, str(done)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def ready(self) -> int:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(endpoints: tuple[str, str], tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Starts a server at ``endpoints[0]`` that writes into ``tmp_path/done``."""
    started: list[Server] = []

    def start() -> Server:
        started.append(Server(endpoints[0], tmp_path / "done"))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.mark.parametrize("warm", [False, True])
def test_a_server_killed_in_mid_request_and_restarted_does_not_do_it_again(
    endpoints: tuple[str, str], tmp_path: Path, start: Callable[[], Server], waiting: Callable[..., Any], warm: bool
) -> None:
    done = tmp_path / "done"
    first = start()
    pid = first.ready()
    with fabric.connect() as client, ThreadPoolExecutor() as pool:
        if warm:  # a connection that knows its server
            assert client.request("desk.order", "quick", endpoint=endpoints[0]) == pid
        before = ["quick"] * warm
        answer = pool.submit(client.request, "desk.order", "slow", timeout=60.0, endpoint=endpoints[0])
        waiting(lambda: done.exists() and done.read_text().split() == [*before, "slow"], "the first order")
        first.kill()
        second = start()
        pid = second.ready()
        with pytest.raises(
            fabric.RequestTimedOut, match="server was restarted: whether it was done is not known"
        ) as late:
            answer.result(60)
        assert done.read_text().split() == [*before, "slow"]
        # Asked explicitly, with the same key: a new decision.
        for _ in range(2):
            assert client.request("desk.order", "again", key=late.value.key, endpoint=endpoints[0]) == pid
        assert done.read_text().split() == [*before, "slow", "again"]


def test_a_request_waits_for_a_server_that_starts_later_and_goes_on_after_a_restart(
    endpoints: tuple[str, str], tmp_path: Path, start: Callable[[], Server], waiting: Callable[..., Any]
) -> None:
    with fabric.connect() as client, ThreadPoolExecutor() as pool:
        with pytest.raises(fabric.RequestTimedOut):
            client.request("desk.order", "none", timeout=0.6, endpoint=endpoints[0])  # more than one try
        answer = pool.submit(client.request, "desk.order", "early", timeout=None, endpoint=endpoints[0])
        first = start()
        assert answer.result(60) == first.ready()
        first.kill()
        # The connection that is kept knows the first server; nothing that was sent to it is without an answer.
        (requester,) = client._requesters.values()
        ((idle, _),) = requester._idle
        waiting(lambda: not idle.poll(0, zmq.POLLOUT), "the connection to end")
        answer = pool.submit(client.request, "desk.order", "between", timeout=60.0, endpoint=endpoints[0])
        second = start()
        assert answer.result(60) == second.ready()
    assert (tmp_path / "done").read_text().split() == ["early", "between"]


def test_closing_ends_who_waits_without_limit(
    endpoints: tuple[str, str], tmp_path: Path, start: Callable[[], Server], waiting: Callable[..., Any]
) -> None:
    done = tmp_path / "done"
    start().ready()
    client = fabric.connect()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(client.request, "desk.order", "slow", timeout=None, endpoint=endpoints[0])
        waiting(done.exists, "the order")
        client.close()
        with pytest.raises(Closed, match="under way"):
            answer.result(30)


def test_a_connection_given_back_after_close_is_closed() -> None:
    requester = Requester("tcp://127.0.0.1:1")
    socket, watch, life = requester._socket()
    assert watch is not None
    watch.close()
    requester.close()
    requester._give_back(socket, life, usable=True)
    assert socket.closed


def test_a_handler_can_close_its_service(config: Path, client: fabric.Client) -> None:
    services: list[fabric.Service] = []

    def stop(body: Any) -> str:
        services[0].close()
        return "closed"

    with fabric.serve("desk.stop", stop, config=config) as service:
        services.append(service)
        assert client.request("desk.stop", timeout=30.0) == "closed"
    fabric.serve("desk.stop", stop, config=config).close()  # its address is free


def test_many_coroutines_wait_at_a_time_and_a_cancelled_one_holds_nothing_up(
    config: Path, client: fabric.Client, waiting: Callable[..., Any]
) -> None:
    held, enough, count = threading.Event(), threading.Event(), 50

    def hold(body: Any) -> Any:
        held.set()
        assert enough.wait(60)
        return body

    def waiters() -> int:
        return sum(thread.name == "fabric-request" for thread in threading.enumerate())

    async def main() -> list[Any]:
        cancelled = asyncio.create_task(client.request_async("desk.hold", -1, timeout=None))
        assert await asyncio.to_thread(held.wait, 30)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await asyncio.to_thread(waiting, lambda: waiters() == 0, "the cancelled one's thread")
        asked = [asyncio.create_task(client.request_async("desk.hold", n, timeout=60.0)) for n in range(count)]
        await asyncio.to_thread(waiting, lambda: waiters() == count, "all to wait at a time")
        enough.set()
        return await asyncio.gather(*asked)

    with fabric.serve("desk.hold", hold, config=config):
        assert asyncio.run(main()) == list(range(count))

        async def leave() -> None:
            enough.clear()
            held.clear()
            task = asyncio.create_task(client.request_async("desk.hold", 1, timeout=600.0))
            assert await asyncio.to_thread(held.wait, 30)
            task.cancel()

        began = time.monotonic()
        asyncio.run(leave())
        assert time.monotonic() - began < 60  # not the request's 600 s
        enough.set()
        with pytest.raises(fabric.RequestFailed, match="LookupError"), fabric.serve("desk.bad", bad, config=config):
            asyncio.run(client.request_async("desk.bad"))


def bad(body: Any) -> Any:
    raise LookupError("no such order")
