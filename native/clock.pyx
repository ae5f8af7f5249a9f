"""The clock of stamps, for who is not native: tests, and ``fabric explain``."""

from libc.stdint cimport int64_t

cdef extern from "stamp_clock.h" nogil:
    int64_t c_stamp_ns "stamp_ns"() noexcept
    int stamp_source() noexcept
    bint stamp_is_anchored() noexcept
    const int STAMP_COUNTER


def stamp_ns():
    """CLOCK_REALTIME in nanoseconds, as native code stamps records and packets."""
    return c_stamp_ns()


def stamp_counter():
    """What it is read from between readings of the system's clock, a millisecond apart: ``tsc``; "": nothing, it is the system's
    clock each time."""
    return "tsc" if stamp_source() == STAMP_COUNTER else ""


def anchored():
    """Whether the counter is used in this thread, which stamps often and has done so for long enough."""
    return stamp_is_anchored()
