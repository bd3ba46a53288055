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
 * as many ends of loops. Where they have enough places in common, those come first: a load of the panel
 * then serves both, 8 loads for 12 multiply-adds.
 *
 * Rows that share one list (a unit mask for a group of rows) are walked GROUP_ROWS at a time: each
 * load of the panel then serves all of them.
 */
#include "simd/join.h"

static void R_(skip_pack)(const skip_weights *w, const skip_panel *panel)
{
    const R_(element) *from = w->data;
    R_(element) *to = panel->data;
    const int64_t stride = panel->row_bytes / (int64_t)sizeof *to;
    const int64_t columns = panel->columns, whole = columns / R_(lanes) * R_(lanes);
    if (whole < panel->vectors * R_(lanes)) {
        for (int64_t k = 0; k < panel->depth; k++) {
            memset(to + k * stride + whole, 0, (size_t)(panel->vectors * R_(lanes) - whole) * sizeof *to);
        }
    }
    if (w->transposed) { /* w[k][j] is from[j * stride + k] */
        R_(transpose_block)(from + panel->column * w->stride + panel->first, w->stride, columns,
                            panel->depth, to, stride);
        return;
    }
    for (int64_t k = 0; k < panel->depth; k++, to += stride) {
        const R_(element) *row = from + (panel->first + k) * w->stride + panel->column;
        if (w->bits) {
            const int64_t bit = (panel->first + k) / w->rows_per_mask * w->columns + panel->column;
            R_(apply_bits)(row, to, columns, w->bits, bit, 1.0, FD_STORES_CACHED);
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

/* `columns` sums of a row to out[row][column ..]: scale, bias, output mask. */
static void R_(skip_store)(const skip_result *result, int64_t row, int64_t column, int64_t columns,
                           const void *from)
{
    const R_(element) *sum = from, *bias = result->bias;
    R_(element) *out = (R_(element) *)result->data + row * result->stride + column;
    const R_(element) scale = (R_(element))result->scale, t = (R_(element))result->bias_scale;
    if (columns % R_(lanes) == 0 && !bias) {
        const R_(vector) s = R_(one)(scale);
        for (int64_t j = 0; j < columns; j += R_(lanes)) {
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
        const int64_t first = s->column + column, left = s->columns - column;
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
    if (s->to == FD_TO_RESULT && column < s->columns) {
        const int64_t columns = fd_smaller(s->columns - column, vectors * R_(lanes));
        R_(skip_store)(&s->result, row, s->column + column, columns, to);
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

/* One block's products of `rows` rows whose lists have the same length, of it `shared` places that they
 * have in common. Inlined with constant numbers of rows and vectors, which then are registers. */
static inline __attribute__((always_inline)) void
R_(walk)(const R_(element) *value, const uint16_t *place, int64_t shared, int64_t count,
         const uint16_t *order, const char *panel, const int rows, const int vectors,
         const skip_sums *sums)
{
    R_(vector) v[SKIP_ROWS][SKIP_VECTORS];
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        R_(load_sums)(sums, order[r], sums->row + order[r], 0, vectors, v[r]);
    }
    for (int64_t t = 0; t < shared; t++) {
        const char *p = panel + place[t];
        R_(vector) factor[SKIP_ROWS];
        __asm__("" : "+r"(p));
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            factor[r] = R_(one)(value[r * shared + t]);
        }
#pragma GCC unroll 8
        for (int q = 0; q < vectors; q++) {
            R_(vector) line = R_(load)((const R_(element) *)p + q * R_(lanes));
            FD_IN_REGISTER(line); /* instead of loading it for each row */
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++) {
                v[r][q] = R_(multiply_add)(factor[r], line, v[r][q]);
            }
        }
    }
    value += rows * shared;
    place += shared;
    count -= shared;
    for (int64_t t = 0; t < count; t++) {
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            const char *p = panel + place[r * count + t];
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
R_(skip_rows_of)(const skip_lists *lists, const char *panel, const int vectors,
                 const skip_sums *sums, const skip_prefetch *next)
{
    const uint16_t *order = lists->order, *place = lists->places;
    const R_(element) *value = lists->values;
    skip_prefetch ahead = *next;
    /* Rows without a stored element have nothing to do but to begin or to finish. */
    const int idle = sums->from == FD_FROM_TILE && sums->to == FD_TO_TILE;
    for (int32_t pair = 0; pair < lists->pairs; pair++, order += SKIP_ROWS) {
        const int64_t count = lists->counts[pair], shared = lists->shared[pair];
        if (count == 0 && idle) {
            continue;
        }
        skip_fetch_ahead(&ahead, SKIP_ROWS);
        if (sums->to == FD_TO_RESULT) {
            for (int r = 0; r < SKIP_ROWS; r++) {
                R_(fetch_result)(sums, order[FETCHED_AHEAD + r]);
            }
        }
        if (SKIP_ROWS > 1 && shared > 0) {
            R_(walk)(value, place, shared, count, order, panel, SKIP_ROWS, vectors, sums);
        } else {
            R_(walk)(value, place, 0, count, order, panel, SKIP_ROWS, vectors, sums);
        }
        value += SKIP_ROWS * count;
        place += SKIP_ROWS * count - shared;
    }
    for (int32_t single = 0; single < lists->singles; single++, order++) {
        const int64_t count = lists->counts[lists->pairs + single];
        if (count == 0 && idle) {
            continue;
        }
        skip_fetch_ahead(&ahead, 1);
        if (sums->to == FD_TO_RESULT) {
            R_(fetch_result)(sums, order[FETCHED_AHEAD]);
        }
        R_(walk)(value, place, 0, count, order, panel, 1, vectors, sums);
        value += count;
        place += count;
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
    case 3:
        R_(skip_rows_of)(lists, panel, 3, sums, next);
        break;
    case 4:
        R_(skip_rows_of)(lists, panel, 4, sums, next);
        break;
    case 5:
        R_(skip_rows_of)(lists, panel, 5, sums, next);
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
    const char *panel = packed;
    const R_(element) *values = lists->values;
    const uint16_t *places = lists->places;
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
                const R_(element) *p = (const R_(element) *)(panel + places[t]) + column;
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

#include "simd/unjoin.h"
