/* Making and changing an inlet: the control side's calls. Each takes the lock itself where the pump might look. */
#ifndef FABRIC_WIRE_SETS_H
#define FABRIC_WIRE_SETS_H

#include "wire_wait.h"

static inline wire_inlet *wire_inlet_new(uint64_t control_bytes) {
    pthread_mutexattr_t recursive;
    wire_inlet *inlet = calloc(1, sizeof *inlet);
    if (!inlet) return NULL;
    inlet->refs = 1;
    inlet->bell_read = inlet->bell_write = inlet->pump_read = inlet->pump_write = -1;
    inlet->control.ring_bytes = (control_bytes + 7) & ~(uint64_t)7;
    inlet->control.ring = malloc(inlet->control.ring_bytes);
    if (!inlet->control.ring || wire_pipe(&inlet->bell_read, &inlet->bell_write) ||
        wire_pipe(&inlet->pump_read, &inlet->pump_write)) {
        free(inlet->control.ring);
        if (inlet->bell_read >= 0) {
            close(inlet->bell_read);
            close(inlet->bell_write);
        }
        free(inlet);
        return NULL;
    }
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&inlet->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    zmq.msg_init(&inlet->message);
    return inlet;
}

/* Lanes keep what they hold after their inlet has gone, and its memory with them. */
static inline void wire_inlet_release(wire_inlet *inlet) {
    if (--inlet->refs > 0) return;
    zmq.msg_close(&inlet->message);
    pthread_mutex_destroy(&inlet->lock);
    close(inlet->bell_read);
    close(inlet->bell_write);
    close(inlet->pump_read);
    close(inlet->pump_write);
    free(inlet->sockets);
    free(inlet->extra_fds);
    free(inlet->table.slots);
    free(inlet->control.ring);
    free(inlet->wait_fds.at);
    free(inlet->pump_fds.at);
    free(inlet);
}

static inline int wire_lock_now(wire_inlet *inlet) { return pthread_mutex_trylock(&inlet->lock) == 0; }

/* The pump steps aside for whoever waits here: the lock itself is not fair. */
static inline void wire_lock(wire_inlet *inlet) {
    fetch_add_seq_cst_u32(&inlet->wanted, 1);
    pthread_mutex_lock(&inlet->lock);
    fetch_add_seq_cst_u32(&inlet->wanted, UINT32_MAX);
}

/* Whoever held the lock may have used the sockets, and taken the signal of a packet that is still in one: look again. */
static inline void wire_unlock_and_look(wire_inlet *inlet) {
    pthread_mutex_unlock(&inlet->lock);
    wire_ring(inlet->pump_write);
    if (load_seq_cst_u32(&inlet->sleeping)) wire_ring(inlet->bell_write);
}

static inline void wire_unlock(wire_inlet *inlet) { pthread_mutex_unlock(&inlet->lock); }

static inline int wire_grow(void **items, int count, int *capacity, size_t item_bytes) {
    if (count < *capacity) return 1;
    const int wanted = *capacity ? 2 * *capacity : 8;
    void *grown = realloc(*items, (size_t)wanted * item_bytes);
    if (!grown) return 0;
    *items = grown;
    *capacity = wanted;
    return 1;
}

/* The caller holds the lock, here and below. Returns 0 without memory. */
static inline int wire_add_socket(wire_inlet *inlet, void *socket, int fd) {
    if (!wire_grow((void **)&inlet->sockets, inlet->socket_count, &inlet->socket_capacity, sizeof *inlet->sockets)) return 0;
    inlet->sockets[inlet->socket_count++] = (wire_socket){.socket = socket, .fd = fd};
    return 1;
}

static inline int wire_remove_socket(wire_inlet *inlet, void *socket) {
    for (int i = 0; i < inlet->socket_count; i++) {
        if (inlet->sockets[i].socket != socket) continue;
        inlet->sockets[i] = inlet->sockets[--inlet->socket_count];
        return 1;
    }
    return 0;
}

static inline int wire_add_fd(wire_inlet *inlet, int fd) {
    if (!wire_grow((void **)&inlet->extra_fds, inlet->extra_count, &inlet->extra_capacity, sizeof *inlet->extra_fds)) return 0;
    inlet->extra_fds[inlet->extra_count++] = fd;
    return 1;
}

static inline int wire_remove_fd(wire_inlet *inlet, int fd) {
    for (int i = 0; i < inlet->extra_count; i++) {
        if (inlet->extra_fds[i] != fd) continue;
        inlet->extra_fds[i] = inlet->extra_fds[--inlet->extra_count];
        return 1;
    }
    return 0;
}

static inline wire_lane *wire_pop_ready(wire_inlet *inlet) {
    wire_lane *lane = inlet->ready_first;
    if (!lane) return NULL;
    inlet->ready_first = lane->next_ready;
    if (!inlet->ready_first) inlet->ready_last = NULL;
    lane->is_ready = 0;
    return lane;
}

/* Whether any lane but this one is ready. */
static inline int wire_others_ready(wire_inlet *inlet, const wire_lane *lane) {
    pthread_mutex_lock(&inlet->lock);
    const wire_lane *first = inlet->ready_first;
    const int others = first && (first != lane || first->next_ready);
    pthread_mutex_unlock(&inlet->lock);
    return others;
}

static inline void wire_forget_ready(wire_inlet *inlet, wire_lane *lane) {
    wire_lane *before = NULL, **link = &inlet->ready_first;
    while (*link && *link != lane) {
        before = *link;
        link = &before->next_ready;
    }
    if (!*link) return;
    *link = lane->next_ready;
    if (inlet->ready_last == lane) inlet->ready_last = before;
    lane->is_ready = 0;
}

static inline int wire_add_lane(wire_inlet *inlet, wire_lane *lane) {
    lane->attached = wire_table_add(&inlet->table, lane);
    return lane->attached;
}

static inline void wire_remove_lane(wire_inlet *inlet, wire_lane *lane) {
    if (!lane->attached) return;
    lane->attached = 0;
    wire_table_remove(&inlet->table, lane);
    wire_forget_ready(inlet, lane);
}

#endif
