/* Every difference between operating systems and processors that native code depends on, in one place.
 *
 * Atomics are C11. On Linux a wait is a futex on a word of the shared wait page; elsewhere futex_wait_word returns at
 * once with FUTEX_UNSUPPORTED and the caller polls with a bounded sleep. */
#ifndef FABRIC_PLATFORM_H
#define FABRIC_PLATFORM_H

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if !defined(__linux__)
#include <sched.h>
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "logs and packets are little-endian; this processor is not"
#endif

enum { FUTEX_WOKEN = 0, FUTEX_TIMEOUT = 1, FUTEX_UNSUPPORTED = 2 };

static inline uint64_t load_acquire_u64(const void *at) {
    return atomic_load_explicit((const _Atomic uint64_t *)at, memory_order_acquire);
}

static inline void store_release_u64(void *at, uint64_t value) {
    atomic_store_explicit((_Atomic uint64_t *)at, value, memory_order_release);
}

static inline uint32_t load_acquire_u32(const void *at) {
    return atomic_load_explicit((const _Atomic uint32_t *)at, memory_order_acquire);
}

static inline void store_release_u32(void *at, uint32_t value) {
    atomic_store_explicit((_Atomic uint32_t *)at, value, memory_order_release);
}

static inline uint32_t load_seq_cst_u32(const void *at) {
    return atomic_load_explicit((const _Atomic uint32_t *)at, memory_order_seq_cst);
}

static inline void store_seq_cst_u32(void *at, uint32_t value) {
    atomic_store_explicit((_Atomic uint32_t *)at, value, memory_order_seq_cst);
}

static inline uint32_t fetch_add_seq_cst_u32(void *at, uint32_t by) {
    return atomic_fetch_add_explicit((_Atomic uint32_t *)at, by, memory_order_seq_cst);
}

static inline void fence_seq_cst(void) { atomic_thread_fence(memory_order_seq_cst); }

static inline void sleep_ns(int64_t ns) {
    struct timespec pause = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    nanosleep(&pause, NULL);
}

static inline int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t realtime_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What a loop that spins does between two looks: leaves the core's other thread its turn. */
static inline void cpu_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* poll(2), at most timeout_ns; where the system knows only milliseconds it is rounded up. Returns as poll does. */
static inline int poll_ns(struct pollfd *at, nfds_t count, int64_t timeout_ns) {
#if defined(__linux__)
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000), .tv_nsec = (long)(timeout_ns % 1000000000)};
    return ppoll(at, count, &timeout, NULL);
#else
    const int64_t ms = timeout_ns > INT64_MAX / 2 ? INT32_MAX : (timeout_ns + 999999) / 1000000;
    return poll(at, count, ms > INT32_MAX ? INT32_MAX : (int)ms);
#endif
}

/* Sleep while *word == expected, at most timeout_ns; spurious returns are allowed. */
static inline int futex_wait_word(void *word, uint32_t expected, int64_t timeout_ns) {
#if defined(__linux__)
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000), .tv_nsec = (long)(timeout_ns % 1000000000)};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, NULL, 0);
    if (rc == -1 && errno == ETIMEDOUT) return FUTEX_TIMEOUT;
    if (rc == -1 && errno != EAGAIN && errno != EINTR) return FUTEX_UNSUPPORTED;
    return FUTEX_WOKEN;
#else
    (void)word; (void)expected; (void)timeout_ns;
    return FUTEX_UNSUPPORTED;
#endif
}

/* One word of a wait for several. Linux's struct futex_waitv, which older kernel headers lack. */
typedef struct {
    uint64_t expected, address;
    uint32_t flags, reserved;
} futex_word;

static inline futex_word futex_word_of(const void *word, uint32_t expected) {
    futex_word of = {.expected = expected, .address = (uint64_t)(uintptr_t)word, .flags = 2 /* FUTEX2_SIZE_U32 */};
    return of;
}

/* Sleep while every word holds what is expected of it, at most timeout_ns; spurious returns are allowed. */
static inline int futex_wait_words(futex_word *words, size_t count, int64_t timeout_ns) {
#if defined(__linux__)
    const long futex_waitv_number = 449; /* the same on every architecture */
    int64_t until_ns = monotonic_ns() + timeout_ns;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000), .tv_nsec = (long)(until_ns % 1000000000)};
    long rc = syscall(futex_waitv_number, words, (unsigned)count, 0, &until, CLOCK_MONOTONIC);
    if (rc == -1 && errno == ETIMEDOUT) return FUTEX_TIMEOUT;
    if (rc == -1 && errno != EAGAIN && errno != EINTR) return FUTEX_UNSUPPORTED;
    return FUTEX_WOKEN;
#else
    (void)words; (void)count; (void)timeout_ns;
    return FUTEX_UNSUPPORTED;
#endif
}

static inline void yield_processor(void) { sched_yield(); }

static inline void futex_wake_all(void *word) {
#if defined(__linux__)
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
#else
    (void)word;
#endif
}

#endif
