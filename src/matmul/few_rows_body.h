/* few_rows_body.h: a product that leaves out zeros where x has a row or a few, for one element type R
 * (f32, f64).
 *
 * Every element of w is needed once for each row then, so that packing it would cost more than using
 * it. The sums of a strip of columns stay in the L1 cache while the rows of w that stored elements
 * meet run through, four at a time: five loads and one store for four multiply-adds, which is less
 * than w takes to come from behind the L2 cache. The four rows to come are fetched meanwhile, as the
 * processor's own prefetching ends with each row. Every sum is made in the order of the depth.
 */
#include "simd/join.h"

/* Rows of w that are added together. */
#define ADDED_ROWS 4

/* sums[j] += value[t] * (row place[t] of w)[j] for the t < count, ADDED_ROWS or fewer of them. */
static inline FD_ALWAYS_INLINE void R_(add_rows)(R_(element) *sums, const R_(element) *value,
                                                 const uint16_t *place, const int count,
                                                 const uint16_t *next, const int fetched,
                                                 const R_(element) *w, int64_t stride,
                                                 int64_t columns)
{
    const R_(element) *row[ADDED_ROWS], *ahead[ADDED_ROWS];
    R_(vector) factor[ADDED_ROWS];
    for (int t = 0; t < count; t++) {
        row[t] = w + place[t] * stride;
        factor[t] = R_(one)(value[t]);
    }
    for (int t = 0; t < fetched; t++) {
        ahead[t] = w + next[t] * stride;
    }
    int64_t j = 0;
    for (; j + R_(lanes) <= columns; j += R_(lanes)) {
        R_(vector) v = R_(load)(sums + j);
#pragma GCC unroll 4
        for (int t = 0; t < fetched; t++) {
            __builtin_prefetch(ahead[t] + j);
        }
#pragma GCC unroll 4
        for (int t = 0; t < count; t++) {
            v = R_(multiply_add)(factor[t], R_(load)(row[t] + j), v);
        }
        R_(store)(sums + j, v);
    }
    for (; j < columns; j++) {
        for (int t = 0; t < count; t++) {
            sums[j] += value[t] * row[t][j];
        }
    }
}

static void R_(add_row_of_lists)(R_(element) *sums, const R_(element) *value, const uint16_t *place,
                                 int64_t count, const R_(element) *w, int64_t stride,
                                 int64_t columns)
{
    int64_t t = 0;
    for (; t + 2 * ADDED_ROWS <= count; t += ADDED_ROWS) {
        R_(add_rows)(sums, value + t, place + t, ADDED_ROWS, place + t + ADDED_ROWS, ADDED_ROWS, w,
                     stride, columns);
    }
    for (; t + ADDED_ROWS <= count; t += ADDED_ROWS) {
        R_(add_rows)(sums, value + t, place + t, ADDED_ROWS, NULL, 0, w, stride, columns);
    }
    for (; t < count; t++) {
        R_(add_rows)(sums, value + t, place + t, 1, NULL, 0, w, stride, columns);
    }
}

static void R_(few_rows)(const skip_lists *lists, int64_t blocks, int64_t first, int64_t rows,
                         const skip_weights *w, const skip_sums *sums)
{
    const int64_t columns = sums->columns;
    const R_(element) *from = (const R_(element) *)w->data + first * w->stride + sums->column;
    R_(element) *tile = sums->tile;
    const skip_result *result = &sums->result;
    for (int64_t r = 0; r < rows; r++) {
        const R_(element) *begun = (const R_(element) *)result->data +
                                   (sums->row + r) * result->stride + sums->column;
        for (int64_t j = 0; j < columns; j++) {
            tile[r * columns + j] = sums->from == FD_FROM_RESULT ? begun[j] : 0;
        }
    }
    for (int64_t block = 0; block < blocks; from += lists[block++].depth * w->stride) {
        const skip_lists *l = &lists[block];
        const uint16_t *place = l->places;
        const R_(element) *value = l->values;
        for (int64_t r = 0; r < rows; r++) {
            const int64_t count = l->counts[r];
            R_(add_row_of_lists)(tile + r * columns, value, place, count, from, w->stride, columns);
            place += count;
            value += count;
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t j = 0; j < columns; j += R_(lanes)) {
            R_(element) last[R_(lanes)] = {0};
            const R_(element) *sum = tile + r * columns + j;
            if (columns - j < R_(lanes)) {
                memcpy(last, sum, (size_t)(columns - j) * sizeof *sum);
                sum = last;
            }
            R_(skip_store)(result, sums->row + r, sums->column + j, fd_smaller(columns - j, R_(lanes)),
                           sum);
        }
    }
}

#include "simd/unjoin.h"
