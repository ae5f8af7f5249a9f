/* CLOCK_REALTIME for stamps of records and packets, from the processor's own counter where that counts time.
 *
 * The counter is used where the system itself keeps its time by it, which Linux does only for one that neither stops nor changes
 * its rate and is the same on every CPU ("tsc" as clocksource). Each thread has an anchor: a counter's value and the time it
 * stood for. It holds for a millisecond; then the system's clock is asked again. So a stamp is at most as wrong as the rate drifts
 * or an administrator's step goes unnoticed in a millisecond; without such it is within a microsecond. Within a thread stamps
 * never go back by less than that, as a new anchor might. */
#ifndef FABRIC_STAMP_CLOCK_H
#define FABRIC_STAMP_CLOCK_H

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "platform.h"

#if defined(__x86_64__) && defined(__linux__)
#include <x86intrin.h>
#define STAMP_HAS_COUNTER 1
#else
#define STAMP_HAS_COUNTER 0
#endif

enum { STAMP_UNKNOWN, STAMP_SYSTEM, STAMP_COUNTER };

enum {
    STAMP_HOLDS_NS = 1000000,
    STAMP_RATE_NS = 1000000000, /* over how long the counter's rate is measured; the first time over STAMP_HOLDS_NS */
    STAMP_SAME_RATE = 1000, /* one part in this many is the noise of the first measurement */
    STAMP_BACK_NS = 1000,
    STAMP_READ_TICKS = 4000 /* a reading of the system's clock that takes longer was interrupted */
};

typedef struct {
    uint64_t ticks, holds_ticks; /* 0: does not hold */
    int64_t ns, least_ns;
    uint64_t scale; /* nanoseconds of a tick, 2^-32 */
    uint64_t rate_ticks;
    int64_t rate_ns;
} stamp_anchor;

static __thread stamp_anchor stamp_here;
static int stamp_known; /* by the first who asks */

#if STAMP_HAS_COUNTER
static int stamp_source(void) {
    int known = __atomic_load_n(&stamp_known, __ATOMIC_RELAXED);
    if (known == STAMP_UNKNOWN) {
        char name[8] = {0};
        const int file = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
        const ssize_t got = file < 0 ? 0 : read(file, name, sizeof name - 1);
        if (file >= 0) close(file);
        known = got >= 4 && strncmp(name, "tsc\n", 4) == 0 ? STAMP_COUNTER : STAMP_SYSTEM;
        __atomic_store_n(&stamp_known, known, __ATOMIC_RELAXED); /* whoever else asks finds the same */
    }
    return known;
}

static int64_t __attribute__((noinline)) stamp_anew(stamp_anchor *at) {
    if (stamp_source() == STAMP_SYSTEM) return realtime_ns();
    const uint64_t before = __rdtsc();
    const int64_t now_ns = realtime_ns();
    const uint64_t ticks = __rdtsc();
    const int64_t rate_ns = monotonic_ns();
    at->holds_ticks = 0;
    if (__rdtsc() - before > STAMP_READ_TICKS) return now_ns;
    if (!at->rate_ticks || ticks < at->rate_ticks || rate_ns < at->rate_ns) {
        at->rate_ticks = ticks, at->rate_ns = rate_ns, at->scale = 0;
        return now_ns;
    }
    const int64_t passed_ns = rate_ns - at->rate_ns;
    if (passed_ns >= (at->scale ? STAMP_RATE_NS : STAMP_HOLDS_NS)) {
        const uint64_t scale = (uint64_t)(((__uint128_t)passed_ns << 32) / (ticks - at->rate_ticks));
        const uint64_t change = scale > at->scale ? scale - at->scale : at->scale - scale;
        /* Another rate: the machine was suspended, or is another one now. */
        at->scale = at->scale && change > at->scale / STAMP_SAME_RATE ? 0 : scale;
        if (passed_ns >= STAMP_RATE_NS || !at->scale) at->rate_ticks = ticks, at->rate_ns = rate_ns;
    }
    if (!at->scale) return now_ns;
    int64_t least_ns = 0;
    if (at->ns) { /* what the anchor before would have said now */
        const int64_t said_ns = at->ns + (int64_t)(((__uint128_t)(ticks - at->ticks) * at->scale) >> 32);
        if (said_ns > now_ns && said_ns - now_ns < STAMP_BACK_NS) least_ns = said_ns;
    }
    at->ns = now_ns, at->ticks = ticks, at->least_ns = least_ns;
    at->holds_ticks = ((uint64_t)STAMP_HOLDS_NS << 32) / at->scale;
    return now_ns > least_ns ? now_ns : least_ns;
}
#else
static int stamp_source(void) { return STAMP_SYSTEM; }
#endif

static inline int64_t stamp_ns(void) {
#if STAMP_HAS_COUNTER
    stamp_anchor *at = &stamp_here;
    if (__atomic_load_n(&stamp_known, __ATOMIC_RELAXED) == STAMP_SYSTEM) return realtime_ns();
    const uint64_t since = __rdtsc() - at->ticks;
    if (since >= at->holds_ticks) return stamp_anew(at);
    const int64_t now_ns = at->ns + (int64_t)((since * at->scale) >> 32); /* less than 2^64: a millisecond of ticks */
    return now_ns > at->least_ns ? now_ns : at->least_ns;
#else
    return realtime_ns();
#endif
}

#endif
