"""CURVE over real tcp sockets: the right keys deliver everything, and each wrong one is told by name on both sides."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq

import fabric
from fabric.bench.ports import free_endpoints
from fabric.channel import channel_id
from fabric.errors import FabricError
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.protocol.requests import Op, Request
from fabric.protocol.types import Limits, Run, Start
from fabric.secret import Secret
from fabric.transport import zap
from fabric.transport.channels import ChannelReceiver
from fabric.transport.faults import FaultPlan
from fabric.transport.handshakes import HandshakeWatch, Outcome
from fabric.transport.loglimit import LogLimit
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import ChannelPublisher, Publisher
from fabric.transport.receiver import Receiver
from fabric.transport.replay import fetch_range
from fabric.transport.security import (
    CurveClient,
    CurveServer,
    ServerKeys,
    use_client_keys,
    use_server_keys,
    write_key_pair,
)
from fabric.transport.sockets import bind, new_socket

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", image="last", key=("instrument",), value="u8")
DEADLINE_S = 20.0


def pair() -> tuple[str, Secret]:
    public, secret = zmq.curve_keypair()
    return public.decode(), Secret(secret.decode())


SERVER, CLIENT, STRANGER = pair(), pair(), pair()
OURS = CurveServer(SERVER[1], frozenset([CLIENT[0]]))
RIGHT = CurveClient(SERVER[0], CLIENT[1])


@dataclass
class Served:
    """A channel that is published over tcp on this host, with its log server."""

    publisher: Publisher
    server: LogServer
    channel: ChannelPublisher
    log: LogWriter

    @property
    def refused(self) -> int:
        return self.publisher.refused_clients

    def write(self, *values: int) -> None:
        for value in values:
            self.channel.write(NUMBER.build(value=value, flags=1), time.time_ns())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """``serve(curve, drop="drop=0.5,seed=1")``."""
    opened: list[Served] = []

    def make(curve: ServerKeys, drop: str = "", also: tuple[str, ...] = ()) -> Served:
        directory = tmp_path / f"log{len(opened)}"
        identity = channel_id("numbers")
        log = LogWriter(
            directory, "numbers", identity, NUMBER, LogOptions(segment_bytes=1 << 16), now_ns=time.time_ns()
        )
        server = LogServer(["tcp://127.0.0.1:*", *also[1:]], {identity: directory}.get, curve=curve).start()
        fault = FaultPlan.parse(drop).injector("numbers") if drop else None
        publisher = Publisher(["tcp://127.0.0.1:*", *also[:1]], curve=curve, fault=fault, heartbeat_ns=20_000_000)
        opened.append(Served(publisher, server, publisher.add(log), log))
        return opened[-1]

    yield make
    for each in opened:
        each.publisher.close()
        each.server.close()
        each.log.close()
    assert not zap._handlers, "the handler ends with the last server"


@pytest.fixture
def read(waiting: Callable[..., Any]) -> Iterator[Callable[..., tuple[Receiver, ChannelReceiver]]]:
    """``read(served, curve)``: a receiver, closed at the end."""
    opened: list[Receiver] = []

    def make(
        served: Served, curve: CurveClient | None, data: int = 0, replay: int = 0
    ) -> tuple[Receiver, ChannelReceiver]:
        receiver = Receiver()
        opened.append(receiver)
        return receiver, receiver.subscribe(
            "numbers",
            Start.first(),
            data=served.publisher.endpoints[data],
            replay=served.server.endpoints[replay],
            record=NUMBER,
            limits=Limits(),
            curve=curve,
        )

    yield make
    for each in opened:
        each.close()


def values_of(receiver: Receiver, target: ChannelReceiver, got: list[int]) -> list[int]:
    """Poll once and add what came."""
    receiver.poll(5_000_000)
    while (item := target.take()) is not None:
        if isinstance(item, Run):
            got += item.records["value"].tolist()
    return got


def arrived(receiver: Receiver, target: ChannelReceiver, got: list[int], last: int) -> bool:
    return values_of(receiver, target, got)[-1:] == [last]


def refused(receiver: Receiver, target: ChannelReceiver, got: list[int]) -> bool:
    values_of(receiver, target, got)
    return "did not accept" in receiver.problem_of(target)


@pytest.mark.parametrize("clients", ["listed", "directory", "any"])
def test_right_keys_deliver_everything_in_spite_of_drops(
    serve: Any, read: Any, waiting: Callable[..., Any], tmp_path: Path, clients: str
) -> None:
    who: Any = {"listed": frozenset([CLIENT[0]]), "directory": tmp_path / "clients", "any": "any"}[clients]
    if clients == "directory":
        who.mkdir()
        (who / "desk.key").write_text(CLIENT[0])
    served = serve(CurveServer(SERVER[1], who), "drop=0.5,seed=1")
    receiver, target = read(served, RIGHT)
    got: list[int] = []
    waiting(lambda: values_of(receiver, target, got) is None or target.machine.active, "the publisher")
    for value in range(1, 501):
        served.write(value)
    waiting(lambda: len(values_of(receiver, target, got)) >= 500, "500 records")
    assert got == list(range(1, 501))
    assert target.machine.counters.recovered > 0
    assert receiver.problem_of(target) == ""
    assert (served.publisher.refused_clients, served.server.refused_clients) == (0, 0)
    records = fetch_range(served.server.endpoints[0], "numbers", NUMBER, served.log.session, 10, 20, curve=RIGHT)
    assert records is not None
    assert records["value"].tolist() == list(range(10, 21))


WRONG = [
    # server, client, what the client says, what the server's log says
    (
        OURS,
        CurveClient(SERVER[0], STRANGER[1]),
        f"did not accept our public key {STRANGER[0]}; add it to the server's `curve.clients`",
        f"its public key {STRANGER[0]} is not among `curve.clients`",
    ),
    (
        OURS,
        CurveClient(STRANGER[0], CLIENT[1]),
        f"hung up on the server_key {STRANGER[0]} of our config",
        "its `server_key` is not our public key",
    ),
    (OURS, None, "wants CURVE, and we have no keys", "it has no CURVE keys"),
    (None, RIGHT, "does not speak CURVE", "it wants CURVE, and this endpoint has no `curve`"),
]


@pytest.mark.parametrize(
    ("server", "client", "client_says", "server_says"),
    WRONG,
    ids=["client-key", "server-key", "plain-client", "plain-server"],
)
def test_a_wrong_key_is_told_on_both_sides_and_nothing_is_delivered(
    serve: Any,
    read: Any,
    waiting: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    server: CurveServer | None,
    client: CurveClient | None,
    client_says: str,
    server_says: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    served = serve(server)
    served.write(1, 2, 3)
    receiver, target = read(served, client)
    got: list[int] = []
    data, replay = target.line_endpoints[0], target.replay_endpoint

    def told() -> bool:
        values_of(receiver, target, got)
        lines = [record.getMessage() for record in caplog.records]
        return (
            all(any(client_says in line and f"server {where} " in line for line in lines) for where in (data, replay))
            and all(any(server_says in line and f"at {where}" in line for line in lines) for where in heard)
            and served.publisher.refused_clients > 0
            and served.server.refused_clients > 0
        )

    # The server's check of keys knows the endpoint as it was written, with its `*`.
    heard = ("tcp://127.0.0.1:*",) if "public key" in server_says and "not among" in server_says else (data, replay)
    waiting(told, "both sides' messages", DEADLINE_S)
    assert client_says in receiver.problem_of(target)
    # As long as there is no connection nothing comes, however often it is tried again.
    before = served.refused
    served.write(4, 5, 6)
    waiting(
        lambda: values_of(receiver, target, got) is None or served.refused >= before + 2, "two more tries", DEADLINE_S
    )
    assert got == []
    assert target.machine.state == "JOINING"
    waiting(lambda: served.log.control.counter(3) > 0, "the log's counter", DEADLINE_S)
    said = caplog.text
    assert not any(key[1].reveal() in said for key in (SERVER, CLIENT, STRANGER))
    assert sum(server_says in record.getMessage() for record in caplog.records) <= 4, "not once a try"
    assert fetch_range(replay, "numbers", NUMBER, served.log.session, 1, 3, timeout=0.0, curve=client) is None


def test_keys_can_be_mended_on_the_server_while_both_run(
    serve: Any, read: Any, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    clients = tmp_path / "clients"
    clients.mkdir()
    served = serve(CurveServer(SERVER[1], clients))
    receiver, target = read(served, RIGHT)
    got: list[int] = []
    served.write(1, 2, 3)
    waiting(lambda: values_of(receiver, target, got) is None or receiver.problem_of(target), "the refusal", DEADLINE_S)
    (clients / "desk.key").write_text(CLIENT[0])
    waiting(lambda: len(values_of(receiver, target, got)) >= 3, "the records", DEADLINE_S)
    waiting(
        lambda: values_of(receiver, target, got) is None or not receiver.problem_of(target), "no problem", DEADLINE_S
    )
    served.write(4)
    waiting(lambda: len(values_of(receiver, target, got)) >= 4, "a live one", DEADLINE_S)
    assert got == [1, 2, 3, 4]


def test_a_server_that_is_another_one_after_a_restart_is_found_again(
    waiting: Callable[..., Any], tmp_path: Path
) -> None:
    """The connection was there, then it is refused for its key, then it is allowed again: nothing ends for good."""
    identity = channel_id("numbers")
    log = LogWriter(tmp_path / "log", "numbers", identity, NUMBER, LogOptions(), now_ns=time.time_ns())
    find = {identity: tmp_path / "log"}.get
    got: list[int] = []
    data, replay = free_endpoints(2)
    target: ChannelReceiver | None = None
    with closing(Receiver()) as receiver, closing(log):
        for step, clients in enumerate(([CLIENT[0]], [STRANGER[0]], [CLIENT[0]]), start=1):
            keys = CurveServer(SERVER[1], frozenset(clients))
            with (
                closing(LogServer([replay], find, curve=keys).start()),
                Publisher([data], curve=keys, heartbeat_ns=20_000_000) as publisher,
            ):
                channel = publisher.add(log)
                if target is None:
                    target = receiver.subscribe(
                        "numbers", Start.first(), data=data, replay=replay, record=NUMBER, limits=Limits(), curve=RIGHT
                    )
                channel.write(NUMBER.build(value=step, flags=1), time.time_ns())
                if step == 2:
                    waiting(partial(refused, receiver, target, got), "the refusal")
                    assert got == [1]
                else:
                    waiting(partial(arrived, receiver, target, got, step), f"record {step}")
    assert got == [1, 2, 3]


def test_a_request_while_there_is_no_connection_is_only_unanswered(
    serve: Any, read: Any, waiting: Callable[..., Any]
) -> None:
    served = serve(OURS)
    receiver, target = read(served, CurveClient(SERVER[0], STRANGER[1]))

    def ask_and_look() -> bool:
        target.machine.requests.append(Request(99, Op.STATUS, target.machine.channel, 0))
        receiver.poll(5_000_000)
        return served.server.refused_clients >= 3

    waiting(ask_and_look, "three refusals", DEADLINE_S)
    assert "did not accept" in receiver.problem_of(target)


def test_without_a_handler_nobody_gets_in(waiting: Callable[..., Any]) -> None:
    """What is asked for without an answer is refused, not allowed."""
    context: Any = zmq.Context()
    server, client = new_socket(context, zmq.ROUTER), new_socket(context, zmq.DEALER)
    use_server_keys(server, OURS, b"nobody")
    use_client_keys(client, RIGHT)
    watch = HandshakeWatch(context, client)
    client.connect(bind(server, "tcp://127.0.0.1:*"))
    outcomes = waiting(watch.read, "an outcome")
    assert Outcome.SUCCEEDED not in [outcome for outcome, _ in outcomes]
    watch.close()
    for each in (server, client):
        each.close()
    context.term()


def test_ipc_stays_open_beside_encrypted_tcp(serve: Any, read: Any, waiting: Callable[..., Any]) -> None:
    directory = Path("/tmp") / f"zmf-test-{os.getpid()}-{time.monotonic_ns()}"
    directory.mkdir(mode=0o700)
    try:
        served = serve(OURS, also=(f"ipc://{directory}/data", f"ipc://{directory}/replay"))
        local, near = read(served, None, 1, 1)
        remote, far = read(served, RIGHT)
        plain, out = read(served, None)
        served.write(1, 2)
        here: list[int] = []
        there: list[int] = []
        outside: list[int] = []
        waiting(lambda: len(values_of(local, near, here)) >= 2, "records over ipc")
        waiting(lambda: len(values_of(remote, far, there)) >= 2, "records over tcp")
        waiting(lambda: values_of(plain, out, outside) is None or plain.problem_of(out), "the refusal")
        assert outside == []
    finally:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def test_endpoints_of_one_socket_have_keys_of_their_own(tmp_path: Path, waiting: Callable[..., Any]) -> None:
    """By endpoint: one encrypted, one not; and two servers of one context do not take one another's clients."""
    log = LogWriter(tmp_path / "log", "numbers", channel_id("numbers"), NUMBER, LogOptions(), now_ns=time.time_ns())
    first, second = free_endpoints(2)
    theirs = CurveServer(SERVER[1], frozenset([STRANGER[0]]))
    with (
        Publisher([first, second], curve={first: OURS}, heartbeat_ns=20_000_000) as publisher,
        Publisher(["tcp://127.0.0.1:*"], curve=theirs, heartbeat_ns=20_000_000) as other,
    ):
        publisher.add(log)
        assert publisher.endpoints == [first, second]
        receiver = Receiver()
        cases = [(first, RIGHT), (second, None), (first, None), (other.endpoints[0], RIGHT)]
        targets = [
            receiver.subscribe(
                "numbers", Start.first(), data=end, replay="ipc:///nowhere", record=NUMBER, limits=Limits(), curve=keys
            )
            for end, keys in cases
        ]
        waiting(
            lambda: (
                receiver.poll(5_000_000) is None
                or (
                    (targets[0].machine.active and targets[1].machine.active and receiver.problem_of(targets[2]))
                    and receiver.problem_of(targets[3])
                )
            ),
            "two connections and two refusals",
        )
        assert "wants CURVE" in receiver.problem_of(targets[2])
        assert "did not accept our public key" in receiver.problem_of(targets[3])
        assert receiver.problem_of(targets[0]) == receiver.problem_of(targets[1]) == ""
        receiver.close()
    log.close()


def test_another_librarys_handler_in_the_context_is_told(tmp_path: Path) -> None:
    context: Any = zmq.Context()
    with context.socket(zmq.REP) as theirs:
        theirs.bind("inproc://zeromq.zap.01")
        with pytest.raises(FabricError, match=r"give the fabric a zmq\.Context of its own"):
            Publisher(["tcp://127.0.0.1:*"], curve=OURS, context=context)
        theirs.unbind("inproc://zeromq.zap.01")
    with Publisher(["tcp://127.0.0.1:*"], curve=OURS, context=context):
        assert [thread.name for thread in threading.enumerate()].count("fabric-zap") == 1
    context.term()
    assert not zap._handlers


def test_a_context_that_ends_first_takes_its_handler_along(waiting: Callable[..., Any]) -> None:
    context: Any = zmq.Context()
    domain = zap.open_domain(context, OURS, "here", lambda: None)
    context.term()
    waiting(lambda: "fabric-zap" not in [thread.name for thread in threading.enumerate()], "the thread's end")
    domain.release()
    assert not zap._handlers


def test_servers_that_come_and_go_in_one_context() -> None:
    for _ in range(50):
        with Publisher(["tcp://127.0.0.1:*"], curve=OURS), Publisher(["tcp://127.0.0.1:*"], curve=OURS):
            pass
    assert not zap._handlers


def test_a_wildcard_is_as_closed_as_one_address(
    serve: Any, read: Any, waiting: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(OURS, also=("tcp://*:*", "tcp://*:*"))
    for end in (served.publisher.endpoints, served.server.endpoints):
        end[1] = f"tcp://127.0.0.1:{end[1].rpartition(':')[2]}"
    plain, out = read(served, None, 1, 1)
    remote, far = read(served, RIGHT, 1, 1)
    served.write(1, 2)
    outside: list[int] = []
    there: list[int] = []
    waiting(lambda: len(values_of(remote, far, there)) >= 2, "records")
    waiting(lambda: values_of(plain, out, outside) is None or plain.problem_of(out), "the refusal")
    waiting(lambda: "it has no CURVE keys" in caplog.text, "the server's message")
    assert "has no `curve`" not in caplog.text
    assert outside == []


def test_what_a_peer_can_cause_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("fabric.transport.loglimit.time.monotonic", lambda: now[0])
    limit, log = LogLimit(), logging.getLogger("limited")
    assert [limit.warning(log, "same") for _ in range(100)] == [True] + [False] * 99
    assert sum(limit.warning(log, f"other {number}") for number in range(100)) == 19
    now[0] += 11
    assert limit.warning(log, "same")
    assert caplog.messages[-1] == "same (81 such messages were held back)"


def test_two_fabrics_over_encrypted_tcp(up: Any, waiting: Callable[..., Any], tmp_path: Path) -> None:
    """Configs, processes, drops, and a kill of each side: exact resume asks the other fabric's log server with our keys."""
    folder = tmp_path / "c"
    folder.mkdir()
    for name in ("feed", "desk"):
        write_key_pair(folder / name)
    data, replay = free_endpoints(2)
    (folder / "feed.toml").write_text(
        '[curve]\nsecret_key = { file = "feed.key_secret" }\nclients = [{ file = "desk.key" }]\n'
        '[nodes.feed]\nuse = "feed.simulated"\noutputs = { instrument = "i", quote = "q" }\nrecords = 20_000\n'
        "records_per_second = 4_000\n"
        f'[channels.i]\nlisten = "{data}"\nreplay = "{replay}"\n[channels.q]\nlisten = "{data}"\n'
    )
    (folder / "desk.toml").write_text(
        '[curve]\nsecret_key = { file = "desk.key_secret" }\nserver_key = { file = "feed.key" }\n'
        f'[channels.i]\nconnect = "{data}"\nreplay = "{replay}"\n[channels.q]\nconnect = "{data}"\nreplay = "{replay}"\n'
        '[nodes.pricing]\nuse = "pricing"\ninputs = { instrument = "i", quote = "q" }\noutputs = { greeks = "g" }\n'
    )
    desk = up(folder / "desk.toml", "--for", "60s")
    feed = up(folder / "feed.toml", "--for", "60s", "--fault", "drop=0.1,seed=3")
    waiting(lambda: desk.count("pricing", "in.quote.received") > 2_000, "quotes", 40)
    desk.kill("pricing")
    waiting(lambda: LogReader(feed.log("q")).next > 19_000 - 2_000, "the feed", 40)
    published = waiting(lambda: (log := LogReader(feed.log("q"))).state == 2 and log.next - log.base, "its end", 40)
    waiting(lambda: desk.count("pricing", "in.quote.received") >= published, "all quotes", 40)
    for each in (desk, feed):
        each.process.terminate()
    report = desk.report()
    assert report["nodes"]["pricing"]["restarts"] == 1
    assert report["channels"]["q"]["subscribers"]["pricing"]["lost"] == 0
    assert "resumed exactly" in desk.output
    theirs = feed.report()
    assert theirs["channels"]["q"]["refused_clients"] == 0
    for name in ("feed", "desk"):
        secret = (folder / f"{name}.key_secret").read_text().rpartition('secret-key = "')[2].partition('"')[0]
        for side in (desk, feed):
            files = [
                path for path in side.data_dir.rglob("*") if path.is_file() and path.suffix in (".json", ".log", ".txt")
            ]
            assert len(files) >= 4
            assert not any(secret in path.read_text(errors="replace") for path in files)
    assert json.loads((desk.run / "config.json").read_text())["values"]["curve"]["secret_key"] == {
        "file": "desk.key_secret"
    }
