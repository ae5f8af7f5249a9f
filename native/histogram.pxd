"""The histogram's words, for native code that counts on a hot path."""

from libc.stdint cimport int64_t, uint64_t

cdef extern from "histogram_layout.h" nogil:
    void histogram_add(uint64_t *words, int64_t value) noexcept

cdef class Histogram:
    cdef Py_buffer _view
    cdef uint64_t *_words
    cdef bint _held
