from libc.stdint cimport int64_t, uint64_t

cdef extern from "line_accounts.h" nogil:
    const int LINES_MOST
    ctypedef struct line_account:
        uint64_t received
        uint64_t first
        uint64_t duplicates
        uint64_t late
        uint64_t last
        int64_t heard_ns
        const void *socket
    ctypedef struct line_accounts:
        uint64_t count
        uint64_t dropped
        line_account of[4]

cdef class LineAccounts:
    cdef line_accounts _lines

    cdef int _check(self, Py_ssize_t line) except -1
