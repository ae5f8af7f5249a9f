"""The image a snapshot or a live table is taken from: the last record for each key, in one open-addressing hash table.

A key is some of a record's fields, concatenated (at most 64 bytes). With an action field, action 2 removes the record's
key and action 3 removes every key of the record's instrument, as a book's deltas do; neither is kept itself.

One thread updates; any number of threads read at the same time. ``get`` takes no lock and never sees half a record: slots
never move (they lie in chunks, each as large as all before it), each has a seqlock, and a hash table that was replaced is
freed only when no reader is inside. ``export`` is the image as it was between two updates: it and they exclude each other.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
    WAIT_LOCK,
)
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy

cdef extern from "seqlock.h" nogil:
    void seqlock_write_begin(uint32_t *version)
    void seqlock_write_end(uint32_t *version)
    uint32_t seqlock_read_begin(const uint32_t *version)
    bint seqlock_read_failed(const uint32_t *version, uint32_t begun)
    uint64_t load_acquire_u64(const void *at)
    void store_release_u64(void *at, uint64_t value)
    uint32_t fetch_add_seq_cst_u32(void *at, uint32_t by)
    uint32_t load_acquire_u32(const void *at)
    void store_release_u32(void *at, uint32_t value)
    void fence_seq_cst()

cdef enum:
    KEY_BYTES = 64
    MAX_FIELDS = 8
    EMPTY = -1
    TOMBSTONE = -2
    INSTRUMENT_OFFSET = 24
    REMOVE = 2
    CLEAR = 3
    FIRST_CHUNK = 64
    MAX_CHUNKS = 24  # 64 * (2**24 - 1) slots

ctypedef struct slot_head:
    uint32_t version
    uint32_t reserved
    uint64_t sequence  # 0: free
    # the record follows

ctypedef struct hash_table:
    hash_table *older  # replaced, and not freed yet
    uint32_t mask
    int32_t cells[1]   # mask + 1 of them: EMPTY, TOMBSTONE or a slot

ctypedef struct ordered:
    uint64_t sequence
    Py_ssize_t at


cdef int by_sequence(const void *a, const void *b) noexcept nogil:
    cdef uint64_t left = (<const ordered *>a).sequence
    cdef uint64_t right = (<const ordered *>b).sequence
    return -1 if left < right else (1 if left > right else 0)


cdef hash_table *new_table(uint32_t size) noexcept nogil:
    """An empty table of ``size`` cells, a power of two; NULL without memory."""
    cdef hash_table *table = <hash_table *>malloc(sizeof(hash_table) + size * sizeof(int32_t))
    cdef uint32_t i
    if table != NULL:
        table.older = NULL
        table.mask = size - 1
        for i in range(size):
            table.cells[i] = EMPTY
    return table


cdef class KeyedImage:
    """``fields`` are the key's (offset, size) pairs; ``action_offset`` is that of a u1 field, or -1 for none."""

    cdef Py_ssize_t _record_bytes
    cdef Py_ssize_t _slot_bytes
    cdef Py_ssize_t _action_offset
    cdef int _fields
    cdef int _key_bytes
    cdef Py_ssize_t _offsets[MAX_FIELDS]
    cdef Py_ssize_t _sizes[MAX_FIELDS]
    cdef char *_chunks[MAX_CHUNKS]
    cdef uint32_t _slots       # slots used so far (some free again)
    cdef int32_t *_free
    cdef int32_t _free_count
    cdef int32_t _free_capacity
    cdef hash_table *_table    # read with acquire, replaced with release
    cdef uint32_t _used        # table cells that are not EMPTY
    cdef uint32_t _readers     # inside get now
    cdef PyThread_type_lock _whole  # held for an update, and for an export
    cdef readonly Py_ssize_t count
    cdef uint64_t _as_of

    def __cinit__(self, Py_ssize_t record_bytes, fields, Py_ssize_t action_offset=-1):
        cdef int i
        self._record_bytes = record_bytes
        self._slot_bytes = (<Py_ssize_t>sizeof(slot_head) + record_bytes + 7) & ~7
        self._action_offset = action_offset
        if not 0 < len(fields) <= MAX_FIELDS or sum(size for _, size in fields) > KEY_BYTES:
            raise ValueError("a key has 1 to 8 fields and at most 64 bytes")
        self._fields = len(fields)
        for i in range(self._fields):
            self._offsets[i], self._sizes[i] = fields[i]
            if self._offsets[i] < 0 or self._sizes[i] <= 0 or self._offsets[i] + self._sizes[i] > record_bytes:
                raise ValueError("a key field lies outside the record")
            self._key_bytes += self._sizes[i]
        if action_offset >= record_bytes or (action_offset >= 0 and record_bytes < INSTRUMENT_OFFSET + 4):
            raise ValueError("the action field lies outside the record")
        self._table = new_table(4 * FIRST_CHUNK)
        self._whole = PyThread_allocate_lock()
        if self._table == NULL or self._whole == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int i
        for i in range(MAX_CHUNKS):
            free(self._chunks[i])
        free(self._free)
        if self._whole != NULL:
            PyThread_free_lock(self._whole)
        if self._table != NULL:
            self._free_older()
            free(self._table)

    @property
    def as_of(self):
        """Every record up to this sequence is in it (read from another thread, some may be newer)."""
        return load_acquire_u64(&self._as_of)

    cdef slot_head *_slot(self, uint32_t slot) noexcept nogil:
        """Chunk k holds the slots from 64 * (2**k - 1) on."""
        cdef uint32_t begin = 0
        cdef uint32_t size = FIRST_CHUNK
        cdef int chunk = 0
        while slot - begin >= size:
            begin += size
            size *= 2
            chunk += 1
        return <slot_head *>(self._chunks[chunk] + (slot - begin) * self._slot_bytes)

    cdef void _free_older(self) noexcept nogil:
        cdef hash_table *older = self._table.older
        cdef hash_table *next_one
        self._table.older = NULL
        while older != NULL:
            next_one = older.older
            free(older)
            older = next_one

    cdef uint64_t _key(self, const char *record, char *key) noexcept nogil:
        """Gather the key; returns its hash."""
        cdef int i
        cdef int at = 0
        for i in range(self._fields):
            memcpy(key + at, record + self._offsets[i], self._sizes[i])
            at += <int>self._sizes[i]
        return self._hash(key)

    cdef uint64_t _hash(self, const char *key) noexcept nogil:
        """FNV-1a with a final mix."""
        cdef int i
        cdef uint64_t value = 14695981039346656037ULL
        for i in range(self._key_bytes):
            value = (value ^ <uint8_t>key[i]) * 1099511628211ULL
        return value ^ (value >> 29)

    # What the one thread that updates does

    cdef Py_ssize_t _find(self, const char *key, uint64_t hashed) noexcept nogil:
        """The table cell that holds the key, or -1."""
        cdef hash_table *table = self._table
        cdef uint32_t cell = <uint32_t>hashed & table.mask
        cdef char other[KEY_BYTES]
        while table.cells[cell] != EMPTY:
            if table.cells[cell] >= 0:
                self._key(<char *>(self._slot(table.cells[cell]) + 1), other)
                if memcmp(key, other, self._key_bytes) == 0:
                    return cell
            cell = (cell + 1) & table.mask
        return -1

    cdef int _rehash(self) noexcept nogil:
        """Double the table if it is full of live keys, else only drop the tombstones. -1: no memory."""
        cdef uint32_t size = self._table.mask + 1
        cdef char key[KEY_BYTES]
        cdef hash_table *table
        cdef slot_head *head
        cdef uint32_t slot
        cdef uint32_t cell
        if self.count * 2 > size:
            size *= 2
        if self.count * 4 > size:
            size *= 2
        table = new_table(size)
        if table == NULL:
            return -1
        for slot in range(self._slots):
            head = self._slot(slot)
            if head.sequence != 0:
                cell = <uint32_t>self._key(<char *>(head + 1), key) & (size - 1)
                while table.cells[cell] != EMPTY:
                    cell = (cell + 1) & (size - 1)
                table.cells[cell] = <int32_t>slot
        table.older = self._table
        store_release_u64(&self._table, <uint64_t>table)
        fence_seq_cst()
        # A reader counts itself in before it looks at the table: with none inside now, none holds an older one.
        if fetch_add_seq_cst_u32(&self._readers, 0) == 0:
            self._free_older()
        self._used = <uint32_t>self.count
        return 0

    cdef int64_t _new_slot(self) noexcept nogil:
        """A free slot, or -1 without memory."""
        cdef uint32_t begin = 0
        cdef uint32_t size = FIRST_CHUNK
        cdef int chunk = 0
        if self._free_count:
            self._free_count -= 1
            return self._free[self._free_count]
        while self._slots - begin >= size:
            begin += size
            size *= 2
            chunk += 1
        if chunk == MAX_CHUNKS:
            return -1
        if self._chunks[chunk] == NULL:
            self._chunks[chunk] = <char *>calloc(size, self._slot_bytes)
            if self._chunks[chunk] == NULL:
                return -1
        store_release_u32(&self._slots, self._slots + 1)
        return self._slots - 1

    cdef int _drop(self, Py_ssize_t cell) noexcept nogil:
        cdef int32_t slot = self._table.cells[cell]
        cdef slot_head *head = self._slot(slot)
        cdef void *grown
        if self._free_count == self._free_capacity:
            grown = realloc(self._free, 2 * (self._free_capacity + FIRST_CHUNK) * sizeof(int32_t))
            if grown == NULL:
                return -1
            self._free = <int32_t *>grown
            self._free_capacity = 2 * (self._free_capacity + FIRST_CHUNK)
        self._table.cells[cell] = TOMBSTONE
        seqlock_write_begin(&head.version)
        head.sequence = 0
        seqlock_write_end(&head.version)
        self._free[self._free_count] = slot
        self._free_count += 1
        self.count -= 1
        return 0

    cdef int _clear(self, const char *record) noexcept nogil:
        cdef uint32_t cell
        cdef const char *kept
        for cell in range(self._table.mask + 1):
            if self._table.cells[cell] >= 0:
                kept = <const char *>(self._slot(self._table.cells[cell]) + 1)
                if memcmp(kept + INSTRUMENT_OFFSET, record + INSTRUMENT_OFFSET, 4) == 0 and self._drop(cell) < 0:
                    return -1
        return 0

    cdef int _apply(self, const char *record, uint64_t sequence) noexcept nogil:
        cdef char key[KEY_BYTES]
        cdef uint64_t hashed
        cdef Py_ssize_t cell
        cdef int64_t slot
        cdef slot_head *head
        cdef hash_table *table
        cdef uint8_t action = <uint8_t>record[self._action_offset] if self._action_offset >= 0 else 0
        if action == CLEAR:
            return self._clear(record)
        hashed = self._key(record, key)
        cell = self._find(key, hashed)
        if action == REMOVE:
            return self._drop(cell) if cell >= 0 else 0
        slot = self._table.cells[cell] if cell >= 0 else -1
        if cell < 0:
            if (self._used + 1) * 4 > (self._table.mask + 1) * 3 and self._rehash() < 0:
                return -1
            slot = self._new_slot()
            if slot < 0:
                return -1
        head = self._slot(<uint32_t>slot)
        seqlock_write_begin(&head.version)
        memcpy(<char *>(head + 1), record, self._record_bytes)
        head.sequence = sequence
        seqlock_write_end(&head.version)
        if cell < 0:
            table = self._table
            cell = <Py_ssize_t>(hashed & table.mask)
            while table.cells[cell] >= 0:
                cell = (cell + 1) & table.mask
            if table.cells[cell] == EMPTY:
                self._used += 1
            store_release_u32(&table.cells[cell], <uint32_t>slot)
            self.count += 1
        return 0

    def update(self, records, uint64_t first, sequences=None):
        """Apply records in order (a contiguous buffer, whole records). Their sequences count up from ``first``, or are
        given (uint64 buffer), as when an image is loaded again. Moves ``as_of`` to the last one."""
        cdef Py_buffer view
        cdef Py_buffer numbers
        cdef Py_ssize_t i
        cdef Py_ssize_t count
        cdef uint64_t sequence = 0
        cdef int failed = 0
        cdef bint unnumbered = False
        cdef bint numbered = sequences is not None
        PyObject_GetBuffer(records, &view, PyBUF_SIMPLE)
        try:
            if view.len % self._record_bytes:
                raise ValueError(f"{view.len} bytes are not whole records of {self._record_bytes}")
            count = view.len // self._record_bytes
            if numbered:
                PyObject_GetBuffer(sequences, &numbers, PyBUF_SIMPLE)
            try:
                if numbered and numbers.len < count * 8:
                    raise ValueError("fewer sequences than records")
                with nogil:
                    for i in range(count):  # 0 marks a free slot
                        unnumbered |= ((<uint64_t *>numbers.buf)[i] if numbered else first + i) == 0
                if unnumbered:
                    raise ValueError("sequences count from 1")
                with nogil:
                    PyThread_acquire_lock(self._whole, WAIT_LOCK)
                    for i in range(count):
                        sequence = (<uint64_t *>numbers.buf)[i] if numbered else first + i
                        failed = self._apply(<const char *>view.buf + i * self._record_bytes, sequence)
                        if failed:
                            break
                    if not failed and count and sequence > self._as_of:
                        store_release_u64(&self._as_of, sequence)
                    PyThread_release_lock(self._whole)
            finally:
                if numbered:
                    PyBuffer_Release(&numbers)
            if failed:
                raise MemoryError
        finally:
            PyBuffer_Release(&view)

    def advance(self, uint64_t as_of):
        """State that the image is good at ``as_of`` (nothing between changed it)."""
        store_release_u64(&self._as_of, max(self._as_of, as_of))

    def clear(self):
        """Forget every record and start again at sequence 0, as when another session begins."""
        cdef uint32_t cell
        cdef int failed = 0
        with nogil:
            PyThread_acquire_lock(self._whole, WAIT_LOCK)
            for cell in range(self._table.mask + 1):
                if not failed and self._table.cells[cell] >= 0:
                    failed = self._drop(cell)
            store_release_u64(&self._as_of, 0)
            PyThread_release_lock(self._whole)
        if failed:
            raise MemoryError

    # What any thread may do meanwhile

    cdef uint64_t _copy(self, slot_head *head, char *to) noexcept nogil:
        """Copy a slot's record whole; returns its sequence, 0 if the slot is free."""
        cdef uint32_t begun
        cdef uint64_t sequence
        while True:
            begun = seqlock_read_begin(&head.version)
            sequence = head.sequence
            memcpy(to, <char *>(head + 1), self._record_bytes)
            if not seqlock_read_failed(&head.version, begun):
                return sequence

    cdef uint64_t _lookup(self, const char *key, uint64_t hashed, char *to) noexcept nogil:
        cdef hash_table *table = <hash_table *>load_acquire_u64(&self._table)
        cdef uint32_t cell = <uint32_t>hashed & table.mask
        cdef int32_t slot
        cdef uint64_t sequence
        cdef char other[KEY_BYTES]
        while True:
            slot = <int32_t>load_acquire_u32(&table.cells[cell])
            if slot == EMPTY:
                return 0
            if slot >= 0:
                sequence = self._copy(self._slot(slot), to)
                if sequence != 0:
                    self._key(to, other)
                    if memcmp(key, other, self._key_bytes) == 0:
                        return sequence
            cell = (cell + 1) & table.mask

    def get(self, key):
        """(record bytes, sequence) of a key (its fields' bytes, concatenated), or None."""
        cdef Py_buffer view
        cdef bytes record = PyBytes_FromStringAndSize(NULL, self._record_bytes)
        cdef uint64_t sequence
        PyObject_GetBuffer(key, &view, PyBUF_SIMPLE)
        try:
            if view.len != self._key_bytes:
                raise ValueError(f"a key has {self._key_bytes} bytes, not {view.len}")
            fetch_add_seq_cst_u32(&self._readers, 1)
            sequence = self._lookup(<const char *>view.buf, self._hash(<const char *>view.buf),
                                    PyBytes_AS_STRING(record))
            fetch_add_seq_cst_u32(&self._readers, <uint32_t>-1)
        finally:
            PyBuffer_Release(&view)
        return (record, sequence) if sequence else None

    def export(self):
        """(records, sequences) as bytes, in order of sequence; of one moment between two updates."""
        cdef uint32_t slots
        cdef ordered *order = NULL
        cdef char *copied = NULL
        cdef bytes records
        cdef bytes sequences
        cdef char *record_at
        cdef uint64_t *sequence_at
        cdef Py_ssize_t i
        cdef Py_ssize_t found = 0
        cdef uint32_t slot
        try:
            with nogil:
                PyThread_acquire_lock(self._whole, WAIT_LOCK)
                slots = self._slots
                order = <ordered *>malloc((slots + 1) * sizeof(ordered))
                copied = <char *>malloc((slots + 1) * self._record_bytes)
                if order != NULL and copied != NULL:
                    for slot in range(slots):
                        order[found].sequence = self._copy(self._slot(slot), copied + found * self._record_bytes)
                        order[found].at = found
                        found += order[found].sequence != 0
                PyThread_release_lock(self._whole)
            if order == NULL or copied == NULL:
                raise MemoryError
            with nogil:
                qsort(order, found, sizeof(ordered), by_sequence)
            records = PyBytes_FromStringAndSize(NULL, found * self._record_bytes)
            sequences = PyBytes_FromStringAndSize(NULL, found * 8)
            record_at = PyBytes_AS_STRING(records)
            sequence_at = <uint64_t *>PyBytes_AS_STRING(sequences)
            with nogil:
                for i in range(found):
                    memcpy(record_at + i * self._record_bytes, copied + order[i].at * self._record_bytes,
                           self._record_bytes)
                    sequence_at[i] = order[i].sequence
        finally:
            free(order)
            free(copied)
        return records, sequences
