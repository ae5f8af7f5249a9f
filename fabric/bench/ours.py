"""The fabric's own client as a contestant. All of the bench's use of the fabric's API is here."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fabric
from fabric.bench import records as layout
from fabric.bench.job import FLOOD, PACED, VALUES, Contestant, Job
from fabric.bench.roles import Receiver, Sender, monotonic_ns
from fabric.channel import channel_id
from fabric.log.writer import LogOptions, LogWriter
from fabric.records import Records
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import Publisher

_CHANNEL = "bench.record"
_JOIN_S = 20.0
_POLL_S = 0.5
_FLOW = "none: the sender is never held back; what a full pipe drops is replayed from the log"


def _takes(function: Callable[..., Any], word: str) -> bool:
    return word in inspect.signature(function).parameters


_HAS_PATHS = _takes(fabric.subscribe, "path")
_HAS_IDLE = _takes(fabric.subscribe, "idle") or _takes(fabric.connect, "idle")
_TRANSPORTS = ("local", "ipc", "tcp") if _HAS_PATHS else ("ipc", "tcp")
_KINDS = frozenset({PACED, FLOOD, VALUES})

CONTESTANTS = [
    Contestant(
        f"ours {transport}", __name__, transport, _KINDS, _FLOW, ours=True, most_channels=1000,
        idle=("block", "spin") if _HAS_IDLE else ("block",),
    )
    for transport in _TRANSPORTS
] + [
    Contestant(f"ours {loop} {transport}", __name__, transport, _KINDS, _FLOW, ours=True, loop=loop)
    for transport in _TRANSPORTS
    for loop in ("asyncio", "uvloop")
]  # fmt: skip


def missing(contestant: Contestant) -> str:
    if contestant.loop == "uvloop":
        try:
            import uvloop  # noqa: F401
        except ImportError:
            return "uvloop is not installed"
    return ""


def make_sender(job: Job) -> Sender:
    return _ManySender(job) if job.channels > 1 else _OneSender(job)


def make_receiver(job: Job) -> Receiver:
    if job.loop:
        return _LoopReceiver(job)
    return _ManyReceiver(job) if job.channels > 1 else _OneReceiver(job)


def _endpoints(job: Job) -> tuple[str, str]:
    if job.transport == "tcp":
        return "tcp://127.0.0.1:*", "tcp://127.0.0.1:*"
    return f"ipc://{job.directory}/data", f"ipc://{job.directory}/replay"


def _options(job: Job) -> LogOptions:
    """A log that holds the whole run, with segments of which there are several."""
    total = job.count * job.size_bytes // job.channels
    segment = max(64 << 10, min(8 << 20, total // 4)) if job.channels > 1 else 8 << 20
    return LogOptions(retain_bytes=max(128 << 20, 2 * total), segment_bytes=segment)


def _how(job: Job, function: Callable[..., Any]) -> dict[str, Any]:
    """``path`` and ``idle``, for the functions that take them."""
    wanted = {"path": job.transport, "idle": job.idle}
    return {word: value for word, value in wanted.items() if _takes(function, word)}


class _OneSender(Sender):
    def open(self) -> dict[str, Any]:
        data, replay = _endpoints(self.job)
        self.out = fabric.publish(
            _CHANNEL, layout.record_type(self.job.size_bytes), listen=data, replay=replay,
            log_dir=Path(self.job.memory) / "log", options=_options(self.job),
        )  # fmt: skip
        self.send = self.out.send
        return {"data": self.out.data_endpoint, "replay": self.out.replay_endpoint}

    def prepare(self) -> None:
        step = self.job.per_message
        self.messages = [self.records[at : at + step] for at in range(0, self.job.count, step)]

    def values(self) -> tuple[int, int]:
        send, seed = self.out.send, float(self.job.seed)
        began_ns = monotonic_ns()
        for number in range(self.job.count):
            bid = number * 0.5 + seed
            send(number=number, bid=bid, ask=bid + 0.25, quantity=number % 1000 + 1.0)
        return began_ns, monotonic_ns()

    def close(self) -> None:
        self.out.close()


class _ManySender(Sender):
    """Many channels of one process over one pair of sockets, as a node publishes them."""

    def open(self) -> dict[str, Any]:
        record, base = layout.record_type(self.job.size_bytes), Path(self.job.memory)
        names = [f"bench.record{index}" for index in range(self.job.channels)]
        logs = {channel_id(name): base / name for name in names}
        data, replay = _endpoints(self.job)
        self.writers = [
            LogWriter(logs[channel_id(name)], name, channel_id(name), record, _options(self.job), now_ns=1)
            for name in names
        ]
        self.server = LogServer([replay], logs.get).start()
        self.publisher = Publisher([data])
        crc = data.startswith("tcp")
        self.outs = [self.publisher.add(writer, crc=crc) for writer in self.writers]
        self.send = lambda message: message[0](message[1], monotonic_ns())
        return {"data": self.publisher.endpoints[0], "replay": self.server.endpoints[0]}

    def prepare(self) -> None:
        outs, many = self.outs, self.job.channels
        self.messages = [(outs[at % many].write, self.records[at : at + 1]) for at in range(self.job.count)]

    def close(self) -> None:
        self.publisher.close()
        self.server.close()
        for writer in self.writers:
            writer.close()


class _OneReceiver(Receiver):
    subscription: fabric.Subscription

    def open(self, address: dict[str, Any]) -> None:
        self.unit = 1
        job = self.job
        self.subscription = fabric.subscribe(
            _CHANNEL, **address, record=layout.record_type(job.size_bytes), start="first", **_how(job, fabric.subscribe)
        )
        self.subscription.wait_live(timeout=_JOIN_S)
        self.check_path()

    def check_path(self) -> None:
        """A contestant must not run under the name of another path."""
        wanted = self.job.transport
        for channel, feed in self.subscription.feeds.items():
            path = str(getattr(feed, "path", wanted))
            if path != wanted:
                raise RuntimeError(f"channel {channel} is read over {path}, not over {wanted}")

    def receiving(self) -> Callable[[], Any]:
        poll = self.subscription.poll
        return lambda: poll(None, _POLL_S)

    def records(self) -> Records:
        return np.concatenate([batch.records for batch in self.received])

    def details(self) -> dict[str, Any]:
        counters = self.subscription.counters
        return {"missed": counters.missed, "recovered": counters.recovered, "lost": counters.lost}

    def close(self) -> None:
        self.subscription.close()


class _ManyReceiver(_OneReceiver):
    """One subscription to all channels; where they are comes from a config, as a fabric's clients have it."""

    def open(self, address: dict[str, Any]) -> None:
        self.unit = 1
        names = [f"bench.record{index}" for index in range(self.job.channels)]
        lines = ['fabric = "bench"', "[nodes.reader]", 'use = "bench"']  # a config has a node; clients load none
        for name in names:
            lines += [f"[channels.{json.dumps(name)}]", f"connect = {json.dumps(address['data'])}"]
            lines += [f"replay = {json.dumps(address['replay'])}"]
        config = Path(self.job.directory) / f"reader{self.job.reader}.toml"
        config.write_text("\n".join(lines) + "\n")
        self.client = fabric.connect(config, **_how(self.job, fabric.connect))
        record = layout.record_type(self.job.size_bytes)
        how = _how(self.job, self.client.subscribe)
        self.subscription = self.client.subscribe(*names, record=record, start="first", **how)
        self.subscription.wait_live(timeout=_JOIN_S)
        self.check_path()

    def close(self) -> None:
        self.client.close()


class _LoopReceiver(_OneReceiver):
    def open(self, address: dict[str, Any]) -> None:
        self.unit = 1
        if self.job.loop == "uvloop":
            import uvloop

            self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        else:
            self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._open(address))

    async def _open(self, address: dict[str, Any]) -> None:
        self.client = fabric.connect(**_how(self.job, fabric.connect))
        await self.client.__aenter__()
        record = layout.record_type(self.job.size_bytes)
        how = _how(self.job, self.client.subscribe)
        self.subscription = self.client.subscribe(_CHANNEL, **address, record=record, start="first", **how)
        await self.subscription.wait_live_async(timeout=_JOIN_S)
        self.check_path()

    def run(self) -> None:
        self.loop.run_until_complete(self._run())

    async def _run(self) -> None:
        wanted, seen = self.job.count, 0
        keep, stamp = self.received.append, self.times.append
        async for batch in self.subscription:
            stamp(monotonic_ns())
            keep(batch)
            seen += len(batch)
            if seen >= wanted:
                break
        self.ended_ns = monotonic_ns()

    def close(self) -> None:
        self.loop.run_until_complete(self.client.__aexit__(None, None, None))
