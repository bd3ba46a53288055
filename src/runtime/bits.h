/* bits.h: reading and writing runs of packed bits at any bit position. */
#ifndef FASTDROP_BITS_H
#define FASTDROP_BITS_H

#include <stdint.h>
#include <string.h>

/* Inlined whatever its size, as what has arguments that are constants of each caller has to be. */
#define FD_ALWAYS_INLINE __attribute__((always_inline))

/* 64 bits from bit `bit` on. Reads up to 9 bytes from byte bit / 8. */
static inline FD_ALWAYS_INLINE uint64_t fd_load_bits(const uint8_t *bits, int64_t bit)
{
    uint64_t word;
    const unsigned shift = (unsigned)(bit & 7);
    memcpy(&word, bits + (bit >> 3), 8);
    if (shift) {
        word = word >> shift | (uint64_t)bits[(bit >> 3) + 8] << (64 - shift);
    }
    return word;
}

/* The first `count` <= 8 bytes, the lowest first: from both ends, whose loads may overlap. */
static inline uint64_t fd_load_bytes(const uint8_t *bytes, int64_t count)
{
    if (count >= 4) {
        uint32_t first, last;
        memcpy(&first, bytes, 4);
        memcpy(&last, bytes + count - 4, 4);
        return first | (uint64_t)last << (8 * (count - 4));
    }
    if (count <= 0) {
        return 0;
    }
    const uint64_t middle = (uint64_t)bytes[count >> 1] << (8 * (count >> 1));
    return bytes[0] | middle | (uint64_t)bytes[count - 1] << (8 * (count - 1));
}

/* The `count` <= 64 bits from bit `bit` on; reads no byte that holds none of them. The bits above
 * are zero. */
static inline uint64_t fd_load_bits_part(const uint8_t *bits, int64_t bit, int64_t count)
{
    if (count >= 64) {
        return fd_load_bits(bits, bit);
    }
    const unsigned shift = (unsigned)(bit & 7);
    const int64_t bytes = (shift + count + 7) >> 3; /* up to 9 */
    bits += bit >> 3;
    uint64_t word = fd_load_bytes(bits, bytes < 8 ? bytes : 8) >> shift;
    if (bytes == 9) {
        word |= (uint64_t)bits[8] << (64 - shift);
    }
    return word & (((uint64_t)1 << count) - 1);
}

static inline int fd_test_bit(const uint8_t *bits, int64_t bit)
{
    return bits[bit >> 3] >> (bit & 7) & 1;
}

/* Copies `count` bits. The destination bits, and all after them in their last byte, are
 * overwritten (the rest of that byte with zeros); destination bits before `to_bit` in its first
 * byte are kept. `from` must be readable 9 bytes past its last used byte. */
void fd_copy_bits(const uint8_t *from, int64_t from_bit, uint8_t *to, int64_t to_bit,
                  int64_t count);

/* Sets `count` bits from `bit` on to one; bytes outside the run keep their other bits. */
void fd_fill_bits(uint8_t *bits, int64_t bit, int64_t count);

#endif
