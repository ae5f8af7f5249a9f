"""The packet codec against struct, its checks against everything that a peer may send, and CRC-32C against RFC 3720."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from native.packet import HEADER_BYTES, MAX_BYTES, Header, Kind, ParseResult, crc32c, crc32c_target, encode

LAYOUT = struct.Struct("<QQQqIIHHBBH")
VERSION = 1
HAS_CRC = 1
U64 = st.integers(0, 2**64 - 1)
SEQUENCES = st.integers(1, 2**63 - 1)
SESSIONS = st.integers(1, 2**64 - 1)
EITHER = st.booleans()


def header_bytes(
    *, channel=7, session=9, sequence=1, sent_ns=5, schema=3, crc=0, size=40, count=2, kind=1, version=VERSION, flags=0
):
    return LAYOUT.pack(channel, session, sequence, sent_ns, schema, crc, size, count, kind, version, flags)


def crc32c_bitwise(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@st.composite
def packets(draw, crc=EITHER):
    """(fields of encode, record bytes, has crc) of a packet that may be sent."""
    kind = draw(st.sampled_from(Kind))
    size = draw(st.integers(33, 200))
    count = draw(st.integers(1, 6)) if kind in (Kind.DATA, Kind.SNAPSHOT) else 0
    body = draw(st.binary(min_size=size * count, max_size=size * count))
    fields = (kind, draw(U64), draw(SESSIONS), draw(SEQUENCES), draw(st.integers(-(2**63), 2**63 - 1)))
    return fields, draw(st.integers(0, 2**32 - 1)), size, count, body, draw(crc)


def encoded(packet) -> bytes:
    fields, schema, size, count, body, crc = packet
    return encode(*fields, schema, size, count, body, crc)


@given(packets())
def test_layout_is_the_documented_one_byte_by_byte(packet):
    (kind, channel, session, sequence, sent_ns), schema, size, count, body, crc = packet
    frame = encoded(packet)
    flags = HAS_CRC if crc else 0
    fields = (channel, session, sequence, sent_ns, schema)
    bare = LAYOUT.pack(*fields, 0, size, count, kind, VERSION, flags) + body
    expected = LAYOUT.pack(*fields, crc32c_bitwise(bare), size, count, kind, VERSION, flags) + body if crc else bare
    assert frame == expected
    header = Header()
    assert header.parse(frame) == ParseResult.OK
    parsed = (header.kind, header.channel, header.session, header.sequence, header.sent_ns)
    assert parsed == (kind, channel, session, sequence, sent_ns)
    assert (header.schema, header.size, header.count, header.flags) == (schema, size, count, flags)


def test_sizes():
    assert LAYOUT.size == HEADER_BYTES == 48
    assert MAX_BYTES == 65536


@pytest.mark.parametrize(
    ("frame", "result"),
    [
        (b"", ParseResult.SHORT),
        (header_bytes()[:47], ParseResult.SHORT),
        (header_bytes() + bytes(80), ParseResult.OK),
        (header_bytes(version=0) + bytes(80), ParseResult.BAD_VERSION),
        (header_bytes(version=2) + bytes(80), ParseResult.BAD_VERSION),
        (header_bytes(kind=0) + bytes(80), ParseResult.BAD_KIND),
        (header_bytes(kind=5) + bytes(80), ParseResult.BAD_KIND),
        (header_bytes() + bytes(79), ParseResult.BAD_LENGTH),
        (header_bytes() + bytes(81), ParseResult.BAD_LENGTH),
        (header_bytes(count=0), ParseResult.BAD_LENGTH),  # DATA without a record
        (header_bytes(kind=Kind.SNAPSHOT, count=0), ParseResult.OK),  # an empty image
        (header_bytes(kind=Kind.HEARTBEAT, count=0), ParseResult.OK),
        (header_bytes(kind=Kind.END, count=0), ParseResult.OK),
        (header_bytes(kind=Kind.HEARTBEAT) + bytes(80), ParseResult.BAD_LENGTH),
        (header_bytes(kind=Kind.END) + bytes(80), ParseResult.BAD_LENGTH),
        (header_bytes(size=65535, count=65535), ParseResult.BAD_LENGTH),
        (header_bytes(size=65488, count=1) + bytes(65488), ParseResult.OK),  # exactly 64 KiB
        (header_bytes(size=65489, count=1) + bytes(65489), ParseResult.BAD_LENGTH),
        (header_bytes(sequence=2**63 - 1) + bytes(80), ParseResult.OK),
        (header_bytes(sequence=2**63) + bytes(80), ParseResult.BAD_LENGTH),
        (header_bytes(sequence=0) + bytes(80), ParseResult.BAD_LENGTH),  # sequences are from 1
        (header_bytes(sequence=0, kind=Kind.HEARTBEAT, count=0), ParseResult.BAD_LENGTH),
        (header_bytes(sequence=0, kind=Kind.SNAPSHOT, count=0), ParseResult.OK),  # as of nothing
        (header_bytes(session=0) + bytes(80), ParseResult.BAD_LENGTH),
        (header_bytes(flags=HAS_CRC) + bytes(80), ParseResult.BAD_CRC),
        (header_bytes(crc=1) + bytes(80), ParseResult.BAD_CRC),  # a crc that no flag announces
    ],
)
def test_every_parse_result(frame, result):
    assert ParseResult(Header().parse(frame)) is result


def test_a_header_can_be_used_again_after_a_bad_frame():
    header = Header()
    assert header.parse(header_bytes(kind=9) + bytes(80)) == ParseResult.BAD_KIND
    assert header.parse(encode(Kind.DATA, 1, 2, 3, 4, 5, 40, 1, bytes(40))) == ParseResult.OK
    assert (header.channel, header.session, header.sequence, header.sent_ns, header.schema) == (1, 2, 3, 4, 5)


def test_records_at_any_alignment_give_the_same_frame():
    generator = random.Random(11)
    records = generator.randbytes(40 * 9)
    for crc in (False, True):
        expected = encode(Kind.DATA, 1, 2, 3, 4, 5, 40, 9, records, crc)
        for shift in range(1, 9):
            unaligned = memoryview(bytes(shift) + records)[shift:]
            assert encode(Kind.DATA, 1, 2, 3, 4, 5, 40, 9, unaligned, crc) == expected


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.builds(bytes.__add__, st.just(header_bytes()), st.binary(max_size=90))))
def test_no_bytes_crash_the_parser(frame):
    ParseResult(Header().parse(frame))


@settings(max_examples=300)
@given(packets(), st.data())
def test_mutated_frames_never_crash_nor_claim_more_than_is_there(packet, data):
    frame = bytearray(encoded(packet))
    for _ in range(data.draw(st.integers(1, 6))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    header = Header()
    for mutated in (bytes(frame), cut):
        if header.parse(mutated) == ParseResult.OK:
            assert HEADER_BYTES + header.size * header.count == len(mutated)


@settings(max_examples=30, deadline=None)
@given(packets(crc=st.just(True)))
def test_every_single_bit_that_flips_in_a_frame_with_crc_is_noticed(packet):
    frame = encoded(packet)
    header = Header()
    assert header.parse(frame) == ParseResult.OK
    for bit in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        assert header.parse(bytes(flipped)) != ParseResult.OK, f"bit {bit}"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ((Kind.DATA, 1, 1, 1, 0, 1, 40, 2, bytes(79)), "79 bytes given"),
        ((Kind.DATA, 1, 1, 1, 0, 1, 65489, 1, bytes(65489)), "do not fit"),
        ((Kind.DATA, 1, 1, 1, 0, 1, 65536, 0, b""), "do not fit"),
        ((Kind.DATA, 1, 1, 1, 0, 1, -1, 1, b""), "do not fit"),
        ((Kind.DATA, 1, 1, 1, 0, 1, 40, -1, b""), "do not fit"),
        ((Kind.SNAPSHOT, 1, 1, 1, 0, 1, 0, 65536, b""), "do not fit"),
        ((0, 1, 1, 1, 0, 1, 40, 1, bytes(40)), "kind"),
        ((257, 1, 1, 1, 0, 1, 40, 1, bytes(40)), "kind"),
        ((Kind.DATA, 1, 1, 2**63, 0, 1, 40, 1, bytes(40)), "sequence"),
    ],
)
def test_what_could_not_be_parsed_is_not_encoded(fields, problem):
    with pytest.raises(ValueError, match=problem):
        encode(*fields)


@pytest.mark.parametrize(
    ("content", "expected"),
    [  # RFC 3720 B.4, and the check value of the CRC catalogue
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (
            bytes.fromhex(
                "01c00000" + "00000000" * 3 + "14000000" + "00000400" + "00000014" + "00000018"
                "28000000" + "00000000" + "02000000" + "00000000"
            ),
            0xD9963A56,
        ),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_known_answers(content, expected):
    assert crc32c(content) == crc32c(content, 0, True) == crc32c_bitwise(content) == expected


@settings(max_examples=200)
@given(st.binary(max_size=400), st.integers(0, 8), st.integers(0, 400))
@example(bytes(64), 3, 17)
def test_crc32c_by_instruction_by_table_and_in_two_parts_agree(content, shift, cut):
    view = memoryview(bytes(shift) + content)[shift:]
    whole = crc32c(view)
    assert whole == crc32c(view, portable=True)
    assert crc32c(view[cut:], crc32c(view[:cut])) == whole
    assert crc32c(view[cut:], crc32c(view[:cut], portable=True), portable=True) == whole


def test_crc32c_says_what_it_runs_on():
    assert crc32c_target() in ("sse4.2", "armv8-crc", "portable")
