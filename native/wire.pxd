"""Sending and receiving packets natively; other Cython code may send inline through ``Outlet.send``."""

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from native.histogram cimport Histogram
from native.lines cimport LineAccounts, line_accounts
from native.packet cimport packet_header
from native.sequence cimport Tracker

cdef extern from "wire_lane.h" nogil:
    ctypedef struct wire_chunk:
        char *bytes
        void *owner

    ctypedef struct wire_lane:
        uint64_t id
        uint64_t channel
        uint32_t schema
        uint32_t record_bytes
        uint64_t chunk_records
        uint64_t *session
        uint64_t *delivered
        uint64_t *seen
        uint64_t *latency
        int plain
        unsigned short line_count
        line_accounts *lines
        int attached
        uint64_t received
        uint64_t packets
        uint64_t overflow
        uint64_t frames_queued
        int64_t heard_ns
        int64_t arrived_ns
        uint64_t taken
        uint64_t frames_taken

cdef extern from "wire_inlet.h" nogil:
    ctypedef struct wire_inlet:
        uint64_t packets
        uint64_t records
        uint64_t bytes
        uint64_t malformed
        uint64_t bad_crc
        uint64_t bad_version
        uint64_t unknown_channel
        uint64_t overflow
        uint64_t broken_sockets
        uint64_t pumped
        int socket_count
        int wet
        int refs
        int pumps

cdef class Outlet:
    cdef void *_socket
    cdef void *_slots

    cdef int64_t send(self, const packet_header *first, const char *records, size_t count, size_t packet_records) noexcept nogil

cdef class Chunk:
    cdef wire_chunk _chunk
    cdef void *_memory
    cdef bint _in_ring

cdef class Lane:
    cdef wire_lane *_lane
    cdef wire_inlet *_inlet
    cdef Tracker _tracker
    cdef LineAccounts _lines
    cdef Histogram _histogram
    cdef object _dtype
    cdef list _chunks
    cdef Py_ssize_t _ring_chunks, _in_ring

    cdef int _add_chunk(self) except -1
    cdef void _give(self, Chunk chunk) noexcept
    cdef bint _is_lent(self, Py_ssize_t i, PyObject *held) noexcept
    cdef bint _may_lend(self, Chunk chunk) noexcept
    cdef int _retire(self, Chunk chunk) except -1

cdef class Inlet:
    cdef wire_inlet *_inlet
    cdef dict _lanes
    cdef uint64_t _next_id

    cdef _take(self, Lane lane, int64_t timeout_ns, bint spin, Py_ssize_t max_records)
    cdef bint _others_ready(self, Lane lane) noexcept
