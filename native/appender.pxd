"""The one writer's fast path, for other Cython code: ``put_raw`` writes records without the GIL."""

cimport numpy as cnp
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from native.log cimport Control, log_wait

cdef enum:
    MOST_NAMES = 64

cdef struct field_place:
    Py_ssize_t offset
    char kind             # f, i or u
    char size             # bytes

cdef class Appender:
    cdef Control _control
    cdef cnp.dtype _dtype
    cdef dict _places
    cdef tuple _names        # of the columns of the last call that gave them as a tuple, and where each is
    cdef field_place _named[MOST_NAMES]
    cdef Py_buffer _view
    cdef bint _held
    cdef log_wait _nobody
    cdef char *_at
    cdef Py_ssize_t _room
    cdef Py_ssize_t _record_bytes
    cdef uint64_t _segment_first
    cdef uint32_t _mark
    cdef readonly uint64_t count
    cdef readonly int64_t publish_ns

    cdef void _catch_up(self) noexcept
    cdef uint64_t commit(self, Py_ssize_t records, int64_t now_ns) noexcept nogil
    cdef uint64_t put_raw(self, const void *records, Py_ssize_t count, int64_t now_ns) noexcept nogil
    cdef uint64_t put_named(self, tuple names, PyObject *const *values, int64_t now_ns) except? 0
    cdef bint _learn(self, tuple names)
    cdef bint _store(self, const field_place *place, object value)
