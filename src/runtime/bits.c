/* bits.c: runs of packed bits. */
#include "runtime/bits.h"

void fd_copy_bits(const uint8_t *from, int64_t from_bit, uint8_t *to, int64_t to_bit, int64_t count)
{
    if (count <= 0) {
        return;
    }
    to += to_bit >> 3;
    const int head = (int)(to_bit & 7);
    if (head) {
        const int take = count < 8 - head ? (int)count : 8 - head;
        const unsigned value = (unsigned)fd_load_bits(from, from_bit) & ((1u << take) - 1);
        *to = (uint8_t)((*to & ((1u << head) - 1)) | value << head);
        to++;
        from_bit += take;
        count -= take;
    }
    for (; count >= 64; count -= 64, from_bit += 64, to += 8) {
        const uint64_t word = fd_load_bits(from, from_bit);
        memcpy(to, &word, 8);
    }
    if (count > 0) {
        const uint64_t word = fd_load_bits(from, from_bit) & (((uint64_t)1 << count) - 1);
        memcpy(to, &word, (size_t)((count + 7) >> 3));
    }
}

void fd_fill_bits(uint8_t *bits, int64_t bit, int64_t count)
{
    for (; count > 0 && bit & 7; bit++, count--) {
        bits[bit >> 3] |= (uint8_t)(1u << (bit & 7));
    }
    memset(bits + (bit >> 3), 0xff, (size_t)(count >> 3));
    bit += count & ~(int64_t)7;
    for (count &= 7; count > 0; bit++, count--) {
        bits[bit >> 3] |= (uint8_t)(1u << (bit & 7));
    }
}
