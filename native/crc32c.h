/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), as iSCSI and ext4 use it. */
#ifndef FABRIC_CRC32C_H
#define FABRIC_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continue `crc` (0 at the start) over `length` bytes; any alignment. Picks the processor's instruction if it has one. */
uint32_t fabric_crc32c(uint32_t crc, const void *bytes, size_t length);

/* The table form, for tests that compare the two. */
uint32_t fabric_crc32c_portable(uint32_t crc, const void *bytes, size_t length);

/* "sse4.2", "armv8-crc" or "portable": what fabric_crc32c runs on this machine. */
const char *fabric_crc32c_target(void);

#endif
