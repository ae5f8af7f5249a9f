/* The receiving side of one process: sockets in, records into lanes, everything out of the ordinary to the control queue.
 *
 * What a packet may change without the control side is only this: a lane that is plain (in step, nothing missing, nothing
 * held) takes the next records of its session; with several lines it also drops, and counts, what came already on
 * another. After the first packet that is anything else the lane is not plain, and
 * all that follows goes the same way through the queue, so that order is kept, until the control side says so. */
#ifndef FABRIC_WIRE_INLET_H
#define FABRIC_WIRE_INLET_H

#include <pthread.h>
#include <sys/types.h>

#include "histogram_layout.h"
#include "packet_layout.h"
#include "stamp_clock.h"
#include "wire_control.h"
#include "wire_table.h"
#include "zmq_calls.h"

enum { WIRE_BURST = 32 }; /* packets of one socket before the next one has its turn */

typedef struct {
    void *socket;
    int fd;
    int dry;    /* it said EAGAIN: whatever comes next makes its descriptor readable */
    int broken; /* closed under our feet, or its context is: nothing comes from it again */
} wire_socket;

typedef struct {
    struct pollfd *at;
    int capacity;
} wire_fds; /* a poller's own copy, so that nobody changes it meanwhile */

typedef struct {
    pthread_mutex_t lock; /* of all below up to `waiting`; recursive; never kept while polling or taking the GIL */
    int refs;             /* under the GIL */
    wire_socket *sockets;
    int socket_count, socket_capacity, turn, wet;
    int *extra_fds;
    int extra_count, extra_capacity;
    wire_table table;
    wire_control control;
    wire_lane *ready_first, *ready_last;
    zmq_message message;
    uint64_t packets, records, bytes, malformed, bad_crc, bad_version, unknown_channel, overflow, broken_sockets;
    uint64_t pushed; /* atomic: how often records went into a lane */

    /* Of the one thread that waits. */
    char pad0[64];
    uint64_t pushed_seen;
    int64_t extras_looked_ns;
    int came_alone; /* the packet that ended the last sleep */
    wire_fds wait_fds;
    int bell_read, bell_write; /* rings for a waiter that sleeps while others drain; shared */
    uint32_t waiting, sleeping; /* atomic */
    uint64_t left_ns;           /* atomic: when the last wait ended */

    /* Of the pump. */
    char pad1[64];
    pthread_t thread;
    int pumps, pump_read, pump_write;
    pid_t pid;            /* whose thread it is: a fork has none */
    uint32_t wanted;      /* atomic: how many wait for the lock */
    uint32_t stop;        /* atomic */
    uint64_t owned_until; /* atomic, CLOCK_MONOTONIC ns: until then waiters leave the sockets to the pump */
    uint64_t pumped;      /* packets */
    wire_fds pump_fds;
} wire_inlet;

static inline void wire_mark_ready(wire_inlet *inlet, wire_lane *lane) {
    if (lane->is_ready) return;
    lane->is_ready = 1;
    lane->next_ready = NULL;
    if (inlet->ready_last)
        inlet->ready_last->next_ready = lane;
    else
        inlet->ready_first = lane;
    inlet->ready_last = lane;
}

static inline int wire_is_ordinary(const wire_lane *lane, const packet_header *header) {
    return lane->plain && header->session == *lane->session && header->schema == lane->schema &&
           header->size == lane->record_bytes;
}

/* Whether all that it tells is behind the lane. */
static inline int wire_lane_knows(const wire_lane *lane, const packet_header *header) {
    if (*lane->seen != *lane->delivered) return 0;
    if (header->kind == PACKET_DATA) return header->sequence + header->count <= *lane->delivered + 1;
    return header->kind == PACKET_HEARTBEAT && header->sequence <= *lane->seen;
}

static inline void wire_deliver(wire_inlet *inlet, wire_lane *lane, const packet_header *header, const void *frame,
                                size_t frame_bytes, const void *socket, int64_t arrived_ns, int64_t now_ns) {
    int line = 0;
    if (lane->line_count > 1 && (line = line_of_socket(lane->lines, socket)) < 0) return; /* not asked for there */
    /* Of a thousand lanes few are in the nearest cache: ask for all lines at once. */
    __builtin_prefetch(lane->delivered, 1);
    __builtin_prefetch((void *)((uintptr_t)lane->fill_bytes + lane->filled * lane->record_bytes), 1);
    __builtin_prefetch(&lane->runs[(lane->run_tail - 1) & (lane->run_slots - 1)], 1);
    lane->packets++;
    lane->arrived_ns = arrived_ns;
    if (lane->latency && header->kind == PACKET_DATA && header->sent_ns)
        histogram_add(lane->latency, stamp_ns() - header->sent_ns);
    if (wire_is_ordinary(lane, header)) {
        /* Verdict.IN_ORDER of native/sequence.pyx. */
        if (header->kind == PACKET_DATA && header->sequence == *lane->delivered + 1 &&
            wire_lane_has_room(lane, header->count)) {
            wire_lane_push(lane, header->session, header->sequence, (const char *)frame + PACKET_HEADER_BYTES, header->count);
            *lane->delivered += header->count;
            if (*lane->delivered > *lane->seen) *lane->seen = *lane->delivered;
            lane->received += header->count;
            lane->heard_ns = now_ns;
            if (lane->line_count > 1)
                line_brought(lane->lines, line, header->sequence, header->count, header->count, now_ns);
            inlet->records += header->count;
            store_release_u64(&inlet->pushed, inlet->pushed + 1);
            wire_mark_ready(inlet, lane);
            return;
        }
        if (header->kind == PACKET_HEARTBEAT && header->sequence == *lane->seen + 1 && *lane->seen == *lane->delivered) {
            lane->heard_ns = now_ns;
            if (lane->line_count > 1) line_heard(&lane->lines->of[line], header->sequence - 1, now_ns);
            return;
        }
        /* What another line has brought already: each packet comes once on each. */
        if (lane->line_count > 1 && wire_lane_knows(lane, header)) {
            lane->heard_ns = now_ns;
            if (header->kind == PACKET_DATA) {
                lane->lines->dropped += header->count;
                line_brought(lane->lines, line, header->sequence, header->count, 0, now_ns);
            } else {
                line_heard(&lane->lines->of[line], header->sequence - 1, now_ns);
            }
            return;
        }
    }
    const uint64_t entry = lane->id | (uint64_t)line << WIRE_LINE_SHIFT;
    if (!wire_control_append(&inlet->control, entry, frame, frame_bytes)) {
        /* Lost here as it might have been on the way: the lane stays what it was, the next packet shows the hole. */
        lane->overflow++;
        inlet->overflow++;
        return;
    }
    lane->plain = 0;
    lane->frames_queued++;
}

static inline void wire_take_frame(wire_inlet *inlet, const void *socket, const void *frame, size_t frame_bytes,
                                   int64_t arrived_ns, int64_t now_ns) {
    packet_header header;
    switch (packet_parse(&header, frame, frame_bytes)) {
    case PACKET_OK: break;
    case PACKET_BAD_CRC: inlet->bad_crc++; return;
    case PACKET_BAD_VERSION: inlet->bad_version++; return;
    default: inlet->malformed++; return;
    }
    wire_lane *lane = wire_table_find(&inlet->table, header.channel);
    if (!lane) inlet->unknown_channel++;
    for (; lane; lane = lane->next_same) wire_deliver(inlet, lane, &header, frame, frame_bytes, socket, arrived_ns, now_ns);
}

/* At most `most` messages of one socket; fewer when it is dry. */
static inline int64_t wire_drain_socket(wire_inlet *inlet, wire_socket *from, int64_t most, int64_t now_ns) {
    zmq_message *message = &inlet->message;
    int64_t arrived_ns = 0, done = 0;
    while (done < most) {
        if (zmq.msg_recv(message, from->socket, ZMQ_DONTWAIT_FLAG) < 0) {
            const int error = zmq.last_errno();
            if (error == EINTR) continue;
            if (error != EAGAIN) {
                inlet->broken_sockets++;
                from->broken = 1;
                from->fd = -1;
            }
            from->dry = 1;
            inlet->wet--;
            break;
        }
        if (done++ == 0) arrived_ns = monotonic_ns();
        inlet->packets++;
        inlet->bytes += zmq.msg_size(message);
        if (zmq.msg_more(message)) {
            inlet->malformed++;
            do { /* the parts of a message arrive together */
                if (zmq.msg_recv(message, from->socket, ZMQ_DONTWAIT_FLAG) < 0) break;
            } while (zmq.msg_more(message));
            continue;
        }
        wire_take_frame(inlet, from->socket, zmq.msg_data(message), zmq.msg_size(message), arrived_ns,
                        now_ns ? now_ns : arrived_ns);
    }
    return done;
}

/* Receive until every socket is dry or `budget` packets came; returns packets. `inlet->wet` sockets may have more. With
 * a `now_ns` of 0 lanes are stamped with the time of arrival. The caller holds the lock. */
static inline int64_t wire_drain(wire_inlet *inlet, int64_t budget, int64_t now_ns) {
    int64_t done = 0;
    inlet->wet = 0;
    for (int i = 0; i < inlet->socket_count; i++) {
        inlet->sockets[i].dry = inlet->sockets[i].broken;
        inlet->wet += !inlet->sockets[i].dry;
    }
    while (inlet->wet > 0 && done < budget) {
        inlet->turn = inlet->turn + 1 < inlet->socket_count ? inlet->turn + 1 : 0;
        wire_socket *socket = &inlet->sockets[inlet->turn];
        if (socket->dry) continue;
        const int64_t left = budget - done;
        done += wire_drain_socket(inlet, socket, left < WIRE_BURST ? left : WIRE_BURST, now_ns);
    }
    return done;
}

#endif
