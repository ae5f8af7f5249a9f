/* Waiting for any of several logs, without the GIL: by spinning, by yielding, or asleep on their wait pages.
 *
 * Asleep on several words at once needs futex_waitv (Linux 5.16); where it is missing, or there are more logs than it
 * takes, the wait is timed polling. `own` is a word of the waiting process: whoever wants the wait to end pokes it.
 * It counts in every poke, asleep or not, so a poke after the ticket was drawn is never missed. */
#ifndef FABRIC_LOG_FOLLOW_H
#define FABRIC_LOG_FOLLOW_H

#include "log_layout.h"

enum { FOLLOW_NOTHING = 0, FOLLOW_RECORDS = 1, FOLLOW_STATE = 2, FOLLOW_POKED = 3 };
enum { IDLE_BLOCK = 0, IDLE_YIELD = 1, IDLE_SPIN = 2 };
enum { FOLLOW_MAX_FUTEXES = 128, FOLLOW_POLL_NS = 100000, FOLLOW_LOOKS_A_CLOCK = 64 };

typedef struct {
    const log_control *control;
    log_wait *wait;     /* NULL: it could not be mapped for writing */
    uint64_t cursor;    /* sequence of the next record to be read; atomic */
    uint32_t open;      /* 0: not looked at; atomic */
    uint32_t told_state; /* the log's state that was told last; atomic */
    uint32_t rung;      /* a bell has rung for it, and is not to again until its reader has taken that; atomic */
} log_follower;

static inline uint32_t follow_ticket(const log_wait *own) { return load_seq_cst_u32(&own->wake_seq); }

/* Whoever takes the sleepers' mark away must change the word after it: one that drew its ticket in between has been
 * unmarked too, and would sleep through the next poke. It wakes for nothing instead. */
static inline void follow_poke(log_wait *own) {
    fetch_add_seq_cst_u32(&own->wake_seq, 1);
    fence_seq_cst();
    if (load_seq_cst_u32(&own->sleepers)) {
        store_seq_cst_u32(&own->sleepers, 0);
        fetch_add_seq_cst_u32(&own->wake_seq, 1);
        futex_wake_all(&own->wake_seq);
    }
}

static inline int follow_has_records(const log_follower *of) {
    return of->control->base + load_acquire_u64(&of->control->commit) > load_acquire_u64(&of->cursor);
}

/* FOLLOW_RECORDS if one has any, FOLLOW_STATE once for each change of a log's state. */
static inline int follow_look(log_follower *const *all, size_t count) {
    for (size_t i = 0; i < count; i++) {
        log_follower *of = all[i];
        if (!load_acquire_u32(&of->open)) continue;
        if (follow_has_records(of)) return FOLLOW_RECORDS;
        uint32_t state = load_acquire_u32(&of->control->state);
        if (state != load_acquire_u32(&of->told_state)) {
            if (follow_has_records(of)) return FOLLOW_RECORDS; /* committed before the state changed */
            store_release_u32(&of->told_state, state);
            return FOLLOW_STATE;
        }
    }
    return FOLLOW_NOTHING;
}

int follow_sleep(log_follower *const *all, size_t count, log_wait *own, uint32_t ticket, int64_t timeout_ns);

/* Until one of the logs has records or another state, `own` was poked since the ticket was drawn, a signal came, or
 * the time is over (the last two: FOLLOW_NOTHING). */
static inline int follow_wait(log_follower *const *all, size_t count, log_wait *own, uint32_t ticket,
                              int64_t timeout_ns, int idle) {
    int found = follow_look(all, count);
    if (found) return found;
    if (follow_ticket(own) != ticket) return FOLLOW_POKED;
    if (timeout_ns <= 0) return FOLLOW_NOTHING;
    if (timeout_ns > INT64_MAX / 2) timeout_ns = INT64_MAX / 2;
    const int64_t deadline_ns = monotonic_ns() + timeout_ns;
    if (idle == IDLE_BLOCK) return follow_sleep(all, count, own, ticket, timeout_ns);
    for (unsigned looks = 1;; looks++) {
        if ((found = follow_look(all, count))) return found;
        if (follow_ticket(own) != ticket) return FOLLOW_POKED;
        if (idle == IDLE_YIELD)
            yield_processor();
        else
            cpu_pause();
        if (looks % FOLLOW_LOOKS_A_CLOCK == 0 && monotonic_ns() >= deadline_ns) return FOLLOW_NOTHING;
    }
}

#endif
