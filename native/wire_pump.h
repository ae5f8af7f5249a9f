/* The pump: a thread that never takes the GIL and drains the sockets while no Python thread is in `wait`.
 *
 *     reader in wait        parked: a look every 20 milliseconds
 *     reader just left      the same: it is at work on what it got
 *     reader absent         polls and drains; if packets came it owns the sockets for the next 250 ms
 *     owns the sockets      polls and drains; a reader in wait sleeps on the bell, which the pump rings
 *
 * A reader is absent 4.5 ms after it left: it computes, or it waits for the GIL that a busy thread has. Owning keeps it so
 * that the next packet needs no look at the clock first; it ends 250 ms after the last packet that found the reader
 * absent. */
#ifndef FABRIC_WIRE_PUMP_H
#define FABRIC_WIRE_PUMP_H

#include <signal.h>

#include "wire_sets.h"

enum { WIRE_PUMP_BUDGET = 256 }; /* packets at one holding of the lock */
#define WIRE_ABSENT_NS 4500000 /* less than the interpreter lets a thread wait, more than a scheduler does */
#define WIRE_ASIDE_NS 20000
#define WIRE_OWNED_NS 250000000
#define WIRE_LOOK_NS 20000000

/* Drain once; returns whether more may be there. */
static inline int wire_pump_drain(wire_inlet *inlet) {
    const uint64_t pushed = inlet->pushed, queued = inlet->control.tail;
    pthread_mutex_lock(&inlet->lock);
    const int64_t packets = wire_drain(inlet, WIRE_PUMP_BUDGET, 0);
    const int more = inlet->wet > 0;
    pthread_mutex_unlock(&inlet->lock);
    if (packets == 0) return 0;
    inlet->pumped += (uint64_t)packets;
    const int64_t now_ns = monotonic_ns();
    if (!load_seq_cst_u32(&inlet->waiting) && now_ns - (int64_t)load_acquire_u64(&inlet->left_ns) > WIRE_ABSENT_NS)
        store_release_u64(&inlet->owned_until, (uint64_t)(now_ns + WIRE_OWNED_NS));
    fence_seq_cst(); /* wire_sleep has the mirror image */
    if ((inlet->pushed != pushed || inlet->control.tail != queued) && load_seq_cst_u32(&inlet->sleeping))
        wire_ring(inlet->bell_write);
    return more;
}

/* How long to keep off the sockets; 0: they are the pump's to drain now. */
static inline int64_t wire_pump_parks_ns(const wire_inlet *inlet, int64_t now_ns) {
    if (wire_is_owned(inlet, now_ns)) return 0;
    const int64_t away_ns = now_ns - (int64_t)load_acquire_u64(&inlet->left_ns);
    return load_seq_cst_u32(&inlet->waiting) || away_ns < WIRE_ABSENT_NS ? WIRE_LOOK_NS : 0;
}

static void *wire_pump_run(void *argument) {
    wire_inlet *inlet = argument;
    while (!load_seq_cst_u32(&inlet->stop)) {
        const int64_t parks_ns = wire_pump_parks_ns(inlet, monotonic_ns());
        if (parks_ns == 0 && wire_pump_drain(inlet)) {
            if (load_seq_cst_u32(&inlet->wanted)) sleep_ns(WIRE_ASIDE_NS);
            continue;
        }
        pthread_mutex_lock(&inlet->lock);
        const int count = wire_copy_fds(inlet, &inlet->pump_fds, inlet->pump_read, 0, parks_ns == 0);
        pthread_mutex_unlock(&inlet->lock);
        if (wire_poll(&inlet->pump_fds, count, 0, WIRE_LOOK_NS) < 0) sleep_ns(WIRE_LOOK_NS);
    }
    return NULL;
}

/* Returns 0 or an errno. Signals are for Python's threads. */
static inline int wire_pump_start(wire_inlet *inlet) {
    sigset_t all, before;
    if (inlet->pumps) return 0;
    store_seq_cst_u32(&inlet->stop, 0);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&inlet->thread, NULL, wire_pump_run, inlet);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    inlet->pumps = error == 0;
    inlet->pid = getpid();
    return error;
}

/* Blocks until the thread has ended; the sockets are the callers' again. Not while the lock is held. */
static inline void wire_pump_stop(wire_inlet *inlet) {
    if (!inlet->pumps) return;
    if (inlet->pid != getpid()) {
        inlet->pumps = 0;
        return;
    }
    store_seq_cst_u32(&inlet->stop, 1);
    wire_ring(inlet->pump_write);
    pthread_join(inlet->thread, NULL);
    inlet->pumps = 0;
    store_release_u64(&inlet->owned_until, 0);
    if (load_seq_cst_u32(&inlet->sleeping)) wire_ring(inlet->bell_write); /* it sleeps on the bell alone */
}

#endif
