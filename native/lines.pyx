"""The accounts of a channel's lines, in memory that the hot path (native.wire) writes too (line_accounts.h)."""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

cdef extern from "line_accounts.h" nogil:
    void line_heard(line_account *line, uint64_t last, int64_t now_ns) noexcept
    void line_brought(line_accounts *lines, int number, uint64_t first, uint64_t count, uint64_t taken,
                      int64_t now_ns) noexcept
    void line_tell(line_accounts *lines, uint64_t first, uint64_t last) noexcept
    void line_restart(line_accounts *lines) noexcept

MOST = LINES_MOST
"""Lines of one channel, at most."""


cdef class LineAccounts:
    """``count`` lines, 1 to ``MOST``, numbered from 0. One thread at a time writes; any may read.

    Counts are records. Raises ValueError for a number of lines that is none, IndexError for a line that is not there.
    """

    def __cinit__(self, Py_ssize_t count):
        if not 0 < count <= LINES_MOST:
            raise ValueError(f"{count} lines: 1 to {LINES_MOST}")
        memset(&self._lines, 0, sizeof(self._lines))
        self._lines.count = count

    cdef int _check(self, Py_ssize_t line) except -1:
        if not 0 <= line < <Py_ssize_t>self._lines.count:
            raise IndexError(f"line {line} of {self._lines.count}")
        return 0

    def brought(self, Py_ssize_t line, uint64_t first, uint64_t count, uint64_t taken, int64_t now_ns):
        """A packet of ``count`` records (1 or more) from ``first``, of which ``taken`` were new."""
        self._check(line)
        if taken > count:
            raise ValueError(f"{taken} of {count} records")
        if count:
            line_brought(&self._lines, <int>line, first, count, taken, now_ns)

    def came_late(self, Py_ssize_t line, uint64_t count, int64_t now_ns):
        """Records of a session that was left since."""
        self._check(line)
        self._lines.of[line].received += count
        self._lines.of[line].late += count
        line_heard(&self._lines.of[line], 0, now_ns)

    def heard(self, Py_ssize_t line, uint64_t last, int64_t now_ns):
        """The line has passed ``last``, the highest sequence that it told of (0: of another session)."""
        self._check(line)
        line_heard(&self._lines.of[line], last, now_ns)

    def tell(self, uint64_t first, uint64_t last):
        """The gap ``first`` to ``last`` was told: what comes of it again is late. The last 32 are kept."""
        line_tell(&self._lines, first, last)

    def restart(self):
        """Another session begins: sequences count anew, the accounts go on."""
        line_restart(&self._lines)

    def __len__(self):
        return self._lines.count

    @property
    def dropped(self):
        """Records that the hot path dropped because they had come already, on all lines."""
        return self._lines.dropped

    def received(self, Py_ssize_t line):
        """``first`` + ``duplicates`` + ``late``."""
        self._check(line)
        return self._lines.of[line].received

    def first(self, Py_ssize_t line):
        """Records that came on this line before they did on another."""
        self._check(line)
        return self._lines.of[line].first

    def duplicates(self, Py_ssize_t line):
        """Records that were there already."""
        self._check(line)
        return self._lines.of[line].duplicates

    def late(self, Py_ssize_t line):
        """Records of gaps that were told before, and had come otherwise since."""
        self._check(line)
        return self._lines.of[line].late

    def last(self, Py_ssize_t line):
        """The highest sequence of the session that this line has passed; 0 if none."""
        self._check(line)
        return self._lines.of[line].last

    def heard_ns(self, Py_ssize_t line):
        """When it was last heard, by the clock of who fed it; 0: never."""
        self._check(line)
        return self._lines.of[line].heard_ns
