/* exact_body.h: exact-count rows, compiled once per instruction set.
 *
 * A radix selection, most significant digit first. Of the undecided elements those with digit 0
 * are smaller: either they all are among the kept ones (and the others stay undecided), or the kept
 * ones are all among them (and the others are dropped). Bits live in scratch rows aligned to blocks.
 */
#include "runtime/bits.h"
#include "kernels.h"

static inline uint64_t load_word(const uint8_t *row, int64_t i)
{
    uint64_t word;
    memcpy(&word, row + 8 * i, 8);
    return word;
}

static inline void store_word(uint8_t *row, int64_t i, uint64_t word)
{
    memcpy(row + 8 * i, &word, 8);
}

/* Draws `digit` for every block that has an undecided element, and counts the undecided zeros. */
static int64_t draw_undecided(const fd_stream *stream, uint64_t first_block, int64_t blocks,
                              int digit, const uint8_t *open, uint8_t *drawn)
{
    int64_t zeros = 0;
    for (int64_t start = 0; start < blocks; start++) {
        if (!block_any(open, start)) {
            continue;
        }
        int64_t stop = start + 1;
        while (stop < blocks && block_any(open, stop)) {
            stop++;
        }
        digit_blocks(stream, first_block + (uint64_t)start, stop - start, digit,
                     drawn + start * FD_BLOCK_BYTES);
        for (int64_t i = 2 * start; i < 2 * stop; i++) {
            zeros += __builtin_popcountll(load_word(open, i) & ~load_word(drawn, i));
        }
        start = stop;
    }
    return zeros;
}

/* All 64 digits are equal: the smaller index wins. */
static void keep_first(uint8_t *kept, const uint8_t *open, int64_t words, int64_t wanted)
{
    for (int64_t i = 0; i < words && wanted > 0; i++) {
        for (uint64_t rest = load_word(open, i); rest && wanted > 0; rest &= rest - 1, wanted--) {
            store_word(kept, i, load_word(kept, i) | (rest & (~rest + 1)));
        }
    }
}

static void exact_count_row(const fd_stream *stream, uint64_t first, int64_t n, int64_t keep,
                            uint8_t *scratch)
{
    const int64_t offset = (int64_t)(first % FD_BLOCK);
    const int64_t blocks = (offset + n + FD_BLOCK - 1) / FD_BLOCK;
    const int64_t words = 2 * blocks;
    uint8_t *kept = scratch;
    uint8_t *open = kept + fd_exact_row_bytes(n);
    uint8_t *drawn = open + fd_exact_row_bytes(n);
    memset(kept, 0, (size_t)blocks * FD_BLOCK_BYTES);
    memset(open, 0, (size_t)blocks * FD_BLOCK_BYTES);
    fd_fill_bits(open, offset, n);
    int64_t undecided = n, wanted = keep;
    for (int digit = 0; digit < 64 && wanted > 0 && undecided > wanted; digit++) {
        const int64_t zeros = draw_undecided(stream, first / FD_BLOCK, blocks, digit, open, drawn);
        if (zeros <= wanted) {
            for (int64_t i = 0; i < words; i++) {
                const uint64_t o = load_word(open, i), d = load_word(drawn, i);
                store_word(kept, i, load_word(kept, i) | (o & ~d));
                store_word(open, i, o & d);
            }
            wanted -= zeros;
            undecided -= zeros;
        } else {
            for (int64_t i = 0; i < words; i++) {
                store_word(open, i, load_word(open, i) & ~load_word(drawn, i));
            }
            undecided = zeros;
        }
    }
    keep_first(kept, open, words, wanted);
}
