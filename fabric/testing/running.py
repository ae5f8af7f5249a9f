"""Running a node in a test: records in, records out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fabric.records import Records
from fabric.runtime.node import Node
from fabric.testing.clock import ManualClock


class _Kept:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, records: Records, now_ns: int) -> None:
        records["ts_publish_ns"] = now_ns
        self.parts.append(records.tobytes())


def run_node(
    node: Node, inputs: Iterable[tuple[str, Records]], *, clock: ManualClock | None = None, step_ns: int = 1_000_000
) -> dict[str, Records]:
    """Start ``node`` and give it ``inputs``, (input name, records) pairs, one cycle each, ``step_ns`` apart, with its
    timer in between; returns everything it published, by output name.

    The node needs channel names for its ports: ``Skew("skew", inputs={"greeks": "g"}, outputs={"skew": "s"})``.
    """
    clock = clock or ManualClock()
    kept = {}
    for name, port in node.output_ports.items():
        port.sink = kept[name] = _Kept()
    node.on_start()
    timer_ns = clock.now_ns() + node.timer_ns
    for name, records in inputs:
        view = records.view()
        view.flags.writeable = False
        node.on_records(node.input_ports[name], view, clock.now_ns())
        if node.timer_ns and clock.now_ns() >= timer_ns:
            timer_ns += node.timer_ns
            node.on_timer(clock.now_ns())
        for port in node.output_ports.values():
            port.flush(clock.now_ns())
        clock.advance(step_ns)
    return {
        name: np.frombuffer(bytearray(b"".join(sink.parts)), node.output_ports[name].record.dtype)
        for name, sink in kept.items()
    }
