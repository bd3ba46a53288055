/* compact_pack_body.h: collecting the active parts of matrices, for one element type R (f32, f64).
 *
 * Packing for the caches has to touch every element of w that a product uses, once, in any case: so
 * the gathering of active rows and columns costs little more when it is part of the packing. A window
 * of an axis brings up to a vector of active units with two loads and one permutation, whose order is the
 * same for all rows; what that takes is bound by the L2 cache, which delivers 35 bytes a cycle. So windows
 * begin with cache lines, and what is written stays in the L1 cache: a strip of two vectors, 20 KB.
 *
 * Rows of packed x have a vector more than they need: whole vectors can be written at their end, and an
 * odd number of cache lines from row to row spreads them over all sets of the cache. */
#include "simd/join.h"

/* Rows between the one that is packed and the one that is fetched into the cache. */
#define ROWS_AHEAD 2
#define UNITS_STRIDE (FD_COMPACT_UNITS + R_(lanes))
#define STRIP_COLUMNS (FD_COMPACT_STRIP * R_(lanes))
/* Windows of a strip whose orders are kept in registers: at half the units active there are two or
 * three, four where chance left large gaps. */
#define MOST_WINDOWS 4

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

/* Up to 64 masked elements, in whole vectors. */
static inline FD_ALWAYS_INLINE void R_(pack_word)(const R_(element) *from, int64_t n, uint64_t word,
                                                  R_(vector) s, R_(element) *packed)
{
    for (int64_t j = 0; j < n; j += R_(lanes), word >>= R_(lanes)) {
        R_(store)(packed + j, R_(keep)(R_(product)(from + j, s), word));
    }
}

/* Rows of x, masked, each by its own bits, from bit `bit` on, or (own 0, a constant) all by the same. All but
 * the last rows are read in whole vectors, and their own bits in whole words: what lies behind a row is the
 * next one's begin, and goes to elements of the packed row that nobody reads. */
static inline FD_ALWAYS_INLINE void R_(pack_run)(const masked_rows *x, int64_t row, int64_t rows, int64_t first,
                                                 int64_t depth, int64_t bit, R_(element) *packed, int64_t stride,
                                                 const int own)
{
    const R_(element) *from = (const R_(element) *)x->x + row * x->stride + first;
    const R_(vector) s = R_(splat)(x->scale);
    /* Elements from the first of a row's on, and bits. */
    int64_t left = x->stride < x->depth ? 0 : (x->rows - 1 - row) * x->stride + x->depth - first;
    int64_t bits_left = x->rows * x->depth - bit;
    uint64_t words[FD_COMPACT_DEPTH / 64 + 1];
    for (int64_t k = 0; k < depth && !own; k += 64) {
        words[k / 64] = fd_load_bits_part(x->bits, bit + k, depth - k);
    }
    for (int64_t i = 0; i < rows; i++) {
        if (left < depth + R_(lanes) || (own && bits_left < depth + 128)) {
            R_(apply_bits)(from, packed, depth, x->bits, bit, x->scale, 0);
        } else {
            for (int64_t k = 0; k < depth; k += 64) {
                const uint64_t word = own ? fd_load_bits(x->bits, bit + k) : words[k / 64];
                R_(pack_word)(from + k, fd_smaller(depth - k, 64), word, s, packed + k);
            }
        }
        from += x->stride;
        left -= x->stride;
        bit += own ? x->depth : 0;
        bits_left -= x->depth;
        packed += stride;
    }
}

/* The same of rows that share their bits or have their own; packed rows are `stride` apart. */
static inline FD_ALWAYS_INLINE void R_(pack_runs)(const masked_rows *x, int64_t row, int64_t rows, int64_t first,
                                                  int64_t depth, R_(element) *packed, int64_t stride)
{
    const int64_t every = x->rows_per_mask;
    if (every == 1) {
        R_(pack_run)(x, row, rows, first, depth, row * x->depth + first, packed, stride, 1);
        return;
    }
    for (int64_t same; rows > 0; row += same, rows -= same, packed += same * stride) {
        same = fd_smaller(every - row % every, rows);
        R_(pack_run)(x, row, same, first, depth, row / every * x->depth + first, packed, stride, 0);
    }
}

static void R_(pack_masked)(const masked_rows *x, int64_t row, int64_t rows, int64_t first, int64_t depth,
                            void *to)
{
    R_(pack_runs)(x, row, rows, first, depth, to, X_STRIDE);
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
    if (x->masked) {
        const int64_t first = depth->cuts[block];
        R_(pack_masked)(x->masked, row, rows, first, depth->cuts[block + 1] - first, packed);
        return;
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
    if (w->masked) {
        R_(pack_runs)(w->masked, first, count, columns->cuts[panel] + begin, end - begin, to, STRIP_COLUMNS);
        return;
    }
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
        if (w->masked) {
            R_(pack_masked)(w->masked, first + column, fd_smaller(count - column, R_(lanes)), depth->cuts[block],
                            rows, turned);
        }
        for (int lane = 0; lane < R_(lanes); lane++) {
            const int64_t j = column + lane;
            if (j >= count) {
                memset(turned[lane], 0, sizeof turned[lane]);
            }
            if (j >= count || w->masked) {
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

#undef ROWS_AHEAD
#undef UNITS_STRIDE
#undef STRIP_COLUMNS
#undef MOST_WINDOWS
#include "simd/unjoin.h"
