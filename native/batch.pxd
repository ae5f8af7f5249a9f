"""The fields of a batch, for other Cython code."""

from libc.stdint cimport uint64_t

cdef class BatchFields:
    cdef readonly str channel
    cdef readonly object record
    """The channel's record type."""
    cdef readonly object records
    """numpy structured array, shape (n,), read-only."""
    cdef readonly uint64_t session
    cdef readonly uint64_t last
    cdef readonly bint stale
    """No packet or heartbeat had arrived in time when this was read."""
    cdef readonly object _origin
    cdef readonly uint64_t _first
    cdef readonly object _numbers
    cdef readonly object _chosen
    cdef readonly object _client
