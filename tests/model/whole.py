"""The whole protocol in one history: publisher, lines, log server, archive and readers, through every fault at once.

    python tests/model/whole.py SEED [SEEDS]      the histories of SEED, SEED + 1, …; what is wrong with the first that is

All that decides is the real code: Receiver, machine, lines, ladder, breakers, log server, the archive's channel, packets and
requests to the byte. Made up are time, sockets (whole_sockets), the network (whole_network) and logs in memory (whole_logs).
What must hold is in whole_oracle.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import sys
from collections.abc import Callable, Iterator
from unittest import mock

from whole_logs import SEGMENT_RECORDS
from whole_network import MS
from whole_oracle import must
from whole_sockets import ModelSockets
from whole_world import LIMITS, TICK_NS, World, check_server

from fabric.protocol.breaker import BreakerLimits
from fabric.protocol.ladder import Ladder
from fabric.protocol.types import Start
from native.log import LogState

SETTLES_NS = 12_000 * MS
"""Longer than all deadlines in a row: whatever can be had has come by then."""
MOST_SESSIONS = 6
_BREAKERS = BreakerLimits(pause_min_ns=2 * MS, pause_max_ns=200 * MS, probe_timeout_ns=100 * MS)


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """The real code over sockets that are none, with breakers as fast as the limits."""
    ladder = functools.partial(Ladder, limits=_BREAKERS)
    with (
        mock.patch("fabric.transport.receiver.LiveSockets", ModelSockets),
        mock.patch("fabric.transport.climb.Ladder", ladder),
        mock.patch("fabric.transport.mappedlogs.this_host", return_value=b""),
        mock.patch("fabric.transport.logserver._PARTS_A_TURN", 2),
    ):
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class History:
    """What happens, and when, by a seed."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.random = self.world.random
        self._kinds: list[tuple[Callable[[], None], int]] = [
            (self.cut_line, 4),
            (self.cut_way, 2),
            (self.kill_server, 2),
            (self.stall_server, 2),
            (self.retain, 6),
            (self.die_unsent, 3),
            (self.begin_session, 3),
            (self.crash, 2),
            (self.end, 1),
            (self.zombie, 1),
            (self.pause_reader, 2),
            (self.restart_reader, 3),
            (self.restart_archive, 2),
            (self.archive_retains, 1),
            (self.lose_log, 1),
        ]

    def run(self) -> None:
        world, source = self.world, self.random
        simulation = world.simulation
        begun_ns, lasts_ns = world.now_ns, source.choice((150, 300, 600)) * MS
        if world.shape.archive:
            world.start_archive()
        for _ in range(source.choice((1, 1, 2))):
            simulation.after(source.randrange(lasts_ns) if source.random() < 0.6 else 0, self.add_reader)
        self._publish_on(source.choice((2, 5, 12)) * MS)
        kinds, weights = zip(*self._kinds, strict=True)
        for kind in source.choices(kinds, weights, k=source.randrange(1, 14)):
            simulation.after(source.randrange(lasts_ns), kind)
        if source.random() < 0.08:
            simulation.after(source.randrange(lasts_ns), self.fall_silent)
            lasts_ns += 2 * LIMITS.session_deadline_ns
        simulation.run_until(begun_ns + lasts_ns)
        self._heal()

    def _heal(self) -> None:
        world, simulation = self.world, self.world.simulation
        world.heal()
        world.publisher.come_back()
        world.publisher.publish(3)
        until_ns = world.now_ns + SETTLES_NS
        while world.now_ns < until_ns and not (world.places and all(each.settled for each in world.places)):
            simulation.run_until(world.now_ns + 4 * TICK_NS)
        for each in world.places:
            each.finish()
        for place in (world.log_server, world.archive_server):
            check_server(place)
        self._check_archive()

    def _check_archive(self) -> None:
        """What it keeps is what was published; what it lacks it knows to lack."""
        for session, kept in self.world.store.sessions.items():
            log = self.world.logs[session]
            for sequence in range(kept.first_available, kept.next):
                if kept.has(sequence):
                    same = kept.read(sequence, 1).tobytes() == log.all[sequence - 1 : sequence].tobytes()
                    must(same, f"the archive has other bytes at {sequence} of {session:x}")
            whole = kept.state != LogState.OPEN and not kept.holes.open_end
            must(not whole or kept.next >= log.next, f"the archive takes {session:x} for whole at {kept.next}")

    def _publish_on(self, pause_ns: int) -> None:
        world, source = self.world, self.random
        if world.simulation.calm:
            return
        world.publisher.publish(source.choice((1, 1, 2, 3, 7)) if source.random() < 0.95 else 30)
        world.simulation.after(int(source.expovariate(1) * pause_ns) + 1, lambda: self._publish_on(pause_ns))

    # Readers

    def add_reader(self) -> None:
        world, source = self.world, self.random
        log = world.current
        time_ns = world.simulation.clock.now_ns() - source.randrange(-20, 200) * MS
        starts = [Start.first(), Start.live(), Start.snapshot(), Start.time(time_ns), self._somewhere(log.session)]
        world.read(source.choice(starts), source.choice((None, 1)))

    def restart_reader(self) -> None:
        """One is killed; its next life goes on where it was, or begins anew with an image."""
        readers = [each for each in self.world.readers if each.oracle.position is not None and each.oracle.session]
        if not readers:
            return
        reader = self.random.choice(readers)
        self.world.readers.remove(reader)
        reader.kill()
        at, session = reader.oracle.position, reader.oracle.session
        assert at is not None
        again = Start.at if self.random.random() < 0.6 else Start.resync
        if session in self.world.logs:
            self.world.read(again(at + 1, session))

    def pause_reader(self) -> None:
        if self.world.readers:
            reader = self.random.choice(self.world.readers)
            reader.paused_until_ns = self.world.now_ns + self._while()

    def _somewhere(self, session: int) -> Start:
        log = self.world.logs[session]
        at = self.random.randrange(1, log.next + 1)
        return Start.at(at, self.random.choice((0, session)))

    # The network

    def cut_line(self) -> None:
        """Of one reader, or of all."""
        source, time_ns = self.random, self._while()
        line = source.randrange(self.world.shape.lines)
        places = self.world.places
        for each in places if source.random() < 0.5 else source.sample(places, min(1, len(places))):
            each.lines[line % len(each.lines)].cut_for(time_ns)

    def cut_way(self) -> None:
        source, time_ns = self.random, self._while()
        for each in self.world.places:
            way = source.choice(each.ways)
            for link in way if source.random() < 0.5 else way[1:]:
                link.cut_for(time_ns)

    def kill_server(self) -> None:
        self._server().kill(self._while())

    def stall_server(self) -> None:
        self._server().stall(self._while())

    # The publisher

    def retain(self) -> None:
        log = self.world.current
        kept = self.random.randrange(4)
        self.world.current.retain(max(0, (log.next - log.first_available) // SEGMENT_RECORDS - kept))

    def die_unsent(self) -> None:
        """Its process is killed between a commit and the sending, and goes on in the same session."""
        publisher = self.world.publisher
        publisher.publish(self.random.randrange(1, 6), send=False)
        publisher.alive = False
        self.world.simulation.after(self._while(), publisher.restart)

    def begin_session(self) -> None:
        self._new_session(self.world.current.next - 1)

    def fall_silent(self) -> None:
        """Sessions begin while nobody can be asked, for longer than readers wait with the newer one."""
        self.world.log_server.kill(LIMITS.session_deadline_ns + self.random.randrange(500) * MS)
        for _ in range(self.random.choice((1, 1, 2))):
            self.world.publisher.publish(self.random.randrange(1, 9), send=self.random.random() < 0.5)
            self.begin_session()
            self.world.publisher.restart()

    def crash(self) -> None:
        """Of its operating system: what had not reached the disk is not there any more."""
        world, log = self.world, self.world.current
        if len(world.logs) == MOST_SESSIONS or log.state == LogState.ENDED:
            return
        if self.random.random() < 0.5:
            world.publisher.publish(self.random.randrange(1, 6), send=False)
        log.cut(max(log.first_available - 1, log.next - 1 - self.random.randrange(20)))
        world.log_server.kill(MS)
        self._new_session(log.next - 1)

    def end(self) -> None:
        world = self.world
        if world.publisher.alive and world.current.state == LogState.OPEN and self.random.random() < 0.5:
            world.current.end()
            world.publisher.announce()

    def zombie(self) -> None:
        older = [log for log in self.world.logs.values() if log is not self.world.current]
        if older:
            self.world.publisher.zombie(self.random.choice(older))

    def lose_log(self) -> None:
        """The directory of an older session is removed."""
        older = [log for log in self.world.logs.values() if log is not self.world.current]
        if older:
            self.random.choice(older).gone = True

    def _new_session(self, fork: int) -> None:
        world = self.world
        if len(world.logs) == MOST_SESSIONS:
            return
        world.begin_session(fork)
        world.publisher.alive = False
        if self.random.random() < 0.5:
            world.publisher.come_back()
        else:
            world.simulation.after(self._while(), world.publisher.restart)

    # The archive

    def restart_archive(self) -> None:
        world = self.world
        if world.archive is None or world.archive.archived is None:
            return
        away_ns = self._while()
        world.archive.kill()
        world.archive.archived.close()
        world.archive = None
        world.archive_server.kill(away_ns)
        if world.store.current is not None and self.random.random() < 0.3:
            kept = world.store.current
            kept.cut(kept.next - 1 - self.random.randrange(12))
        world.simulation.after(away_ns, self._archive_again)

    def _archive_again(self) -> None:
        if self.world.archive is None:
            self.world.start_archive()

    def archive_retains(self) -> None:
        for kept in self.world.store.sessions.values():
            kept.drop_below(kept.first_available + SEGMENT_RECORDS * self.random.randrange(1, 4))

    def _server(self) -> object:
        world = self.world
        both = world.shape.archive_rung and self.random.random() < 0.4
        return world.archive_server if both else world.log_server

    def _while(self) -> int:
        """How long something lasts; seldom beyond a deadline."""
        source = self.random
        most_ns = LIMITS.session_deadline_ns if source.random() < 0.05 else 80 * MS
        return MS + source.randrange(2 * most_ns)


def run(seed: int) -> History:
    """One history. Raises Wrong, or whatever the code raises, with a note that says how to see it again."""
    history = History(seed)
    try:
        history.run()
    except Exception as error:
        error.add_note(f"seed {seed}, {history.world.shape}: python tests/model/whole.py {seed}")
        raise
    return history


def main() -> None:
    first = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1 << 32)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(f"seeds {first} to {first + count - 1}")
    with simulated():
        for seed in range(first, first + count):
            run(seed)


if __name__ == "__main__":
    main()
