"""Publishing from other Cython code: ``Publication.publish``, without the GIL."""

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int64_t, uint64_t

from native.appender cimport Appender
from native.log cimport log_control
from native.packet cimport packet_header
from native.wire cimport Outlet

cdef class SocketLock:
    cdef PyThread_type_lock _lock

    cdef void take(self) noexcept nogil
    cdef void give(self) noexcept nogil

cdef class Publication:
    cdef Appender _appender
    cdef log_control *_page
    cdef Outlet _outlet
    cdef SocketLock _lock
    cdef packet_header _header
    cdef Py_ssize_t _packet_records
    cdef public bint wanted
    cdef public uint64_t announced
    cdef public object handler
    """Called in this process with what ``write`` and ``put`` published, and its first sequence; or None."""

    cdef void send(self, const char *records, uint64_t first, Py_ssize_t count, int64_t sent_ns) noexcept nogil
    cdef uint64_t publish(self, const void *records, Py_ssize_t count, int64_t now_ns) noexcept nogil
    cdef uint64_t _sent(self, uint64_t first, Py_ssize_t count, int64_t now_ns) except? 0
    cdef uint64_t _write(self, cnp.ndarray records, int64_t now_ns) except? 0
    cdef uint64_t _put_named(self, tuple names, PyObject *const *values, int64_t now_ns) except? 0
    cdef int _hand(self, uint64_t first, Py_ssize_t count) except -1

cdef class DirectWriter:
    cdef Publication _publication
    cdef list _staged
    cdef object _now_ns
