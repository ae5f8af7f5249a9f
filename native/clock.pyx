"""The clock of stamps, for who is not native: tests, and ``fabric explain``."""

from libc.stdint cimport int64_t

cdef extern from "stamp_clock.h" nogil:
    int64_t c_stamp_ns "stamp_ns"() noexcept
    int stamp_source() noexcept
    const int STAMP_COUNTER


def stamp_ns():
    """CLOCK_REALTIME in nanoseconds, within a microsecond, as native code stamps records and packets."""
    return c_stamp_ns()


def stamp_counter():
    """What it is read from between two readings of the system's clock, at most a millisecond apart: ``tsc``; "": nothing, it is
    the system's clock each time."""
    return "tsc" if stamp_source() == STAMP_COUNTER else ""
