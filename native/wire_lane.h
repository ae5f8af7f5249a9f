/* A lane: what one reader of one channel has received in order and not taken yet.
 *
 *     chunks   [#########][#########][####     ]  free [         ] [         ]
 *     runs      ------------------- ^  ------            one entry a run and chunk: session, first, where, how many
 *
 * One thread pushes (whoever drains the sockets, under the inlet's lock), one takes; neither waits for the other. Records
 * lie in chunks that are filled to the last record and then never written again until the taker gives them back through
 * the queue of free chunks: so a view of them stays as it is for as long as it is wanted. */
#ifndef FABRIC_WIRE_LANE_H
#define FABRIC_WIRE_LANE_H

#include <stddef.h>
#include <stdlib.h>

#include "line_accounts.h"
#include "platform.h"

typedef struct {
    char *bytes;
    void *owner; /* the taker's handle of the chunk */
} wire_chunk;

typedef struct {
    uint64_t session, first;
    uint64_t count; /* atomic: the last run grows */
    uint64_t offset;  /* of its first record in the chunk, in records */
    wire_chunk *chunk;
} wire_run;

/* Ordered by who touches what: of a thousand lanes a packet touches three lines here, and no more. Atomic means: read by
 * the other side while it changes. */
typedef struct wire_lane {
    /* What a packet is checked against. */
    struct wire_lane *next_same;
    uint64_t id;
    int plain;
    uint16_t is_ready, line_count; /* one line needs no accounts: nothing of it is looked at */
    uint32_t schema, record_bytes;
    uint64_t *session, *delivered, *seen; /* the tracker's: the pusher's while plain, else the control side's */
    uint64_t *latency;                    /* a histogram's words, or null */

    /* Where its records go. */
    char *fill_bytes;
    uint64_t filled, chunk_records;
    wire_chunk *fill;
    wire_run *runs;
    uint64_t run_tail;                 /* atomic */
    uint64_t free_head;                /* atomic */
    uint64_t run_head_seen;            /* the taker's, when it was last looked at */

    uint64_t received, packets;
    int64_t heard_ns, arrived_ns;
    uint64_t run_slots; /* a power of two, as free_slots */
    struct wire_lane *next_ready;
    uint64_t overflow, frames_queued;

    uint64_t channel, free_slots, free_tail_seen;
    wire_chunk **free_chunks;
    int attached;
    line_accounts *lines; /* null for one line */
    char pad[64 - 48];

    /* The taker's. */
    uint64_t run_head;  /* atomic */
    uint64_t free_tail; /* atomic */
    uint64_t taken_of_run, taken, frames_taken;
} wire_lane;

_Static_assert(offsetof(wire_lane, fill_bytes) == 64 && offsetof(wire_lane, received) == 128, "lines");
_Static_assert(offsetof(wire_lane, run_head) == 256, "lines");

static inline void wire_lane_give_chunk(wire_lane *lane, wire_chunk *chunk) {
    lane->free_chunks[lane->free_tail & (lane->free_slots - 1)] = chunk;
    store_release_u64(&lane->free_tail, lane->free_tail + 1);
}

/* Nonzero if `count` more records, and the runs that they may begin, have room. The taker's side is looked at only where
 * what was seen of it last does not do. */
static inline int wire_lane_has_room(wire_lane *lane, uint64_t count) {
    const uint64_t here = lane->fill ? lane->chunk_records - lane->filled : 0;
    uint64_t runs = 1;
    if (count > here) {
        const uint64_t wanted = (count - here + lane->chunk_records - 1) / lane->chunk_records;
        if (lane->free_tail_seen - lane->free_head < wanted) lane->free_tail_seen = load_acquire_u64(&lane->free_tail);
        if (lane->free_tail_seen - lane->free_head < wanted) return 0;
        runs += wanted;
    }
    if (lane->run_slots - (lane->run_tail - lane->run_head_seen) >= runs) return 1;
    lane->run_head_seen = load_acquire_u64(&lane->run_head);
    return lane->run_slots - (lane->run_tail - lane->run_head_seen) >= runs;
}

static inline int wire_lane_extend(wire_lane *lane, uint64_t session, uint64_t first, uint64_t count) {
    if (lane->run_tail == 0) return 0;
    wire_run *last = &lane->runs[(lane->run_tail - 1) & (lane->run_slots - 1)];
    if (last->chunk != lane->fill || last->session != session || last->first + last->count != first) return 0;
    if (last->offset + last->count != lane->filled) return 0; /* the same chunk, but an earlier life of it */
    store_release_u64(&last->count, last->count + count);
    return 1;
}

/* Copy records in; the caller has asked for room. */
static inline void wire_lane_push(wire_lane *lane, uint64_t session, uint64_t first, const char *records, uint64_t count) {
    while (count) {
        if (!lane->fill || lane->filled == lane->chunk_records) {
            lane->fill = lane->free_chunks[lane->free_head & (lane->free_slots - 1)];
            lane->fill_bytes = lane->fill->bytes;
            lane->filled = 0;
            store_release_u64(&lane->free_head, lane->free_head + 1);
        }
        const uint64_t room = lane->chunk_records - lane->filled;
        const uint64_t some = count < room ? count : room;
        memcpy(lane->fill_bytes + lane->filled * lane->record_bytes, records, some * lane->record_bytes);
        if (!wire_lane_extend(lane, session, first, some)) {
            wire_run *run = &lane->runs[lane->run_tail & (lane->run_slots - 1)];
            run->session = session;
            run->first = first;
            run->offset = lane->filled;
            run->chunk = lane->fill;
            run->count = some;
            store_release_u64(&lane->run_tail, lane->run_tail + 1);
        }
        lane->filled += some;
        records += some * lane->record_bytes;
        first += some;
        count -= some;
    }
}

typedef struct {
    uint64_t session, first, count;
    const char *records;
    wire_chunk *chunk;
    int ends_chunk; /* all of the chunk is taken with it: it goes back once nobody looks at it */
} wire_taken;

/* The next records of one run, at most `most`; 0 if there are none. */
static inline int wire_lane_take(wire_lane *lane, uint64_t most, wire_taken *out) {
    for (;;) {
        const uint64_t tail = load_acquire_u64(&lane->run_tail);
        if (lane->run_head == tail) return 0;
        const wire_run *run = &lane->runs[lane->run_head & (lane->run_slots - 1)];
        /* After the tail: a run that has a successor grows no more. */
        const uint64_t count = load_acquire_u64(&run->count);
        const uint64_t left = count - lane->taken_of_run;
        if (left == 0) {
            if (tail - lane->run_head == 1) return 0;
            lane->taken_of_run = 0;
            store_release_u64(&lane->run_head, lane->run_head + 1);
            continue;
        }
        const uint64_t at = run->offset + lane->taken_of_run;
        out->session = run->session;
        out->first = run->first + lane->taken_of_run;
        out->count = left < most ? left : most;
        out->records = run->chunk->bytes + at * lane->record_bytes;
        out->chunk = run->chunk;
        out->ends_chunk = at + out->count == lane->chunk_records;
        lane->taken_of_run += out->count;
        lane->taken += out->count;
        if (out->ends_chunk) {
            lane->taken_of_run = 0;
            store_release_u64(&lane->run_head, lane->run_head + 1);
        }
        return 1;
    }
}

static inline uint64_t wire_power_of_two(uint64_t at_least) {
    uint64_t power = 1;
    while (power < at_least) power *= 2;
    return power;
}

/* Returns null without memory. The ring has `chunks`; they are given afterwards. One block for all, so that a thousand
 * lanes lie on few pages. */
static inline wire_lane *wire_lane_new(uint64_t chunk_records, uint32_t record_bytes, uint64_t chunks) {
    const uint64_t most_of_a_packet = 65536 / (chunk_records * record_bytes) + 2;
    const uint64_t free_slots = wire_power_of_two(chunks), run_slots = wire_power_of_two(chunks + 16 + most_of_a_packet);
    const size_t size = sizeof(wire_lane) + free_slots * sizeof(wire_chunk *) + run_slots * sizeof(wire_run);
    void *memory;
    if (posix_memalign(&memory, 64, size) != 0) return NULL;
    wire_lane *lane = memset(memory, 0, size);
    lane->chunk_records = chunk_records;
    lane->record_bytes = record_bytes;
    lane->free_slots = free_slots;
    lane->run_slots = run_slots;
    lane->runs = (wire_run *)(lane + 1);
    lane->free_chunks = (wire_chunk **)(lane->runs + run_slots);
    return lane;
}

#endif
