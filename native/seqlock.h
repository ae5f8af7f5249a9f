/* A version beside some bytes: one writer, any number of readers that never see half a write and never block it.
 *
 *     writer   version odd ▸ fence ▸ bytes ▸ version even (release)
 *     reader   version (acquire) ▸ bytes ▸ fence ▸ version again: odd or changed means read again
 *
 * After H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012. */
#ifndef FABRIC_SEQLOCK_H
#define FABRIC_SEQLOCK_H

#include "platform.h"

static inline void seqlock_write_begin(uint32_t *version) {
    atomic_store_explicit((_Atomic uint32_t *)version, *version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static inline void seqlock_write_end(uint32_t *version) { store_release_u32(version, *version + 1); }

/* Odd while a write goes on. */
static inline uint32_t seqlock_read_begin(const uint32_t *version) { return load_acquire_u32(version); }

static inline int seqlock_read_failed(const uint32_t *version, uint32_t begun) {
    atomic_thread_fence(memory_order_acquire);
    return (begun & 1) || atomic_load_explicit((const _Atomic uint32_t *)version, memory_order_relaxed) != begun;
}

#endif
