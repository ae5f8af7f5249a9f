/* The sleeping half of log_follow.h. */
#define _GNU_SOURCE
#include "log_follow.h"

static int follow_poll(log_follower *const *all, size_t count, log_wait *own, uint32_t ticket, int64_t timeout_ns) {
    const int64_t deadline_ns = monotonic_ns() + timeout_ns;
    for (;;) {
        int found = follow_look(all, count);
        if (found) return found;
        if (follow_ticket(own) != ticket) return FOLLOW_POKED;
        int64_t left_ns = deadline_ns - monotonic_ns();
        if (left_ns <= 0) return FOLLOW_NOTHING;
        sleep_ns(left_ns < FOLLOW_POLL_NS ? left_ns : FOLLOW_POLL_NS);
    }
}

int follow_sleep(log_follower *const *all, size_t count, log_wait *own, uint32_t ticket, int64_t timeout_ns) {
    futex_word words[FOLLOW_MAX_FUTEXES];
    size_t used = 0;
    if (count + 1 > FOLLOW_MAX_FUTEXES) return follow_poll(all, count, own, ticket, timeout_ns);
    for (size_t i = 0; i < count; i++) {
        log_wait *wait = all[i]->wait;
        if (!load_acquire_u32(&all[i]->open)) continue;
        if (!wait) return follow_poll(all, count, own, ticket, timeout_ns);
        words[used++] = futex_word_of(&wait->wake_seq, load_seq_cst_u32(&wait->wake_seq));
        store_seq_cst_u32(&wait->sleepers, 1);
    }
    words[used++] = futex_word_of(&own->wake_seq, ticket);
    store_seq_cst_u32(&own->sleepers, 1);
    fence_seq_cst(); /* as in log_wait_for_commit: the writers see the sleeper, or what they wrote is seen here */
    int found = follow_look(all, count);
    if (found) return found;
    if (follow_ticket(own) != ticket) return FOLLOW_POKED;
    int result = used == 1 ? futex_wait_word(&own->wake_seq, ticket, timeout_ns) : futex_wait_words(words, used, timeout_ns);
    if (result == FUTEX_UNSUPPORTED) return follow_poll(all, count, own, ticket, timeout_ns);
    if ((found = follow_look(all, count))) return found;
    return follow_ticket(own) != ticket ? FOLLOW_POKED : FOLLOW_NOTHING;
}
