"""The fields of a batch, set without running Python code: a reader gets thousands of them a second."""

from libc.stdint cimport uint64_t


cdef class BatchFields:
    """What fabric.client.batch.Batch holds. A reader's first look at a record comes after this, with cold caches: hence C."""

    def __init__(self, str channel, record, records, origin, uint64_t session, uint64_t first, uint64_t last, bint stale,
                 numbers=None, chosen=None, client=None):
        self.channel = channel
        self.record = record
        self.records = records
        self.session = session
        self.last = last
        self.stale = stale
        self._origin = origin
        self._first = first
        self._numbers = numbers
        self._chosen = chosen
        self._client = client
