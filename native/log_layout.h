/* A log's control page and wait page.
 *
 * Control page: written by the one writer, mapped read-only by readers. Three groups that change at different rates
 * lie on cache lines of their own.
 *
 *     0  identity   magic, version, sizes, channel, session, parent, fork, base, schema: constant once published
 *   128  commit     how many records are committed since base; release-stored after the records
 *   192  retention  first_available: release-stored before a segment is unlinked
 *   256  liveness   alive_ns, state, writer's pid, clean close
 *   320  counters   of the writer, for reports
 *
 * Wait page: readers may write it; nothing in it is trusted for anything but waking up. */
#ifndef FABRIC_LOG_LAYOUT_H
#define FABRIC_LOG_LAYOUT_H

#include <stddef.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "platform.h"

#define LOG_PAGE_BYTES 4096
#define LOG_VERSION 1
static const char LOG_MAGIC[8] = {'Z', 'M', 'F', 'L', 'O', 'G', '0', '1'};

enum { LOG_OPEN = 1, LOG_ENDED = 2, LOG_SUPERSEDED = 3 };

typedef struct {
    char magic[8];
    uint32_t version, record_bytes;
    uint64_t channel, session, parent_session, fork_sequence, base, segment_records;
    uint32_t schema, reserved0;
    int64_t created_ns;
    unsigned char boot_id[16];
    char pad0[128 - 96];

    uint64_t commit;         /* atomic */
    int64_t last_publish_ns; /* the writer's own */
    char pad1[64 - 16];

    uint64_t first_available; /* atomic */
    char pad2[64 - 8];

    int64_t alive_ns; /* CLOCK_MONOTONIC of the writer's helper */
    uint32_t state;   /* atomic */
    uint32_t writer_pid;
    uint32_t clean_close;
    char pad3[64 - 20];

    uint64_t counters[16];
} log_control;

_Static_assert(offsetof(log_control, commit) == 128, "layout");
_Static_assert(offsetof(log_control, first_available) == 192, "layout");
_Static_assert(offsetof(log_control, alive_ns) == 256, "layout");
_Static_assert(offsetof(log_control, counters) == 320, "layout");
_Static_assert(sizeof(log_control) <= LOG_PAGE_BYTES, "one page");

typedef struct {
    uint32_t sleepers, wake_seq;
} log_wait;

/* Make the first `count` records since base visible, then wake whoever sleeps. The fence orders the commit before the
 * look at `sleepers`; wait_for_commit has the mirror image, so one of the two always sees the other. */
static inline void log_wake(log_wait *wait) {
    fence_seq_cst();
    if (load_seq_cst_u32(&wait->sleepers)) {
        store_seq_cst_u32(&wait->sleepers, 0);
        fetch_add_seq_cst_u32(&wait->wake_seq, 1);
        futex_wake_all(&wait->wake_seq);
    }
}

static inline void log_commit(log_control *control, log_wait *wait, uint64_t count) {
    store_release_u64(&control->commit, count);
    log_wake(wait);
}

/* Block until commit > seen, or timeout_ns is over. Returns the commit count. */
static inline uint64_t log_wait_for_commit(const log_control *control, log_wait *wait, uint64_t seen, int64_t timeout_ns) {
    if (timeout_ns > INT64_MAX / 2) timeout_ns = INT64_MAX / 2; /* for ever; the sum below stays in range */
    int64_t deadline = monotonic_ns() + timeout_ns;
    for (;;) {
        uint64_t commit = load_acquire_u64(&control->commit);
        if (commit > seen) return commit;
        int64_t left = deadline - monotonic_ns();
        if (left <= 0) return commit;
        int result = FUTEX_UNSUPPORTED;
        if (wait) {
            uint32_t expected = load_seq_cst_u32(&wait->wake_seq);
            store_seq_cst_u32(&wait->sleepers, 1);
            fence_seq_cst();
            commit = load_acquire_u64(&control->commit);
            if (commit > seen) return commit;
            result = futex_wait_word(&wait->wake_seq, expected, left);
        }
        if (result == FUTEX_UNSUPPORTED) sleep_ns(left < 200000 ? left : 200000);
    }
}

/* A large copy past the cache: the lines of a segment need not be read only to be overwritten, and what else the writer
 * works on is not driven out. Such stores are ordered by a fence only, not by the commit that follows. */
static inline void log_copy_large(char *to, const char *from, size_t bytes) {
#if defined(__SSE2__)
    if (((uintptr_t)to | bytes) % 16 == 0) {
        for (size_t i = 0; i < bytes; i += 16)
            _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(from + i)));
        return;
    }
#endif
    memcpy(to, from, bytes);
}

/* Stamp ts_publish_ns (offset 16) with `publish_ns` and copy records to their place, some at a time, so that what is
 * stamped is still in the cache when it is copied. */
static inline void log_copy_stamped(char *to, char *from, size_t record_bytes, size_t count, int64_t publish_ns) {
    const size_t step = record_bytes < 8192 ? 8192 / record_bytes : 1;
    const int large = record_bytes * count >= 65536;
    for (size_t done = 0; done < count; done += step) {
        const size_t some = count - done < step ? count - done : step;
        char *source = from + done * record_bytes;
        for (size_t i = 0; i < some; i++) memcpy(source + i * record_bytes + 16, &publish_ns, 8);
        if (large)
            log_copy_large(to + done * record_bytes, source, some * record_bytes);
        else
            memcpy(to + done * record_bytes, source, some * record_bytes);
    }
#if defined(__SSE2__)
    if (large) _mm_sfence();
#endif
}

#endif
