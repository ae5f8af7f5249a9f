"""A lossy line in memory: what a subscriber is given when packets are dropped, doubled and reordered on the way.

The subscription machine is the real one; the network, the log server and the clock are simulated and seeded, so that a
history can be had again from its seed. No socket, no thread, no waiting.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

from fabric.channel import channel_id
from fabric.protocol.events import Event, Lost, Skipped
from fabric.protocol.requests import Op, Reply, Request, Status
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Counters, Limits, Run, Start, State
from fabric.records import Records, RecordType
from fabric.testing.clock import ManualClock
from native.log import LogState

_STEP_NS = 1_000_000
_PATIENCE_STEPS = 100_000
_SESSION = (1 << 32) | 1


class LossyLine:
    """One channel from its publisher to one subscriber.

    ``drop``, ``duplicate`` and ``reorder`` are chances of a packet; ``retain`` is how many records the publisher's log keeps
    (None: all), so that what is asked for too late is lost. ``seed`` decides everything else.

        line = LossyLine(QUOTE, seed=7, drop=0.2, reorder=0.1)
        outputs = run_node(node, line.carry("quote", parts))
        assert line.counters.recovered == line.counters.missed > 0
    """

    def __init__(
        self,
        record: RecordType,
        *,
        seed: int,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        retain: int | None = None,
        clock: ManualClock | None = None,
    ) -> None:
        self.record = record
        self.seed = seed
        self.clock = clock or ManualClock()
        self._chance = random.Random(seed)
        self._drop, self._duplicate, self._reorder, self._retain = drop, duplicate, reorder, retain
        self._parts: list[Records] = []
        self._firsts: list[int] = []
        """The sequence that each part begins with."""
        self._next = 1
        self._air: list[tuple[int, Records]] = []
        self._machine = Subscription(
            channel_id("line"), Start.first(), Limits(reorder_ns=2 * _STEP_NS), schema=record.schema, jitter=lambda: 1.0
        )
        self._machine.on_heartbeat(_SESSION, 1, self.clock.monotonic_ns())

    @property
    def counters(self) -> Counters:
        """Gaps, missed, recovered, duplicates, lost ... so far."""
        return self._machine.counters

    def send(self, records: Records) -> None:
        """Publish one packet; whether it arrives is the line's affair."""
        first, records = self._next, records.copy()
        if len(records):
            self._parts.append(records)
            self._firsts.append(first)
            self._next += len(records)
        if self._chance.random() < self._drop:
            return
        packet = (first, records)
        place = len(self._air)
        if self._air and self._chance.random() < self._reorder:
            place = self._chance.randrange(len(self._air))
        self._air.insert(place, packet)
        if self._chance.random() < self._duplicate:
            self._air.append(packet)

    def receive(self) -> list[Run | Event]:
        """What the subscriber is given now; time passes a little."""
        self.clock.advance(_STEP_NS)
        now_ns = self.clock.monotonic_ns()
        keep = self._chance.randrange(3) if self._reorder else 0  # the newest ones are still on their way
        while len(self._air) > keep:
            first, records = self._air.pop(0)
            self._machine.on_data(_SESSION, first, records, now_ns)
        self._machine.on_time(now_ns)
        self._answer(now_ns)
        return self._taken()

    def finish(self) -> list[Run | Event]:
        """Let everything arrive that still can; the line is quiet after it."""
        items: list[Run | Event] = []
        for _ in range(_PATIENCE_STEPS):
            self.clock.advance(_STEP_NS)
            now_ns = self.clock.monotonic_ns()
            while self._air:
                first, records = self._air.pop(0)
                self._machine.on_data(_SESSION, first, records, now_ns)
            self._machine.on_heartbeat(_SESSION, self._next, now_ns)
            self._answer(now_ns)
            items += self._taken()
            if self._machine.state == State.LIVE and self._machine.delivered == self._next - 1:
                return items
        raise AssertionError(f"the line never came to rest; seed {self.seed}")

    def carry(self, port: str, packets: Iterable[Records]) -> Iterator[tuple[str, Records | Lost | Skipped]]:
        """Send packets, and give what arrives as ``run_node`` takes it: (input name, records), or (input name, what was
        lost) exactly where it is missing."""
        for packet in packets:
            self.send(packet)
            yield from self._as_inputs(port, self.receive())
        yield from self._as_inputs(port, self.finish())

    def _as_inputs(self, port: str, items: list[Run | Event]) -> Iterator[tuple[str, Records | Lost | Skipped]]:
        for item in items:
            if isinstance(item, Run):
                yield port, item.records
            elif isinstance(item, Lost | Skipped):
                yield port, item

    def _taken(self) -> list[Run | Event]:
        items = []
        while (item := self._machine.take()) is not None:
            items.append(item)
        return items

    def _answer(self, now_ns: int) -> None:
        requests = self._machine.requests
        while requests:
            request = requests.popleft()
            for reply, first, records in self._replies(request):
                self._machine.on_reply(reply, now_ns, first, records)

    def _kept(self, first: int, last: int) -> Records:
        """Records ``first`` to ``last`` of the publisher's log."""
        begin = bisect_right(self._firsts, first) - 1
        parts = self._parts[begin : bisect_right(self._firsts, last)]
        skipped = first - self._firsts[begin]
        return np.concatenate(parts)[skipped : skipped + last - first + 1]

    def _replies(self, request: Request) -> list[tuple[Reply, int, Records | None]]:
        stop = self._next
        available = 1 if self._retain is None else max(1, stop - self._retain)

        def reply(status: Status, part: int = 1, total: int = 1) -> Reply:
            extra = {"schema": self.record.schema, "image": "none"} if status == Status.INFO else {}
            return Reply(
                request.id,
                status,
                request.channel,
                _SESSION,
                1,
                available,
                stop,
                int(LogState.OPEN),
                0,
                0,
                part,
                total,
                extra,
            )

        if request.op == Op.SNAPSHOT:
            return [(reply(Status.NO_IMAGE), 0, None)]
        parts: list[tuple[Status, int, Records | None]] = []
        if any(first < available for first, _ in request.ranges):
            parts.append((Status.UNAVAILABLE, 0, None))
        for first, last in request.ranges:
            begin, end = max(first, available), min(last, stop - 1)
            if begin <= end:
                parts.append((Status.DATA, begin, self._kept(begin, end)))
        if request.op != Op.REPLAY or not parts:
            return [(reply(Status.INFO), 0, None)]
        return [(reply(status, n, len(parts)), first, rows) for n, (status, first, rows) in enumerate(parts, start=1)]
