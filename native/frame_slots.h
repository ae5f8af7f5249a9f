/* Memory for small packets on their way out, so that none is allocated by the sender and freed by libzmq's thread: the
 * allocator's lock between the two costs more than the packet.
 *
 *     free ──▶ sender takes one, writes the packet ──▶ libzmq ──▶ returned         (both are lists)
 *       ▲                                                            │
 *       └───────── all of it at once, when free is empty ◀───────────┘
 *
 * One sender; whoever sent or dropped a packet returns its slot. What a slow reader's pipe holds is simply not there, and
 * while it holds a lot another block is added, up to more than a pipe can hold; beyond that packets are allocated. Slots
 * outlive the outlet, as libzmq may hold them until its context ends: they are kept for the next outlet, never freed. */
#ifndef FABRIC_FRAME_SLOTS_H
#define FABRIC_FRAME_SLOTS_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { FRAME_SLOT_BYTES = 256, FRAME_BLOCK_SLOTS = 2048, FRAME_BLOCKS = 8 };

typedef struct frame_slot {
    struct frame_slot *next;
    struct frame_slots *of;
    char packet[FRAME_SLOT_BYTES - 16];
} frame_slot;

typedef struct frame_slots {
    frame_slot *free; /* the sender's */
    int blocks;
    struct frame_slots *next_unused;
    char pad[64];
    frame_slot *returned; /* atomic */
} frame_slots;

static frame_slots *frame_unused_slots;
static pthread_mutex_t frame_unused_lock = PTHREAD_MUTEX_INITIALIZER;

/* Null without memory: then every packet is allocated. */
static inline frame_slots *frame_slots_open(void) {
    pthread_mutex_lock(&frame_unused_lock);
    frame_slots *slots = frame_unused_slots;
    if (slots) frame_unused_slots = slots->next_unused;
    pthread_mutex_unlock(&frame_unused_lock);
    return slots ? slots : calloc(1, sizeof *slots);
}

static inline void frame_slots_close(frame_slots *slots) {
    if (!slots) return;
    pthread_mutex_lock(&frame_unused_lock);
    slots->next_unused = frame_unused_slots;
    frame_unused_slots = slots;
    pthread_mutex_unlock(&frame_unused_lock);
}

static inline frame_slot *frame_block_add(frame_slots *slots) {
    void *memory = NULL;
    if (slots->blocks == FRAME_BLOCKS || posix_memalign(&memory, 64, FRAME_BLOCK_SLOTS * sizeof(frame_slot)) != 0) return NULL;
    frame_slot *block = memory;
    slots->blocks++;
    for (int i = 0; i < FRAME_BLOCK_SLOTS; i++) {
        block[i].next = i + 1 < FRAME_BLOCK_SLOTS ? &block[i + 1] : NULL;
        block[i].of = slots;
    }
    return block;
}

/* Null if all are out. */
static inline frame_slot *frame_slots_take(frame_slots *slots) {
    if (!slots->free) slots->free = __atomic_exchange_n(&slots->returned, NULL, __ATOMIC_ACQUIRE);
    if (!slots->free) slots->free = frame_block_add(slots);
    frame_slot *slot = slots->free;
    if (slot) slots->free = slot->next;
    return slot;
}

/* libzmq's, by whichever thread is done with the packet. A taker takes the whole list, so that nothing comes back to its
 * head unseen. */
static void frame_slot_give_back(void *packet, void *hint) {
    (void)packet;
    frame_slot *slot = hint;
    frame_slot *head = __atomic_load_n(&slot->of->returned, __ATOMIC_RELAXED);
    do {
        slot->next = head;
    } while (!__atomic_compare_exchange_n(&slot->of->returned, &head, slot, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

#endif
