"""A log's control and wait pages, for other Cython code."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "log_layout.h" nogil:
    const int LOG_PAGE_BYTES
    const int LOG_VERSION
    const char *LOG_MAGIC
    ctypedef struct log_control:
        char magic[8]
        uint32_t version, record_bytes
        uint64_t channel, session, parent_session, fork_sequence, base, segment_records
        uint32_t schema
        int64_t created_ns
        unsigned char boot_id[16]
        uint64_t commit
        int64_t last_publish_ns
        uint64_t first_available
        int64_t alive_ns
        uint32_t state, writer_pid, clean_close
        uint64_t counters[16]
    ctypedef struct log_wait:
        uint32_t sleepers, wake_seq
    void log_commit(log_control *control, log_wait *wait, uint64_t count) noexcept
    void log_wake(log_wait *wait) noexcept
    uint64_t log_wait_for_commit(const log_control *control, log_wait *wait, uint64_t seen, int64_t timeout_ns) noexcept
    void log_copy_stamped(char *to, char *source, size_t record_bytes, size_t count, int64_t publish_ns) noexcept
    uint64_t load_acquire_u64(const void *at) noexcept
    void store_release_u64(void *at, uint64_t value) noexcept
    uint32_t load_acquire_u32(const void *at) noexcept
    void store_release_u32(void *at, uint32_t value) noexcept

cdef class Control:
    cdef Py_buffer _view
    cdef Py_buffer _wait_view
    cdef log_control *_page
    cdef log_wait *_wait
    cdef bint _held
    cdef readonly bint writable

    cdef _check_writable(self)
