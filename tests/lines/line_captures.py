"""Packets of recorded multicast feeds, read no further than their numbers: what line arbitration needs."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Datagram(NamedTuple):
    time_ns: int
    group: str
    port: int
    payload: bytes


class Numbered(NamedTuple):
    """A packet: ``count`` messages from number ``first`` on; 0 is a heartbeat, with the next number."""

    time_ns: int
    first: int
    count: int
    session: int | None
    payload: bytes


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def datagrams(path: Path) -> Iterator[Datagram]:
    """UDP over IPv4 over Ethernet, of a pcap or pcapng file (little-endian, one interface)."""
    data = content(path)
    frames = _pcapng(data) if data[:4] == b"\x0a\x0d\x0d\x0a" else _pcap(data)
    for time_ns, frame in frames:
        at = 12
        while frame[at : at + 2] == b"\x81\x00":  # VLAN
            at += 4
        ip = at + 2
        if frame[at:ip] != b"\x08\x00" or frame[ip + 9] != 17:
            continue
        udp = ip + (frame[ip] & 15) * 4
        _, port, size = struct.unpack_from(">HHH", frame, udp)
        yield Datagram(time_ns, ".".join(map(str, frame[ip + 16 : ip + 20])), port, frame[udp + 8 : udp + size])


def _pcap(data: bytes) -> Iterator[tuple[int, bytes]]:
    unit_ns = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}[struct.unpack_from("<I", data)[0]]
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, size, _ = struct.unpack_from("<IIII", data, at)
        yield seconds * 1_000_000_000 + fraction * unit_ns, data[at + 16 : at + 16 + size]
        at += 16 + size


def _pcapng(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    unit_ns = 1000
    while at + 12 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == 1:  # interface: look for if_tsresol
            option = at + 16
            while option + 4 <= at + size - 4:
                code, length = struct.unpack_from("<HH", data, option)
                if code == 9:
                    unit_ns = 10 ** (9 - data[option + 4])
                if code == 0:
                    break
                option += 4 + (length + 3) // 4 * 4
        elif kind == 6:  # enhanced packet
            _, high, low, captured = struct.unpack_from("<IIII", data, at + 8)
            yield ((high << 32) | low) * unit_ns, data[at + 28 : at + 28 + captured]
        at += size


def mdp3(datagram: Datagram) -> Numbered:
    """CME: one number a packet."""
    (number,) = struct.unpack_from("<I", datagram.payload)
    return Numbered(datagram.time_ns, number, 1, None, datagram.payload)


def iex(datagram: Datagram) -> Numbered:
    """IEX-TP: the first message's number and how many; none is a heartbeat."""
    session, _, count, _, first = struct.unpack_from("<IHHqq", datagram.payload, 8)
    return Numbered(datagram.time_ns, first, count, session, datagram.payload)


def mach(datagram: Datagram) -> Iterator[Numbered]:
    """MIAX: packets of one message each, several in a datagram; a heartbeat has the last number."""
    at = 0
    while at + 12 <= len(datagram.payload):
        number, size, kind, session = struct.unpack_from("<QHBB", datagram.payload, at)
        if kind == 3:
            yield Numbered(datagram.time_ns, number, 1, session, datagram.payload[at : at + size])
        elif kind == 0:
            yield Numbered(datagram.time_ns, number + 1, 0, session, b"")
        at += size


def csm(datagram: Datagram) -> Numbered:
    """Cboe: the first message's number and how many."""
    count, first = struct.unpack_from(">BI", datagram.payload, 11)
    return Numbered(datagram.time_ns, first, count, None, datagram.payload)


def _stop_bit(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        value = value << 7 | data[at] & 127
        at += 1
        if data[at - 1] & 128:
            return value, at


def rts_increments(path: Path) -> list[tuple[int, int]]:
    """(number, when sent) of each increment; FAST has no framing, but they all begin alike."""
    found = []
    for message in content(path).split(b"\xc0\xf8\xe0\xca")[1:]:
        number, at = _stop_bit(message, 0)
        found.append((number, _stop_bit(message, at)[0]))
    return found


def rts_snapshots(path: Path) -> list[tuple[int, int, int, int]]:
    """(number within the sweep, when sent, how many in the sweep, last increment it holds) of each snapshot message."""
    found = []
    for message in content(path).split(b"\xc0\xf8\xe0\xcb")[1:]:
        at, values = 0, []
        for _ in range(5):
            value, at = _stop_bit(message, at)
            values.append(value)
        found.append((values[0], values[1], values[3], values[4]))
    return found
