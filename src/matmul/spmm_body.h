/* spmm_body.h: SpMM, the stored elements of A times B, for one element type R (f32, f64).
 *
 * The columns of A are cut into blocks of KC. Of every block, each row's stored elements become a list of values
 * and of indices of rows of the panel; a panel is KC rows of B, up to SPMM_VECTORS vectors wide, packed so that
 * it lies in the L1 cache without conflicts. A row's sums over one panel's columns stay in registers while its
 * list is walked: per stored element one broadcast and SPMM_VECTORS multiply-adds whose other operand comes
 * straight from the panel: 7 loads for 6 multiply-adds, or 9 for 8, of load ports that take as many vectors a
 * cycle as the multipliers do.
 *
 * Rows are multiplied in the order of their counts: a loop whose length changes from row to row ends in a
 * mispredicted branch each time, which would cost as much as two stored elements. Two rows of the same count are
 * multiplied in one loop: twice as many sums for the latency of the multipliers, and half as many ends of loops.
 * Where they have enough indices in common, those come first: a load of the panel then serves both, 8 loads for
 * 12 multiply-adds (8 % of a product where one half is stored).
 */
#include "simd/join.h"

static void R_(spmm_pack_b)(const fd_product *p, const spmm_lists *lists, const spmm_panel *panel)
{
    const R_(element) *from = p->b.data;
    R_(element) *to = (R_(element) *)(void *)panel->data;
    const int64_t stride = lists->row_bytes / (int64_t)sizeof *to, from_stride = fd_stride_of_b(p);
    const int64_t columns = panel->columns, whole = columns / R_(lanes) *R_(lanes);
    if (whole < panel->vectors * R_(lanes)) {
        for (int64_t k = 0; k < lists->kc; k++) {
            memset(to + k * stride + whole, 0,
                   (size_t)(panel->vectors * R_(lanes) - whole) * sizeof *to);
        }
    }
    if (fd_transposed_b(p)) { /* B[k][j] is from[j * stride + k] */
        R_(transpose_block)(from + panel->column * from_stride + lists->first, from_stride, columns,
                            lists->kc, to, stride);
        return;
    }
    for (int64_t k = lists->first; k < lists->first + lists->kc; k++, to += stride) {
        const R_(element) *row = from + k * from_stride + panel->column;
        if (p->mask_b.bits) {
            const int64_t bit = k / p->mask_b.rows_per_mask * p->n + panel->column;
            R_(apply_bits)(row, to, columns, p->mask_b.bits, bit, 1.0, FD_STORES_CACHED);
            continue;
        }
        for (int64_t j = 0; j < whole; j += R_(lanes)) {
            R_(store)(to + j, R_(load)(row + j));
        }
        if (whole < columns) {
            memcpy(to + whole, row + whole, (size_t)(columns - whole) * sizeof *to);
        }
    }
}

static inline R_(element) *R_(place_in_c)(const fd_product *p, int64_t row, int64_t column)
{
    return (R_(element) *)p->c.data + row * p->c.row_stride + column;
}

/* `columns` sums of a row, finished: scale, bias, mask. */
static void R_(spmm_store_c)(const fd_product *p, int64_t row, int64_t column, int64_t columns,
                             const R_(element) *sums)
{
    const R_(element) *bias = p->bias;
    R_(element) *out = R_(place_in_c)(p, row, column);
    const R_(element) scale = (R_(element))fd_product_scale(p),
                      bias_scale = (R_(element))p->mask_c.scale;
    if (columns % R_(lanes) == 0 && !bias) {
        const R_(vector) s = R_(one)(scale);
        for (int64_t j = 0; j < columns; j += R_(lanes)) {
            R_(store)(out + j, R_(multiply)(R_(load)(sums + j), s));
        }
    } else {
        for (int64_t j = 0; j < columns; j++) {
            out[j] = sums[j] * scale + (bias ? bias[column + j] * bias_scale : 0);
        }
    }
    if (p->mask_c.bits) {
        const int64_t bit = row / p->mask_c.rows_per_mask * p->n + column;
        R_(apply_bits)(out, out, columns, p->mask_c.bits, bit, 1.0, FD_STORES_CACHED);
    }
}

static inline FD_ALWAYS_INLINE void R_(load_sums)(const fd_product *p, const spmm_panel *panel,
                                                  int64_t row, int64_t tile_row, const int vectors,
                                                  R_(vector) *v)
{
    const R_(element) *from =
        (const R_(element) *)(void *)panel->tile + tile_row * vectors * R_(lanes);
    R_(element) edge[SPMM_VECTORS * R_(lanes)];
    if (panel->from == FD_FROM_ZERO) {
#pragma GCC unroll 8
        for (int q = 0; q < vectors; q++) {
            v[q] = R_(one)(0);
        }
        return;
    }
    if (panel->from == FD_FROM_C) {
        memset(edge, 0, sizeof edge);
        from = memcpy(edge, R_(place_in_c)(p, row, panel->column),
                      (size_t)panel->columns * sizeof *from);
    }
#pragma GCC unroll 8
    for (int q = 0; q < vectors; q++) {
        v[q] = R_(load)(from + q * R_(lanes));
    }
}

static inline FD_ALWAYS_INLINE void R_(store_sums)(const fd_product *p, const spmm_panel *panel,
                                                   int64_t row, int64_t tile_row, const int vectors,
                                                   const R_(vector) *v)
{
    R_(element) finished[SPMM_VECTORS * R_(lanes)];
    R_(element) *to = (R_(element) *)(void *)panel->tile + tile_row * vectors * R_(lanes);
    to = panel->to == FD_TO_TILE ? to : finished;
#pragma GCC unroll 8
    for (int q = 0; q < vectors; q++) {
        R_(store)(to + q * R_(lanes), v[q]);
    }
    if (panel->to == FD_TO_C) {
        memcpy(R_(place_in_c)(p, row, panel->column), to, (size_t)panel->columns * sizeof *to);
    } else if (panel->to == FD_TO_C_FINISHED) {
        R_(spmm_store_c)(p, row, panel->column, panel->columns, to);
    }
}

/* C is larger than the caches as a rule, and its rows come in no order that the processor could foresee. */
static inline void R_(prefetch_c)(const fd_product *p, const spmm_panel *panel, int64_t row)
{
    const char *to = (const char *)R_(place_in_c)(p, row, panel->column);
    for (int64_t byte = 0; byte < panel->vectors * (int64_t)sizeof(R_(vector));
         byte += FD_CACHE_LINE) {
        __builtin_prefetch(to + byte, 1);
    }
}

/* One block's products of `rows` rows whose lists have the same length, of it `shared` indices that they have in
 * common. Inlined with constant numbers of rows and vectors, which then are registers. */
static inline FD_ALWAYS_INLINE void R_(spmm_walk)(const fd_product *p, const spmm_panel *panel,
                                                  int64_t first_row, const uint16_t *order,
                                                  const R_(element) *value, const uint16_t *index,
                                                  int64_t shared, int64_t count, const int rows,
                                                  const int vectors)
{
    R_(vector) v[SPMM_ROWS][SPMM_VECTORS];
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        R_(load_sums)(p, panel, first_row + order[r], order[r], vectors, v[r]);
    }
    for (int64_t t = 0; t < shared; t++) {
        const char *b = panel->data + index[t];
        R_(vector) factor[SPMM_ROWS];
        __asm__("" : "+r"(b));
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            factor[r] = R_(one)(value[r * shared + t]);
        }
#pragma GCC unroll 8
        for (int q = 0; q < vectors; q++) {
            R_(vector) line = R_(load)((const R_(element) *)(const void *)b + q * R_(lanes));
            FD_IN_REGISTER(line); /* instead of loading it for each row */
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++) {
                v[r][q] = R_(multiply_add)(factor[r], line, v[r][q]);
            }
        }
    }
    value += rows * shared;
    index += shared;
    count -= shared;
    for (int64_t t = 0; t < count; t++) {
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            const char *b = panel->data + index[r * count + t];
            /* One register: a load by two counts as an instruction beside its multiply-add. */
            __asm__("" : "+r"(b));
            const R_(vector) factor = R_(one)(value[r * count + t]);
#pragma GCC unroll 8
            for (int q = 0; q < vectors; q++) {
                const R_(element) *w = (const R_(element) *)(const void *)b + q * R_(lanes);
                v[r][q] = R_(multiply_add)(factor, R_(load)(w), v[r][q]);
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        R_(store_sums)(p, panel, first_row + order[r], order[r], vectors, v[r]);
    }
}

static inline FD_ALWAYS_INLINE void R_(spmm_rows)(const fd_product *p, const spmm_lists *lists,
                                                  const spmm_panel *panel, const int vectors)
{
    const uint16_t *order = lists->order, *index = lists->indices;
    const R_(element) *value = lists->values;
    int together;
    for (int64_t i = 0; i < lists->rows; i += together) {
        const int64_t count = lists->counts[i], shared = lists->shared[i];
        together = rows_together(lists, i);
        if (count == 0 && panel->from == FD_FROM_TILE && panel->to == FD_TO_TILE) {
            continue; /* nothing to do but to begin or to finish */
        }
        for (int r = 0; panel->to != FD_TO_TILE && r < together; r++) {
            R_(prefetch_c)(p, panel, lists->row + order[i + r + FETCHED_AHEAD]);
        }
        if (together == 1) {
            R_(spmm_walk)(p, panel, lists->row, order + i, value, index, 0, count, 1, vectors);
        } else {
            R_(spmm_walk)(p, panel, lists->row, order + i, value, index, shared, count, SPMM_ROWS,
                          vectors);
        }
        value += together * count;
        index += together * count - shared;
    }
}

static void R_(spmm_multiply)(const fd_product *p, const spmm_lists *lists, const spmm_panel *panel)
{
#define WIDTH(vectors)                                                                             \
    case vectors:                                                                                  \
        R_(spmm_rows)(p, lists, panel, vectors);                                                   \
        break;
    switch (panel->vectors) {
        WIDTH(1)
        WIDTH(2)
        WIDTH(3)
        WIDTH(4)
        WIDTH(5)
        WIDTH(6)
#if SPMM_VECTORS > 6
        WIDTH(7)
        WIDTH(8)
#endif
    }
#undef WIDTH
}

/* --- Skinny products -------------------------------------------------------------------------------
 *
 * Every element of B is needed once for each row then, so that packing it would cost more than using it. The sums
 * of a strip of columns stay in the L1 cache while the rows of B that stored elements meet run through, four at a
 * time: five loads and one store for four multiply-adds, which is less than B takes to come from behind the L2
 * cache. The four rows to come are prefetched meanwhile, as the processor's own prefetching ends with each row.
 * Every sum is made in the order of k. */
#define ADDED_ROWS 4

/* sums[j] += value[t] * B[index[t]][j] for the t < count; `b` is a strip of B, of which `ahead` rows more follow. */
static inline FD_ALWAYS_INLINE void R_(add_rows)(R_(element) *sums, const R_(element) *value,
                                                 const uint16_t *index, const int count,
                                                 const int ahead, const R_(element) *b,
                                                 int64_t stride, int64_t columns)
{
    const R_(element) *row[2 * ADDED_ROWS];
    R_(vector) factor[ADDED_ROWS];
    for (int t = 0; t < count + ahead; t++) {
        row[t] = b + index[t] * stride;
    }
    for (int t = 0; t < count; t++) {
        factor[t] = R_(one)(value[t]);
    }
    int64_t j = 0;
    for (; j + R_(lanes) <= columns; j += R_(lanes)) {
        R_(vector) v = R_(load)(sums + j);
#pragma GCC unroll 4
        for (int t = count; t < count + ahead; t++) {
            __builtin_prefetch(row[t] + j);
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

static int64_t R_(spmm_skinny)(const fd_product *p, int64_t column, int64_t columns)
{
    R_(element) sums[FD_SKINNY_ROWS][FD_SKINNY_BYTES / sizeof(R_(element))];
    R_(element) values[FD_SPMM_KC + R_(lanes)], copy[FD_SPMM_KC];
    uint16_t indices[FD_SPMM_KC + 16];
    int64_t stored = 0, stride;
    memset(sums, 0, (size_t)p->m * sizeof sums[0]);
    for (int64_t first = 0; first < p->k; first += FD_SPMM_KC) {
        const int64_t kc = fd_smaller(p->k - first, FD_SPMM_KC);
        const R_(element) *b = (const R_(element) *)p->b.data + first * p->b.row_stride + column;
        for (int64_t i = 0; i < p->m; i++) {
            uint64_t words[FD_SPMM_WORDS] = {0};
            for (int64_t k = 0; k < kc; k += 64) {
                R_(stored_words)(p, i, 1, first + k, fd_smaller(kc - k, 64), words + k / 64);
            }
            R_(write_values)(R_(contiguous_rows)(p, i, 1, first, kc, copy, &stride), words, kc,
                             values);
            write_indices(words, 1, indices);
            const int64_t count = count_stored(words);
            int64_t t = 0;
            for (; t + 2 * ADDED_ROWS <= count; t += ADDED_ROWS) {
                R_(add_rows)(sums[i], values + t, indices + t, ADDED_ROWS, ADDED_ROWS, b,
                             p->b.row_stride, columns);
            }
            for (; t + ADDED_ROWS <= count; t += ADDED_ROWS) {
                R_(add_rows)(sums[i], values + t, indices + t, ADDED_ROWS, 0, b, p->b.row_stride,
                             columns);
            }
            for (; t < count; t++) {
                R_(add_rows)(sums[i], values + t, indices + t, 1, 0, b, p->b.row_stride, columns);
            }
            stored += count;
        }
    }
    for (int64_t i = 0; i < p->m; i++) {
        R_(spmm_store_c)(p, i, column, columns, sums[i]);
    }
    return stored;
}

#include "simd/unjoin.h"
