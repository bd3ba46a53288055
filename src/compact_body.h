/* compact_body.h: products of the active parts of matrices, for one element type R (f32, f64).
 *
 * Packing for the caches has to touch every element of w that a product uses, once, in any case: so
 * the gathering of active rows and columns costs little more when it is part of the packing.
 *
 * The multiplication is an ordinary one, of GROUP_ROWS rows by two vectors in registers: per step
 * of depth 2 loads of the panel and GROUP_ROWS broadcasts for 2 * GROUP_ROWS multiply-adds, so that
 * the multipliers are the limit. A strip of two vectors, COMPACT_DEPTH deep, is 20 KB and stays in
 * the L1 cache for all groups of rows; loading and storing the sums, 2 * GROUP_ROWS of each, is then
 * one operation in ten multiply-adds at most. Rows of panels and of packed x have a vector more than
 * they need: whole vectors can be written at their end, and an odd number of cache lines from row
 * to row spreads a strip over all sets of the cache.
 */
#include "join.h"

#define PANEL_STRIDE ((PANEL_VECTORS + 1) * R_(lanes))
#define X_STRIDE (COMPACT_DEPTH + R_(lanes))

/* Copies the active ones of the units of one block of an axis, which lie contiguous at x, to `out`,
 * where there is a vector of room beyond them. `ahead`, to be copied soon, is fetched. */
static inline void R_(pick)(const R_(element) *x, const R_(element) *ahead,
                            const compact_axis *axis, int64_t block, R_(element) *out)
{
    if (axis->pieces == NULL) {
        const int64_t first = block * axis->step, left = axis->length - first;
        memcpy(out, x + first, (size_t)(left < axis->step ? left : axis->step) * sizeof *x);
        return;
    }
    const compact_piece *piece = axis->pieces + axis->starts[block];
    const compact_piece *end = axis->pieces + axis->starts[block + 1];
    if (axis->length < R_(lanes)) { /* no whole vector to load */
        for (int64_t i = 0; i < axis->length; i++) {
            if (piece->lanes >> i & 1) {
                *out++ = x[i];
            }
        }
        return;
    }
    for (; piece < end; piece++) {
        __builtin_prefetch(ahead + piece->source);
        R_(compress)(out + piece->place, R_(load)(x + piece->source), piece->lanes);
    }
}

static inline int64_t R_(unit)(const compact_axis *axis, int64_t i)
{
    return axis->numbers ? axis->numbers[i] : i;
}

static inline int64_t R_(in_block)(const compact_axis *axis, int64_t block)
{
    const int64_t left = axis->active - block * axis->step;
    return left < axis->step ? left : axis->step;
}

/* Rows [row, row + rows) of one block of depth, COMPACT_ROWS_AHEAD rows fetched ahead. */
static void R_(compact_pack_x)(const compact_plan *c, int64_t row, int64_t rows, int64_t block,
                               void *to)
{
    R_(element) *packed = to;
    const R_(element) *x = c->x;
    if (rows < GROUP_ROWS) {
        memset(packed, 0, GROUP_ROWS * X_STRIDE * sizeof *packed);
    }
    if (!c->x_transposed) {
        for (int64_t r = 0; r < rows; r++) {
            const R_(element) *from = x + (row + r) * c->x_stride;
            R_(pick)(from, from + GROUP_ROWS * c->x_stride, &c->depth, block,
                     packed + r * X_STRIDE);
        }
        return;
    }
    int64_t columns[GROUP_ROWS];
    for (int64_t r = 0; r < GROUP_ROWS; r++) {
        columns[r] = R_(unit)(&c->rows, row + (r < rows ? r : 0));
    }
    const int64_t first = block * c->depth.step, depth = R_(in_block)(&c->depth, block);
    /* neighbours in a row share a cache line */
    for (int64_t k = 0; k < depth; k++) {
        const R_(element) *from = x + (first + k) * c->x_stride;
#pragma GCC unroll 8
        for (int r = 0; r < GROUP_ROWS; r++) {
            packed[r * X_STRIDE + k] = from[columns[r]];
        }
    }
}

/* Row after row of w, of all panels: a row is a page or more, and is visited once. */
static void R_(compact_pack_plain)(const compact_plan *c, const compact_part *part,
                                   R_(element) *packed)
{
    const R_(element) *w = c->w;
    for (int64_t b = 0; b < part->blocks; b++) {
        const int64_t block = part->block + b, first = block * c->depth.step;
        const int64_t depth = R_(in_block)(&c->depth, block);
        for (int64_t k = 0; k < depth; k++) {
            const int64_t ahead = k + COMPACT_ROWS_AHEAD < depth ? k + COMPACT_ROWS_AHEAD : k;
            const R_(element) *row = w + R_(unit)(&c->depth, first + k) * c->w_stride;
            const R_(element) *next = w + R_(unit)(&c->depth, first + ahead) * c->w_stride;
            for (int64_t p = 0; p < part->panels; p++) {
                R_(pick)(row, next, &c->columns, part->panel + p,
                         packed + ((b * part->panels + p) * COMPACT_DEPTH + k) * PANEL_STRIDE);
            }
        }
    }
}

/* w transposed: the active parts of as many rows as a vector has lanes, then turned. */
static void R_(compact_pack_transposed)(const compact_plan *c, const compact_part *part,
                                        R_(element) *packed)
{
    const R_(element) *w = c->w;
    R_(element) turned[R_(lanes)][X_STRIDE];
    for (int64_t p = 0; p < part->panels; p++) {
        const int64_t first = (part->panel + p) * c->columns.step;
        const int64_t columns = R_(in_block)(&c->columns, part->panel + p);
        for (int64_t column = 0; column < columns; column += R_(lanes)) {
            for (int64_t b = 0; b < part->blocks; b++) {
                R_(element) *panel =
                    packed + (b * part->panels + p) * COMPACT_DEPTH * PANEL_STRIDE + column;
                for (int lane = 0; lane < R_(lanes); lane++) {
                    const int64_t j = column + lane, ahead = j + COMPACT_ROWS_AHEAD;
                    if (j >= columns) {
                        memset(turned[lane], 0, sizeof turned[lane]);
                        continue;
                    }
                    const int64_t next = ahead < columns ? ahead : j;
                    R_(pick)(w + R_(unit)(&c->columns, first + j) * c->w_stride,
                             w + R_(unit)(&c->columns, first + next) * c->w_stride, &c->depth,
                             part->block + b, turned[lane]);
                }
                const int64_t depth = R_(in_block)(&c->depth, part->block + b);
                for (int64_t k = 0; k < depth; k += R_(transpose_depth)) {
                    R_(transpose)(turned[0] + k, X_STRIDE, panel + k * PANEL_STRIDE, PANEL_STRIDE);
                }
            }
        }
    }
}

static void R_(compact_pack_w)(const compact_plan *c, const compact_part *part, void *packed)
{
    if (c->w_transposed) {
        R_(compact_pack_transposed)(c, part, packed);
    } else {
        R_(compact_pack_plain)(c, part, packed);
    }
}

/* `depth` steps of GROUP_ROWS packed rows and `vectors` vectors of the panel, into the sums. */
static inline __attribute__((always_inline)) void R_(compact_sums)(
    const R_(element) *x, const R_(element) *panel, int64_t depth, R_(element) *sums, int clear,
    const int vectors)
{
    R_(vector) v[GROUP_ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < GROUP_ROWS; r++) {
#pragma GCC unroll 2
        for (int i = 0; i < vectors; i++) {
            v[r][i] = clear ? R_(one)(0)
                            : R_(load)(sums + r * PANEL_VECTORS * R_(lanes) + i * R_(lanes));
        }
    }
    for (int64_t t = 0; t < depth; t++, panel += PANEL_STRIDE, x++) {
        R_(vector) w[2];
#pragma GCC unroll 2
        for (int i = 0; i < vectors; i++) {
            w[i] = R_(load)(panel + i * R_(lanes));
        }
#pragma GCC unroll 8
        for (int r = 0; r < GROUP_ROWS; r++) {
            const R_(vector) factor = R_(one)(x[r * X_STRIDE]);
#pragma GCC unroll 2
            for (int i = 0; i < vectors; i++) {
                v[r][i] = R_(multiply_add)(factor, w[i], v[r][i]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < GROUP_ROWS; r++) {
#pragma GCC unroll 2
        for (int i = 0; i < vectors; i++) {
            R_(store)(sums + r * PANEL_VECTORS * R_(lanes) + i * R_(lanes), v[r][i]);
        }
    }
}

/* Adds `depth` steps of the packed rows and the panel to the tile (clear: begins it), for `groups`
 * groups of rows, `stride` elements from one group's rows to the next group's. */
static void R_(compact_multiply)(const void *packed, int64_t stride, int64_t groups, int64_t depth,
                                 const void *packed_panel, int64_t vectors, void *tile, int clear)
{
    const R_(element) *x = packed, *panel = packed_panel;
    R_(element) *sums = tile;
    for (int64_t vector = 0; vector < vectors; vector += 2) {
        for (int64_t g = 0; g < groups; g++) {
            const int64_t place = (g * GROUP_ROWS * PANEL_VECTORS + vector) * R_(lanes);
            if (vector + 1 < vectors) {
                R_(compact_sums)(x + g * stride, panel + vector * R_(lanes), depth, sums + place,
                                 clear, 2);
            } else {
                R_(compact_sums)(x + g * stride, panel + vector * R_(lanes), depth, sums + place,
                                 clear, 1);
            }
        }
    }
}

#undef PANEL_STRIDE
#undef X_STRIDE
#include "unjoin.h"
