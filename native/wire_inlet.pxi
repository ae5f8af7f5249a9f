# The inlet as Python sees it (wire_inlet.h, wire_wait.h and wire_pump.h have the work).

cdef extern from "wire_control.h" nogil:
    const int WIRE_LINE_SHIFT
    ctypedef struct wire_entry:
        uint64_t lane
        uint64_t bytes

    const char *wire_control_peek(void *queue, wire_entry *entry) noexcept
    void wire_control_pop(void *queue, const wire_entry *entry) noexcept

cdef extern from "wire_sets.h" nogil:
    """
    #define WIRE_CONTROL_OF(inlet) (&(inlet)->control)
    """
    wire_inlet *wire_inlet_new(uint64_t control_bytes) noexcept
    void wire_inlet_release(wire_inlet *inlet) noexcept
    bint wire_lock_now(wire_inlet *inlet) noexcept
    void wire_lock(wire_inlet *inlet) noexcept
    void wire_unlock(wire_inlet *inlet) noexcept
    void wire_unlock_and_look(wire_inlet *inlet) noexcept
    bint wire_add_socket(wire_inlet *inlet, void *socket, int fd) noexcept
    bint wire_remove_socket(wire_inlet *inlet, void *socket) noexcept
    bint wire_add_fd(wire_inlet *inlet, int fd) noexcept
    bint wire_remove_fd(wire_inlet *inlet, int fd) noexcept
    bint wire_add_lane(wire_inlet *inlet, wire_lane *lane) noexcept
    void wire_remove_lane(wire_inlet *inlet, wire_lane *lane) noexcept
    wire_lane *wire_pop_ready(wire_inlet *inlet) noexcept
    int64_t wire_drain(wire_inlet *inlet, int64_t budget, int64_t now_ns) noexcept
    int wire_wait(wire_inlet *inlet, int64_t timeout_ns, bint spin) noexcept
    void *WIRE_CONTROL_OF(wire_inlet *inlet) noexcept
    bint wire_others_ready(wire_inlet *inlet, const wire_lane *lane) noexcept

cdef extern from "wire_pump.h" nogil:
    int wire_pump_start(wire_inlet *inlet) noexcept
    void wire_pump_stop(wire_inlet *inlet) noexcept

RECORDS = 1
"""``Inlet.wait``: records came into a lane's ring."""
CONTROL = 2
"""``Inlet.wait``: the control queue is not empty."""
EXTRA = 4
"""``Inlet.wait``: one of the extra descriptors is readable."""

cdef enum:
    LEAST_CONTROL_BYTES = 65568  # one frame


cdef void lock_inlet(wire_inlet *inlet) noexcept:
    """Whoever has the lock may be waiting for the GIL: it is not kept while waiting for the lock."""
    if not wire_lock_now(inlet):
        with nogil:
            wire_lock(inlet)


cdef class Inlet:
    """Receives from SUB sockets into lanes. One thread at a time calls it; callers see to that, but for ``hold``.

    ``control_bytes`` is the control queue's room, at least one frame of 64 KiB. Raises RuntimeError where libzmq is not
    available.
    """

    def __cinit__(self, Py_ssize_t control_bytes=4 << 20):
        self._inlet = NULL
        check_available()
        if control_bytes < LEAST_CONTROL_BYTES:
            raise ValueError(f"a control queue has room for a frame: {LEAST_CONTROL_BYTES} bytes or more")
        self._inlet = wire_inlet_new(control_bytes)
        if self._inlet == NULL:
            raise MemoryError()
        self._lanes = {}
        self._next_id = 1

    def __dealloc__(self):
        if self._inlet != NULL:
            wire_pump_stop(self._inlet)
            wire_inlet_release(self._inlet)

    def add_socket(self, uintptr_t underlying, int fd):
        """Receive from a SUB socket: its ``underlying`` address and its ``FD``. Remove it before it is closed."""
        cdef bint added
        if underlying == 0:
            raise ValueError("a closed socket has no address")
        lock_inlet(self._inlet)
        added = wire_add_socket(self._inlet, <void *>underlying, fd)
        wire_unlock_and_look(self._inlet)
        if not added:
            raise MemoryError()

    def remove_socket(self, uintptr_t underlying):
        """Receive from it no longer. Raises KeyError if it is not there."""
        cdef bint removed
        lock_inlet(self._inlet)
        removed = wire_remove_socket(self._inlet, <void *>underlying)
        wire_unlock(self._inlet)
        if not removed:
            raise KeyError(underlying)

    def add_fd(self, int fd):
        """Let ``wait`` return when this descriptor is readable too."""
        cdef bint added
        lock_inlet(self._inlet)
        added = wire_add_fd(self._inlet, fd)
        wire_unlock(self._inlet)
        if not added:
            raise MemoryError()

    def remove_fd(self, int fd):
        """Raises KeyError if it is not there."""
        cdef bint removed
        lock_inlet(self._inlet)
        removed = wire_remove_fd(self._inlet, fd)
        wire_unlock(self._inlet)
        if not removed:
            raise KeyError(fd)

    def add_lane(self, uint64_t channel, uint32_t schema, Py_ssize_t record_bytes, Tracker tracker not None,
                 Py_ssize_t ring_bytes, dtype=None, LineAccounts lines=None, sockets=()):
        """One more reader of a channel. ``tracker`` says where it stands; the hot path moves it while the lane is plain.

        The ring holds ``ring_bytes``, rounded up to whole chunks (a quarter of it, at most 256 KiB each) of whole records;
        its memory is touched as it is first filled. ``dtype`` types the arrays that ``Lane.take`` returns; without it they
        are uint8. Where the channel comes on several lines, ``lines`` are their accounts and ``sockets`` the ``underlying``
        addresses of the SUB sockets that they come from, in their order: packets of other sockets are not for this lane.
        Raises ValueError if a dtype is not ``record_bytes`` long, or the sockets are not those of the lines.
        """
        cdef Lane lane
        cdef uint64_t chunk_records
        cdef Py_ssize_t chunk_bytes, chunks, i
        cdef bint added
        cdef cnp.dtype typed = cnp.dtype("u1" if dtype is None else dtype)
        if not 0 < record_bytes <= PACKET_MAX_BYTES - PACKET_HEADER_BYTES or ring_bytes <= 0:
            raise ValueError(f"a ring of {ring_bytes} bytes for records of {record_bytes} bytes")
        if dtype is not None and typed.itemsize != record_bytes:
            raise ValueError(f"a dtype of {typed.itemsize} bytes for records of {record_bytes} bytes")
        if lines is not None and (len(sockets) != len(lines) or len(set(sockets)) != len(lines)):
            raise ValueError(f"{len(sockets)} sockets for {len(lines)} lines")
        chunk_bytes = min(CHUNK_BYTES, ring_bytes // CHUNKS_OF_A_SMALL_RING)
        chunk_records = max(1, chunk_bytes // record_bytes)
        chunk_bytes = chunk_records * record_bytes
        chunks = max(2, (ring_bytes + chunk_bytes - 1) // chunk_bytes)
        lane = Lane.__new__(Lane)
        lane._lane = wire_lane_new(chunk_records, record_bytes, chunks)
        if lane._lane == NULL:
            raise MemoryError()
        lane._lane.id = self._next_id
        lane._lane.channel = channel
        lane._lane.schema = schema
        lane._lane.session = &tracker.session
        lane._lane.delivered = &tracker.delivered
        lane._lane.seen = &tracker.seen
        lane._tracker = tracker
        if lines is not None:
            for i in range(len(lines)):
                lines._lines.of[i].socket = <const void *><uintptr_t>sockets[i]
            lane._lines = lines
            lane._lane.lines = &lines._lines
            lane._lane.line_count = len(lines)
        lane._dtype = typed
        lane._chunks = []
        lane._ring_chunks = chunks
        for i in range(chunks):
            lane._add_chunk()
        lane._inlet = self._inlet
        self._inlet.refs += 1
        self._lanes[lane._lane.id] = lane  # first, since the pump may begin to fill it at once
        self._next_id += 1
        lock_inlet(self._inlet)
        added = wire_add_lane(self._inlet, lane._lane)
        wire_unlock(self._inlet)
        if not added:
            del self._lanes[lane._lane.id]
            raise MemoryError()
        return lane

    def remove_lane(self, Lane lane not None):
        """It gets nothing more; what its ring holds can still be taken, its frames in the control queue can't. Raises
        KeyError if it is not this inlet's."""
        if self._lanes.get(lane._lane.id) is not lane:
            raise KeyError(lane.id)
        lock_inlet(self._inlet)
        wire_remove_lane(self._inlet, lane._lane)
        wire_unlock(self._inlet)
        del self._lanes[lane._lane.id]

    def drain(self, int64_t budget_packets=INT64_MAX, int64_t now_ns=0):
        """Take in what the sockets have, at most ``budget_packets``, in turn 32 of each; without the GIL. Returns packets.

        ``now_ns`` becomes the lanes' ``heard_ns``; 0 means CLOCK_MONOTONIC. Nothing a peer sends raises: see the counters.
        """
        cdef int64_t packets
        with nogil:
            wire_lock(self._inlet)
            packets = wire_drain(self._inlet, budget_packets, now_ns)
            wire_unlock(self._inlet)
        return packets

    def wait(self, int64_t timeout_ns, bint spin=False):
        """Drain; if nothing came wait for something, at most ``timeout_ns``; without the GIL.

        Asleep in poll(2), or with ``spin`` looking again and again, at extra descriptors every 50 us only. Returns RECORDS
        (once for what came), CONTROL and EXTRA (as long as it is so), added up; 0 when the time is over or a signal came.
        """
        cdef int bits
        with nogil:
            bits = wire_wait(self._inlet, timeout_ns, spin)
        return bits

    cdef _take(self, Lane lane, int64_t timeout_ns, bint spin, Py_ssize_t max_records):
        """``lane.take(max_records)``; where that is None, as ``wait``, and then once more, in one call. Returns the lane's
        ``(session, first, records)``, or the bits that ``wait`` returned. Does not wait while other lanes are ready."""
        cdef int bits = 0
        taken = lane.take(max_records)
        if taken is None:
            if wire_others_ready(self._inlet, lane._lane):
                return RECORDS
            with nogil:
                bits = wire_wait(self._inlet, timeout_ns, spin)
            taken = lane.take(max_records)
            if taken is None:
                return bits
        return taken

    cdef bint _others_ready(self, Lane lane) noexcept:
        return wire_others_ready(self._inlet, lane._lane)

    def ready_lanes(self):
        """Lanes that got records since they were last listed here, the longest waiting first. Take all that each has."""
        cdef list ready = []
        cdef wire_lane *lane
        lock_inlet(self._inlet)
        while True:
            lane = wire_pop_ready(self._inlet)
            if lane == NULL:
                break
            ready.append(lane.id)
        wire_unlock(self._inlet)
        return [self._lanes[each] for each in ready]

    def take_control(self):
        """The oldest frame of the control queue, whose it is and on which line it came (0 where there is only one):
        ``(lane, frame, line)``, or None. Frames of lanes that were removed are left out.

        What is in the lane's ring came before it: take that first."""
        cdef wire_entry entry
        cdef const char *frame
        cdef bytes packet
        cdef Lane lane
        while True:
            frame = wire_control_peek(WIRE_CONTROL_OF(self._inlet), &entry)
            if frame == NULL:
                return None
            lane = self._lanes.get(entry.lane & (((<uint64_t>1) << WIRE_LINE_SHIFT) - 1))
            if lane is not None:
                packet = PyBytes_FromStringAndSize(frame, entry.bytes)
                lane._lane.frames_taken += 1
            wire_control_pop(WIRE_CONTROL_OF(self._inlet), &entry)
            if lane is not None:
                return lane, packet, entry.lane >> WIRE_LINE_SHIFT

    def hold(self):
        """Keep every other thread, the pump too, off the sockets until ``release``: for setsockopt, connect and the like.

        Always release (``try``, ``finally``): the pump can't end meanwhile."""
        lock_inlet(self._inlet)

    def release(self):
        """After ``hold``, by the same thread. What came meanwhile is looked for, even if its signal was used up."""
        wire_unlock_and_look(self._inlet)

    def start_pump(self):
        """Start the thread that drains the sockets into the rings while no thread is in ``wait``; it never takes the GIL.

        From now on whoever else uses one of the sockets does it between ``hold`` and ``release``. It does not survive a
        fork. Nothing happens if it runs; raises OSError if there can be no thread."""
        cdef int error = wire_pump_start(self._inlet)
        if error:
            raise OSError(error, "no thread for the pump")

    def stop_pump(self):
        """Returns when the thread has ended. Not between ``hold`` and ``release``."""
        with nogil:
            wire_pump_stop(self._inlet)

    @property
    def drained(self):
        """Every socket had nothing more when it was received from last."""
        return self._inlet.wet == 0

    @property
    def pumped(self):
        """Packets that the pump received."""
        return self._inlet.pumped

    @property
    def packets(self):
        """Messages received, of whatever kind."""
        return self._inlet.packets

    @property
    def records(self):
        """Records that went into rings; one that went into two counts twice."""
        return self._inlet.records

    @property
    def bytes(self):
        """Of all messages' first frames."""
        return self._inlet.bytes

    @property
    def malformed(self):
        """Messages that are no packets, or of several frames."""
        return self._inlet.malformed

    @property
    def bad_crc(self):
        return self._inlet.bad_crc

    @property
    def bad_version(self):
        return self._inlet.bad_version

    @property
    def unknown_channel(self):
        """Packets that no lane wanted."""
        return self._inlet.unknown_channel

    @property
    def overflow(self):
        """Frames that the control queue had no room for; they are as lost as on the way."""
        return self._inlet.overflow

    @property
    def broken_sockets(self):
        """Sockets that can't be received from any more."""
        return self._inlet.broken_sockets
