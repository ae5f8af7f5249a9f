"""Line arbitration on recorded multicast: real lines A and B, and single lines split in two with losses."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from line_captures import Numbered, csm, datagrams, iex, mach, mdp3, rts_increments, rts_snapshots

from fabric.protocol.arbitration import Arbiter
from fabric.protocol.arbitration_types import ArbitrationLimits, Delivered, Gap, Item, Restarted
from fabric.protocol.lines import LineState

MS = 1_000_000
S = 1000 * MS
LIMITS = ArbitrationLimits(reorder_ns=100 * MS, stale_ns=3600 * S)


def items(arbiter: Arbiter) -> list[Item]:
    found = []
    while (item := arbiter.take()) is not None:
        found.append(item)
    return found


def merged(arbiter: Arbiter, arrivals: Iterable[tuple[str, Numbered]]) -> list[Item]:
    """Feed (line, packet) in order of time; all that is told, up to a long time after the last one."""
    told: list[Item] = []
    now = 0
    for line, packet in arrivals:
        now = packet.time_ns
        arbiter.on_packet(line, packet.first, packet.count, packet, now, packet.session)
        told += items(arbiter)
    arbiter.on_time(now + LIMITS.reorder_ns)
    told += items(arbiter)
    assert arbiter.report().adds_up
    assert arbiter.settled
    return told


def numbers(told: Iterable[Item]) -> list[int]:
    return [number for item in told if isinstance(item, Delivered) for number in range(item.first, item.last + 1)]


def on_two_lines(
    packets: list[Numbered], seed: int, drop: float = 0.2, in_order: bool = True
) -> list[tuple[str, Numbered]]:
    """Each packet on A and B, some milliseconds apart; never missing on both."""
    dice = random.Random(seed)
    arrivals = []
    before = {"A": 0, "B": 0}
    for at, packet in enumerate(packets):
        lost = dice.choice("AB") if dice.random() < 2 * drop else ""
        for line in "AB":
            if line != lost:
                come = packet.time_ns + dice.randint(0, 20 * MS)
                if in_order:
                    come = before[line] = max(come, before[line])
                arrivals.append((come, at, line, packet._replace(time_ns=come)))
    return [(line, packet) for _, _, line, packet in sorted(arrivals)]


def line_of(port: int) -> str:
    return {14: "A", 15: "B"}[port // 1000]


@pytest.mark.parametrize(("order", "of_b"), [("file", 3744), ("time", 4289)])
def test_cme_a_and_b_are_whole_and_b_is_mostly_first(shared_data: Path, order: str, of_b: int) -> None:
    """The capture is not quite in order of its own times: by these B is first for 86 % of the packets."""
    captured = list(datagrams(shared_data / "cme-mdp3/mdp3_v8_20160927_AB.pcap.gz"))
    if order == "time":
        captured.sort(key=lambda datagram: datagram.time_ns)
    arrivals = [(line_of(datagram.port), mdp3(datagram)) for datagram in captured]
    arbiter = Arbiter(limits=LIMITS)
    told = merged(arbiter, arrivals)
    assert numbers(told) == list(range(17_347_815, 17_352_815))
    merged_payloads = [item.payload.payload for item in told if isinstance(item, Delivered)]
    for line in "AB":
        own = sorted((packet.first, packet.payload) for other, packet in arrivals if other == line)
        assert own == list(zip(numbers(told), merged_payloads, strict=True))
    lines = arbiter.report().lines
    assert (lines["A"].first, lines["B"].first) == (5000 - of_b, of_b)
    assert all(line.lacked == line.late == line.early == 0 for line in lines.values())


def test_cme_b_fills_what_a_lost(shared_data: Path) -> None:
    path = shared_data / "cme-mdp3/mdp3_v9_20180912_AB_multichannel.pcap"
    channels: dict[int, list[tuple[str, Numbered]]] = defaultdict(list)
    for datagram in datagrams(path):
        channels[datagram.port % 1000].append((line_of(datagram.port), mdp3(datagram)))
    lacked: dict[str, list[int]] = {"A": [], "B": []}
    for packets in channels.values():
        arbiter = Arbiter(limits=LIMITS)
        told = merged(arbiter, packets)
        heard = {packet.first for _, packet in packets}
        assert numbers(told) == sorted(heard) == list(range(min(heard), max(heard) + 1))
        for line in "AB":
            own = {packet.first for other, packet in packets if other == line}
            missing = [number for number in range(min(own), max(own)) if number not in own]
            assert arbiter.report().lines[line].lacked == len(missing)
            lacked[line] += missing
    assert sum(map(len, channels.values())) == 99, "and one packet that is no market data"
    assert sorted(lacked["A"]) == [911_523, 1_028_099, 1_160_085]
    assert lacked["B"] == [579_465], "A helps B as well"


def test_cme_one_line_of_each_channel_would_have_had_gaps(shared_data: Path) -> None:
    """What the arbitration is worth: line A alone."""
    gaps = []
    arbiters: dict[int, Arbiter] = {}
    for datagram in datagrams(shared_data / "cme-mdp3/mdp3_v9_20180912_AB_multichannel.pcap"):
        if line_of(datagram.port) == "A":
            arbiter = arbiters.setdefault(datagram.port, Arbiter(("A",), LIMITS))
            gaps += [item for item in merged(arbiter, [("A", mdp3(datagram))]) if isinstance(item, Gap)]
    assert sorted((gap.first, gap.last) for gap in gaps) == [(n, n) for n in (911_523, 1_028_099, 1_160_085)]


def rts_lines(shared_data: Path, seed: int) -> list[tuple[str, Numbered]]:
    """The files have no times of arrival: both lines by the time of sending, either one up to 5 ms later."""
    dice = random.Random(seed)
    arrivals = []
    for line in "AB":
        come = 0
        for number, sent in rts_increments(shared_data / f"rts-fast/increment_{line.lower()}.dat"):
            come = max(come, clock_ns(sent) + dice.randint(0, 5 * MS))
            arrivals.append((line, Numbered(come, number, 1, None, b"")))
    return sorted(arrivals, key=lambda arrival: arrival[1].time_ns)


def clock_ns(stamp: int) -> int:
    """YYYYMMDDhhmmssmmm as nanoseconds of the day."""
    clock, millis = divmod(stamp, 1000)
    return (clock // 10_000 % 100 * 3600 + clock // 100 % 100 * 60 + clock % 100) * S + millis * MS


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rts_lines_that_begin_and_end_apart(shared_data: Path, seed: int) -> None:
    arbiter = Arbiter(limits=LIMITS)
    assert numbers(merged(arbiter, rts_lines(shared_data, seed))) == list(range(482_727, 488_406))
    lines = arbiter.report().lines
    assert (lines["A"].received, lines["B"].received) == (5673, 5655)
    assert lines["A"].duplicates + lines["B"].duplicates == 5673 + 5655 - 5679
    assert lines["A"].lacked == lines["B"].lacked == 0


def test_rts_late_join_from_the_snapshot_stream(shared_data: Path) -> None:
    """Increments wait while the first whole sweep of snapshots comes; its oldest image says where to go on."""
    sweep: list[tuple[int, int]] = []
    for number, sent, total, last_processed in rts_snapshots(shared_data / "rts-fast/snapshot.dat.gz"):
        if number != len(sweep) + 1:
            continue
        sweep.append((sent, last_processed))
        if number == total:
            break
    assert len(sweep) == 11
    come, as_of = clock_ns(sweep[-1][0]), min(last for _, last in sweep)
    assert as_of == 482_776
    arbiter = Arbiter(limits=LIMITS, snapshot=True)
    arrivals = rts_lines(shared_data, 7)
    waiting = [arrival for arrival in arrivals if arrival[1].time_ns <= come]
    assert merged(arbiter, waiting) == []
    assert arbiter.resume_at(as_of + 1, come)
    told = items(arbiter) + merged(arbiter, arrivals[len(waiting) :])
    assert numbers(told) == list(range(as_of + 1, 488_406))
    assert not any(isinstance(item, Gap) for item in told)
    early = {line: tally.early for line, tally in arbiter.report().lines.items()}
    assert early == {"A": as_of - 482_727 + 1, "B": as_of - 482_751 + 1}


def test_iex_restarts_under_one_session(shared_data: Path) -> None:
    packets = [iex(datagram) for datagram in datagrams(shared_data / "iex/deep10_20170425_pk000001-030057.pcap.gz")]
    assert len({packet.session for packet in packets}) == 1
    arbiter = Arbiter(("A",), LIMITS, base=1)
    told = merged(arbiter, (("A", packet) for packet in packets))
    restarts = [item for item in told if isinstance(item, Restarted)]
    assert [item.highest for item in restarts] == [28_140, 23_438, 25_192, 26_922, 26_400, 29_251]
    assert {item.first for item in restarts} == {1}
    assert not any(isinstance(item, Gap) for item in told)
    assert len(numbers(told)) == 188_692 == arbiter.report().lines["A"].first
    assert arbiter.report().lines["A"].duplicates == 0


def test_iex_restarts_on_two_lines_that_lose(shared_data: Path) -> None:
    """Either line may miss the packet that tells the restart."""
    packets = [iex(datagram) for datagram in datagrams(shared_data / "iex/deep10_20170425_pk000001-030057.pcap.gz")]
    dice = random.Random(20170425)
    arrivals = []
    for packet in packets:
        lost = dice.choice("AB") if dice.random() < 0.3 else ""
        arrivals += [(line, packet) for line in dice.sample("AB", 2) if line != lost]
    arbiter = Arbiter(limits=LIMITS, base=1)
    told = merged(arbiter, arrivals)
    assert sum(isinstance(item, Restarted) for item in told) == 6
    assert not any(isinstance(item, Gap) for item in told)
    assert len(numbers(told)) == 188_692
    lines = arbiter.report().lines
    assert min(lines["A"].gaps, lines["B"].gaps) > 1000


@pytest.mark.parametrize("seed", [1, 2])
def test_iex_tops_split_in_two(shared_data: Path, seed: int) -> None:
    packets = [iex(datagram) for datagram in datagrams(shared_data / "iex/tops16_20170710.pcap.gz")]
    arbiter = Arbiter(limits=LIMITS, start=1)
    told = merged(arbiter, on_two_lines(packets, seed))
    assert numbers(told) == list(range(1, 57_675))
    assert not any(isinstance(item, Gap) for item in told)
    lines = arbiter.report().lines
    assert min(lines["A"].lacked, lines["B"].lacked) > 5000
    assert set(arbiter.report().states.values()) == {LineState.LIVE}


def test_lines_that_change_the_order(shared_data: Path) -> None:
    """A hole that both have passed stays open for ``recover_ns``, to the lines too."""
    packets = [iex(datagram) for datagram in datagrams(shared_data / "iex/tops16_20170710.pcap.gz")]
    limits = replace(LIMITS, recover_ns=30 * MS)
    arbiter = Arbiter(limits=limits, start=1)
    assert numbers(merged(arbiter, on_two_lines(packets, 6, in_order=False))) == list(range(1, 57_675))
    assert arbiter.report().counters.gaps == 0


def test_iex_packets_missing_on_both_lines_are_just_the_gaps(shared_data: Path) -> None:
    packets = [iex(datagram) for datagram in datagrams(shared_data / "iex/tops16_20170710.pcap.gz")]
    dice = random.Random(5)
    kept = [packet for packet in packets if packet.first == 1 or dice.random() > 0.01]
    told = merged(Arbiter(limits=LIMITS, start=1), on_two_lines(kept, 5, drop=0.1))
    gone = [number for item in told if isinstance(item, Gap) for number in range(item.first, item.last + 1)]
    there = {number for packet in kept for number in range(packet.first, packet.first + packet.count)}
    assert gone == [number for number in range(1, 57_675) if number not in there]
    assert len(gone) > 300
    assert numbers(told) == sorted(there)


@pytest.mark.parametrize("lines", [1, 2])
def test_miax_numbers(shared_data: Path, lines: int) -> None:
    path = shared_data / "miax-tom/tom_20161018_pk00001-13000.pcap.gz"
    packets = [packet for datagram in datagrams(path) for packet in mach(datagram)]
    kinds = Counter(packet.count for packet in packets)
    assert (kinds[1], kinds[0]) == (30_545, 46)
    arrivals = [("A", packet) for packet in packets] if lines == 1 else on_two_lines(packets, 3)
    arbiter = Arbiter(("A", "B")[:lines], LIMITS, start=24_364_476)
    told = merged(arbiter, arrivals)
    assert numbers(told) == list(range(24_364_476, 24_395_021))
    assert not any(isinstance(item, Gap) for item in told)
    assert lines == 2 or arbiter.report().lines["A"].gaps == 0


@pytest.mark.parametrize("lines", [1, 2])
def test_csm_numbers_of_two_groups(shared_data: Path, lines: int) -> None:
    groups: dict[str, list[Numbered]] = defaultdict(list)
    for datagram in datagrams(shared_data / "cboe-csm/csm_level2_20160112_pk00001-12000.pcap.gz"):
        groups[datagram.group].append(csm(datagram))
    expected = {"233.65.120.72": (6_101_979, 6_110_769), "233.65.120.78": (3_456_079, 3_461_083)}
    assert groups.keys() == expected.keys()
    for group, (first, last) in expected.items():
        arrivals = [("A", packet) for packet in groups[group]] if lines == 1 else on_two_lines(groups[group], 4)
        told = merged(Arbiter(("A", "B")[:lines], LIMITS, start=first), arrivals)
        assert numbers(told) == list(range(first, last + 1))
        assert not any(isinstance(item, Gap) for item in told)
