/* compact_body.h: products of the active parts of matrices, for one element type R (f32, f64).
 *
 * Packing for the caches has to touch every element of w that a product uses, once, in any case: so
 * the gathering of active rows and columns costs little more when it is part of the packing.
 *
 * The multiplication is an ordinary one, of COMPACT_ROWS rows by two vectors in registers: per step
 * of depth 2 loads of the panel and COMPACT_ROWS broadcasts for 2 * COMPACT_ROWS multiply-adds, so
 * that the multipliers are the limit. A strip of two vectors, FD_COMPACT_DEPTH deep, is 20 KB and
 * stays in the L1 cache for all groups of rows; loading and storing the sums, 2 * COMPACT_ROWS of
 * each, is then one operation in ten multiply-adds at most. Rows of panels and of packed x have a
 * vector more than they need: whole vectors can be written at their end, and an odd number of cache
 * lines from row to row spreads a strip over all sets of the cache. */
#include "join.h"

/* Sums of two vectors a row, and the two vectors of the panel, in the registers there are. */
#undef COMPACT_ROWS
#define COMPACT_ROWS (FD_VECTOR_REGISTERS == 32 ? 8 : 4)
/* Rows between the one that is packed and the one that is fetched into the cache. */
#define ROWS_AHEAD 2
#define X_STRIDE (FD_COMPACT_DEPTH + R_(lanes))
#define UNITS_STRIDE (FD_COMPACT_UNITS + R_(lanes))
#define STRIP_COLUMNS (FD_COMPACT_STRIP * R_(lanes))
/* Windows of a strip whose orders are kept in registers: at half the units active there are two or
 * three, four where chance left large gaps. */
#define MOST_WINDOWS 4
/* Rows of w that few rows of x are multiplied by together: their factors stay in registers. */
#define LINES (FD_VECTOR_REGISTERS == 32 ? 8 : 4)

/* Copies the active ones of the units of one block of an axis, of the row at x, to `out`, where
 * there is a vector of room beyond them. `ahead`, a row to be copied soon, is fetched. */
static inline void R_(pick)(const R_(element) *x, const R_(element) *ahead,
                            const compact_axis *axis, int64_t block, R_(element) *out)
{
    if (axis->windows) {
        const int64_t *starts = axis->strip_starts + block * axis->strips;
        const compact_window *last = axis->windows + starts[axis->strips];
        for (const compact_window *w = axis->windows + starts[0]; w < last; w++) {
            __builtin_prefetch(ahead + w->source);
            __builtin_prefetch(ahead + w->source + R_(lanes));
            R_(store)(out + w->place, R_(collect)(x + w->source, R_(order_of)(w->order)));
        }
    } else if (axis->numbers) {
        for (int64_t rank = axis->ranks[block]; rank < axis->ranks[block + 1]; rank++) {
            *out++ = x[axis->numbers[rank]];
        }
    } else {
        const int64_t begin = axis->cuts[block], end = axis->cuts[block + 1];
        memcpy(out, x + begin, (size_t)(end - begin) * sizeof *x);
    }
}

static inline int64_t R_(unit)(const compact_axis *axis, int64_t rank)
{
    return axis->numbers ? axis->numbers[rank] : rank;
}

static inline int64_t R_(in_block)(const compact_axis *axis, int64_t block)
{
    return axis->ranks[block + 1] - axis->ranks[block];
}

/* COMPACT_ROWS rows of x from row `row` on, or as many as there are, in one block of depth; rows are
 * number numbers[row], ..., if that is not NULL. */
static void R_(compact_pack_rows)(const compact_matrix *x, const int64_t *numbers, int64_t row,
                                  int64_t rows, const compact_axis *depth, int64_t block, void *to)
{
    R_(element) *packed = to;
    if (rows < COMPACT_ROWS) {
        memset(packed, 0, COMPACT_ROWS * X_STRIDE * sizeof *packed);
    }
    for (int64_t r = 0; r < rows; r++) {
        const int64_t i = row + r, next = r + ROWS_AHEAD < rows ? i + ROWS_AHEAD : i;
        const R_(element) *data = x->data;
        R_(pick)(data + (numbers ? numbers[i] : i) * x->stride,
                 data + (numbers ? numbers[next] : next) * x->stride, depth, block,
                 packed + r * X_STRIDE);
    }
}

/* The active units of one block of `depth` rows of x from row `row` on, turned: row i of what is
 * packed are the depth elements of the block's active unit i. Rows that fill the last group of rows
 * up are zero. */
static void R_(compact_pack_units)(const compact_matrix *x, int64_t row, int64_t depth,
                                   const compact_axis *units, int64_t block, void *to)
{
    R_(element) *packed = to;
    R_(element) turned[R_(lanes)][UNITS_STRIDE];
    const int64_t active = R_(in_block)(units, block);
    const int64_t filled = (active + COMPACT_ROWS - 1) / COMPACT_ROWS * COMPACT_ROWS;
    for (int64_t k = 0; k < depth; k += R_(lanes)) {
        for (int lane = 0; lane < R_(lanes); lane++) {
            if (k + lane >= depth) {
                memset(turned[lane], 0, (size_t)active * sizeof *packed);
                continue;
            }
            const R_(element) *from = (const R_(element) *)x->data + (row + k + lane) * x->stride;
            const int64_t ahead = k + lane + ROWS_AHEAD < depth ? ROWS_AHEAD : 0;
            R_(pick)(from, from + ahead * x->stride, units, block, turned[lane]);
        }
        for (int64_t u = 0; u < active; u += R_(transpose_depth)) {
            R_(transpose)(turned[0] + u, UNITS_STRIDE,
                          packed + u * X_STRIDE + k, X_STRIDE);
        }
    }
    for (int64_t u = active; u < filled; u++) {
        memset(packed + u * X_STRIDE, 0, X_STRIDE * sizeof *packed);
    }
}

/* What the rows of w of one block of depth, `count` of them from active unit number `first` on, have in
 * `windows` windows, a constant: what orders them stays in registers. */
static inline __attribute__((always_inline)) void
R_(collect_rows)(const compact_matrix *w, const compact_axis *depth, int64_t first, int64_t count,
                 const compact_window *window, const int windows, R_(element) *to)
{
    const R_(element) *from[MOST_WINDOWS];
    R_(element) *place[MOST_WINDOWS];
    R_(order) order[MOST_WINDOWS];
#pragma GCC unroll 8
    for (int i = 0; i < windows; i++) {
        from[i] = (const R_(element) *)w->data + window[i].source;
        place[i] = to + (window[i].place - window[0].place);
        order[i] = R_(order_of)(window[i].order);
    }
    for (int64_t k = 0; k < count; k++) {
        const int64_t row = R_(unit)(depth, first + k) * w->stride;
#pragma GCC unroll 8
        for (int i = 0; i < windows; i++) {
            R_(store)(place[i] + k * STRIP_COLUMNS, R_(collect)(from[i] + row, order[i]));
        }
    }
}

/* The same of many windows. */
static void R_(collect_rows_of_many)(const compact_matrix *w, const compact_axis *depth, int64_t first,
                                     int64_t count, const compact_window *window, int64_t windows,
                                     R_(element) *to)
{
    for (int64_t k = 0; k < count; k++, to += STRIP_COLUMNS) {
        const R_(element) *row = (const R_(element) *)w->data + R_(unit)(depth, first + k) * w->stride;
        for (int64_t i = 0; i < windows; i++) {
            R_(store)(to + (window[i].place - window[0].place),
                      R_(collect)(row + window[i].source, R_(order_of)(window[i].order)));
        }
    }
}

/* Rows run along the columns: the strip's part of each. A row is written before the next one, into
 * which its last vector may reach. */
static void R_(pack_strip_plain)(const compact_matrix *w, const compact_axis *depth, int64_t block,
                                 const compact_axis *columns, int64_t panel, int64_t strip,
                                 R_(element) *to)
{
    const int64_t first = depth->ranks[block], count = R_(in_block)(depth, block);
    if (columns->windows) {
        const int64_t *starts = columns->strip_starts + panel * columns->strips + strip;
        const compact_window *window = columns->windows + starts[0];
        switch (starts[1] - starts[0]) {
        case 2:
            R_(collect_rows)(w, depth, first, count, window, 2, to);
            return;
        case 3:
            R_(collect_rows)(w, depth, first, count, window, 3, to);
            return;
        case 4:
            R_(collect_rows)(w, depth, first, count, window, 4, to);
            return;
        default:
            R_(collect_rows_of_many)(w, depth, first, count, window, starts[1] - starts[0], to);
            return;
        }
    }
    const int64_t begin = strip * STRIP_COLUMNS, all = R_(in_block)(columns, panel);
    const int64_t end = begin + STRIP_COLUMNS < all ? begin + STRIP_COLUMNS : all;
    const int64_t *units = columns->numbers ? columns->numbers + columns->ranks[panel] : NULL;
    for (int64_t k = 0; k < count; k++, to += STRIP_COLUMNS) {
        const R_(element) *row = (const R_(element) *)w->data + R_(unit)(depth, first + k) * w->stride;
        if (units == NULL) {
            memcpy(to, row + columns->cuts[panel] + begin, (size_t)(end - begin) * sizeof *to);
            continue;
        }
        for (int64_t j = begin; j < end; j++) {
            to[j - begin] = row[units[j]];
        }
    }
}

/* w transposed, whose rows run along the depth: the active parts of as many rows as a vector has lanes,
 * then turned. */
static void R_(pack_strip_transposed)(const compact_matrix *w, const compact_axis *depth,
                                      int64_t block, const compact_axis *columns, int64_t panel,
                                      int64_t strip, R_(element) *to)
{
    R_(element) turned[R_(lanes)][X_STRIDE];
    const int64_t first = columns->ranks[panel] + strip * STRIP_COLUMNS;
    const int64_t left = columns->ranks[panel + 1] - first;
    const int64_t count = left < STRIP_COLUMNS ? left : STRIP_COLUMNS;
    const int64_t rows = R_(in_block)(depth, block);
    for (int64_t column = 0; column < count; column += R_(lanes)) {
        for (int lane = 0; lane < R_(lanes); lane++) {
            const int64_t j = column + lane;
            if (j >= count) {
                memset(turned[lane], 0, sizeof turned[lane]);
                continue;
            }
            const int64_t next = j + ROWS_AHEAD < count ? j + ROWS_AHEAD : j;
            const R_(element) *data = w->data;
            R_(pick)(data + R_(unit)(columns, first + j) * w->stride,
                     data + R_(unit)(columns, first + next) * w->stride, depth, block,
                     turned[lane]);
        }
        for (int64_t k = 0; k < rows; k += R_(transpose_depth)) {
            R_(transpose)(turned[0] + k, X_STRIDE, to + column + k * STRIP_COLUMNS,
                          STRIP_COLUMNS);
        }
    }
}

static void R_(compact_pack_strip)(const compact_matrix *w, const compact_axis *depth,
                                   int64_t block, const compact_axis *columns, int64_t panel,
                                   int64_t strip, void *packed)
{
    if (w->transposed) {
        R_(pack_strip_transposed)(w, depth, block, columns, panel, strip, packed);
    } else {
        R_(pack_strip_plain)(w, depth, block, columns, panel, strip, packed);
    }
}

/* `depth` steps of COMPACT_ROWS packed rows and `vectors` vectors of the panel, into the sums. */
static inline __attribute__((always_inline)) void R_(compact_sums)(
    const R_(element) *x, const R_(element) *panel, int64_t panel_stride, int64_t depth,
    R_(element) *sums, int64_t sums_stride, int clear, compact_ahead *ahead, const int vectors)
{
    R_(vector) v[COMPACT_ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < COMPACT_ROWS; r++) {
#pragma GCC unroll 2
        for (int i = 0; i < vectors; i++) {
            v[r][i] = clear ? R_(one)(0) : R_(load)(sums + r * sums_stride + i * R_(lanes));
        }
    }
    for (int64_t left = depth; left > 0; left -= FD_AHEAD_STEPS) {
        const int64_t steps = left < FD_AHEAD_STEPS ? left : FD_AHEAD_STEPS;
        int64_t line_step;
        const char *line = next_lines(ahead, panel, steps, &line_step);
        for (int64_t t = 0; t < steps; t++, panel += panel_stride, x++, line += line_step) {
            R_(vector) w[2];
            __builtin_prefetch(line, 0, 2);
#pragma GCC unroll 2
            for (int i = 0; i < vectors; i++) {
                w[i] = R_(load)(panel + i * R_(lanes));
            }
#pragma GCC unroll 8
            for (int r = 0; r < COMPACT_ROWS; r++) {
                const R_(vector) factor = R_(one)(x[r * X_STRIDE]);
#pragma GCC unroll 2
                for (int i = 0; i < vectors; i++) {
                    v[r][i] = R_(multiply_add)(factor, w[i], v[r][i]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < COMPACT_ROWS; r++) {
#pragma GCC unroll 2
        for (int i = 0; i < vectors; i++) {
            R_(store)(sums + r * sums_stride + i * R_(lanes), v[r][i]);
        }
    }
}

/* Adds `depth` steps of the packed rows and the strips to the tile (clear: begins it), for `groups`
 * groups of rows. */
static void R_(compact_multiply)(const void *packed, int64_t groups, int64_t depth,
                                 const compact_strips *strips, void *tile, int64_t tile_stride,
                                 int clear, compact_ahead *ahead)
{
    const R_(element) *x = packed, *strip = strips->data;
    R_(element) *sums = tile;
    for (int64_t vector = 0; vector < strips->vectors; vector += FD_COMPACT_STRIP) {
        for (int64_t g = 0; g < groups; g++) {
            const R_(element) *rows = x + g * COMPACT_ROWS * X_STRIDE;
            R_(element) *place = sums + g * COMPACT_ROWS * tile_stride + vector * R_(lanes);
            if (vector + 1 < strips->vectors) {
                R_(compact_sums)(rows, strip, strips->stride, depth, place, tile_stride, clear,
                                 ahead, 2);
            } else {
                R_(compact_sums)(rows, strip, strips->stride, depth, place, tile_stride, clear,
                                 ahead, 1);
            }
        }
        strip += strips->next;
    }
}

/* Adds products of `rows` rows of x with `steps` rows of w, constants, to the sums. */
static inline __attribute__((always_inline)) void
R_(add_lines)(const R_(element) *x, const R_(element) *w, int64_t stride, int64_t vectors,
              R_(element) *sums, int64_t sums_stride, int clear, const int rows, const int steps)
{
    R_(vector) factor[2][LINES];
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int t = 0; t < steps; t++) {
            factor[r][t] = R_(one)(x[r * X_STRIDE + t]);
        }
    }
    for (int64_t j = 0; j < vectors * R_(lanes); j += R_(lanes)) {
        R_(vector) v[2];
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            v[r] = clear ? R_(one)(0) : R_(load)(sums + r * sums_stride + j);
        }
#pragma GCC unroll 8
        for (int t = 0; t < steps; t++) {
            const R_(vector) line = R_(load)(w + t * stride + j);
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++) {
                v[r] = R_(multiply_add)(factor[r][t], line, v[r]);
            }
        }
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            R_(store)(sums + r * sums_stride + j, v[r]);
        }
    }
}

static inline __attribute__((always_inline)) void
R_(multiply_lines)(const R_(element) *x, int64_t depth, const compact_strips *strips,
                   R_(element) *sums, int64_t sums_stride, int clear, const int rows)
{
    const R_(element) *w = strips->data;
    const int64_t stride = strips->stride, vectors = strips->vectors;
    int64_t k = 0;
    for (; k + LINES <= depth; k += LINES, clear = 0) {
        R_(add_lines)(x + k, w + k * stride, stride, vectors, sums, sums_stride, clear, rows, LINES);
    }
    for (; k < depth; k++, clear = 0) {
        R_(add_lines)(x + k, w + k * stride, stride, vectors, sums, sums_stride, clear, rows, 1);
    }
    if (clear) { /* no depth at all */
        for (int r = 0; r < rows; r++) {
            memset(sums + r * sums_stride, 0, (size_t)vectors * sizeof(R_(vector)));
        }
    }
}

/* The same of one or two rows, by rows of w from begin to end: they come from the L2 cache, which is fast
 * where it is read in order, and the sums stay in the L1 cache. Several rows of w at a time: a load and a
 * store of sums for all of them. */
static void R_(multiply_few)(const void *packed, int64_t rows, int64_t depth,
                             const compact_strips *strips, void *tile, int64_t tile_stride, int clear)
{
    if (rows == 1) {
        R_(multiply_lines)(packed, depth, strips, tile, tile_stride, clear, 1);
    } else {
        R_(multiply_lines)(packed, depth, strips, tile, tile_stride, clear, 2);
    }
}

/* Where the sums of one block of columns go, prepared for whole vectors. */
typedef struct {
    const compact_piece *pieces;
    int64_t count, begin, end, length; /* of the axis */
    R_(vector) scales, bias_scales;
    const R_(element) *bias;
    R_(vector) watch; /* 0, until an infinity or NaN was among the results */
} R_(places);

/* One piece of which not all lanes are the block's own, or not before column `at`. */
static void R_(put_part)(R_(places) *p, const R_(element) *sums, compact_piece piece,
                         int64_t at, int accumulate, R_(element) *out)
{
    R_(element) lanes[R_(lanes)], near[R_(lanes)] = {0};
    const int64_t last = piece.source + R_(lanes);
    const int64_t first = piece.source > at ? piece.source : at;
    const int64_t stop = last < p->end ? last : p->end;
    R_(vector) v = R_(multiply)(R_(expand)(sums + piece.place, piece.lanes), p->scales);
    if (p->bias) {
        memcpy(near + (first - piece.source), p->bias + first,
               (size_t)(stop - first) * sizeof *near);
        v = R_(multiply_add)(R_(load)(near), p->bias_scales, v);
    }
    v = R_(keep)(v, piece.lanes);
    p->watch = R_(multiply_add)(v, R_(one)(0), p->watch);
    if (!accumulate) {
        const uint64_t before_stop = ((uint64_t)1 << (stop - piece.source)) - 1;
        const uint64_t before_first = ((uint64_t)1 << (first - piece.source)) - 1;
        R_(store_lanes)(out + piece.source, v, before_stop & ~before_first);
        return;
    }
    R_(store)(lanes, v);
    for (int64_t j = first; j < stop; j++) {
        if (piece.lanes >> (j - piece.source) & 1) {
            out[j] += lanes[j - piece.source];
        }
    }
}

/* All units active: sums lie as the result does. */
static void R_(put_run)(R_(places) *p, const R_(element) *sums, int accumulate,
                        R_(element) *out)
{
    int64_t j = p->begin;
    R_(vector) watch = p->watch;
    for (; j + R_(lanes) <= p->end; j += R_(lanes)) {
        R_(vector) v = R_(multiply)(R_(load)(sums + (j - p->begin)), p->scales);
        if (accumulate) {
            v = R_(add)(R_(load)(out + j), v);
        } else if (p->bias) {
            v = R_(multiply_add)(R_(load)(p->bias + j), p->bias_scales, v);
        }
        watch = R_(multiply_add)(v, R_(one)(0), watch);
        R_(store)(out + j, v);
    }
    p->watch = watch;
    if (j < p->end) {
        const compact_piece rest = {.source = j, .place = (int32_t)(j - p->begin),
                                    .lanes = ((uint32_t)1 << (p->end - j)) - 1};
        R_(put_part)(p, sums, rest, j, accumulate, out);
    }
}

/* A row is added. Whole vectors are, with zeros in between and beyond the block: a masked store would be
 * slower. Only where there is no whole vector of it an axis is treated lane by lane. */
static void R_(put_added)(R_(places) *p, const R_(element) *sums, R_(element) *out)
{
    if (p->length < R_(lanes)) {
        for (int64_t n = 0; n < p->count; n++) {
            R_(put_part)(p, sums, p->pieces[n], p->begin, 1, out);
        }
        return;
    }
    for (int64_t n = 0; n < p->count; n++) {
        const compact_piece piece = p->pieces[n];
        const R_(vector) v = R_(expand)(sums + piece.place, piece.lanes);
        R_(element) *place = out + piece.source;
        R_(store)(place, R_(multiply_add)(v, p->scales, R_(load)(place)));
    }
}

/* +0.0 from column `at` on, in whole vectors, until `end` is reached; returns where that is. */
static inline int64_t R_(put_zeros)(int64_t at, int64_t end, R_(element) *out)
{
    for (; at < end; at += R_(lanes)) {
        R_(store)(out + at, R_(one)(0));
    }
    return at;
}

/* A row with zeros in between. */
static void R_(put_new)(R_(places) *p, const R_(element) *sums, R_(element) *out)
{
    int64_t at = p->begin;
    for (int64_t n = 0; n + 1 < p->count; n++, at += R_(lanes)) {
        const compact_piece piece = p->pieces[n];
        at = R_(put_zeros)(at, piece.source, out);
        R_(vector) v = R_(multiply)(R_(expand)(sums + piece.place, piece.lanes), p->scales);
        if (p->bias) {
            v = R_(multiply_add)(R_(load)(p->bias + at), p->bias_scales, v);
        }
        R_(store)(out + at, R_(keep)(v, piece.lanes));
    }
    if (p->count > 0) {
        const compact_piece last = p->pieces[p->count - 1];
        at = R_(put_zeros)(at, last.source, out);
        R_(put_part)(p, sums, last, at, 0, out);
        at = last.source + R_(lanes);
    }
    if (at < p->end) {
        memset(out + at, 0, (size_t)(p->end - at) * sizeof *out);
    }
}

/* Rows of sums of the active units of one block of an axis go to their places in the rows of the
 * result, number rows[i] (or first + i): times scale and plus bias, +0.0 in between, or with
 * accumulate added to what is there. A vector beyond the sums may be read. */
static void R_(compact_put)(const void *from, int64_t stride, const compact_axis *axis,
                            int64_t block, int accumulate, const compact_result *result,
                            const int64_t *numbers, int64_t first, int64_t rows)
{
    R_(places) p = {
        .begin = axis->cuts[block],
        .end = axis->cuts[block + 1],
        .length = axis->length,
        .scales = R_(one)((R_(element))result->scale),
        .bias_scales = R_(one)((R_(element))result->bias_scale),
        .bias = result->bias,
        .watch = R_(one)(0),
    };
    if (axis->pieces) {
        p.pieces = axis->pieces + axis->starts[block];
        p.count = axis->starts[block + 1] - axis->starts[block];
    }
    for (int64_t i = 0; i < rows; i++) {
        const R_(element) *sums = (const R_(element) *)from + i * stride;
        const int64_t number = numbers ? numbers[i] : first + i;
        R_(element) *out = (R_(element) *)result->data + number * result->stride;
        if (axis->pieces == NULL) {
            R_(put_run)(&p, sums, accumulate, out);
        } else if (accumulate) {
            R_(put_added)(&p, sums, out);
        } else {
            R_(put_new)(&p, sums, out);
        }
    }
    if (result->infinite && R_(nonzero)(p.watch)) { /* NaN is not zero */
        atomic_store_explicit(result->infinite, 1, memory_order_relaxed);
    }
}

#undef ROWS_AHEAD
#undef X_STRIDE
#undef UNITS_STRIDE
#undef STRIP_COLUMNS
#undef MOST_WINDOWS
#undef LINES
#include "unjoin.h"
