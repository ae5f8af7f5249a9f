"""The packet codec (layout and meaning: packet_layout.h) and CRC-32C."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t


cdef extern from "packet_layout.h":
    const int PACKET_HEADER_BYTES
    const int PACKET_MAX_BYTES
    const int PACKET_HAS_CRC

cdef extern from "crc32c.h":
    uint32_t fabric_crc32c(uint32_t crc, const void *data, size_t length) nogil
    uint32_t fabric_crc32c_portable(uint32_t crc, const void *data, size_t length) nogil
    const char *fabric_crc32c_target()


HEADER_BYTES = PACKET_HEADER_BYTES
MAX_BYTES = PACKET_MAX_BYTES


cpdef enum Kind:
    DATA = 1
    SNAPSHOT = 2
    HEARTBEAT = 3
    END = 4


cpdef enum ParseResult:
    OK = 0
    SHORT = 1
    BAD_VERSION = 2
    BAD_KIND = 3
    BAD_LENGTH = 4
    BAD_CRC = 5


cdef class Header:
    """The fields of one packet; ``parse`` fills it again and again without allocation."""

    @property
    def channel(self):
        return self.fields.channel

    @property
    def session(self):
        return self.fields.session

    @property
    def sequence(self):
        return self.fields.sequence

    @property
    def sent_ns(self):
        return self.fields.sent_ns

    @property
    def schema(self):
        return self.fields.schema

    @property
    def size(self):
        return self.fields.size

    @property
    def count(self):
        return self.fields.count

    @property
    def kind(self):
        return self.fields.kind

    @property
    def flags(self):
        return self.fields.flags

    def parse(self, bytes frame not None):
        """Fill from a frame; returns a ParseResult code (0 is OK). Never raises for what a peer may send."""
        return packet_parse(&self.fields, PyBytes_AS_STRING(frame), len(frame))


def encode(int kind, uint64_t channel, uint64_t session, uint64_t sequence, int64_t sent_ns, uint32_t schema,
           int record_bytes, int count, records=None, bint crc=False):
    """One packet as bytes. ``records`` is any contiguous buffer of at least ``record_bytes * count`` bytes."""
    cdef packet_header header
    cdef Py_buffer view
    cdef bytes frame
    cdef Py_ssize_t body = <Py_ssize_t>record_bytes * count
    if kind < DATA or kind > END:
        raise ValueError(f"{kind} is not a kind of packet")
    if sequence > <uint64_t>INT64_MAX:
        raise ValueError(f"{sequence} is not a sequence: they end at 2^63 - 1")
    if not 0 <= record_bytes <= 65535 or not 0 <= count <= 65535 or body > PACKET_MAX_BYTES - PACKET_HEADER_BYTES:
        raise ValueError(f"{count} records of {record_bytes} bytes do not fit into one packet")
    header.channel = channel
    header.session = session
    header.sequence = sequence
    header.sent_ns = sent_ns
    header.schema = schema
    header.size = record_bytes
    header.count = count
    header.kind = kind
    header.flags = PACKET_HAS_CRC if crc else 0
    frame = PyBytes_FromStringAndSize(NULL, PACKET_HEADER_BYTES + body)
    if body == 0:
        packet_write(PyBytes_AS_STRING(frame), &header, NULL)
        return frame
    PyObject_GetBuffer(records, &view, PyBUF_SIMPLE)
    try:
        if view.len < body:
            raise ValueError(f"{view.len} bytes given for {count} records of {record_bytes} bytes")
        packet_write(PyBytes_AS_STRING(frame), &header, view.buf)
    finally:
        PyBuffer_Release(&view)
    return frame


def crc32c(data, uint32_t crc=0, bint portable=False):
    """CRC-32C of a contiguous buffer, continuing ``crc``. ``portable`` forces the table form."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if portable:
            return fabric_crc32c_portable(crc, view.buf, view.len)
        return fabric_crc32c(crc, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def crc32c_target():
    """Which implementation runs here: "sse4.2", "armv8-crc" or "portable"."""
    return fabric_crc32c_target().decode()
