/* What each line of one channel brought. Like the tracker, the pusher's while its lane is plain, else the control side's;
 * read by others while it changes, word by word.
 *
 *     received = first + duplicates + late        of each line, in records, at any time */
#ifndef FABRIC_LINE_ACCOUNTS_H
#define FABRIC_LINE_ACCOUNTS_H

#include <stdint.h>
#include <string.h>

enum { LINES_MOST = 4, LINES_TOLD = 32 };

typedef struct {
    uint64_t received, first, duplicates;
    uint64_t late;    /* of a gap that was told before */
    uint64_t last;    /* the highest sequence of the session that it has passed */
    int64_t heard_ns; /* 0: never */
    const void *socket; /* where it comes from */
} line_account;

typedef struct {
    uint64_t first, last;
} line_range;

typedef struct {
    uint64_t count;
    uint64_t dropped;   /* records that the hot path knew already */
    uint64_t told_last; /* above it no gap was told */
    uint64_t told_next;
    line_range told[LINES_TOLD]; /* a ring of gaps, of the session */
    line_account of[LINES_MOST];
} line_accounts;

/* Which line this socket is, or -1. */
static inline int line_of_socket(const line_accounts *lines, const void *socket) {
    for (uint64_t i = 0; i < lines->count; i++)
        if (lines->of[i].socket == socket) return (int)i;
    return -1;
}

static inline void line_heard(line_account *line, uint64_t last, int64_t now_ns) {
    if (last > line->last) line->last = last;
    line->heard_ns = now_ns;
}

/* How many of these are of gaps that were told. */
static inline uint64_t line_told(const line_accounts *lines, uint64_t first, uint64_t last) {
    uint64_t told = 0;
    if (first > lines->told_last) return 0;
    for (int i = 0; i < LINES_TOLD; i++) {
        const line_range *gap = &lines->told[i];
        const uint64_t begin = first > gap->first ? first : gap->first, end = last < gap->last ? last : gap->last;
        if (gap->first && begin <= end) told += end - begin + 1;
    }
    return told;
}

/* `count` records from `first`, of which `taken` were new. */
static inline void line_brought(line_accounts *lines, int number, uint64_t first, uint64_t count, uint64_t taken,
                                int64_t now_ns) {
    line_account *line = &lines->of[number];
    const uint64_t again = count - taken;
    uint64_t late = again ? line_told(lines, first, first + count - 1) : 0;
    if (late > again) late = again;
    line->received += count;
    line->first += taken;
    line->late += late;
    line->duplicates += again - late;
    line_heard(line, first + count - 1, now_ns);
}

static inline void line_tell(line_accounts *lines, uint64_t first, uint64_t last) {
    lines->told[lines->told_next++ % LINES_TOLD] = (line_range){first, last};
    if (last > lines->told_last) lines->told_last = last;
}

/* Another session: its sequences begin anew. */
static inline void line_restart(line_accounts *lines) {
    memset(lines->told, 0, sizeof lines->told);
    lines->told_last = 0;
    for (int i = 0; i < LINES_MOST; i++) lines->of[i].last = 0;
}

#endif
