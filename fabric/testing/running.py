"""Running a node in a test: records in, records out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from fabric.protocol.events import Lost, Skipped
from fabric.records import Records
from fabric.runtime.checkpoint import pack, unpack
from fabric.runtime.node import Node
from fabric.testing.clock import ManualClock

NodeInputs = Iterable[tuple[str, Records | Lost | Skipped]]


class _Kept:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, records: Records, now_ns: int) -> None:
        records["ts_publish_ns"] = now_ns
        self.parts.append(records.tobytes())


def run_node(
    node: Node, inputs: NodeInputs, *, clock: ManualClock | None = None, step_ns: int = 1_000_000
) -> dict[str, Records]:
    """Start ``node`` and give it ``inputs``, (input name, records or Lost or Skipped) pairs, one cycle each, ``step_ns``
    apart, with its timer in between; returns everything it published, by output name.

    The node needs channel names for its ports: ``Skew("skew", inputs={"greeks": "g"}, outputs={"skew": "s"})``.
    """
    return _Bench(lambda: node, clock or ManualClock(), step_ns).run(inputs, restart_after=None)


def check_restart(
    make: Callable[[], Node], inputs: NodeInputs, *, step_ns: int = 1_000_000, start_ns: int = 1_700_000_000_000_000_000
) -> int:
    """Prove that ``checkpoint`` and ``restore`` carry all that later output depends on: after each input but the last the
    node is checkpointed, thrown away and made again from the checkpoint's bytes, and must then publish the same as one
    that was left in peace. (After the last one nothing is published any more that could differ.) Returns how many
    restarts were tried, one less than there are inputs; raises AssertionError naming the first difference.
    """
    given = list(inputs)
    expected = _Bench(make, ManualClock(start_ns), step_ns).run(given, restart_after=None)
    restarts = max(0, len(given) - 1)
    for position in range(restarts):
        found = _Bench(make, ManualClock(start_ns), step_ns).run(given, restart_after=position)
        for output, records in expected.items():
            _compare(output, records, found[output], position)
    return restarts


class _Bench:
    """A node with its outputs caught, which can be made again in the middle."""

    def __init__(self, make: Callable[[], Node], clock: ManualClock, step_ns: int) -> None:
        self._make = make
        self._clock = clock
        self._step_ns = step_ns
        self._kept: dict[str, _Kept] = {}

    def _started(self) -> Node:
        node = self._make()
        for name, port in node.output_ports.items():
            port.sink = self._kept.setdefault(name, _Kept())
        node.on_start()
        return node

    def run(self, inputs: NodeInputs, restart_after: int | None) -> dict[str, Records]:
        node, clock = self._started(), self._clock
        timer_ns = clock.now_ns() + node.timer_ns
        for position, (name, item) in enumerate(inputs):
            port = node.input_ports[name]
            if isinstance(item, Lost | Skipped):
                node.on_lost(port, item)
            else:
                view = item.view()
                view.flags.writeable = False
                node.on_records(port, view, clock.now_ns())
            if node.timer_ns and clock.now_ns() >= timer_ns:
                timer_ns += node.timer_ns
                node.on_timer(clock.now_ns())
            for output in node.output_ports.values():
                output.flush(clock.now_ns())
            clock.advance(self._step_ns)
            if position == restart_after:
                state = unpack(pack(node.checkpoint()))
                node = self._started()
                node.restore(state)
        return {
            name: np.frombuffer(bytearray(b"".join(kept.parts)), node.output_ports[name].record.dtype)
            for name, kept in self._kept.items()
        }


def _compare(output: str, expected: Records, found: Records, position: int) -> None:
    where = f"restarted after input {position}, output {output!r}"
    for number, (one, other) in enumerate(zip(expected, found, strict=False)):
        if one.tobytes() != other.tobytes():
            fields = [name for name in expected.dtype.names or () if one[name].tobytes() != other[name].tobytes()]
            shown = ", ".join(f"{name} {other[name]} instead of {one[name]}" for name in fields)
            raise AssertionError(f"{where}: record {number} differs: {shown}")
    if len(expected) != len(found):
        raise AssertionError(f"{where}: {len(found)} records instead of {len(expected)}")
