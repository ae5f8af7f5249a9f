"""The image a snapshot is taken from: the last record for each key, kept in one open-addressing hash table.

A key is some of a record's fields, concatenated (at most 64 bytes). With an action field, action 2 removes the record's
key and action 3 removes every key of the record's instrument, as a book's deltas do; neither is kept itself.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy

cdef enum:
    KEY_BYTES = 64
    MAX_FIELDS = 8
    EMPTY = -1
    TOMBSTONE = -2
    INSTRUMENT_OFFSET = 24
    REMOVE = 2
    CLEAR = 3

ctypedef struct ordered:
    uint64_t sequence
    int32_t slot


cdef int by_sequence(const void *a, const void *b) noexcept nogil:
    cdef uint64_t left = (<const ordered *>a).sequence
    cdef uint64_t right = (<const ordered *>b).sequence
    return -1 if left < right else (1 if left > right else 0)


cdef class KeyedImage:
    """``fields`` are the key's (offset, size) pairs; ``action_offset`` is that of a u1 field, or -1 for none."""

    cdef Py_ssize_t _record_bytes
    cdef Py_ssize_t _action_offset
    cdef int _fields
    cdef int _key_bytes
    cdef Py_ssize_t _offsets[MAX_FIELDS]
    cdef Py_ssize_t _sizes[MAX_FIELDS]
    cdef char *_records        # slot -> record bytes
    cdef uint64_t *_sequences  # slot -> sequence, 0: free
    cdef int32_t _slots        # slots used so far (some free again)
    cdef int32_t _capacity
    cdef int32_t *_free
    cdef int32_t _free_count
    cdef int32_t *_table       # hash -> slot
    cdef uint32_t _table_mask
    cdef uint32_t _used        # table cells that are not EMPTY
    cdef readonly Py_ssize_t count
    cdef readonly uint64_t as_of

    def __cinit__(self, Py_ssize_t record_bytes, fields, Py_ssize_t action_offset=-1):
        cdef int i
        self._record_bytes = record_bytes
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
        self._capacity = 64
        self._table_mask = 255
        self._records = <char *>malloc(self._capacity * record_bytes)
        self._sequences = <uint64_t *>calloc(self._capacity, 8)
        self._free = <int32_t *>malloc(self._capacity * 4)
        self._table = <int32_t *>malloc((self._table_mask + 1) * 4)
        if self._records == NULL or self._sequences == NULL or self._free == NULL or self._table == NULL:
            raise MemoryError
        for i in range(<int>self._table_mask + 1):
            self._table[i] = EMPTY

    def __dealloc__(self):
        free(self._records)
        free(self._sequences)
        free(self._free)
        free(self._table)

    cdef uint64_t _key(self, const char *record, char *key) noexcept nogil:
        """Gather the key; returns its hash (FNV-1a with a final mix)."""
        cdef int i
        cdef int at = 0
        cdef uint64_t value = 14695981039346656037ULL
        for i in range(self._fields):
            memcpy(key + at, record + self._offsets[i], self._sizes[i])
            at += <int>self._sizes[i]
        for i in range(at):
            value = (value ^ <uint8_t>key[i]) * 1099511628211ULL
        return value ^ (value >> 29)

    cdef Py_ssize_t _find(self, const char *key, uint64_t hashed) noexcept nogil:
        """The table cell that holds the key, or -1."""
        cdef uint32_t cell = <uint32_t>hashed & self._table_mask
        cdef char other[KEY_BYTES]
        while self._table[cell] != EMPTY:
            if self._table[cell] >= 0:
                self._key(self._records + self._table[cell] * self._record_bytes, other)
                if memcmp(key, other, self._key_bytes) == 0:
                    return cell
            cell = (cell + 1) & self._table_mask
        return -1

    cdef int _rehash(self) noexcept nogil:
        """Double the table if it is full of live keys, else only drop the tombstones. -1: no memory."""
        cdef uint32_t size = self._table_mask + 1
        cdef char key[KEY_BYTES]
        cdef int32_t *table
        cdef int32_t slot
        cdef uint32_t i
        cdef uint32_t cell
        if self.count * 2 > size:
            size *= 2
        if self.count * 4 > size:
            size *= 2
        table = <int32_t *>malloc(size * 4)
        if table == NULL:
            return -1
        for i in range(size):
            table[i] = EMPTY
        for slot in range(self._slots):
            if self._sequences[slot] != 0:
                cell = <uint32_t>self._key(self._records + slot * self._record_bytes, key) & (size - 1)
                while table[cell] != EMPTY:
                    cell = (cell + 1) & (size - 1)
                table[cell] = slot
        free(self._table)
        self._table = table
        self._table_mask = size - 1
        self._used = <uint32_t>self.count
        return 0

    cdef int _new_slot(self) noexcept nogil:
        """A free slot, or -1 without memory."""
        cdef int32_t capacity
        cdef void *grown
        if self._free_count:
            self._free_count -= 1
            return self._free[self._free_count]
        if self._slots == self._capacity:
            capacity = self._capacity * 2
            grown = realloc(self._records, capacity * self._record_bytes)
            if grown == NULL:
                return -1
            self._records = <char *>grown
            grown = realloc(self._sequences, capacity * 8)
            if grown == NULL:
                return -1
            self._sequences = <uint64_t *>grown
            grown = realloc(self._free, capacity * 4)
            if grown == NULL:
                return -1
            self._free = <int32_t *>grown
            self._capacity = capacity
        self._sequences[self._slots] = 0
        self._slots += 1
        return self._slots - 1

    cdef void _drop(self, Py_ssize_t cell) noexcept nogil:
        cdef int32_t slot = self._table[cell]
        self._table[cell] = TOMBSTONE
        self._sequences[slot] = 0
        self._free[self._free_count] = slot
        self._free_count += 1
        self.count -= 1

    cdef void _clear(self, const char *record) noexcept nogil:
        cdef uint32_t cell
        for cell in range(self._table_mask + 1):
            if self._table[cell] >= 0 and memcmp(
                self._records + self._table[cell] * self._record_bytes + INSTRUMENT_OFFSET,
                record + INSTRUMENT_OFFSET, 4
            ) == 0:
                self._drop(cell)

    cdef int _apply(self, const char *record, uint64_t sequence) noexcept nogil:
        cdef char key[KEY_BYTES]
        cdef uint64_t hashed
        cdef Py_ssize_t cell
        cdef int slot
        cdef uint8_t action = <uint8_t>record[self._action_offset] if self._action_offset >= 0 else 0
        if action == CLEAR:
            self._clear(record)
            return 0
        hashed = self._key(record, key)
        cell = self._find(key, hashed)
        if action == REMOVE:
            if cell >= 0:
                self._drop(cell)
            return 0
        if cell >= 0:
            slot = self._table[cell]
        else:
            if (self._used + 1) * 4 > (self._table_mask + 1) * 3 and self._rehash() < 0:
                return -1
            slot = self._new_slot()
            if slot < 0:
                return -1
            cell = <Py_ssize_t>(hashed & self._table_mask)
            while self._table[cell] >= 0:
                cell = (cell + 1) & self._table_mask
            if self._table[cell] == EMPTY:
                self._used += 1
            self._table[cell] = slot
            self.count += 1
        memcpy(self._records + slot * self._record_bytes, record, self._record_bytes)
        self._sequences[slot] = sequence
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
                    for i in range(count):
                        sequence = (<uint64_t *>numbers.buf)[i] if numbered else first + i
                        failed = self._apply(<const char *>view.buf + i * self._record_bytes, sequence)
                        if failed:
                            break
            finally:
                if numbered:
                    PyBuffer_Release(&numbers)
            if failed:
                raise MemoryError
            if count and sequence > self.as_of:
                self.as_of = sequence
        finally:
            PyBuffer_Release(&view)

    def advance(self, uint64_t as_of):
        """State that the image is good at ``as_of`` (nothing between changed it)."""
        self.as_of = max(self.as_of, as_of)

    def export(self):
        """(records, sequences) as bytes, in order of sequence."""
        cdef ordered *order = <ordered *>malloc((self.count + 1) * sizeof(ordered))
        cdef bytes records = PyBytes_FromStringAndSize(NULL, self.count * self._record_bytes)
        cdef bytes sequences = PyBytes_FromStringAndSize(NULL, self.count * 8)
        cdef char *record_at = PyBytes_AS_STRING(records)
        cdef uint64_t *sequence_at = <uint64_t *>PyBytes_AS_STRING(sequences)
        cdef Py_ssize_t i
        cdef Py_ssize_t found = 0
        cdef int32_t slot
        if order == NULL:
            raise MemoryError
        with nogil:
            for slot in range(self._slots):
                if self._sequences[slot] != 0:
                    order[found].sequence = self._sequences[slot]
                    order[found].slot = slot
                    found += 1
            qsort(order, found, sizeof(ordered), by_sequence)
            for i in range(found):
                memcpy(record_at + i * self._record_bytes,
                       self._records + order[i].slot * self._record_bytes, self._record_bytes)
                sequence_at[i] = order[i].sequence
        free(order)
        return records, sequences
