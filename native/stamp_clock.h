/* CLOCK_REALTIME for stamps of records and packets, from the processor's own counter where that counts time.
 *
 * The counter is used where the system keeps its own time by it when it is first asked, which Linux does only for one that
 * neither stops nor changes its rate and is the same on every CPU (clocksource "tsc"). Who stamps often has an anchor, a
 * value of the counter and the time that it stood for, for each thread and extension module. It holds for a millisecond;
 * then the system's clock is read again, which also shows what the anchor was worth: after an error of more than a microsecond
 * (the system's clock was stepped or slewed, the machine suspended or moved) the system's clock is read each time, until the
 * rate has been measured anew. So a stamp is within a microsecond of CLOCK_REALTIME but for the millisecond in which that
 * happens. Who stamps seldom reads the system's clock. */
#ifndef FABRIC_STAMP_CLOCK_H
#define FABRIC_STAMP_CLOCK_H

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform.h"

enum { STAMP_UNKNOWN, STAMP_SYSTEM, STAMP_COUNTER };

#if defined(__x86_64__) && defined(__linux__)
#include <x86intrin.h>

enum {
    STAMP_HOLDS_NS = 1000000,
    STAMP_FAR_NS = 1000,
    STAMP_OFTEN_TICKS = 1 << 23,      /* two milliseconds or more at up to 4 GHz */
    STAMP_READ_TICKS = 1000,          /* a reading of the system's clock that takes longer was interrupted */
    STAMP_MOST_REFUSED = 64,          /* so many in a row: here they always take longer */
    STAMP_FIRST_RATE_NS = 10000000,   /* over how long the counter's rate is measured, */
    STAMP_RATE_NS = 1000000000,       /* and measured again */
};

typedef struct {
    uint64_t ticks;       /* of the anchor, or of the last stamp */
    uint64_t holds_ticks; /* 0: there is no anchor */
    int64_t ns, least_ns;
    uint64_t scale; /* nanoseconds of a tick, 2^-32; 0: not known */
    uint64_t rate_ticks; /* since when the rate is measured; 0: not yet */
    int64_t rate_ns;
    int refused;
} stamp_anchor;

static __thread stamp_anchor stamp_here;
static int stamp_known; /* by the first who asks */

static int stamp_source(void) {
    int known = __atomic_load_n(&stamp_known, __ATOMIC_RELAXED);
    if (known == STAMP_UNKNOWN) {
        const char *wanted = getenv("FABRIC_STAMPS"); /* "system": without the counter */
        char name[8] = {0};
        const int file = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
        const ssize_t got = file < 0 ? 0 : read(file, name, sizeof name - 1);
        if (file >= 0) close(file);
        const int counts = got >= 4 && strncmp(name, "tsc\n", 4) == 0;
        known = counts && !(wanted && strcmp(wanted, "system") == 0) ? STAMP_COUNTER : STAMP_SYSTEM;
        __atomic_store_n(&stamp_known, known, __ATOMIC_RELAXED); /* whoever else asks finds the same */
    }
    return known;
}

static inline int64_t stamp_after(const stamp_anchor *at, uint64_t ticks) {
    return at->ns + (int64_t)(((__uint128_t)(ticks - at->ticks) * at->scale) >> 32);
}

/* Nanoseconds of a tick, over a window of a second; the first time a shorter one. */
static void stamp_measure_rate(stamp_anchor *at) {
    const uint64_t before = __rdtsc();
    const int64_t now_ns = monotonic_ns();
    const uint64_t after = __rdtsc();
    if (after - before > STAMP_READ_TICKS) return;
    const uint64_t ticks = before + (after - before) / 2;
    const int64_t passed_ns = now_ns - at->rate_ns;
    const int begins = !at->rate_ticks || ticks <= at->rate_ticks || passed_ns < 0 || passed_ns > 10LL * STAMP_RATE_NS;
    if (!begins) {
        if (passed_ns < (at->scale ? STAMP_RATE_NS : STAMP_FIRST_RATE_NS)) return;
        at->scale = (uint64_t)(((__uint128_t)passed_ns << 32) / (ticks - at->rate_ticks));
    }
    at->rate_ticks = ticks, at->rate_ns = now_ns;
}

static int64_t __attribute__((noinline)) stamp_anew(stamp_anchor *at, uint64_t asked_ticks) {
    if (stamp_source() == STAMP_SYSTEM) return realtime_ns();
    const int often = asked_ticks - at->ticks < STAMP_OFTEN_TICKS;
    const int held = at->holds_ticks != 0;
    at->holds_ticks = 0;
    if (!often) {
        at->ticks = asked_ticks;
        return realtime_ns();
    }
    const uint64_t before = __rdtsc();
    const int64_t now_ns = realtime_ns();
    const uint64_t after = __rdtsc();
    const uint64_t ticks = before + (after - before) / 2;
    int64_t least_ns = now_ns; /* within an error that is allowed no stamp goes back */
    if (held) {
        const int64_t said_ns = stamp_after(at, ticks);
        const int64_t far_ns = STAMP_FAR_NS + (int64_t)(after - before); /* a tick is less than a nanosecond */
        if (said_ns - now_ns > far_ns || now_ns - said_ns > far_ns)
            at->scale = at->rate_ticks = 0;
        else if (said_ns > now_ns)
            least_ns = said_ns;
    }
    if (after - before > STAMP_READ_TICKS) {
        if (++at->refused > STAMP_MOST_REFUSED) __atomic_store_n(&stamp_known, STAMP_SYSTEM, __ATOMIC_RELAXED);
        at->ticks = ticks;
        return least_ns;
    }
    at->refused = 0;
    stamp_measure_rate(at);
    at->ticks = ticks, at->ns = now_ns, at->least_ns = least_ns;
    if (at->scale) at->holds_ticks = ((uint64_t)STAMP_HOLDS_NS << 32) / at->scale;
    return least_ns;
}

static inline int64_t stamp_ns(void) {
    stamp_anchor *at = &stamp_here;
    if (__atomic_load_n(&stamp_known, __ATOMIC_RELAXED) == STAMP_SYSTEM) return realtime_ns();
    const uint64_t ticks = __rdtsc();
    const uint64_t since = ticks - at->ticks;
    if (since >= at->holds_ticks) return stamp_anew(at, ticks);
    const int64_t now_ns = at->ns + (int64_t)((since * at->scale) >> 32); /* less than 2^64: a millisecond of ticks */
    return now_ns > at->least_ns ? now_ns : at->least_ns;
}

/* Whether this thread's next stamp comes from the counter, if it comes soon. */
static inline int stamp_is_anchored(void) { return stamp_here.holds_ticks != 0; }

#else
static int stamp_source(void) { return STAMP_SYSTEM; }
static inline int64_t stamp_ns(void) { return realtime_ns(); }
static inline int stamp_is_anchored(void) { return 0; }
#endif

#endif
