/* The control queue: frames that the hot path leaves to the control side, in the order they came.
 *
 * A ring of entries (lane id and line, length, frame, rounded up to 8 bytes); an entry that would reach past the ring's end
 * begins at its start, after a filler with lane id 0. One thread appends, one takes. */
#ifndef FABRIC_WIRE_CONTROL_H
#define FABRIC_WIRE_CONTROL_H

#include <stdlib.h>

#include "platform.h"

typedef struct {
    uint64_t lane, bytes; /* the lane's id; above bit 56 the number of the line */
} wire_entry;

enum { WIRE_LINE_SHIFT = 56 };

typedef struct {
    char *ring;
    uint64_t ring_bytes;
    uint64_t tail; /* atomic, the appender's; both count bytes and never go back */
    char pad[64];
    uint64_t head; /* atomic, the taker's */
} wire_control;

static inline uint64_t wire_entry_bytes(uint64_t frame_bytes) {
    return sizeof(wire_entry) + ((frame_bytes + 7) & ~(uint64_t)7);
}

/* Nonzero if the frame had room. */
static inline int wire_control_append(wire_control *queue, uint64_t lane, const void *frame, uint64_t frame_bytes) {
    const uint64_t wanted = wire_entry_bytes(frame_bytes);
    const uint64_t at = queue->tail % queue->ring_bytes, to_end = queue->ring_bytes - at;
    const uint64_t filler = to_end < wanted ? to_end : 0;
    if (queue->tail + filler + wanted - load_acquire_u64(&queue->head) > queue->ring_bytes) return 0;
    wire_entry entry = {0, filler};
    if (filler >= sizeof entry) memcpy(queue->ring + at, &entry, sizeof entry);
    char *to = queue->ring + (filler ? 0 : at);
    entry.lane = lane;
    entry.bytes = frame_bytes;
    memcpy(to, &entry, sizeof entry);
    memcpy(to + sizeof entry, frame, frame_bytes);
    store_release_u64(&queue->tail, queue->tail + filler + wanted);
    return 1;
}

/* The oldest frame, or null; it stays there until wire_control_pop. */
static inline const char *wire_control_peek(wire_control *queue, wire_entry *entry) {
    if (queue->head == load_acquire_u64(&queue->tail)) return NULL;
    uint64_t at = queue->head % queue->ring_bytes, to_end = queue->ring_bytes - at;
    if (to_end >= sizeof *entry) memcpy(entry, queue->ring + at, sizeof *entry);
    if (to_end < sizeof *entry || entry->lane == 0) { /* a filler; an entry follows it always */
        store_release_u64(&queue->head, queue->head + to_end);
        memcpy(entry, queue->ring, sizeof *entry);
        at = 0;
    }
    return queue->ring + at + sizeof *entry;
}

static inline void wire_control_pop(wire_control *queue, const wire_entry *entry) {
    store_release_u64(&queue->head, queue->head + wire_entry_bytes(entry->bytes));
}

static inline int wire_control_empty(const wire_control *queue) {
    return load_acquire_u64(&queue->head) == load_acquire_u64(&queue->tail);
}

#endif
