/* One packet is one ZeroMQ frame: this header, then `count` records of `size` bytes each. Little-endian.
 *
 *   0         8         16        24        32       36       40     42      44     45       46      48
 *   +---------+---------+---------+---------+--------+--------+------+-------+------+---------+-------+- - -
 *   | channel | session | sequence| sent_ns | schema | crc32c | size | count | kind | version | flags | records
 *   |  u64    |  u64    |  u64    |  i64    |  u32   |  u32   | u16  |  u16  |  u8  |   u8    |  u16  |
 *   +---------+---------+---------+---------+--------+--------+------+-------+------+---------+-------+- - -
 *
 *   kind       sequence is            count
 *   DATA       the first record's     of records
 *   SNAPSHOT   as_of                  of records in this part
 *   HEARTBEAT  the next record's      0
 *   END        the next record's      0      no record will follow in this session
 *
 * crc32c covers the whole frame with its own field as zero; it is there if flags has PACKET_HAS_CRC, else it is 0 (so
 * that the loss of that one bit is noticed too). */
#ifndef FABRIC_PACKET_LAYOUT_H
#define FABRIC_PACKET_LAYOUT_H

#include <stdint.h>
#include <string.h>

#include "crc32c.h"

#define PACKET_HEADER_BYTES 48
#define PACKET_VERSION 1
#define PACKET_MAX_BYTES 65536
#define PACKET_HAS_CRC 1

enum { PACKET_DATA = 1, PACKET_SNAPSHOT = 2, PACKET_HEARTBEAT = 3, PACKET_END = 4 };

enum { PACKET_OK = 0, PACKET_SHORT = 1, PACKET_BAD_VERSION = 2, PACKET_BAD_KIND = 3, PACKET_BAD_LENGTH = 4, PACKET_BAD_CRC = 5 };

typedef struct {
    uint64_t channel, session, sequence;
    int64_t sent_ns;
    uint32_t schema, crc32c;
    uint16_t size, count;
    uint8_t kind, version;
    uint16_t flags;
} packet_header;

_Static_assert(sizeof(packet_header) == PACKET_HEADER_BYTES, "the header has no padding");

/* Write header and records to `frame` (48 + size * count bytes); fills version, and crc32c if flags asks for it. */
static inline void packet_write(void *frame, packet_header *header, const void *records) {
    size_t body = (size_t)header->size * header->count;
    header->version = PACKET_VERSION;
    header->crc32c = 0;
    memcpy(frame, header, PACKET_HEADER_BYTES);
    if (body && records) memcpy((char *)frame + PACKET_HEADER_BYTES, records, body);
    if (header->flags & PACKET_HAS_CRC) {
        header->crc32c = fabric_crc32c(0, frame, PACKET_HEADER_BYTES + body);
        memcpy((char *)frame + 36, &header->crc32c, 4);
    }
}

/* Read and check a frame that anybody may have sent. The header is filled as far as the frame reaches. */
static inline int packet_parse(packet_header *header, const void *frame, size_t frame_bytes) {
    if (frame_bytes < PACKET_HEADER_BYTES) return PACKET_SHORT;
    memcpy(header, frame, PACKET_HEADER_BYTES);
    if (header->version != PACKET_VERSION) return PACKET_BAD_VERSION;
    if (header->kind < PACKET_DATA || header->kind > PACKET_END) return PACKET_BAD_KIND;
    if (frame_bytes > PACKET_MAX_BYTES) return PACKET_BAD_LENGTH;
    if (frame_bytes != PACKET_HEADER_BYTES + (size_t)header->size * header->count) return PACKET_BAD_LENGTH;
    if (header->kind == PACKET_DATA && header->count == 0) return PACKET_BAD_LENGTH;
    if (header->kind >= PACKET_HEARTBEAT && header->count != 0) return PACKET_BAD_LENGTH;
    if (header->sequence > UINT64_MAX / 2) return PACKET_BAD_LENGTH; /* so that sequence + count never wraps */
    if (header->session == 0) return PACKET_BAD_LENGTH;
    if (header->sequence == 0 && header->kind != PACKET_SNAPSHOT) return PACKET_BAD_LENGTH; /* sequences are from 1 */
    if (header->flags & PACKET_HAS_CRC) {
        packet_header zeroed = *header;
        zeroed.crc32c = 0;
        uint32_t crc = fabric_crc32c(0, &zeroed, PACKET_HEADER_BYTES);
        crc = fabric_crc32c(crc, (const char *)frame + PACKET_HEADER_BYTES, frame_bytes - PACKET_HEADER_BYTES);
        if (crc != header->crc32c) return PACKET_BAD_CRC;
    } else if (header->crc32c != 0) {
        return PACKET_BAD_CRC;
    }
    return PACKET_OK;
}

#endif
