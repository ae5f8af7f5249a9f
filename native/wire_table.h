/* From a channel's id to its first lane: open addressing, at most half full, so that 1,000 channels cost what one does. */
#ifndef FABRIC_WIRE_TABLE_H
#define FABRIC_WIRE_TABLE_H

#include "wire_lane.h"

typedef struct {
    uint64_t channel;
    wire_lane *first; /* null: the slot is empty; lanes of the same channel follow through next_same */
} wire_slot;

typedef struct {
    wire_slot *slots;
    unsigned bits;
    uint64_t used;
} wire_table;

static inline wire_slot *wire_table_slot(const wire_table *table, uint64_t channel) {
    const uint64_t mask = ((uint64_t)1 << table->bits) - 1;
    uint64_t at = (channel * 0x9E3779B97F4A7C15u) >> (64 - table->bits);
    while (table->slots[at].first && table->slots[at].channel != channel) at = (at + 1) & mask;
    return &table->slots[at];
}

static inline wire_lane *wire_table_find(const wire_table *table, uint64_t channel) {
    return table->used ? wire_table_slot(table, channel)->first : NULL;
}

/* Move what there is into 2^bits fresh slots; without memory nothing changes and it returns 0. */
static inline int wire_table_rebuild(wire_table *table, unsigned bits) {
    wire_table fresh = {calloc((size_t)1 << bits, sizeof(wire_slot)), bits, table->used};
    if (!fresh.slots) return 0;
    for (uint64_t i = 0; table->slots && i >> table->bits == 0; i++)
        if (table->slots[i].first) *wire_table_slot(&fresh, table->slots[i].channel) = table->slots[i];
    free(table->slots);
    *table = fresh;
    return 1;
}

/* Lanes of one channel are kept in the order they were added. Returns 0 without memory. */
static inline int wire_table_add(wire_table *table, wire_lane *lane) {
    if (!table->slots && !wire_table_rebuild(table, 4)) return 0;
    if (2 * (table->used + 1) > (uint64_t)1 << table->bits && !wire_table_rebuild(table, table->bits + 1)) return 0;
    wire_slot *slot = wire_table_slot(table, lane->channel);
    lane->next_same = NULL;
    if (slot->first) {
        wire_lane *last = slot->first;
        while (last->next_same) last = last->next_same;
        last->next_same = lane;
        return 1;
    }
    slot->channel = lane->channel;
    slot->first = lane;
    table->used++;
    return 1;
}

static inline void wire_table_remove(wire_table *table, wire_lane *lane) {
    const uint64_t mask = ((uint64_t)1 << table->bits) - 1;
    wire_slot *slot = wire_table_slot(table, lane->channel);
    wire_lane **link = &slot->first;
    while (*link && *link != lane) link = &(*link)->next_same;
    if (!*link) return;
    *link = lane->next_same;
    if (slot->first) return;
    table->used--;
    /* Whoever lies behind the hole without an empty slot between may have been pushed past it: put them in again. */
    for (uint64_t at = ((uint64_t)(slot - table->slots) + 1) & mask; table->slots[at].first; at = (at + 1) & mask) {
        const wire_slot moved = table->slots[at];
        table->slots[at].first = NULL;
        *wire_table_slot(table, moved.channel) = moved;
    }
}

#endif
