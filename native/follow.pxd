"""Cursors and waits, for other Cython code."""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t, uint64_t

from native.log cimport Control, log_control, log_wait

cdef extern from "log_follow.h" nogil:
    ctypedef struct log_follower:
        const log_control *control
        log_wait *wait
        uint64_t cursor
        uint32_t open
        uint32_t told_state
        uint32_t rung

    bint follow_has_records(const log_follower *of) noexcept

cpdef enum Found:
    NOTHING = 0
    RECORDS = 1
    STATE = 2
    POKED = 3

cpdef enum Idle:
    BLOCK = 0
    YIELD = 1
    SPIN = 2

cdef class Followers

cdef class LogCursor:
    cdef Control _control
    cdef log_follower _follower
    cdef object _map_segment
    cdef cnp.dtype _dtype
    cdef object _segment
    cdef char *_bytes
    cdef uint64_t _begin
    cdef uint64_t _end
    cdef Py_ssize_t _record_bytes
    cdef public Followers bell
    """Poked when it is opened: a bell that rings for it does not wait for one that is closed; or None."""
    cdef readonly bint overrun
    """Retention has removed records that were not read yet; ``next`` is the first of them."""

    cdef bint is_open(self) noexcept
    cdef _take(self, Py_ssize_t max_records)
    cdef bint _turn_to(self, uint64_t cursor) except -1

cdef class Followers:
    cdef log_wait _own
    cdef tuple _cursors
    cdef bytes _array

    cdef _set(self, tuple cursors)
    cdef uint32_t _ticket(self) noexcept
    cdef int _wait(self, uint32_t ticket, int64_t timeout_ns, int idle)
