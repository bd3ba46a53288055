/* skip_lists_body.h: lists of stored elements, for one element type R (f32, f64); see skip_body.h.
 *
 * Every row of a block has words, a bit for each element that is stored. The rows are counted by
 * the length of their lists first. Then every list has its place, and is written to it while the
 * rows are read in their own order. Lists are written in whole vectors: between those of one length
 * and those of the next there is room for the vector that reaches beyond the last.
 */
#include "join.h"

/* to[k * to_stride + j] = from[j * stride + k] for j < rows, k < columns. */
static void R_(transpose_block)(const R_(element) *from, int64_t stride, int64_t rows,
                                int64_t columns, R_(element) *to, int64_t to_stride)
{
    int64_t j = 0;
    for (; j + R_(lanes) <= rows; j += R_(lanes)) {
        int64_t k = 0;
        for (; k + R_(transpose_depth) <= columns; k += R_(transpose_depth)) {
            R_(transpose)(from + j * stride + k, stride, to + k * to_stride + j, to_stride);
        }
        for (; k < columns; k++) {
            for (int64_t lane = j; lane < j + R_(lanes); lane++) {
                to[k * to_stride + lane] = from[lane * stride + k];
            }
        }
    }
    for (; j < rows; j++) {
        for (int64_t k = 0; k < columns; k++) {
            to[k * to_stride + j] = from[j * stride + k];
        }
    }
}

static void R_(turn)(const void *from, int64_t stride, int64_t rows, int64_t columns, void *to,
                     int64_t to_stride)
{
    R_(transpose_block)(from, stride, rows, columns, to, to_stride);
}

/* Which of `depth` <= 64 elements are stored. */
static inline uint64_t R_(stored_word)(const R_(element) *x, int64_t depth, int skip_zeros)
{
    uint64_t word = depth < 64 ? ((uint64_t)1 << depth) - 1 : ~(uint64_t)0;
    if (!skip_zeros) {
        return word;
    }
    uint64_t nonzero = 0;
    int64_t k = 0;
    for (; k + R_(lanes) <= depth; k += R_(lanes)) {
        nonzero |= R_(nonzero)(R_(load)(x + k)) << k;
    }
    for (; k < depth; k++) {
        nonzero |= (uint64_t)(x[k] != 0) << k;
    }
    return nonzero;
}

/* A word each of `rows` <= 64 rows of x = transpose of a, from `depth` <= 64 rows of a: bit k of row i's
 * says whether a[k][i] is stored. */
static void R_(stored_words_transposed)(const skip_operand *x, int64_t row, int64_t rows,
                                        int64_t first, int64_t depth, uint64_t *words)
{
    uint64_t square[64] = {0};
    for (int64_t k = 0; k < depth; k++) {
        const R_(element) *a = (const R_(element) *)x->data + (first + k) * x->stride + row;
        square[k] = R_(stored_word)(a, rows, x->skip_zeros);
        if (x->bits) {
            const int64_t bit = (first + k) / x->rows_per_mask * x->rows + row;
            square[k] &= fd_load_bits_part(x->bits, bit, rows);
        }
    }
    transpose_bits(square);
    for (int64_t i = 0; i < rows; i++) {
        words[i * FD_SKIP_WORDS] = square[i];
    }
}

/* One word of each row, FD_SKIP_WORDS apart, for `depth` <= 64 elements. */
static void R_(skip_words)(const skip_operand *x, int64_t row, int64_t rows, int64_t first,
                           int64_t depth, uint64_t *words)
{
    if (x->transposed) {
        for (int64_t i = 0; i < rows; i += 64) {
            R_(stored_words_transposed)(x, row + i, rows - i < 64 ? rows - i : 64, first, depth,
                                        words + i * FD_SKIP_WORDS);
        }
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        const R_(element) *a = (const R_(element) *)x->data + (row + i) * x->stride + first;
        uint64_t word = R_(stored_word)(a, depth, x->skip_zeros);
        if (x->bits) {
            const int64_t bit = (row + i) / x->rows_per_mask * x->depth + first;
            word &= fd_load_bits_part(x->bits, bit, depth);
        }
        words[i * FD_SKIP_WORDS] = word;
    }
}

/* Part of a row's list: elements [first, end) of its block, up to 64 of them, in whole vectors. Returns how
 * many are stored. */
static inline int R_(write_list)(const R_(element) *row, uint64_t word, int first, int end,
                                 R_(element) *values, uint8_t *places)
{
    const R_(element) *begin = values;
    write_places(places, word, first);
    for (int k = first; k < end; k += R_(lanes)) {
        const uint64_t stored = word >> (k - first) & (((uint64_t)1 << R_(lanes)) - 1);
        R_(compress)(values, R_(load)(row + k), stored);
        values += __builtin_popcountll(stored);
    }
    return (int)(values - begin);
}

static inline int R_(count_stored)(const uint64_t *words)
{
    int count = 0;
    for (int i = 0; i < FD_SKIP_WORDS; i++) {
        count += __builtin_popcountll(words[i]);
    }
    return count;
}

/* Counts the rows by the length of their lists, and begins the lists of each length. */
static void R_(count_lists)(int64_t rows, const uint64_t *words, skip_lists *lists)
{
    memset(lists->rows_of_count, 0, sizeof lists->rows_of_count);
    for (int64_t i = 0; i < rows; i++) {
        lists->rows_of_count[R_(count_stored)(words + i * FD_SKIP_WORDS)]++;
    }
    int32_t start = 0;
    lists->total = 0;
    for (int count = 0; count <= lists->depth; count++) {
        const int32_t with_count = lists->rows_of_count[count];
        lists->start_of_count[count] = start;
        lists->total += count * with_count;
        start += count * with_count + (with_count ? FD_MAX_LANES : 0);
    }
}

/* Lists of rows [row, row + rows) over one block of depth, in the order of their lengths. */
static void R_(skip_lists)(const skip_operand *x, int64_t row, int64_t rows, int64_t first,
                           skip_lists *lists)
{
    const int64_t depth = lists->depth;
    R_(element) copy[64 * FD_SKIP_DEPTH]; /* of rows that are not whole, or not contiguous */
    int32_t next[FD_SKIP_DEPTH + 1], rank[FD_SKIP_DEPTH + 1], rows_before = 0;
    memset(lists->words, 0, (size_t)rows * FD_SKIP_WORDS * sizeof *lists->words);
    for (int64_t k = 0; k < depth; k += 64) {
        R_(skip_words)(x, row, rows, first + k, depth - k < 64 ? depth - k : 64,
                       lists->words + k / 64);
    }
    R_(count_lists)(rows, lists->words, lists);
    memcpy(next, lists->start_of_count, sizeof next);
    memset(lists->order + rows, 0, FD_ROWS_AHEAD * sizeof *lists->order);
    for (int count = 0; count <= depth; count++) {
        rank[count] = rows_before;
        rows_before += lists->rows_of_count[count];
    }
    if (depth % R_(lanes)) {
        memset(copy, 0, sizeof copy);
    }
    for (int64_t i = 0; i < rows; i++) {
        const R_(element) *a = copy;
        if (x->transposed) {
            if (i % 64 == 0) {
                R_(transpose_block)((const R_(element) *)x->data + first * x->stride + row + i,
                                    x->stride, depth, rows - i < 64 ? rows - i : 64, copy,
                                    FD_SKIP_DEPTH);
            }
            a += i % 64 * FD_SKIP_DEPTH;
        } else {
            const R_(element) *from = (const R_(element) *)x->data + (row + i) * x->stride + first;
            if (depth % R_(lanes) == 0) {
                a = from;
            } else {
                memcpy(copy, from, (size_t)depth * sizeof *from);
            }
        }
        const uint64_t *words = lists->words + i * FD_SKIP_WORDS;
        const int count = R_(count_stored)(words);
        for (int k = 0; k < depth; k += 64) {
            next[count] += R_(write_list)(a, words[k / 64], k, depth - k < 64 ? (int)depth : k + 64,
                                          (R_(element) *)lists->values + next[count],
                                          lists->places + next[count]);
        }
        lists->order[rank[count]++] = (uint16_t)i;
    }
}

/* Lists of groups of at most GROUP_ROWS rows that share their places; values[t * GROUP_ROWS + r].
 * Groups follow each other in tile order: group g has rows_of_group[g] rows from row_of_group[g]. */
static void R_(group_lists)(const skip_operand *x, int64_t groups, const int64_t *row_of_group,
                            const int32_t *rows_of_group, int64_t first, skip_lists *lists)
{
    R_(element) *values = lists->values;
    uint8_t *places = lists->places;
    lists->total = 0;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t row = row_of_group[g], rows = rows_of_group[g];
        const R_(element) *a = (const R_(element) *)x->data + row * x->stride + first;
        const int64_t bit = row / x->rows_per_mask * x->depth + first;
        const uint8_t *begin = places;
        for (int64_t part = 0; part < lists->depth; part += 64) {
            uint64_t word = fd_load_bits_part(x->bits, bit + part, lists->depth - part);
            for (; word; word &= word - 1) {
                const int64_t k = part + __builtin_ctzll(word);
                *places++ = (uint8_t)k;
                for (int64_t r = 0; r < GROUP_ROWS; r++) {
                    values[r] = r < rows ? a[r * x->stride + k] : 0;
                }
                values += GROUP_ROWS;
            }
        }
        lists->count_of_group[g] = (int32_t)(places - begin);
        lists->total += (places - begin) * rows;
    }
}

#include "unjoin.h"
