"""One publisher with its logs, its log server, an archive, and readers: all of them over a simulated network."""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from dataclasses import dataclass

from whole_logs import KEYED, NAME, PLAIN, ModelLog
from whole_network import MS, Link, Simulation, Weather
from whole_oracle import Oracle, must
from whole_publisher import Publisher
from whole_servers import ARCHIVE, LOGS, ModelArchived, ServerPlace, Store
from whole_sockets import Inbox

from fabric.protocol.events import Event
from fabric.protocol.ladder import Rung
from fabric.protocol.requests import Reply
from fabric.protocol.types import Limits, Run, Start
from fabric.transport.receiver import Receiver
from fabric.transport.turns import MOST_OF_A_CLIENT
from native.log import LogState
from native.packet import Header, Kind, ParseResult

TICK_NS = 5 * MS
LIMITS = Limits(
    stale_ns=100 * MS,
    request_timeout_ns=30 * MS,
    backoff_min_ns=2 * MS,
    backoff_max_ns=200 * MS,
    recovery_deadline_ns=3_000 * MS,
    session_deadline_ns=500 * MS,
    max_held_records=64,
    max_queued_records=96,
    max_request_records=40,
)
"""A tenth of what they are by default, as are the breakers' pauses; and little room."""
HEALED_NS = 1_500 * MS
"""Within it whoever is asked in a world without faults has answered: breakers are closed, backoffs over."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one history is made of."""

    lines: int
    image: bool
    archive_rung: bool
    archive_local: bool
    """The log server replays from the archive's directory."""

    @property
    def archive(self) -> bool:
        return self.archive_rung or self.archive_local

    @staticmethod
    def drawn(source: random.Random) -> Shape:
        archive = source.random()
        return Shape(source.choice((1, 2)), source.random() < 0.5, archive < 0.45, 0.3 < archive < 0.7)


class World:
    def __init__(self, seed: int) -> None:
        self.simulation = Simulation(seed)
        self.random = self.simulation.random
        self.shape = Shape.drawn(self.random)
        self.kind = KEYED if self.shape.image else PLAIN
        self.weather = Weather.drawn(self.random)
        self.logs: dict[int, ModelLog] = {}
        self.committed_ns: dict[int, dict[int, int]] = {}
        self.healed_ns: int | None = None
        self.store = Store(lambda: self.now_ns)
        here = {LOGS: self.find, ARCHIVE: self.store.find} if self.shape.archive_local else {LOGS: self.find}
        self.log_server = ServerPlace(self.simulation, here)
        self.archive_server = ServerPlace(self.simulation, {ARCHIVE: self.store.find})
        self.readers: list[Reader] = []
        self.archive: Reader | None = None
        self.current = self.begin_session()
        self.publisher = Publisher(self)

    @property
    def now_ns(self) -> int:
        return self.simulation.now_ns

    @property
    def healthy(self) -> bool:
        """Nothing has failed for a good while."""
        return self.healed_ns is not None and self.now_ns - self.healed_ns > HEALED_NS

    @property
    def places(self) -> list[Reader]:
        """All that receive."""
        return [*self.readers, *([self.archive] if self.archive is not None else [])]

    def find(self, session: int) -> ModelLog | None:
        log = self.logs.get(session) if session else self.current
        return None if log is None or log.gone else log

    def begin_session(self, fork: int = 0) -> ModelLog:
        """A new session, forked off the current one at ``fork``."""
        epoch = len(self.logs) + 1 + self.random.randrange(2) * len(self.logs)
        parent = next(reversed(self.logs.values())) if self.logs else None
        if parent is not None:
            epoch = max(epoch, (parent.session >> 32) + 1)
            parent.state = LogState.SUPERSEDED
        session = epoch << 32 | self.random.getrandbits(32)
        log = ModelLog(self.kind, session, 0 if parent is None else parent.session, fork)
        self.logs[session] = log
        self.committed_ns[session] = {}
        self.current = log
        return log

    def read(self, start: Start, lines: int | None = None) -> Reader:
        """One reader more."""
        rungs = [Rung("log", "ipc://log")]
        if self.shape.archive_rung:
            rungs.append(Rung("archive", "ipc://archive"))
        reader = Reader(self, start, rungs, lines or self.shape.lines)
        self.readers.append(reader)
        return reader

    def start_archive(self) -> None:
        archived = ModelArchived(self.store)
        start = archived.start(self.simulation.clock.now_ns())
        self.archive = Reader(self, start, [Rung("log", "ipc://log")], self.shape.lines, archived)

    def heal(self) -> None:
        """No faults from now on; whatever was away is back."""
        self.simulation.calm = True
        self.healed_ns = self.now_ns
        self.publisher.alive = True
        if self.shape.archive and self.archive is None:
            self.start_archive()
        for place in (self.log_server, self.archive_server):
            place.heal()
        for each in self.places:
            each.paused_until_ns = 0


class Watched(deque):  # type: ignore[type-arg]
    """What a machine gives out, seen as it does so."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self._oracle = oracle
        self.given = 0

    def append(self, item: Run | Event) -> None:
        self._oracle(item)
        self.given += 1
        super().append(item)


class Reader:
    """A process with one subscription; the archive is one too. It is the network's end: ``listen`` and ``request`` are
    called by its sockets."""

    def __init__(
        self, world: World, start: Start, rungs: list[Rung], lines: int, archived: ModelArchived | None = None
    ) -> None:
        self.world = world
        self.start = start
        self.archived = archived
        self.alive = True
        self.paused_until_ns = 0
        """It does not take what there is."""
        simulation, weather = world.simulation, world.weather
        self.lines = [Link(simulation, weather) for _ in range(lines)]
        self.ways = [(Link(simulation, weather), Link(simulation, weather)) for _ in rungs]
        """To each rung, and back."""
        self._inboxes: list[Inbox] = []
        self._header = Header()
        self._taken = 0
        limits = LIMITS if lines == 1 else dataclasses.replace(LIMITS, reorder_ns=10 * MS)
        known = world.random.random() < 0.5
        self.receiver = Receiver(clock=simulation.clock, context=self, jitter=random.Random(world.random.random()))  # type: ignore[arg-type]
        self.channel = self.receiver.subscribe(
            NAME,
            start,
            data=[f"ipc://line{line}" for line in range(lines)],
            replay=rungs,
            record=world.kind if known else None,
            limits=limits,
            path="ipc",
        )
        machine = self.channel.machine
        asks_archive = world.shape.archive_local or len(rungs) > 1
        self.oracle = Oracle(world, machine, start, limits, asks_archive=asks_archive)
        machine.out = self._out = Watched(self.oracle)
        self._servers = [world.log_server, world.archive_server]
        simulation.after(0, self._tick)

    # As the place of its sockets

    def listen(self, inboxes: list[Inbox]) -> None:
        self._inboxes = inboxes
        self.world.simulation.after(MS // 2, lambda: self.world.publisher.subscribed(self))

    def request(self, rung: int, dealer: Inbox, request: bytes) -> None:
        there, back = self.ways[rung]
        place = self._servers[rung]
        there.carry([request], lambda frames: place.take(dealer, back, self._arrive, frames[0]))

    def send(self, packet: bytes) -> None:
        """A live packet leaves for it, on each line."""
        for line, inbox in zip(self.lines, self._inboxes, strict=True):
            line.carry([packet], lambda frames, inbox=inbox: self._arrive(inbox, frames), has_crc=True)

    # What it does

    def kill(self) -> None:
        self.alive = False

    def poll(self) -> None:
        """Take in what has come, let time pass, and hand it on."""
        self.receiver.poll(0)
        machine = self.channel.machine
        must(len(machine.requests) == 0, "requests are left")
        must(machine.held_records <= LIMITS.max_held_records + LIMITS.max_request_records, "too much is held")
        queued = LIMITS.max_queued_records + LIMITS.max_request_records + 8
        must(machine.queued_records <= queued, "too much is queued", machine.queued_records)
        must(machine.counters.recovered <= machine.counters.missed, "more recovered than missed")
        must(len(self.channel.dealers) <= len(self.ways), "too many sockets")
        if self.world.now_ns >= self.paused_until_ns:
            self._read()

    def finish(self) -> None:
        """The world has healed, and time has passed."""
        self.oracle.finish()
        must(self._taken == self._out.given, f"{self._taken} taken of {self._out.given} items")
        lines = self.channel.machine.lines
        for each in lines.counts() if lines is not None else ():
            must(each.received == each.first + each.duplicates + each.late, f"{each}")

    @property
    def settled(self) -> bool:
        machine = self.channel.machine
        if self.oracle.ended:
            return not machine.out
        return machine.plain and machine.session == self.world.current.session and (
            machine.delivered >= self.world.current.next - 1 and not machine.out and not self.channel.dealer_waits
        )  # fmt: skip

    def _tick(self) -> None:
        if self.alive:
            self.poll()
            self.world.simulation.after(TICK_NS, self._tick)

    def _read(self) -> None:
        channel = self.channel
        while (item := channel.take()) is not None:
            self._taken += 1
            if self.archived is not None:
                assert channel.record is not None
                self.archived.take(item, channel.record, channel.machine.info, self.world.simulation.clock.now_ns())

    def _arrive(self, inbox: Inbox, frames: list[bytes]) -> None:
        if not self.alive or inbox.closed:
            return
        inbox.frames.append(frames)
        self.poll()
        self._hear(inbox, frames)  # what time alone has decided before it was looked at is no mistake

    def _hear(self, inbox: Inbox, frames: list[bytes]) -> None:
        """Let the oracle know what has come."""
        header = self._header
        if inbox in self._inboxes or len(frames) > 1:
            if header.parse(frames[-1]) == ParseResult.OK:
                count = header.count if header.kind == Kind.DATA else 0
                self.oracle.heard(header.session, header.sequence, count)
        else:
            self.oracle.heard(Reply.decode(frames[0]).session, 0, 0)


def turns_of(place: ServerPlace) -> int:
    """The most replays that wait of one client."""
    waiting = place.server._turns._replays.values()
    return max(map(len, waiting), default=0)


def check_server(place: ServerPlace) -> None:
    must(turns_of(place) <= MOST_OF_A_CLIENT, "too many replays of one client wait")
