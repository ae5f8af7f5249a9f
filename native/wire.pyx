"""Packets through ZeroMQ without Python in between: the libzmq that pyzmq ships, called directly (zmq_calls.h).

    Outlet   log segment ▸ header + one copy ▸ zmq_msg_send
    Inlet    zmq_msg_recv ▸ parse ▸ sequence check ▸ the lanes' rings; all that is not the next records of a channel
             that is in step goes to the control queue, as received and in order
    Lane     one reader of one channel: what it has received and not taken

Sockets are pyzmq's, by their ``underlying`` address; they must stay open for as long as they are in use here. Where
libzmq can't be reached so (``available()`` is False) nothing here can be made, and callers use pyzmq itself.
"""

cimport numpy as cnp
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from native.arrays cimport array_copy, array_view
from native.histogram cimport Histogram
from native.lines cimport LineAccounts
from native.packet cimport packet_header
from native.sequence cimport Tracker

cnp.import_array()

cdef extern from "packet_layout.h":
    const int PACKET_HEADER_BYTES
    const int PACKET_MAX_BYTES
    const int PACKET_HAS_CRC
    const int PACKET_DATA
    const int PACKET_HEARTBEAT
    const int PACKET_END

cdef extern from "zmq_calls.h":
    ctypedef struct zmq_calls:
        void *msg_recv
        void (*version)(int *major, int *minor, int *patch)
        const char *(*strerror)(int error)
    zmq_calls zmq
    bint zmq_calls_load(const char *path, const char *expected_version)

cdef extern from "wire_outlet.h" nogil:
    void *frame_slots_open() noexcept
    void frame_slots_close(void *slots) noexcept
    int64_t wire_send_records(void *socket, void *slots, const packet_header *first, const char *records,
                              size_t count, size_t packet_records) noexcept
    int wire_send_packet(void *socket, void *slots, packet_header *header, const void *records) noexcept

cdef enum:
    # Up to here a send keeps the GIL: taking it back costs more than the send, and beside a busy thread a thousand times.
    BYTES_WITHOUT_GIL = 32768


def load(str path not None, str version=""):
    """Reach libzmq through the loaded extension module ``path`` (pyzmq's ``zmq.backend.cython._zmq.__file__``).

    Returns ``available()``. False if the module is not loaded, does not bring the calls, or its libzmq is not of version 4
    or not exactly ``version`` ("4.3.5"; "" takes any). Never raises for what it finds.
    """
    if zmq.msg_recv == NULL:
        zmq_calls_load(path.encode(), version.encode())
    return available()


def available():
    """Whether ``load`` has found libzmq."""
    return zmq.msg_recv != NULL


def version():
    """Of the libzmq that was found, such as "4.3.5"; "" without one."""
    cdef int major = 0, minor = 0, patch = 0
    if zmq.msg_recv == NULL:
        return ""
    zmq.version(&major, &minor, &patch)
    return f"{major}.{minor}.{patch}"


def error_text(int error):
    """libzmq's words for an errno."""
    return zmq.strerror(error).decode() if zmq.msg_recv != NULL else ""


cdef int check_available() except -1:
    if zmq.msg_recv == NULL:
        raise RuntimeError("libzmq can't be called natively here: use pyzmq")
    return 0


cdef class Outlet:
    """Sends packets on one socket (its ``underlying`` address). One thread at a time, as with the socket itself.

    Raises RuntimeError where libzmq is not available.
    """

    def __cinit__(self, uintptr_t underlying):
        check_available()
        if underlying == 0:
            raise ValueError("a closed socket has no address")
        self._socket = <void *>underlying
        self._slots = frame_slots_open()

    def __dealloc__(self):
        frame_slots_close(self._slots)

    cdef int64_t send(self, const packet_header *first, const char *records, size_t count, size_t packet_records) noexcept nogil:
        """``count`` (1 or more) records as packets of at most ``packet_records``; ``first`` has the first one's fields.
        As ``send_records``: packets sent, or -errno."""
        return wire_send_records(self._socket, self._slots, first, records, count, packet_records)

    def send_records(self, buffer, Py_ssize_t first_record, Py_ssize_t count, Py_ssize_t record_bytes, uint64_t channel,
                     uint64_t session, uint64_t sequence, uint32_t schema, Py_ssize_t packet_records, bint crc=False,
                     int64_t sent_ns=0):
        """Send ``buffer``'s records ``first_record`` to ``first_record + count`` as DATA packets.

        ``buffer`` is any contiguous buffer or array; ``record_bytes`` is a record's size in it, ``sequence`` the first
        one's, ``packet_records`` the most that one packet takes. ``sent_ns`` goes into every header; 0 stamps each packet
        with CLOCK_REALTIME as it is sent.

        Returns the packets sent: fewer than all if libzmq refused one after them, -errno if it refused the first. (An XPUB
        refuses none for being full unless it has XPUB_NODROP; it drops for the reader that is late.) Raises ValueError if
        the records reach past the buffer or do not fit into packets.
        """
        cdef packet_header header
        cdef Py_buffer view
        cdef const char *records
        cdef int64_t packets
        cdef Py_ssize_t length
        cdef bint array = cnp.PyArray_Check(buffer) and cnp.PyArray_IS_C_CONTIGUOUS(buffer)
        memset(&header, 0, sizeof(header))
        header.channel = channel
        header.session = session
        header.sequence = sequence
        header.sent_ns = sent_ns
        header.schema = schema
        header.size = <unsigned short>record_bytes
        header.kind = PACKET_DATA
        header.flags = PACKET_HAS_CRC if crc else 0
        if not 0 < record_bytes <= PACKET_MAX_BYTES - PACKET_HEADER_BYTES or not (
                0 < packet_records <= (PACKET_MAX_BYTES - PACKET_HEADER_BYTES) // record_bytes):
            raise ValueError(f"{packet_records} records of {record_bytes} bytes are not one packet")
        if session == 0 or sequence == 0 or sequence > <uint64_t>INT64_MAX:
            raise ValueError("sessions are not 0, and sequences are from 1 to 2^63 - 1")
        if array:
            records = <const char *>cnp.PyArray_DATA(buffer)
            length = cnp.PyArray_NBYTES(buffer)
        else:
            PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
            records = <const char *>view.buf
            length = view.len
        try:
            # Division, not multiplication: nothing overflows.
            if first_record < 0 or count < 0 or count > length // record_bytes or first_record > length // record_bytes - count:
                raise ValueError(f"{length} bytes given for {count} records of {record_bytes} bytes from record {first_record} on")
            records += first_record * record_bytes
            if count * record_bytes <= BYTES_WITHOUT_GIL:
                packets = self.send(&header, records, count, packet_records)
            else:
                with nogil:
                    packets = self.send(&header, records, count, packet_records)
        finally:
            if not array:
                PyBuffer_Release(&view)
        return packets

    def send_control(self, int kind, uint64_t channel, uint64_t session, uint64_t sequence, uint32_t schema,
                     Py_ssize_t record_bytes, bint crc=False, int64_t sent_ns=0):
        """Send a HEARTBEAT or END whose next sequence is ``sequence``; returns 1, or -errno. Raises ValueError for what
        is not such a packet."""
        cdef packet_header header
        cdef int error
        if kind != PACKET_HEARTBEAT and kind != PACKET_END:
            raise ValueError(f"{kind} is neither HEARTBEAT nor END")
        if session == 0 or sequence == 0 or sequence > <uint64_t>INT64_MAX or not 0 <= record_bytes <= 65535:
            raise ValueError("sessions are not 0, sequences are from 1 to 2^63 - 1, records up to 65,535 bytes")
        memset(&header, 0, sizeof(header))
        header.channel = channel
        header.session = session
        header.sequence = sequence
        header.sent_ns = sent_ns
        header.schema = schema
        header.size = <unsigned short>record_bytes
        header.kind = <unsigned char>kind
        header.flags = PACKET_HAS_CRC if crc else 0
        error = wire_send_packet(self._socket, self._slots, &header, NULL)
        return error if error else 1


include "wire_inlet.pxi"
include "wire_lane.pxi"
