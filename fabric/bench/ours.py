"""The fabric's own client as a contestant. All of the bench's use of the fabric's API is here."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fabric
from fabric.bench import records as layout
from fabric.bench.job import FLOOD, PACED, VALUES, Contestant, Job
from fabric.bench.loops import new_loop, why_missing
from fabric.bench.roles import Receiver, Sender, monotonic_ns
from fabric.channel import channel_id
from fabric.log.writer import LogOptions, LogWriter
from fabric.records import Records
from fabric.transport.logserver import LogServer
from fabric.transport.publisher import Publisher
from native.flood import flood

_CHANNEL = "bench.record"
_JOIN_S = 20.0
_POLL_S = 0.5
_FLOW = "none: the sender is never held back; what a full pipe drops is replayed from the log"


_TRANSPORTS = ("local", "ipc", "tcp")
_WINDOW_PACKETS = 4096
_WINDOW_BYTES = 2 << 20
_NATIVE_FLOW = {
    "local": "none: the log keeps what the reader has not read",
    "ipc": f"the bench's own window: {_WINDOW_PACKETS} packets, or {_WINDOW_BYTES >> 20} MiB, ahead of the reader",
}
_KINDS = frozenset({PACED, FLOOD, VALUES})

CONTESTANTS = [
    Contestant(
        f"ours {transport}", __name__, transport, _KINDS, _FLOW, ours=True, most_channels=1000,
        idle=("block", "spin"),
    )
    for transport in _TRANSPORTS
] + [
    # Published from a loop without the GIL, as a native feed handler would; read from Python as ever.
    Contestant(
        f"ours native {transport}", __name__, transport, frozenset({FLOOD}),
        _NATIVE_FLOW.get(transport, _NATIVE_FLOW["ipc"]), ours=True, idle=("block", "spin"),
    )
    for transport in _TRANSPORTS
] + [
    Contestant(
        "ours in process", __name__, "process", frozenset({FLOOD, VALUES}),
        "none: a function call to the handler, in one process; the record is in the log as well", ours=True,
        in_process=True, most_readers=1,
    )
] + [
    Contestant(f"ours {loop} {transport}", __name__, transport, _KINDS, _FLOW, ours=True, loop=loop)
    for transport in _TRANSPORTS
    for loop in ("asyncio", "uvloop")
] + [
    Contestant(
        f"ours native {loop} {transport}", __name__, transport, frozenset({FLOOD}),
        _NATIVE_FLOW.get(transport, _NATIVE_FLOW["ipc"]), ours=True, loop=loop,
    )
    for transport in _TRANSPORTS
    for loop in ("asyncio", "uvloop")
]  # fmt: skip


def missing(contestant: Contestant) -> str:
    return why_missing(contestant.loop)


def make_sender(job: Job) -> Sender:
    if job.transport == "process":
        return _InProcessSender(job)
    if job.contestant.startswith("ours native"):
        return _NativeSender(job)
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


def _path(job: Job) -> Any:
    return job.transport


def _idle(job: Job) -> Any:
    return job.idle


def _progress_file(job: Job) -> Path:
    return Path(job.memory) / "progress"


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


class _NativeSender(_OneSender):
    def prepare(self) -> None:
        self.progress: mmap.mmap | None = None
        if self.job.transport != "local":
            with _progress_file(self.job).open("r+b") as file:
                self.progress = mmap.mmap(file.fileno(), 8 * self.job.readers)

    def open(self) -> dict[str, Any]:
        _progress_file(self.job).write_bytes(bytes(8 * self.job.readers))
        return super().open()

    def flood(self) -> tuple[int, int]:
        out, records, step, at = self.out, self.records, self.job.per_message, 0
        window = min(_WINDOW_PACKETS * step, _WINDOW_BYTES // self.job.size_bytes)
        began_ns = monotonic_ns()
        while at < len(records):
            at = flood(out.publication, records, at, step, self.progress, window)
            if at < len(records):  # over to the next segment
                out.send(records[at : at + step])
                at += step
        return began_ns, monotonic_ns()


class _InProcessSender(_OneSender):
    """Sends to a function of the same process; what it was given is checked when all is sent."""

    def open(self) -> dict[str, Any]:
        found = super().open()
        self.received: list[Records] = []
        keep = self.received.append
        self.out.hand_to(lambda records, first: keep(records))
        return found

    def check(self) -> str:
        job = self.job
        return layout.problem_of(np.concatenate(self.received), job.count, job.size_bytes, 1, job.seed)


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
            _CHANNEL, **address, record=layout.record_type(job.size_bytes), start="first",
            path=_path(job), idle=_idle(job),
        )  # fmt: skip
        self.subscription.wait_live(timeout=_JOIN_S)
        self.check_path()

    def check_path(self) -> None:
        """A contestant must not run under the name of another path."""
        wanted = self.job.transport
        for channel, feed in self.subscription.feeds.items():
            if feed.path != wanted:
                raise RuntimeError(f"channel {channel} is read over {feed.path}, not over {wanted}")

    def receiving(self) -> Callable[[], Any]:
        poll = self.subscription.poll
        progress = self.progress()
        if progress is None:
            return lambda: poll(None, _POLL_S)

        def receive() -> fabric.Batch | None:
            batch = poll(None, _POLL_S)
            if batch is not None:
                progress[self.job.reader] = batch.last
            return batch

        return receive

    def progress(self) -> npt.NDArray[np.uint64] | None:
        """Where a native sender over sockets looks how far each reader is."""
        if not self.job.contestant.startswith("ours native") or self.job.transport == "local":
            return None
        with _progress_file(self.job).open("r+b") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 8 * self.job.readers), np.uint64)

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
        self.client = fabric.connect(config, idle=_idle(self.job))
        record = layout.record_type(self.job.size_bytes)
        self.subscription = self.client.subscribe(*names, record=record, start="first", path=_path(self.job))
        self.subscription.wait_live(timeout=_JOIN_S)
        self.check_path()

    def close(self) -> None:
        self.client.close()


class _LoopReceiver(_OneReceiver):
    def open(self, address: dict[str, Any]) -> None:
        self.unit = 1
        self.loop = new_loop(self.job.loop)
        self.loop.run_until_complete(self._open(address))

    async def _open(self, address: dict[str, Any]) -> None:
        self.client = fabric.connect(idle=_idle(self.job))
        await self.client.__aenter__()
        record = layout.record_type(self.job.size_bytes)
        self.subscription = self.client.subscribe(
            _CHANNEL, **address, record=record, start="first", path=_path(self.job)
        )
        await self.subscription.wait_live_async(timeout=_JOIN_S)
        self.check_path()

    def run(self) -> None:
        self.loop.run_until_complete(self._run())

    async def _run(self) -> None:
        wanted, seen = self.job.count, 0
        keep, stamp, progress = self.received.append, self.times.append, self.progress()
        async for batch in self.subscription:
            stamp(monotonic_ns())
            keep(batch)
            seen += len(batch)
            if progress is not None:
                progress[self.job.reader] = batch.last
            if seen >= wanted:
                break
        self.ended_ns = monotonic_ns()

    def close(self) -> None:
        self.loop.run_until_complete(self.client.__aexit__(None, None, None))
