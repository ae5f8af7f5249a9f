/* Waiting for packets, without the GIL: drain, and if nothing came sleep in poll(2) or spin.
 *
 * A ZeroMQ descriptor is readable only from a command on until its socket was looked into: it is polled only after every
 * socket said EAGAIN. */
#ifndef FABRIC_WIRE_WAIT_H
#define FABRIC_WIRE_WAIT_H

#include <fcntl.h>
#include <unistd.h>

#include "wire_inlet.h"

enum { WIRE_RECORDS = 1, WIRE_CONTROL = 2, WIRE_EXTRA = 4 };
enum { WIRE_FLOOD = 32, WIRE_FLOOD_MOST = 1024 }; /* packets of one look; of all looks of a wait */
enum { WIRE_WAIT_BUDGET = 4096, WIRE_MOST_WAIT_BITS = 62 };
#define WIRE_EXTRAS_EVERY_NS 1000000
#define WIRE_EXTRAS_SPIN_NS 50000

static inline int wire_pipe(int *read_end, int *write_end) {
    int ends[2];
    if (pipe(ends) != 0) return -errno;
    for (int i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    }
    *read_end = ends[0];
    *write_end = ends[1];
    return 0;
}

static inline void wire_ring(int write_end) {
    if (write(write_end, "", 1) < 0) return; /* full: it wakes anyway */
}

static inline void wire_silence(int read_end) {
    char heard[64];
    while (read(read_end, heard, sizeof heard) == sizeof heard) {}
}

/* Copy what is to be polled into `to`: `bell`, then the extra descriptors if wanted, then the sockets' if wanted. Returns
 * how many, 0 without memory. Allocates only when there are more than ever before. */
static inline int wire_copy_fds(wire_inlet *inlet, wire_fds *to, int bell, int extras, int sockets) {
    const int wanted = 1 + inlet->extra_count + inlet->socket_count;
    if (wanted > to->capacity) {
        struct pollfd *grown = realloc(to->at, (size_t)wanted * sizeof *grown);
        if (!grown) return 0;
        to->at = grown;
        to->capacity = wanted;
    }
    int count = 0;
    to->at[count++] = (struct pollfd){.fd = bell, .events = POLLIN};
    for (int i = 0; extras && i < inlet->extra_count; i++)
        to->at[count++] = (struct pollfd){.fd = inlet->extra_fds[i], .events = POLLIN};
    for (int i = 0; sockets && i < inlet->socket_count; i++)
        to->at[count++] = (struct pollfd){.fd = inlet->sockets[i].fd, .events = POLLIN};
    return count;
}

/* Poll the copied descriptors: -1 if a signal came, else WIRE_EXTRA if one of the `extras` after the bell is readable. */
static inline int wire_poll(wire_fds *fds, int count, int extras, int64_t timeout_ns) {
    if (count == 0) return -1;
    const int rc = poll_ns(fds->at, (nfds_t)count, timeout_ns > 0 ? timeout_ns : 0);
    if (rc < 0) return -1;
    if (rc == 0) return 0;
    if (fds->at[0].revents) wire_silence(fds->at[0].fd);
    for (int i = 1; i <= extras; i++)
        if (fds->at[i].revents) return WIRE_EXTRA;
    return 0;
}

/* What there is for the caller; records are told of once. */
static inline int wire_bits(wire_inlet *inlet) {
    const uint64_t pushed = load_acquire_u64(&inlet->pushed);
    int bits = wire_control_empty(&inlet->control) ? 0 : WIRE_CONTROL;
    if (pushed != inlet->pushed_seen) bits |= WIRE_RECORDS;
    inlet->pushed_seen = pushed;
    return bits;
}

static inline int wire_is_owned(const wire_inlet *inlet, int64_t now_ns) {
    return (int64_t)load_acquire_u64(&inlet->owned_until) > now_ns;
}

/* One look at the extra descriptors, when it is time for one: a busy socket must not hide them. */
static inline int wire_glance_at_extras(wire_inlet *inlet, int64_t now_ns, int64_t every_ns) {
    if (inlet->extra_count == 0 || now_ns - inlet->extras_looked_ns < every_ns) return 0;
    inlet->extras_looked_ns = now_ns;
    pthread_mutex_lock(&inlet->lock);
    const int extras = inlet->extra_count;
    const int count = wire_copy_fds(inlet, &inlet->wait_fds, inlet->bell_read, 1, 0);
    pthread_mutex_unlock(&inlet->lock);
    const int found = wire_poll(&inlet->wait_fds, count, extras, 0);
    return found > 0 ? found : 0;
}

/* Sleep until something may have come; -1 if a signal did. */
static inline int wire_sleep(wire_inlet *inlet, int64_t now_ns, int64_t deadline_ns) {
    const int owned = wire_is_owned(inlet, now_ns);
    const int64_t until_ns = (int64_t)load_acquire_u64(&inlet->owned_until);
    pthread_mutex_lock(&inlet->lock);
    const int extras = inlet->extra_count;
    const int count = wire_copy_fds(inlet, &inlet->wait_fds, inlet->bell_read, 1, !owned);
    pthread_mutex_unlock(&inlet->lock);
    store_seq_cst_u32(&inlet->sleeping, 1);
    fence_seq_cst(); /* before the look: whoever pushes looks at `sleeping` after it pushed */
    int found = 0;
    if (load_acquire_u64(&inlet->pushed) == inlet->pushed_seen && wire_control_empty(&inlet->control)) {
        const int64_t end_ns = owned && until_ns < deadline_ns ? until_ns : deadline_ns;
        found = wire_poll(&inlet->wait_fds, count, extras, end_ns - now_ns);
        inlet->extras_looked_ns = monotonic_ns();
    }
    store_seq_cst_u32(&inlet->sleeping, 0);
    return found;
}

static inline void wire_leave(wire_inlet *inlet) {
    store_release_u64(&inlet->left_ns, (uint64_t)monotonic_ns());
    store_seq_cst_u32(&inlet->waiting, 0);
}

/* Returns WIRE_* bits, 0 when the time is over or a signal came. */
static inline int wire_wait(wire_inlet *inlet, int64_t timeout_ns, int spin) {
    int64_t now_ns = monotonic_ns();
    const int64_t most_ns = (int64_t)1 << WIRE_MOST_WAIT_BITS; /* so that the sum stays in range */
    const int64_t deadline_ns = now_ns + (timeout_ns < 0 ? 0 : timeout_ns < most_ns ? timeout_ns : most_ns);
    int64_t gathered = 0;
    int bits = 0, slept = 0, flood = 0;
    store_seq_cst_u32(&inlet->waiting, 1);
    for (;;) {
        int more = 0;
        flood = 0;
        if (!wire_is_owned(inlet, now_ns)) {
            /* Packets that come one by one: the one that woke us is not kept waiting for a look whether another one is
             * there, which is a system call. The next wait looks. */
            const int64_t budget = slept && inlet->came_alone ? 1 : WIRE_WAIT_BUDGET;
            pthread_mutex_lock(&inlet->lock);
            const int64_t packets = wire_drain(inlet, budget, 0);
            if (packets || slept) inlet->came_alone = slept && packets == 1;
            flood = !spin && packets >= WIRE_FLOOD && gathered < WIRE_FLOOD_MOST;
            gathered += packets;
            more = inlet->wet > 0;
            pthread_mutex_unlock(&inlet->lock);
        }
        bits |= wire_bits(inlet);
        now_ns = monotonic_ns();
        bits |= wire_glance_at_extras(inlet, now_ns, spin ? WIRE_EXTRAS_SPIN_NS : WIRE_EXTRAS_EVERY_NS);
        if (flood && now_ns < deadline_ns) {
            /* They come faster than one by one: what is handed out at once costs less, and whoever brings more may need
             * this processor. */
            yield_processor();
            continue;
        }
        if (bits || now_ns >= deadline_ns) break;
        if (more) continue;
        if (spin) {
            cpu_pause();
            continue;
        }
        slept = 1;
        const int found = wire_sleep(inlet, now_ns, deadline_ns);
        if (found < 0) break;
        bits |= found;
        now_ns = monotonic_ns();
    }
    wire_leave(inlet);
    return bits;
}

#endif
