/* Memory for small packets on their way out, so that none is allocated by the sender and freed by libzmq's thread: the
 * allocator's lock between the two costs more than the packet.
 *
 *     [state|packet    ][state|packet    ][state|packet    ] ...      taken in turn by one sender; given back by libzmq
 *
 * A slot that a slow reader's pipe still holds when its turn comes is passed over, and that packet is allocated. Slots
 * outlive the outlet, as libzmq may hold them until its context ends: they are kept for the next outlet, never freed. */
#ifndef FABRIC_FRAME_SLOTS_H
#define FABRIC_FRAME_SLOTS_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "platform.h"

enum { FRAME_SLOT_BYTES = 256, FRAME_SLOTS = 2048, FRAME_SLOT_PACKET_BYTES = FRAME_SLOT_BYTES - 8 };

typedef struct {
    uint64_t taken; /* atomic: 1 from the sender, 0 from libzmq */
    char packet[FRAME_SLOT_PACKET_BYTES];
} frame_slot;

typedef struct frame_slots {
    frame_slot *of;
    uint64_t turn;
    struct frame_slots *next_unused;
} frame_slots;

static frame_slots *frame_unused_slots;
static pthread_mutex_t frame_unused_lock = PTHREAD_MUTEX_INITIALIZER;

/* Null without memory: then every packet is allocated. */
static inline frame_slots *frame_slots_open(void) {
    pthread_mutex_lock(&frame_unused_lock);
    frame_slots *slots = frame_unused_slots;
    if (slots) frame_unused_slots = slots->next_unused;
    pthread_mutex_unlock(&frame_unused_lock);
    if (slots) return slots;
    void *memory = NULL;
    slots = calloc(1, sizeof *slots);
    if (slots && posix_memalign(&memory, 64, FRAME_SLOTS * sizeof(frame_slot)) == 0) {
        slots->of = memory;
        for (int i = 0; i < FRAME_SLOTS; i++) slots->of[i].taken = 0;
        return slots;
    }
    free(slots);
    return NULL;
}

static inline void frame_slots_close(frame_slots *slots) {
    if (!slots) return;
    pthread_mutex_lock(&frame_unused_lock);
    slots->next_unused = frame_unused_slots;
    frame_unused_slots = slots;
    pthread_mutex_unlock(&frame_unused_lock);
}

/* The slot whose turn it is, or null if it is still out. */
static inline frame_slot *frame_slots_take(frame_slots *slots) {
    frame_slot *slot = &slots->of[slots->turn++ & (FRAME_SLOTS - 1)];
    if (load_acquire_u64(&slot->taken)) return NULL;
    slot->taken = 1;
    return slot;
}

/* libzmq's, by whichever thread has sent or dropped the packet. */
static void frame_slot_give_back(void *packet, void *slot) {
    (void)packet;
    store_release_u64(&((frame_slot *)slot)->taken, 0);
}

#endif
