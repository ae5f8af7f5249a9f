from libc.stdint cimport uint64_t

cdef class Tracker:
    cdef public uint64_t session
    cdef public uint64_t delivered
    cdef public uint64_t seen

    cdef int check(self, uint64_t session, uint64_t first, uint64_t count) noexcept nogil
