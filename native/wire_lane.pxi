# A lane as the taker sees it: runs out of the ring, without a copy where they are large (wire_lane.h has the other side).

from libc.stdlib cimport free

cdef extern from "wire_lane.h" nogil:
    ctypedef struct wire_taken:
        uint64_t session
        uint64_t first
        uint64_t count
        const char *records
        wire_chunk *chunk
        bint ends_chunk

    wire_lane *wire_lane_new(uint64_t chunk_records, uint32_t record_bytes, uint64_t chunks) noexcept
    void wire_lane_give_chunk(wire_lane *lane, wire_chunk *chunk) noexcept
    bint wire_lane_take(wire_lane *lane, uint64_t most, wire_taken *out) noexcept

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **at, size_t alignment, size_t size)

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *chunk) noexcept
    PyObject *borrowed_item "PyList_GET_ITEM"(list items, Py_ssize_t i) noexcept

cdef enum:
    CHUNK_BYTES = 262144
    CHUNKS_OF_A_SMALL_RING = 4
    SHIFTS = 16384
    LENT_BYTES = 4096  # from here on a view is cheaper than a copy


cdef class Chunk:
    """Memory of a ring that arrays may look into; it is written again only when this object is the lane's alone."""

    def __cinit__(self, size_t size, size_t shift):
        self._chunk.owner = <void *>self
        if posix_memalign(&self._memory, 64, size + shift) != 0:
            self._memory = NULL
            raise MemoryError()
        self._chunk.bytes = <char *>self._memory + shift

    def __dealloc__(self):
        free(self._memory)


cdef class Lane:
    """One reader of one channel; ``Inlet.add_lane`` makes it. The reader takes, whoever drains the inlet fills.

    Begins not ``plain``: every packet goes to the inlet's control queue until ``resume``.
    """

    def __cinit__(self):
        self._lane = NULL
        self._inlet = NULL

    def __init__(self):
        if self._lane == NULL:
            raise TypeError("Inlet.add_lane makes lanes")

    def __dealloc__(self):
        if self._inlet != NULL:
            if self._lane.attached:  # the inlet went first
                lock_inlet(self._inlet)
                wire_remove_lane(self._inlet, self._lane)
                wire_unlock(self._inlet)
            wire_inlet_release(self._inlet)
        free(self._lane)

    def take(self, Py_ssize_t max_records=INT64_MAX):
        """The next records that follow one another in one session: ``(session, first, records)``, or None.

        ``records`` is a read-only, C-contiguous array of the lane's dtype, shape (n,), or of uint8, shape (n *
        record_bytes,), 1 <= n <= ``max_records``. From 4 KiB on it is a view of the ring that never changes; its memory
        is used again once nobody refers to it. Readers that keep more views than the ring has chunks get copies.
        """
        cdef wire_taken taken
        cdef Chunk chunk
        cdef cnp.npy_intp shape
        cdef cnp.dtype dtype = self._dtype
        if max_records <= 0 or not wire_lane_take(self._lane, max_records, &taken):
            return None
        chunk = <Chunk>taken.chunk.owner
        cdef size_t size = taken.count * self._lane.record_bytes
        shape = taken.count if self._lane.record_bytes == <uint32_t>dtype.itemsize else size
        if size >= LENT_BYTES and self._may_lend(chunk):
            records = array_view(dtype, shape, taken.records, chunk)
        else:
            records = array_copy(dtype, shape, taken.records)
        if taken.ends_chunk:
            self._retire(chunk)
        return taken.session, taken.first, records

    def resume(self):
        """Let the hot path deliver again, from the tracker's ``delivered`` on: the control side has nothing left to do.

        Returns ``plain``: False if frames of this lane are still in the control queue, which come first, or if it was
        removed."""
        if not self._lane.attached:
            return False
        lock_inlet(self._inlet)
        if self._lane.frames_queued == self._lane.frames_taken:
            self._lane.plain = 1
        wire_unlock(self._inlet)
        return self._lane.plain != 0

    def pause(self):
        """Send everything from now on to the control queue; afterwards the tracker is the caller's alone."""
        lock_inlet(self._inlet)
        self._lane.plain = 0
        wire_unlock(self._inlet)

    cdef int _add_chunk(self) except -1:
        # So much memory begins at a page's start: a thousand lanes would share one set of each cache.
        cdef size_t shift = self._lane.id * 64 % SHIFTS
        cdef Chunk chunk = Chunk(self._lane.chunk_records * self._lane.record_bytes, shift)
        self._chunks.append(chunk)
        self._give(chunk)
        return 0

    cdef void _give(self, Chunk chunk) noexcept:
        chunk._in_ring = True
        self._in_ring += 1
        wire_lane_give_chunk(self._lane, &chunk._chunk)

    cdef bint _is_lent(self, Py_ssize_t i, PyObject *held) noexcept:
        """Whether arrays look into chunk ``i``. The list has one reference, the caller another to ``held``."""
        cdef PyObject *chunk = borrowed_item(self._chunks, i)
        return Py_REFCNT(chunk) > (2 if chunk == held else 1)

    cdef bint _may_lend(self, Chunk chunk) noexcept:
        """As many chunks as the ring has may be lent: then there is always one to take a lent one's place."""
        cdef Py_ssize_t i, lent = 0
        if len(self._chunks) < 2 * self._ring_chunks:
            return True
        for i in range(len(self._chunks)):
            lent += self._is_lent(i, <PyObject *>chunk)
        return lent < self._ring_chunks

    cdef int _retire(self, Chunk chunk) except -1:
        """All of a chunk is taken: it goes back, or while arrays look into it another one in its place."""
        cdef Py_ssize_t i
        chunk._in_ring = False
        self._in_ring -= 1
        for i in range(len(self._chunks)):
            if self._in_ring == self._ring_chunks:
                return 0
            if not (<Chunk>borrowed_item(self._chunks, i))._in_ring and not self._is_lent(i, <PyObject *>chunk):
                self._give(<Chunk>borrowed_item(self._chunks, i))
        if self._in_ring < self._ring_chunks and len(self._chunks) < 2 * self._ring_chunks:
            try:
                self._add_chunk()
            except MemoryError:
                pass  # the ring is smaller until an array is let go of
        return 0

    @property
    def id(self):
        """Unique in the inlet."""
        return self._lane.id

    @property
    def channel(self):
        return self._lane.channel

    @property
    def tracker(self):
        """The hot path's while ``plain``, the control side's otherwise."""
        return self._tracker

    @property
    def plain(self):
        """Whether the hot path delivers; False after the first packet that was not simply the next one."""
        return self._lane.plain != 0

    @property
    def received(self):
        """Records that came into the ring."""
        return self._lane.received

    @property
    def waiting(self):
        """Records in the ring."""
        return self._lane.received - self._lane.taken

    @property
    def packets(self):
        """Packets of the channel, good ones of any kind."""
        return self._lane.packets

    @property
    def overflow(self):
        """Frames that the control queue had no room for."""
        return self._lane.overflow

    @property
    def heard_ns(self):
        """The drain's time (CLOCK_MONOTONIC if it was given none) when the last packet came that kept the lane plain."""
        return self._lane.heard_ns

    @property
    def arrived_ns(self):
        """CLOCK_MONOTONIC when the last packet came; a burst of up to 32 packets shares one."""
        return self._lane.arrived_ns

    @property
    def histogram(self):
        """Counts the nanoseconds from each DATA packet's ``sent_ns`` to its arrival, by CLOCK_REALTIME; None: does not."""
        return self._histogram

    @histogram.setter
    def histogram(self, Histogram histogram):
        lock_inlet(self._inlet)
        self._lane.latency = histogram._words if histogram is not None else NULL
        self._histogram = histogram
        wire_unlock(self._inlet)
