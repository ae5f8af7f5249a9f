"""iceoryx2 (Python package): publish and subscribe in shared memory. A reader waits by a listener, or spins."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabric.bench.job import FLOOD, PACED, VALUES, Contestant, Job
from fabric.bench.roles import Receiver, Sender, monotonic_ns

_MEET_S, _WAIT_S = 20.0, 0.5
_BUFFER_MESSAGES = 4096

CONTESTANTS = [
    Contestant(
        "iceoryx2", __name__, "local", frozenset({PACED, FLOOD, VALUES}),
        f"RetryUntilDelivered: send waits while a reader's buffer ({_BUFFER_MESSAGES} messages) is full; no overwriting",
        idle=("block", "spin"), optional=True, most_readers=8,
    )
]  # fmt: skip


def missing(contestant: Contestant) -> str:
    return "" if importlib.util.find_spec("iceoryx2") else "not installed (iceoryx2)"


def make_sender(job: Job) -> Sender:
    return _IceoryxSender(job)


def make_receiver(job: Job) -> Receiver:
    return _IceoryxReceiver(job)


def _prefix(job: Job) -> str:
    """Of this run alone, and such that the next bench finds what a killed one leaves."""
    return f"{Path(job.memory).name}_"


def leftovers(job: Job) -> list[Path]:
    """What processes that were ended leave in shared memory; all of it carries the run's prefix."""
    return [*Path("/dev/shm").glob(f"{_prefix(job)}*"), *Path("/tmp").glob(f"{_prefix(job)}*")]


def _services(job: Job) -> tuple[Any, Any, Any]:
    """The node, the service of the records and that of the wakings; the service's files are in the run's own folder."""
    import iceoryx2 as iox2

    iox2.set_log_level(iox2.LogLevel.Error)
    config = iox2.config.default()
    config.global_cfg.prefix = iox2.FileName.new(_prefix(job))
    with contextlib.suppress(AttributeError, TypeError):
        config.global_cfg.root_path = iox2.Path.new(f"{job.directory}/iceoryx2")
    node = (
        iox2.NodeBuilder.new()
        .signal_handling_mode(iox2.SignalHandlingMode.Disabled)
        .config(config)
        .create(iox2.ServiceType.Ipc)
    )
    records = (
        node.service_builder(iox2.ServiceName.new("bench"))
        .publish_subscribe(iox2.Slice[ctypes.c_uint8])
        .enable_safe_overflow(False)
        .subscriber_max_buffer_size(_BUFFER_MESSAGES)
        .open_or_create()
    )
    bell = node.service_builder(iox2.ServiceName.new("bench")).event().open_or_create()
    return node, records, bell


class _IceoryxSender(Sender):
    def open(self) -> dict[str, Any]:
        import iceoryx2 as iox2

        self.node, self.service, bell = _services(self.job)
        bytes_a_message = self.job.size_bytes * self.job.per_message
        publisher = (
            self.service.publisher_builder()
            .initial_max_slice_len(bytes_a_message)
            .backpressure_strategy(iox2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        self.publisher, self.notifier = publisher, bell.notifier_builder().create()
        loan, notify, spins, move = (
            publisher.loan_slice_uninit,
            self.notifier.notify,
            self.job.idle == "spin",
            ctypes.memmove,
        )

        def send(message: Any) -> None:
            sample = loan(len(message))
            move(sample.payload_ptr, bytes(message), len(message))
            sample.assume_init().send()
            if not spins:
                notify()

        self.send = send
        return {}

    def meet(self) -> None:
        deadline_ns = monotonic_ns() + int(_MEET_S * 1e9)
        while self.service.dynamic_config.number_of_subscribers < self.job.readers:
            if monotonic_ns() > deadline_ns:
                raise TimeoutError("a reader has not subscribed")


class _IceoryxReceiver(Receiver):
    def open(self, address: dict[str, Any]) -> None:
        import iceoryx2 as iox2

        self.node, self.service, bell = _services(self.job)
        self.subscriber = self.service.subscriber_builder().buffer_size(_BUFFER_MESSAGES).create()
        self.listener = bell.listener_builder().create()
        self.wait_at_most = iox2.Duration.from_millis(int(_WAIT_S * 1000))

    def receiving(self) -> Callable[[], Any]:
        take, copy = self.subscriber.receive, ctypes.string_at
        wait, at_most, spins = self.listener.timed_wait, self.wait_at_most, self.job.idle == "spin"

        def receive() -> Any:
            sample = take()
            while sample is None:
                if spins:
                    return None
                wait(at_most)
                sample = take()
            payload = sample.payload()
            content = copy(payload.data_ptr, payload.number_of_elements)
            sample.delete()
            return content

        return receive
