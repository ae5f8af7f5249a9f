"""The sequence check: where a packet stands against what was delivered and seen. The hot path's only decision."""

from libc.stdint cimport uint64_t


cpdef enum Verdict:
    IN_ORDER = 0      # begins exactly after what was delivered
    DUPLICATE = 1     # wholly delivered already
    OVERLAP = 2       # begins in what was delivered, ends after it
    AHEAD = 3         # leaves a hole between what was delivered and its first record
    NEWER_SESSION = 4
    FENCED = 5        # a lower epoch: a publisher that was replaced
    CONFLICT = 6      # the same epoch, another session: two writers at once
    NO_SESSION = 7    # nothing is being followed yet


cdef class Tracker:
    """Two watermarks of one session: ``delivered`` (all up to it went out, or is accounted for) and ``seen``."""

    def __cinit__(self):
        self.session = 0
        self.delivered = 0
        self.seen = 0

    cdef int check(self, uint64_t session, uint64_t first, uint64_t count) noexcept nogil:
        cdef uint64_t expected
        if self.session == 0:
            return NO_SESSION
        if session != self.session:
            if (session >> 32) > (self.session >> 32):
                return NEWER_SESSION
            return CONFLICT if (session >> 32) == (self.session >> 32) else FENCED
        expected = self.delivered + 1
        if first == expected:
            return IN_ORDER
        if first > expected:
            return AHEAD
        if first + count <= expected:
            return DUPLICATE
        return OVERLAP

    def verdict(self, uint64_t session, uint64_t first, uint64_t count):
        """A Verdict for a packet of ``count`` records from ``first``. Changes nothing."""
        return self.check(session, first, count)

    def accept(self, uint64_t session, uint64_t first, uint64_t count):
        """As ``verdict``, and where it is IN_ORDER both watermarks move past the packet."""
        cdef int verdict = self.check(session, first, count)
        if verdict == IN_ORDER:
            self.delivered = first + count - 1
            if self.delivered > self.seen:
                self.seen = self.delivered
        return verdict
