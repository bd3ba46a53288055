/* mask_body.h: mask bits, compiled once per instruction set.
 *
 * Comparing the uniform number U with the threshold T digit by digit, most significant first, an
 * element is decided at the first digit that differs: kept where T's digit is 1 and U's is 0,
 * dropped where it is the other way round. Half of the undecided elements are decided at each
 * digit, and nothing is left to decide once T's remaining digits are all zero (U >= T: dropped).
 *
 * A block of 128 elements needs 8.3 digits on average but whole vectors of blocks in lockstep more
 * than 11, and the end of each such loop is a mispredicted branch. So: every block gets the first 8
 * digits without a test in between; the blocks still undecided (4 in 10) are listed and get 4 more
 * together; and the few left (3 in 100) are finished one at a time, a digit in every lane.
 * That is 9.8 vector evaluations per vector of blocks.
 */
#include "masks/philox.h"

#define COMMON_DIGITS 8
#define LISTED_DIGITS 4
/* Blocks worked on together: 1 KB of decisions and 1 KB of undecided bits in the L1 cache. */
#define GROUP_BLOCKS 64

typedef struct {
    fd_words kept_a, kept_b, open_a, open_b; /* words 0 1 and words 2 3 of each block */
} mask_state;

static inline void mask_compare(mask_state *s, fd_words a, fd_words b, int threshold_digit)
{
    if (threshold_digit) {
        s->kept_a = words_or(s->kept_a, words_andnot(s->open_a, a));
        s->kept_b = words_or(s->kept_b, words_andnot(s->open_b, b));
        s->open_a = words_and(s->open_a, a);
        s->open_b = words_and(s->open_b, b);
    } else {
        s->open_a = words_andnot(s->open_a, a);
        s->open_b = words_andnot(s->open_b, b);
    }
}

/* Compares digits [first, last) of a vector of blocks, as if nothing had been decided before. */
static inline mask_state mask_digits(const philox_draw *p, fd_words blocks, uint64_t threshold,
                                     int first, int last)
{
    const philox_group g = philox_start_group(p, blocks);
    const fd_words none = words_set(0), all = words_set(~(uint64_t)0);
    mask_state s = {none, none, all, all};
    for (int digit = first; digit < last; digit++) {
        fd_words a, b;
        philox_digit(p, &g, words_set((uint64_t)digit), &a, &b);
        mask_compare(&s, a, b, (int)(threshold >> (63 - digit) & 1));
    }
    return s;
}

/* Whether block number i of a buffer of 16-byte blocks has a bit set. */
static inline int block_any(const uint8_t *buffer, int64_t i)
{
    uint64_t word[2];
    memcpy(word, buffer + i * FD_BLOCK_BYTES, FD_BLOCK_BYTES);
    return (word[0] | word[1]) != 0;
}

/* kept |= open & decided_keep; open &= still_open: later digits, met by earlier decisions. */
static inline void block_merge(uint8_t *kept, uint8_t *open, const uint8_t *later_kept,
                               const uint8_t *later_open)
{
    uint64_t k[2], o[2], lk[2], lo[2];
    memcpy(k, kept, 16);
    memcpy(o, open, 16);
    memcpy(lk, later_kept, 16);
    memcpy(lo, later_open, 16);
    for (int i = 0; i < 2; i++) {
        k[i] |= o[i] & lk[i];
        o[i] &= lo[i];
    }
    memcpy(kept, k, 16);
    memcpy(open, o, 16);
}

/* Finishes one block: FD_WORD_LANES digits at a time from `digit` on. */
static void finish_block(const philox_draw *p, uint64_t block, uint64_t threshold, int digit,
                         int last, uint8_t *kept, uint8_t *open)
{
    const philox_group g = philox_start_group(p, words_set(block));
    for (; digit < last && block_any(open, 0); digit += FD_WORD_LANES) {
        uint8_t words[FD_WORD_LANES * FD_BLOCK_BYTES];
        fd_words a, b;
        philox_digit(p, &g, words_add(words_set((uint64_t)digit), words_lane_numbers()), &a, &b);
        words_store(words, a, b);
        for (int lane = 0; lane < FD_WORD_LANES && digit + lane < last; lane++) {
            const int threshold_digit = (int)(threshold >> (63 - digit - lane) & 1);
            for (int half = 0; half < 2; half++) {
                uint64_t d, k, o;
                memcpy(&d, words + lane * FD_BLOCK_BYTES + half * 8, 8);
                memcpy(&k, kept + half * 8, 8);
                memcpy(&o, open + half * 8, 8);
                k |= threshold_digit ? o & ~d : 0;
                o &= threshold_digit ? d : ~d;
                memcpy(kept + half * 8, &k, 8);
                memcpy(open + half * 8, &o, 8);
            }
        }
    }
}

/* The listed blocks get LISTED_DIGITS more digits; what is then still open is listed again.
 * Returns the length of the new list, which replaces the old one. */
static int64_t listed_digits(const philox_draw *p, uint64_t first, uint64_t threshold, int digit,
                             int last, int64_t listed, uint16_t *list, uint8_t *kept, uint8_t *open)
{
    uint8_t later_kept[FD_WORD_LANES * FD_BLOCK_BYTES], later_open[FD_WORD_LANES * FD_BLOCK_BYTES];
    int64_t left = 0;
    for (int64_t i = 0; i < listed; i += FD_WORD_LANES) {
        uint64_t numbers[FD_WORD_LANES], order[FD_WORD_LANES];
        const fd_words lane_numbers = words_lane_numbers();
        memcpy(order, &lane_numbers, sizeof order);
        for (int lane = 0; lane < FD_WORD_LANES; lane++) {
            const int64_t at = i + (int64_t)order[lane];
            numbers[lane] = first + list[at < listed ? at : listed - 1];
        }
        fd_words blocks;
        memcpy(&blocks, numbers, sizeof blocks);
        const mask_state s = mask_digits(p, blocks, threshold, digit, last);
        words_store(later_kept, s.kept_a, s.kept_b);
        words_store(later_open, s.open_a, s.open_b);
        const int64_t count = listed - i < FD_WORD_LANES ? listed - i : FD_WORD_LANES;
        for (int64_t lane = 0; lane < count; lane++) {
            const uint16_t block = list[i + lane];
            block_merge(kept + block * FD_BLOCK_BYTES, open + block * FD_BLOCK_BYTES,
                        later_kept + lane * FD_BLOCK_BYTES, later_open + lane * FD_BLOCK_BYTES);
            list[left] = block; /* left <= i + lane: never ahead of what is read */
            left += block_any(open, block);
        }
    }
    return left;
}

/* Up to GROUP_BLOCKS blocks, whole vectors of them: `kept` and `open` have room for that. */
static void bernoulli_group(const philox_draw *p, uint64_t first, int64_t blocks,
                            uint64_t threshold, int digits, uint8_t *kept, uint8_t *open)
{
    const int common = digits < COMMON_DIGITS ? digits : COMMON_DIGITS;
    for (int64_t i = 0; i < blocks; i += FD_WORD_LANES) {
        const fd_words numbers = words_add(words_set(first + (uint64_t)i), words_lane_numbers());
        const mask_state s = mask_digits(p, numbers, threshold, 0, common);
        words_store(kept + i * FD_BLOCK_BYTES, s.kept_a, s.kept_b);
        words_store(open + i * FD_BLOCK_BYTES, s.open_a, s.open_b);
    }
    if (digits <= COMMON_DIGITS) {
        return;
    }
    uint16_t list[GROUP_BLOCKS];
    int64_t listed = 0;
    for (int64_t i = 0; i < blocks; i++) {
        list[listed] = (uint16_t)i;
        listed += block_any(open, i);
    }
    const int next = common + LISTED_DIGITS < digits ? common + LISTED_DIGITS : digits;
    listed = listed_digits(p, first, threshold, common, next, listed, list, kept, open);
    for (int64_t i = 0; i < listed; i++) {
        const int64_t block = list[i];
        finish_block(p, first + (uint64_t)block, threshold, next, digits,
                     kept + block * FD_BLOCK_BYTES, open + block * FD_BLOCK_BYTES);
    }
}

/* The usual rate 0.5, and exact counts: one digit, kept where it is 0 (flip) or as it is. */
static void one_digit(const philox_draw *p, uint64_t first, int64_t blocks, int digit, int flip,
                      uint8_t *bits)
{
    const fd_words mask = words_set(flip ? ~(uint64_t)0 : 0);
    const fd_words digits = words_set((uint64_t)digit);
    fd_words numbers = words_add(words_set(first), words_lane_numbers());
    const fd_words step = words_set(FD_WORD_LANES);
    int64_t i = 0;
    for (; i < blocks; i += FD_WORD_LANES) {
        fd_words a, b;
        const philox_group g = philox_start_group(p, numbers);
        philox_digit(p, &g, digits, &a, &b);
        a = words_xor(a, mask);
        b = words_xor(b, mask);
        if (blocks - i >= FD_WORD_LANES) {
            words_store(bits + i * FD_BLOCK_BYTES, a, b);
        } else {
            uint8_t rest[FD_WORD_LANES * FD_BLOCK_BYTES];
            words_store(rest, a, b);
            memcpy(bits + i * FD_BLOCK_BYTES, rest, (size_t)(blocks - i) * FD_BLOCK_BYTES);
        }
        numbers = words_add(numbers, step);
    }
}

/* Blocks from `first` on whose numbers share the upper 32 bits. */
static inline int64_t blocks_to_carry(uint64_t first, int64_t blocks)
{
    const uint64_t room = ((uint64_t)1 << 32) - (uint32_t)first;
    return (uint64_t)blocks < room ? blocks : (int64_t)room;
}

static void digit_blocks(const fd_stream *stream, uint64_t first, int64_t blocks, int digit,
                         uint8_t *bits)
{
    while (blocks > 0) {
        const int64_t now = blocks_to_carry(first, blocks);
        philox_draw p;
        philox_start_draw(&p, stream, (uint32_t)(first >> 32));
        one_digit(&p, first, now, digit, 0, bits);
        first += (uint64_t)now;
        blocks -= now;
        bits += now * FD_BLOCK_BYTES;
    }
}

/* Blocks whose numbers share the upper 32 bits, by a draw started for them. */
static void bernoulli_prepared(const philox_draw *p, uint64_t first, int64_t blocks,
                               uint64_t threshold, uint8_t *bits)
{
    const int digits = 64 - __builtin_ctzll(threshold);
    if (digits == 1) {
        one_digit(p, first, blocks, 0, 1, bits);
        return;
    }
    uint8_t open[(GROUP_BLOCKS + FD_WORD_LANES) * FD_BLOCK_BYTES];
    uint8_t rest[(GROUP_BLOCKS + FD_WORD_LANES) * FD_BLOCK_BYTES];
    for (; blocks > 0; blocks -= GROUP_BLOCKS, first += GROUP_BLOCKS) {
        const int64_t take = blocks < GROUP_BLOCKS ? blocks : GROUP_BLOCKS;
        /* whole vectors are written, so a part of one goes by way of a buffer */
        uint8_t *kept = take % FD_WORD_LANES ? rest : bits;
        bernoulli_group(p, first, take, threshold, digits, kept, open);
        if (kept == rest) {
            memcpy(bits, rest, (size_t)take * FD_BLOCK_BYTES);
        }
        bits += take * FD_BLOCK_BYTES;
    }
}

static void bernoulli_blocks(const fd_stream *stream, uint64_t first, int64_t blocks,
                             uint64_t threshold, uint8_t *bits)
{
    while (blocks > 0) {
        const int64_t now = blocks_to_carry(first, blocks);
        philox_draw p;
        philox_start_draw(&p, stream, (uint32_t)(first >> 32));
        bernoulli_prepared(&p, first, now, threshold, bits);
        first += (uint64_t)now;
        blocks -= now;
        bits += now * FD_BLOCK_BYTES;
    }
}
