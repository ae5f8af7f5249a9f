#include "crc32c.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#if defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif
#endif

#define POLYNOMIAL 0x82F63B78u

static uint32_t table[8][256];

/* Filled when the module is loaded, before any thread can call. */
__attribute__((constructor)) static void fill_table(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (POLYNOMIAL & (0u - (crc & 1)));
        table[0][n] = crc;
    }
    for (uint32_t n = 0; n < 256; n++)
        for (int slice = 1; slice < 8; slice++)
            table[slice][n] = (table[slice - 1][n] >> 8) ^ table[0][table[slice - 1][n] & 0xFF];
}

uint32_t fabric_crc32c_portable(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    crc = ~crc;
    while (length >= 8) { /* slicing-by-8 */
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= crc;
        crc = table[7][word & 0xFF] ^ table[6][(word >> 8) & 0xFF] ^ table[5][(word >> 16) & 0xFF] ^
              table[4][(word >> 24) & 0xFF] ^ table[3][(word >> 32) & 0xFF] ^ table[2][(word >> 40) & 0xFF] ^
              table[1][(word >> 48) & 0xFF] ^ table[0][word >> 56];
        at += 8;
        length -= 8;
    }
    while (length--) crc = (crc >> 8) ^ table[0][(crc ^ *at++) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    uint64_t state = (uint32_t)~crc;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        state = _mm_crc32_u64(state, word);
        at += 8;
        length -= 8;
    }
    while (length--) state = _mm_crc32_u8((uint32_t)state, *at++);
    return ~(uint32_t)state;
}
static int has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#define TARGET_NAME "sse4.2"
#define TARGET_CRC crc32c_sse42
#elif defined(__aarch64__) && defined(__linux__)
__attribute__((target("+crc"))) static uint32_t crc32c_armv8(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    crc = ~crc;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        crc = __crc32cd(crc, word);
        at += 8;
        length -= 8;
    }
    while (length--) crc = __crc32cb(crc, *at++);
    return ~crc;
}
static int has_instruction(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#define TARGET_NAME "armv8-crc"
#define TARGET_CRC crc32c_armv8
#else
static int has_instruction(void) { return 0; }
#define TARGET_NAME "portable"
#define TARGET_CRC fabric_crc32c_portable
#endif

uint32_t fabric_crc32c(uint32_t crc, const void *bytes, size_t length) {
    static int chosen = -1; /* benign race: every thread writes the same value */
    if (chosen < 0) chosen = has_instruction();
    return chosen ? TARGET_CRC(crc, bytes, length) : fabric_crc32c_portable(crc, bytes, length);
}

const char *fabric_crc32c_target(void) { return has_instruction() ? TARGET_NAME : "portable"; }
