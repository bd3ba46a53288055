/* skip_lists_body.h: lists of stored elements, for one element type R (f32, f64); see skip_body.h.
 *
 * Every row of a block has words, a bit for each element that is stored. The rows are ordered by the length
 * of their lists first, then the lists are written in that order, in whole vectors: what reaches beyond a
 * list is overwritten by the next one.
 */
#include "simd/join.h"

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

/* The values of a row whose bits are set, in whole vectors. Returns where the next one goes. */
static inline R_(element) *R_(write_values)(const R_(element) *row, const uint64_t *words, int64_t depth,
                                            R_(element) *to)
{
    for (int64_t k = 0; k < depth; k += R_(lanes)) {
        const uint64_t stored = words[k / 64] >> k % 64 & (((uint64_t)1 << R_(lanes)) - 1);
        R_(compress)(to, R_(load)(row + k), stored);
        to += fd_count_lanes(stored);
    }
    return to;
}

static inline uint16_t *R_(write_places_of)(const uint64_t *words, int unit, uint16_t *to)
{
    for (int i = 0; i < FD_SKIP_WORDS; i++) {
        write_places(to, words[i], 64 * i, unit);
        to += __builtin_popcountll(words[i]);
    }
    return to;
}

static inline int R_(count_stored)(const uint64_t *words)
{
    int count = 0;
    for (int i = 0; i < FD_SKIP_WORDS; i++) {
        count += __builtin_popcountll(words[i]);
    }
    return count;
}

/* A few rows are walked one by one, as they come. */
static void R_(keep_order)(int64_t rows, skip_lists *lists)
{
    lists->pairs = 0;
    lists->singles = (int32_t)rows;
    lists->total = 0;
    for (int64_t i = 0; i < rows; i++) {
        lists->order[i] = (uint16_t)i;
        lists->counts[i] = (uint8_t)R_(count_stored)(lists->words + i * FD_SKIP_WORDS);
        lists->total += lists->counts[i];
    }
}

/* Puts the rows in the order in which they are walked. */
static void R_(order_rows)(int64_t rows, skip_lists *lists)
{
    int32_t rows_of_count[FD_SKIP_DEPTH + 1] = {0}, pair[FD_SKIP_DEPTH + 1], single[FD_SKIP_DEPTH + 1];
    for (int64_t i = 0; i < rows; i++) {
        rows_of_count[R_(count_stored)(lists->words + i * FD_SKIP_WORDS)]++;
    }
    lists->pairs = 0;
    for (int count = 0; SKIP_ROWS > 1 && count <= lists->depth; count++) {
        pair[count] = 2 * lists->pairs;
        for (int n = 0; n < rows_of_count[count] / 2; n++) {
            lists->counts[lists->pairs++] = (uint8_t)count;
        }
    }
    lists->singles = 0;
    lists->total = 0;
    for (int count = 0; count <= lists->depth; count++) {
        single[count] = 2 * lists->pairs + lists->singles;
        for (int n = 0; n < (SKIP_ROWS > 1 ? rows_of_count[count] % 2 : rows_of_count[count]); n++) {
            lists->counts[lists->pairs + lists->singles++] = (uint8_t)count;
        }
        lists->total += (int64_t)count * rows_of_count[count];
    }
    for (int64_t i = 0; i < rows; i++) {
        const int count = R_(count_stored)(lists->words + i * FD_SKIP_WORDS);
        const int paired = SKIP_ROWS > 1 && rows_of_count[count] > 0 &&
                           (pair[count] % 2 == 1 || rows_of_count[count] > 1);
        lists->order[paired ? pair[count]++ : single[count]++] = (uint16_t)i;
        rows_of_count[count]--;
    }
    memset(lists->order + rows, 0, FD_ROWS_AHEAD * sizeof *lists->order);
}

/* Where the rows are read from, `stride` apart: x, or a copy of those that are not contiguous, or end
 * within a vector. */
static const R_(element) *R_(contiguous_rows)(const skip_operand *x, int64_t row, int64_t rows,
                                              int64_t first, int64_t depth, R_(element) *copy,
                                              int64_t *stride)
{
    const R_(element) *from = x->data;
    *stride = FD_SKIP_DEPTH;
    if (x->transposed) {
        R_(transpose_block)(from + first * x->stride + row, x->stride, depth, rows, copy, *stride);
        return copy;
    }
    from += row * x->stride + first;
    if (depth % R_(lanes) == 0) {
        *stride = x->stride;
        return from;
    }
    for (int64_t i = 0; i < rows; i++) {
        memcpy(copy + i * *stride, from + i * x->stride, (size_t)depth * sizeof *from);
    }
    return copy;
}

/* Lists of two rows of the same length. Returns how many places they share. */
static inline uint8_t R_(write_pair)(const R_(element) *const *row, const uint64_t *const *words,
                                     const skip_lists *lists, R_(element) **values, uint16_t **places)
{
    uint64_t shared[FD_SKIP_WORDS], own[2][FD_SKIP_WORDS];
    for (int i = 0; i < FD_SKIP_WORDS; i++) {
        shared[i] = words[0][i] & words[1][i];
        own[0][i] = words[0][i] & ~shared[i];
        own[1][i] = words[1][i] & ~shared[i];
    }
    *places = R_(write_places_of)(shared, lists->unit, *places);
    for (int r = 0; r < 2; r++) {
        *values = R_(write_values)(row[r], shared, lists->depth, *values);
    }
    for (int r = 0; r < 2; r++) {
        *places = R_(write_places_of)(own[r], lists->unit, *places);
        *values = R_(write_values)(row[r], own[r], lists->depth, *values);
    }
    return (uint8_t)R_(count_stored)(shared);
}

/* Lists of rows [row, row + rows) over one block of depth. */
static void R_(skip_lists)(const skip_operand *x, int64_t row, int64_t rows, int64_t first, void *copy,
                           skip_lists *lists)
{
    const int64_t depth = lists->depth;
    memset(lists->words, 0, (size_t)rows * FD_SKIP_WORDS * sizeof *lists->words);
    for (int64_t k = 0; k < depth; k += 64) {
        R_(skip_words)(x, row, rows, first + k, depth - k < 64 ? depth - k : 64,
                       lists->words + k / 64);
    }
    if (lists->sharing) {
        R_(order_rows)(rows, lists);
    } else {
        R_(keep_order)(rows, lists);
    }
    int64_t stride;
    const R_(element) *from = R_(contiguous_rows)(x, row, rows, first, depth, copy, &stride);
    const uint16_t *order = lists->order;
    R_(element) *values = lists->values;
    uint16_t *places = lists->places;
    for (int32_t walk = 0; walk < lists->pairs + lists->singles; walk++) {
        const int together = walk < lists->pairs ? 2 : 1, count = lists->counts[walk];
        const R_(element) *data[2];
        const uint64_t *words[2];
        for (int r = 0; r < together; r++) {
            data[r] = from + order[r] * stride;
            words[r] = lists->words + order[r] * FD_SKIP_WORDS;
        }
        order += together;
        if (together == 2 && lists->sharing && count * count >= LEAST_SHARED * depth) {
            lists->shared[walk] = R_(write_pair)(data, words, lists, &values, &places);
            continue;
        }
        lists->shared[walk] = 0;
        for (int r = 0; r < together; r++) {
            places = R_(write_places_of)(words[r], lists->unit, places);
            values = R_(write_values)(data[r], words[r], depth, values);
        }
    }
}

/* Lists of groups of at most GROUP_ROWS rows that share their places; values[t * GROUP_ROWS + r].
 * Groups follow each other in tile order: group g has rows_of_group[g] rows from row_of_group[g]. */
static void R_(group_lists)(const skip_operand *x, int64_t groups, const int64_t *row_of_group,
                            const int32_t *rows_of_group, int64_t first, skip_lists *lists)
{
    R_(element) *values = lists->values;
    uint16_t *places = lists->places;
    lists->total = 0;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t row = row_of_group[g], rows = rows_of_group[g];
        const R_(element) *a = (const R_(element) *)x->data + row * x->stride + first;
        const int64_t bit = row / x->rows_per_mask * x->depth + first;
        const uint16_t *begin = places;
        for (int64_t part = 0; part < lists->depth; part += 64) {
            uint64_t word = fd_load_bits_part(x->bits, bit + part, lists->depth - part);
            for (; word; word &= word - 1) {
                const int64_t k = part + __builtin_ctzll(word);
                *places++ = (uint16_t)(k * lists->unit);
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

#include "simd/unjoin.h"
