"""The packet's layout, for other Cython code: read and written by memcpy, since received bytes are often unaligned."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "packet_layout.h" nogil:
    ctypedef struct packet_header:
        uint64_t channel
        uint64_t session
        uint64_t sequence
        int64_t sent_ns
        uint32_t schema
        uint32_t crc32c
        uint16_t size
        uint16_t count
        uint8_t kind
        uint8_t version
        uint16_t flags

    void packet_write(void *frame, packet_header *header, const void *records) noexcept
    int packet_parse(packet_header *header, const void *frame, size_t frame_bytes) noexcept

cdef class Header:
    cdef packet_header fields
