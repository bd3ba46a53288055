/* pack_body.h: pack_a and pack_b, which gather kept units and mask elements, for one element type R (f32, f64).
 *
 * Packing has to touch every element of B that a product uses, once, in any case: so gathering kept rows and
 * columns costs little more when it is part of the packing. A window brings up to a vector of kept units with two
 * loads and one permutation, whose order is the same for all rows; the limit is the L2 cache, which delivers 35
 * bytes a cycle. So windows begin with cache lines, and what is written stays in the L1 cache.
 *
 * A row of a packed micro-panel of A has a vector more than it needs: whole vectors can be written at its end, and
 * an odd number of cache lines from row to row spreads them over all sets of the cache. */
#include "simd/join.h"

/* Rows between the one that is packed and the one that is fetched into the cache. */
#define ROWS_AHEAD 2
#define NR (FD_NR * R_(lanes))
/* Windows of a micro-panel whose orders are kept in registers: at half the units kept there are two or
 * three, four where chance left large gaps. */
#define MOST_WINDOWS 4

/* Copies the kept ones of the units of one block of an axis, of the row at x, to `out`, where
 * there is a vector of room beyond them. `ahead`, a row to be copied soon, is fetched. */
static inline void R_(gather_kept)(const R_(element) *x, const R_(element) *ahead,
                                   const kept_units *axis, int64_t block, R_(element) *out)
{
    if (axis->windows) {
        const int64_t *starts = axis->window_starts + block * axis->micro_panels;
        const kept_window *last = axis->windows + starts[axis->micro_panels];
        for (const kept_window *w = axis->windows + starts[0]; w < last; w++) {
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

static inline int64_t R_(unit)(const kept_units *axis, int64_t rank)
{
    return axis->numbers ? axis->numbers[rank] : rank;
}

/* Up to 64 masked elements, in whole vectors. */
static inline FD_ALWAYS_INLINE void R_(mask_word)(const R_(element) *from, int64_t n, uint64_t word,
                                                  R_(vector) s, R_(element) *packed)
{
    for (int64_t j = 0; j < n; j += R_(lanes), word >>= R_(lanes)) {
        R_(store)(packed + j, R_(keep)(R_(product)(from + j, s), word));
    }
}

/* Rows of x, masked, each by its own bits, from bit `bit` on, or (own 0, a constant) all by the same. All but
 * the last rows are read in whole vectors, and their own bits in whole words: what lies behind a row is the
 * next one's begin, and goes to elements of the packed row that nobody reads. */
static inline FD_ALWAYS_INLINE void R_(mask_run)(const masked_rows *x, int64_t row, int64_t rows,
                                                 int64_t first, int64_t depth, int64_t bit,
                                                 R_(element) *packed, int64_t stride, const int own)
{
    const R_(element) *from = (const R_(element) *)x->data + row * x->stride + first;
    const R_(vector) s = R_(splat)(x->scale);
    /* Elements from the first of a row's on, and bits. */
    int64_t left = x->stride < x->width ? 0 : (x->rows - 1 - row) * x->stride + x->width - first;
    int64_t bits_left = x->rows * x->width - bit;
    uint64_t words[FD_KC / 64 + 1];
    for (int64_t k = 0; k < depth && !own; k += 64) {
        words[k / 64] = fd_load_bits_part(x->bits, bit + k, depth - k);
    }
    for (int64_t i = 0; i < rows; i++) {
        if (left < depth + R_(lanes) || (own && bits_left < depth + 128)) {
            R_(apply_bits)(from, packed, depth, x->bits, bit, x->scale, 0);
        } else {
            for (int64_t k = 0; k < depth; k += 64) {
                const uint64_t word = own ? fd_load_bits(x->bits, bit + k) : words[k / 64];
                R_(mask_word)(from + k, fd_smaller(depth - k, 64), word, s, packed + k);
            }
        }
        from += x->stride;
        left -= x->stride;
        bit += own ? x->width : 0;
        bits_left -= x->width;
        packed += stride;
    }
}

/* The same of rows that share their bits or have their own; packed rows are `stride` apart. */
static inline FD_ALWAYS_INLINE void R_(mask_rows)(const masked_rows *x, int64_t row, int64_t rows,
                                                  int64_t first, int64_t depth, R_(element) *packed,
                                                  int64_t stride)
{
    const int64_t every = x->rows_per_mask;
    if (every == 1) {
        R_(mask_run)(x, row, rows, first, depth, row * x->width + first, packed, stride, 1);
        return;
    }
    for (int64_t same; rows > 0; row += same, rows -= same, packed += same * stride) {
        same = fd_smaller(every - row % every, rows);
        R_(mask_run)(x, row, same, first, depth, row / every * x->width + first, packed, stride, 0);
    }
}

/* Elements [first, + kc) of `rows` rows of A from row `row` on, masked. */
static void R_(pack_a_masked)(const fd_product *p, int64_t row, int64_t rows, int64_t first,
                              int64_t kc, void *packed)
{
    const masked_rows a = fd_masked_a(p);
    R_(mask_rows)(&a, row, rows, first, kc, packed, A_STRIDE);
}

static void R_(pack_a)(const fd_product *p, int64_t row, int64_t rows, const kept_units *k,
                       int64_t block, void *to)
{
    R_(element) *packed = to;
    if (rows < MR) {
        memset(packed, 0, MR * A_STRIDE * sizeof *packed);
    }
    if (k->numbers == NULL && fd_masks_elements_of_a(p)) {
        R_(pack_a_masked)(p, row, rows, k->cuts[block], k->cuts[block + 1] - k->cuts[block],
                          packed);
        return;
    }
    const R_(element) *from = (const R_(element) *)p->a.data + row * p->a.row_stride;
    for (int64_t r = 0; r < rows; r++, from += p->a.row_stride) {
        R_(gather_kept)(from, from + (r + ROWS_AHEAD < rows ? ROWS_AHEAD : 0) * p->a.row_stride, k,
                        block, packed + r * A_STRIDE);
    }
}

/* The kept units of one block of m, of kc columns of A from column `first` on, which are contiguous. Rows that fill
 * the last micro-panel up are zero. */
static void R_(pack_a_transposed)(const fd_product *p, int64_t first, int64_t kc,
                                  const kept_units *m, int64_t block, void *to)
{
    R_(element) *packed = to;
    R_(element) transposed[R_(lanes)][FD_MC_SUM + R_(lanes)];
    const int64_t kept = fd_kept_in_block(m, block), filled = (kept + MR - 1) / MR * MR,
                  stride = p->a.column_stride;
    for (int64_t k = 0; k < kc; k += R_(lanes)) {
        for (int lane = 0; lane < R_(lanes); lane++) {
            if (k + lane >= kc) {
                memset(transposed[lane], 0, (size_t)kept * sizeof *packed);
                continue;
            }
            const R_(element) *from = (const R_(element) *)p->a.data + (first + k + lane) * stride;
            const int64_t ahead = k + lane + ROWS_AHEAD < kc ? ROWS_AHEAD : 0;
            R_(gather_kept)(from, from + ahead * stride, m, block, transposed[lane]);
        }
        for (int64_t i = 0; i < kept; i += R_(transpose_depth)) {
            R_(transpose)(transposed[0] + i, FD_MC_SUM + R_(lanes), packed + i * A_STRIDE + k,
                          A_STRIDE);
        }
    }
    for (int64_t i = kept; i < filled; i++) {
        memset(packed + i * A_STRIDE, 0, A_STRIDE * sizeof *packed);
    }
}

/* What `count` kept rows of B from number `rank` on have in `windows` windows, a constant: what orders them stays in
 * registers. */
static inline
    __attribute__((always_inline)) void R_(gather_windows)(const fd_matrix *b, const kept_units *k,
                                                           int64_t rank, int64_t count,
                                                           const kept_window *window,
                                                           const int windows, R_(element) *to)
{
    const R_(element) *from[MOST_WINDOWS];
    R_(element) *place[MOST_WINDOWS];
    R_(order) order[MOST_WINDOWS];
#pragma GCC unroll 8
    for (int i = 0; i < windows; i++) {
        from[i] = (const R_(element) *)b->data + window[i].source;
        place[i] = to + (window[i].place - window[0].place);
        order[i] = R_(order_of)(window[i].order);
    }
    for (int64_t r = 0; r < count; r++) {
        const int64_t row = R_(unit)(k, rank + r) * b->row_stride;
#pragma GCC unroll 8
        for (int i = 0; i < windows; i++) {
            R_(store)(place[i] + r * NR, R_(collect)(from[i] + row, order[i]));
        }
    }
}

/* The same of many windows. */
static void R_(gather_many_windows)(const fd_matrix *b, const kept_units *k, int64_t rank,
                                    int64_t count, const kept_window *window, int64_t windows,
                                    R_(element) *to)
{
    for (int64_t r = 0; r < count; r++, to += NR) {
        const R_(element) *row =
            (const R_(element) *)b->data + R_(unit)(k, rank + r) * b->row_stride;
        for (int64_t i = 0; i < windows; i++) {
            R_(store)(to + (window[i].place - window[0].place),
                      R_(collect)(row + window[i].source, R_(order_of)(window[i].order)));
        }
    }
}

/* Rows of B are contiguous. A row is written before the next one, into which its last vector may reach. */
static void R_(pack_b_rows)(const fd_product *p, const kept_units *k, int64_t block,
                            const kept_units *n, int64_t panel, int64_t number, R_(element) *to)
{
    const int64_t first = k->ranks[block], count = fd_kept_in_block(k, block);
    if (n->windows) {
        const int64_t *starts = n->window_starts + panel * n->micro_panels + number;
        const kept_window *window = n->windows + starts[0];
        switch (starts[1] - starts[0]) {
        case 2:
            R_(gather_windows)(&p->b, k, first, count, window, 2, to);
            return;
        case 3:
            R_(gather_windows)(&p->b, k, first, count, window, 3, to);
            return;
        case 4:
            R_(gather_windows)(&p->b, k, first, count, window, 4, to);
            return;
        default:
            R_(gather_many_windows)(&p->b, k, first, count, window, starts[1] - starts[0], to);
            return;
        }
    }
    const int64_t begin = number * NR, end = fd_smaller(begin + NR, fd_kept_in_block(n, panel));
    if (fd_masked_weights(p)) {
        const masked_rows b = fd_masked_b(p);
        R_(mask_rows)(&b, first, count, n->cuts[panel] + begin, end - begin, to, NR);
        return;
    }
    const int64_t *units = n->numbers ? n->numbers + n->ranks[panel] : NULL;
    for (int64_t r = 0; r < count; r++, to += NR) {
        const R_(element) *row =
            (const R_(element) *)p->b.data + R_(unit)(k, first + r) * p->b.row_stride;
        if (units == NULL) {
            memcpy(to, row + n->cuts[panel] + begin, (size_t)(end - begin) * sizeof *to);
            continue;
        }
        for (int64_t j = begin; j < end; j++) {
            to[j - begin] = row[units[j]];
        }
    }
}

/* Columns of B are contiguous: the kept parts of as many as a vector has lanes, then transposed. */
static void R_(pack_b_transposed)(const fd_product *p, const kept_units *k, int64_t block,
                                  const kept_units *n, int64_t panel, int64_t number,
                                  R_(element) *to)
{
    R_(element) transposed[R_(lanes)][A_STRIDE];
    const int64_t first = n->ranks[panel] + number * NR,
                  count = fd_smaller(n->ranks[panel + 1] - first, NR);
    const int64_t kc = fd_kept_in_block(k, block), stride = p->b.column_stride,
                  masked = fd_masked_weights(p);
    const R_(element) *b = p->b.data;
    for (int64_t column = 0; column < count; column += R_(lanes)) {
        if (masked) {
            const masked_rows rows = fd_masked_b(p);
            R_(mask_rows)(&rows, first + column, fd_smaller(count - column, R_(lanes)),
                          k->cuts[block], kc, transposed[0], A_STRIDE);
        }
        for (int lane = 0; lane < R_(lanes); lane++) {
            const int64_t j = column + lane, next = j + ROWS_AHEAD < count ? j + ROWS_AHEAD : j;
            if (j >= count) {
                memset(transposed[lane], 0, sizeof transposed[lane]);
            } else if (!masked) {
                R_(gather_kept)(b + R_(unit)(n, first + j) * stride,
                                b + R_(unit)(n, first + next) * stride, k, block, transposed[lane]);
            }
        }
        for (int64_t r = 0; r < kc; r += R_(transpose_depth)) {
            R_(transpose)(transposed[0] + r, A_STRIDE, to + column + r * NR, NR);
        }
    }
}

static void R_(pack_b)(const fd_product *p, const kept_units *k, int64_t block, const kept_units *n,
                       int64_t panel, int64_t number, void *packed)
{
    if (fd_transposed_b(p)) {
        R_(pack_b_transposed)(p, k, block, n, panel, number, packed);
    } else {
        R_(pack_b_rows)(p, k, block, n, panel, number, packed);
    }
}

#undef ROWS_AHEAD
#undef NR
#undef MOST_WINDOWS
#include "simd/unjoin.h"
