/* index_lists_body.h: index lists of A's stored elements, for one element type R (f32, f64); see spmm_body.h.
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

/* A word each of `rows` <= 64 rows of A, the transpose of A', from `kc` <= 64 rows of A': bit k of row i's
 * says whether A'[k][i] is stored. */
static void R_(stored_words_transposed)(const fd_product *p, int64_t row, int64_t rows,
                                        int64_t first, int64_t kc, uint64_t *words)
{
    uint64_t square[64] = {0};
    for (int64_t k = 0; k < kc; k++) {
        const R_(element) *a =
            (const R_(element) *)p->a.data + (first + k) * p->a.column_stride + row;
        square[k] = R_(stored_word)(a, rows, p->flags & FD_SKIP_ZEROS);
        if (p->mask_a.bits) {
            const int64_t bit = (first + k) / p->mask_a.rows_per_mask * p->m + row;
            square[k] &= fd_load_bits_part(p->mask_a.bits, bit, rows);
        }
    }
    transpose_bits(square);
    for (int64_t i = 0; i < rows; i++) {
        words[i * FD_SPMM_WORDS] = square[i];
    }
}

/* One word of each row, FD_SPMM_WORDS apart, for `kc` <= 64 elements. */
static void R_(stored_words)(const fd_product *p, int64_t row, int64_t rows, int64_t first,
                             int64_t kc, uint64_t *words)
{
    if (p->flags & FD_SUM_ROWS) {
        for (int64_t i = 0; i < rows; i += 64) {
            R_(stored_words_transposed)(p, row + i, fd_smaller(rows - i, 64), first, kc,
                                        words + i * FD_SPMM_WORDS);
        }
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        const R_(element) *a = (const R_(element) *)p->a.data + (row + i) * p->a.row_stride + first;
        uint64_t word = R_(stored_word)(a, kc, p->flags & FD_SKIP_ZEROS);
        if (p->mask_a.bits) {
            const int64_t bit = (row + i) / p->mask_a.rows_per_mask * p->k + first;
            word &= fd_load_bits_part(p->mask_a.bits, bit, kc);
        }
        words[i * FD_SPMM_WORDS] = word;
    }
}

/* The values of a row whose bits are set, in whole vectors. Returns where the next one goes. */
static inline R_(element) *R_(write_values)(const R_(element) *row, const uint64_t *words,
                                            int64_t kc, R_(element) *to)
{
    for (int64_t k = 0; k < kc; k += R_(lanes)) {
        const uint64_t stored = words[k / 64] >> k % 64 & (((uint64_t)1 << R_(lanes))-1);
        R_(compress)(to, R_(load)(row + k), stored);
        to += fd_count_lanes(stored);
    }
    return to;
}

/* Where rows [row, + rows) of columns [first, + kc) of A are read from, `stride` apart: A, or a copy of rows that
 * are not contiguous, or end within a vector. */
static const R_(element) *R_(contiguous_rows)(const fd_product *p, int64_t row, int64_t rows,
                                              int64_t first, int64_t kc, R_(element) *copy,
                                              int64_t *stride)
{
    const R_(element) *from = p->a.data;
    *stride = FD_SPMM_KC;
    if (p->flags & FD_SUM_ROWS) {
        R_(transpose_block)(from + first * p->a.column_stride + row, p->a.column_stride, kc, rows,
                            copy, *stride);
        return copy;
    }
    from += row * p->a.row_stride + first;
    if (kc % R_(lanes) == 0) {
        *stride = p->a.row_stride;
        return from;
    }
    for (int64_t i = 0; i < rows; i++) {
        memcpy(copy + i * *stride, from + i * p->a.row_stride, (size_t)kc * sizeof *from);
    }
    return copy;
}

/* Lists of two rows of the same length. Returns how many indices they share. */
static inline uint8_t R_(write_pair)(const R_(element) *const *row, const uint64_t *const *words,
                                     const spmm_lists *lists, R_(element) **values,
                                     uint16_t **indices)
{
    uint64_t shared[FD_SPMM_WORDS], own[2][FD_SPMM_WORDS];
    for (int i = 0; i < FD_SPMM_WORDS; i++) {
        shared[i] = words[0][i] & words[1][i];
        own[0][i] = words[0][i] & ~shared[i];
        own[1][i] = words[1][i] & ~shared[i];
    }
    *indices = write_indices(shared, lists->row_bytes, *indices);
    for (int r = 0; r < 2; r++) {
        *values = R_(write_values)(row[r], shared, lists->kc, *values);
    }
    for (int r = 0; r < 2; r++) {
        *indices = write_indices(own[r], lists->row_bytes, *indices);
        *values = R_(write_values)(row[r], own[r], lists->kc, *values);
    }
    return (uint8_t)count_stored(shared);
}

static void R_(index_lists)(const fd_product *p, void *copy, spmm_lists *lists)
{
    const int64_t rows = lists->rows, kc = lists->kc;
    memset(lists->words, 0, (size_t)rows * FD_SPMM_WORDS * sizeof *lists->words);
    for (int64_t k = 0; k < kc; k += 64) {
        R_(stored_words)(p, lists->row, rows, lists->first + k, fd_smaller(kc - k, 64),
                         lists->words + k / 64);
    }
    order_rows(lists);
    int64_t stride;
    const R_(element) *from =
        R_(contiguous_rows)(p, lists->row, rows, lists->first, kc, copy, &stride);
    const uint16_t *order = lists->order;
    R_(element) *values = lists->values;
    uint16_t *indices = lists->indices;
    for (int64_t i = 0; i < rows;) {
        const int together = rows_together(lists, i), count = lists->counts[i];
        const R_(element) *data[2];
        const uint64_t *words[2];
        for (int r = 0; r < together; r++) {
            data[r] = from + order[i + r] * stride;
            words[r] = lists->words + order[i + r] * FD_SPMM_WORDS;
        }
        lists->shared[i] = 0;
        if (together == 2 && count * count >= LEAST_SHARED * kc) {
            lists->shared[i] = R_(write_pair)(data, words, lists, &values, &indices);
        } else {
            for (int r = 0; r < together; r++) {
                indices = write_indices(words[r], lists->row_bytes, indices);
                values = R_(write_values)(data[r], words[r], kc, values);
            }
        }
        i += together;
    }
}

#include "simd/unjoin.h"
