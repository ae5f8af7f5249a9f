"""Servers in between: NATS (nats-py and nats-server) and Redis (redis-py and redis-server), pub/sub, on this host.

Both drop what a slow reader does not take, so the sender keeps a window: the reader acknowledges every so many records
on a channel of its own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabric.bench.job import FLOOD, PACED, VALUES, Contestant, Job, Server
from fabric.bench.ports import free_ports
from fabric.bench.roles import Receiver, Sender, monotonic_ns

WINDOW_RECORDS = 2048
_FLOW = f"a window of {WINDOW_RECORDS} messages that the bench adds: the reader acknowledges each half of it"
_MEET_S = 20.0
_KINDS = frozenset({PACED, FLOOD, VALUES})

CONTESTANTS = [
    Contestant("nats-py", __name__, "tcp", _KINDS, _FLOW, optional=True, most_readers=1),
    Contestant("redis-py", __name__, "ipc", _KINDS, _FLOW, optional=True, most_readers=1),
]


def missing(contestant: Contestant) -> str:
    module, program = ("nats", "nats-server") if contestant.name == "nats-py" else ("redis", "redis-server")
    if importlib.util.find_spec(module) is None:
        return f"not installed (the Python package {contestant.name.replace('redis-py', 'redis')})"
    return "" if shutil.which(program) else f"not installed ({program})"


def server(job: Job) -> Server:
    if job.contestant == "nats-py":
        port = free_ports(1)[0]
        command = ["nats-server", "--addr", "127.0.0.1", "--port", str(port)]
        return Server(command, port, {"url": f"nats://127.0.0.1:{port}"})
    path = f"{job.directory}/redis"
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"]
    command += ["--client-output-buffer-limit", "pubsub", "0", "0", "0", "--dir", job.directory]
    return Server(command, Path(path), {"path": path})


def make_sender(job: Job) -> Sender:
    return _NatsSender(job) if job.contestant == "nats-py" else _RedisSender(job)


def make_receiver(job: Job) -> Receiver:
    return _NatsReceiver(job) if job.contestant == "nats-py" else _RedisReceiver(job)


class _RedisSender(Sender):
    def open(self) -> dict[str, Any]:
        import redis

        self.client = redis.Redis(unix_socket_path=self.job.server["path"])
        self.acks = self.client.pubsub(ignore_subscribe_messages=True)
        self.acks.subscribe("ack")
        self.acks.get_message(timeout=_MEET_S)  # that it is subscribed
        self.open_messages = 0
        publish = self.client.publish

        def send(message: Any) -> None:
            publish("record", bytes(message))
            self.open_messages += 1
            if self.open_messages >= WINDOW_RECORDS:
                self.acknowledged()

        self.send = send
        return {}

    def acknowledged(self) -> None:
        while self.acks.get_message(timeout=_MEET_S) is None:
            pass
        self.open_messages -= WINDOW_RECORDS // 2

    def meet(self) -> None:
        deadline_ns = monotonic_ns() + int(_MEET_S * 1e9)
        while dict(self.client.pubsub_numsub("record")).get(b"record", 0) < self.job.readers:
            if monotonic_ns() > deadline_ns:
                raise TimeoutError("a reader has not subscribed")


class _RedisReceiver(Receiver):
    def open(self, address: dict[str, Any]) -> None:
        import redis

        self.client = redis.Redis(unix_socket_path=self.job.server["path"])
        self.channel = self.client.pubsub(ignore_subscribe_messages=True)
        self.channel.subscribe("record")
        self.channel.get_message(timeout=_MEET_S)

    def receiving(self) -> Callable[[], Any]:
        parse, publish = self.channel.parse_response, self.client.publish
        left = WINDOW_RECORDS // 2

        def receive() -> Any:
            nonlocal left
            response = parse(block=True)
            left -= 1
            if not left:
                left = WINDOW_RECORDS // 2
                publish("ack", b"")
            return response[2] if response[0] == b"message" else None

        return receive


class _NatsSender(Sender):
    """nats-py is for event loops alone; ``publish`` collects, and a loop's turn writes."""

    def open(self) -> dict[str, Any]:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._open())
        return {}

    async def _open(self) -> None:
        import nats

        self.client = await nats.connect(self.job.server["url"])
        self.acks = await self.client.subscribe("ack")
        self.met = await self.client.subscribe("met")
        await self.client.flush()

    def meet(self) -> None:
        for _ in range(self.job.readers):
            self.loop.run_until_complete(self.met.next_msg(timeout=_MEET_S))

    def run(self) -> tuple[int, int]:
        return self.loop.run_until_complete(self._run())

    async def _run(self) -> tuple[int, int]:
        from fabric.bench import records as layout
        from fabric.bench.roles import LEAD_NS

        job, put, memory, pack = self.job, layout.TIMES.pack_into, self.memory, layout.WHOLE.pack
        publish, flush = self.client.publish, self.client._flush_pending
        paced, values, seed = job.kind == PACED, job.kind == VALUES, float(job.seed)
        interval_ns = 1e9 / job.rate if paced else 0.0
        began_ns = monotonic_ns() + (LEAD_NS if paced else 0)
        unacknowledged = 0
        for number, message in enumerate(self.messages):
            if paced:
                intended_ns = began_ns + int(number * interval_ns)
                while job.pace == "spin" and monotonic_ns() < intended_ns:
                    pass
                if (ahead_ns := intended_ns - monotonic_ns()) > 0:
                    time.sleep(ahead_ns * 1e-9)  # a loop's own waits are whole milliseconds; nothing is pending
                put(memory, number * job.size_bytes, intended_ns, monotonic_ns())
            if values:
                bid = number * 0.5 + seed
                message = pack(0, 0, 0, 0, 1, number, bid, bid + 0.25, number % 1000 + 1.0)
            await publish("record", bytes(message))
            if paced:
                await flush(force_flush=True)
            unacknowledged += 1
            if unacknowledged >= WINDOW_RECORDS:
                await self.acks.next_msg(timeout=_MEET_S)
                unacknowledged -= WINDOW_RECORDS // 2
        await self.client.flush()
        return began_ns, monotonic_ns()


class _NatsReceiver(Receiver):
    def open(self, address: dict[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        import nats

        self.client = await nats.connect(self.job.server["url"])
        self.subscription = await self.client.subscribe("record", pending_msgs_limit=0, pending_bytes_limit=0)
        await self.client.flush()
        await self.client.publish("met", b"")
        await self.client.flush()

    def run(self) -> None:
        self.loop.run_until_complete(self._run())

    async def _run(self) -> None:
        wanted, seen, left = self.job.count * self.unit, 0, WINDOW_RECORDS // 2
        keep, stamp = self.received.append, self.times.append
        async for message in self.subscription.messages:
            stamp(monotonic_ns())
            keep(message.data)
            seen += len(message.data)
            left -= 1
            if not left:
                left = WINDOW_RECORDS // 2
                await self.client.publish("ack", b"")
            if seen >= wanted:
                break
        self.ended_ns = monotonic_ns()
