/* skip_body.h: matrix products that leave out zeros, for one element type R (f32, f64).
 *
 * out (rows, columns) = x (rows, depth) @ w (depth, columns), where only the stored elements of x
 * are multiplied. The depth is cut into blocks. Of every block, each row's stored elements become a
 * list of values and of places in the panel; a panel is a piece of w, one block deep and
 * SKIP_VECTORS vectors wide, packed so that it lies in the L1 cache without conflicts. A row's
 * sums over one panel's columns stay in registers while its list is walked: per stored element one
 * broadcast and SKIP_VECTORS multiply-adds whose other operand comes straight from the panel: 7
 * loads for 6 multiply-adds, or 9 for 8, of load ports that take as many vectors a cycle as the
 * multipliers do.
 *
 * Rows are walked in the order of their counts: a loop whose length changes from row to row ends in
 * a mispredicted branch each time, which would cost as much as two stored elements. Two rows of the
 * same count are walked in one loop: twice as many sums for the latency of the multipliers, and half
 * as many ends of loops.
 *
 * Rows that share one list (a unit mask for a group of rows) are walked GROUP_ROWS at a time: each
 * load of the panel then serves all of them.
 */
#include "join.h"

/* Packs w[first .. first + depth) x [column .. column + vectors * lanes) into the panel, zeros
 * beyond w's edge. */
static void R_(skip_pack)(const skip_weights *w, int64_t first, int64_t depth, int64_t column,
                          int vectors, void *to)
{
    const R_(element) *from = w->data;
    R_(element) *panel = to;
    const int64_t width = vectors * R_(lanes);
    const int64_t columns = w->columns - column < width ? w->columns - column : width;
    if (columns < width) {
        memset(panel, 0, (size_t)(depth * width) * sizeof *panel);
    }
    if (w->transposed) { /* w[k][j] is from[j * stride + k] */
        R_(transpose_block)(from + column * w->stride + first, w->stride, columns, depth, panel,
                            width);
        return;
    }
    for (int64_t k = 0; k < depth; k++) {
        const R_(element) *row = from + (first + k) * w->stride + column;
        if (columns == width) {
            for (int64_t j = 0; j < width; j += R_(lanes)) {
                R_(store)(panel + k * width + j, R_(load)(row + j));
            }
        } else {
            memcpy(panel + k * width, row, (size_t)columns * sizeof *panel);
        }
    }
}

/* One row of sums to out[row][column ..]: scale, bias, output mask. */
static void R_(skip_store)(const skip_result *result, int64_t row, int64_t column, int vectors,
                           const void *from)
{
    const int64_t width = vectors * R_(lanes);
    const int64_t left = result->columns - column;
    const int64_t columns = left < width ? left : width;
    const R_(element) *sum = from, *bias = result->bias;
    R_(element) *out = (R_(element) *)result->data + row * result->stride + column;
    const R_(element) scale = (R_(element))result->scale, t = (R_(element))result->bias_scale;
    if (columns == width && !bias) {
        const R_(vector) s = R_(one)(scale);
        for (int64_t j = 0; j < width; j += R_(lanes)) {
            R_(store)(out + j, R_(multiply)(R_(load)(sum + j), s));
        }
    } else {
        for (int64_t j = 0; j < columns; j++) {
            out[j] = sum[j] * scale + (bias ? bias[column + j] * t : 0);
        }
    }
    if (result->bits) {
        const int64_t bit = row / result->rows_per_mask * result->columns + column;
        R_(apply_bits)(out, out, columns, result->bits, bit, 1.0, 0);
    }
}

/* `vectors` vectors of sums of a row, from `column` of the panel on. */
static inline __attribute__((always_inline)) void
R_(load_sums)(const skip_sums *s, int64_t tile_row, int64_t row, int64_t column, const int vectors,
              R_(vector) *v)
{
    const R_(element) *from = (const R_(element) *)s->tile + tile_row * s->vectors * R_(lanes);
    R_(element) edge[SKIP_VECTORS * R_(lanes)];
    if (s->from == FD_FROM_ZERO) {
#pragma GCC unroll 8
        for (int q = 0; q < vectors; q++) {
            v[q] = R_(one)(0);
        }
        return;
    }
    from += column;
    if (s->from == FD_FROM_RESULT) {
        const int64_t first = s->column + column, left = s->result.columns - first;
        from = (const R_(element) *)s->result.data + row * s->result.stride + first;
        if (left < vectors * R_(lanes)) {
            memset(edge, 0, sizeof edge);
            memcpy(edge, from, left > 0 ? (size_t)left * sizeof *from : 0);
            from = edge;
        }
    }
#pragma GCC unroll 8
    for (int q = 0; q < vectors; q++) {
        v[q] = R_(load)(from + q * R_(lanes));
    }
}

static inline __attribute__((always_inline)) void
R_(store_sums)(const skip_sums *s, int64_t tile_row, int64_t row, int64_t column, const int vectors,
               const R_(vector) *v)
{
    R_(element) *to = (R_(element) *)s->tile + tile_row * s->vectors * R_(lanes) + column;
    R_(element) finished[SKIP_VECTORS * R_(lanes)];
    if (s->to == FD_TO_RESULT) {
        to = finished;
    }
#pragma GCC unroll 8
    for (int q = 0; q < vectors; q++) {
        R_(store)(to + q * R_(lanes), v[q]);
    }
    if (s->to == FD_TO_RESULT && s->column + column < s->result.columns) {
        R_(skip_store)(&s->result, row, s->column + column, vectors, to);
    }
}

/* The result is larger than the caches as a rule, and its rows come in no order that the processor
 * could foresee. */
static inline void R_(fetch_result)(const skip_sums *s, int64_t row)
{
    const char *to = (const char *)s->result.data +
                     ((s->row + row) * s->result.stride + s->column) * (int64_t)sizeof(R_(element));
    for (int64_t byte = 0; byte < s->vectors * (int64_t)sizeof(R_(vector)); byte += FD_CACHE_LINE) {
        __builtin_prefetch(to + byte, 1);
    }
}

/* One block's products of `rows` rows whose lists, side by side, have the same length. Inlined with
 * constant numbers of rows and vectors, which then are registers. */
static inline __attribute__((always_inline)) void
R_(walk)(const R_(element) *value, const uint8_t *place, int64_t count, const uint16_t *order,
         const R_(element) *panel, const int rows, const int vectors, const skip_sums *sums)
{
    int64_t row_bytes = vectors * (int64_t)sizeof(R_(vector));
    R_(vector) v[SKIP_ROWS][SKIP_VECTORS];
    /* Unknown, it is multiplied by; known, it would be shifted by, where multiply-adds are executed. */
    __asm__("" : "+r"(row_bytes));
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        R_(load_sums)(sums, order[r], sums->row + order[r], 0, vectors, v[r]);
    }
    for (int64_t t = 0; t < count; t++) {
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            const char *p = (const char *)panel + place[r * count + t] * row_bytes;
            /* One register: a load by two counts as an instruction beside its multiply-add. */
            __asm__("" : "+r"(p));
            const R_(vector) factor = R_(one)(value[r * count + t]);
#pragma GCC unroll 8
            for (int q = 0; q < vectors; q++) {
                const R_(element) *w = (const R_(element) *)p + q * R_(lanes);
                v[r][q] = R_(multiply_add)(factor, R_(load)(w), v[r][q]);
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        R_(store_sums)(sums, order[r], sums->row + order[r], 0, vectors, v[r]);
    }
}

/* One block's products, of all rows. */
static inline __attribute__((always_inline)) void
R_(skip_rows_of)(const skip_lists *lists, const R_(element) *panel, const int vectors,
                 const skip_sums *sums, const skip_prefetch *next)
{
    const uint16_t *order = lists->order;
    skip_prefetch ahead = *next;
    /* Rows without a stored element have nothing to do but to begin or to finish. */
    const int idle = sums->from == FD_FROM_TILE && sums->to == FD_TO_TILE;
    for (int count = 0; count <= lists->depth; count++) {
        const R_(element) *value = (const R_(element) *)lists->values + lists->start_of_count[count];
        const uint8_t *place = lists->places + lists->start_of_count[count];
        int32_t rows = lists->rows_of_count[count];
        if (count == 0 && idle) {
            order += rows;
            continue;
        }
        for (; rows >= SKIP_ROWS; rows -= SKIP_ROWS) {
            skip_fetch_ahead(&ahead, SKIP_ROWS);
            if (sums->to == FD_TO_RESULT) {
                for (int r = 0; r < SKIP_ROWS; r++) {
                    R_(fetch_result)(sums, order[FETCHED_AHEAD + r]);
                }
            }
            R_(walk)(value, place, count, order, panel, SKIP_ROWS, vectors, sums);
            value += SKIP_ROWS * count;
            place += SKIP_ROWS * count;
            order += SKIP_ROWS;
        }
        if (SKIP_ROWS > 1 && rows > 0) {
            skip_fetch_ahead(&ahead, 1);
            R_(walk)(value, place, count, order++, panel, 1, vectors, sums);
        }
    }
}

static void R_(skip_rows)(const skip_lists *lists, const void *panel, const skip_sums *sums,
                          const skip_prefetch *next)
{
    switch (sums->vectors) {
    case 1:
        R_(skip_rows_of)(lists, panel, 1, sums, next);
        break;
    case 2:
        R_(skip_rows_of)(lists, panel, 2, sums, next);
        break;
    case 4:
        R_(skip_rows_of)(lists, panel, 4, sums, next);
        break;
    default:
        R_(skip_rows_of)(lists, panel, SKIP_VECTORS, sums, next);
    }
}

/* The same for groups: GROUP_ROWS rows x 2 vectors at a time. */
static void R_(skip_groups)(const skip_lists *lists, int64_t groups, const int64_t *row_of_group,
                            const int32_t *rows_of_group, const void *packed,
                            const skip_sums *sums, const skip_prefetch *next)
{
    const R_(element) *panel = packed, *values = lists->values;
    const uint8_t *places = lists->places;
    const int64_t width = sums->vectors * R_(lanes);
    skip_prefetch ahead = *next;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t count = lists->count_of_group[g], rows = rows_of_group[g];
        skip_fetch_ahead(&ahead, 1);
        for (int64_t column = 0; column < width; column += 2 * R_(lanes)) {
            R_(vector) v[GROUP_ROWS][2];
#pragma GCC unroll 8
            for (int r = 0; r < GROUP_ROWS; r++) { /* rows that are not there: any sums */
                R_(load_sums)(sums, g * GROUP_ROWS + r, row_of_group[g] + (r < rows ? r : 0),
                              column, 2, v[r]);
            }
            const R_(element) *value = values;
            for (int64_t t = 0; t < count; t++) {
                const R_(element) *p = panel + column + places[t] * width;
                const R_(vector) w0 = R_(load)(p), w1 = R_(load)(p + R_(lanes));
#pragma GCC unroll 8
                for (int r = 0; r < GROUP_ROWS; r++) {
                    const R_(vector) factor = R_(one)(value[r]);
                    v[r][0] = R_(multiply_add)(factor, w0, v[r][0]);
                    v[r][1] = R_(multiply_add)(factor, w1, v[r][1]);
                }
                value += GROUP_ROWS;
            }
#pragma GCC unroll 8
            for (int r = 0; r < GROUP_ROWS; r++) {
                if (r < rows || sums->to == FD_TO_TILE) {
                    R_(store_sums)(sums, g * GROUP_ROWS + r, row_of_group[g] + r, column, 2, v[r]);
                }
            }
        }
        places += count;
        values += count * GROUP_ROWS;
    }
}

#include "unjoin.h"
