/* compact_body.h: products of the active parts of matrices, for one element type R (f32, f64).
 *
 * Packing for the caches has to touch every element of w that a product uses, once, in any case: so
 * the gathering of active rows and columns costs little more when it is part of the packing. The
 * multiplication itself is then an ordinary one, of GROUP_ROWS rows by two vectors in registers:
 * per step of depth 2 loads of the panel and GROUP_ROWS broadcasts for 2 * GROUP_ROWS
 * multiply-adds, so that the multipliers are the limit.
 *
 * Depth and columns are counted in active units here; cuts say where in the source every block of
 * depth and every panel of columns begins.
 */
#include "join.h"

/* Copies the active ones of units [first, first + span), which x points to, to `out`, where there
 * is room for `count` and COMPACT_SLACK more. Goes on to a whole word of bits where there are more
 * units: some too many cost less than a tail one by one. */
static inline void R_(copy_active)(const R_(element) *x, int64_t span, const fd_units *units,
                                   int64_t first, R_(element) *out, int64_t count)
{
    if (units->bits) {
        const int64_t left = units->length - first, whole = (span + 63) / 64 * 64;
        R_(gather)(x, x, whole < left ? whole : left, units->bits, units->bit + first, out,
                   count + COMPACT_SLACK);
    } else {
        memcpy(out, x, (size_t)span * sizeof *x);
    }
}

/* Rows [row, row + rows) of one block of depth: GROUP_ROWS rows of BLOCK_DEPTH elements each. */
static void R_(compact_pack_x_transposed)(const compact_operands *c, int64_t row, int64_t rows,
                                          int64_t block, R_(element) *packed)
{
    const int64_t first = c->depth_cuts[block], span = c->depth_cuts[block + 1] - first;
    const int64_t *columns = c->row_numbers + row;
    if (rows < GROUP_ROWS) {
        memset(packed, 0, GROUP_ROWS * BLOCK_DEPTH * sizeof *packed);
    }
    /* neighbours in a row share a cache line; rows a power of two apart share a cache set */
    for (int64_t k = 0; k < span; k++) {
        const R_(element) *x = (const R_(element) *)c->x + (first + k) * c->x_stride;
        for (int64_t r = 0; r < rows; r++) {
            packed[r * BLOCK_DEPTH + k] = x[columns[r]];
        }
    }
}

static void R_(compact_pack_x)(const compact_operands *c, int64_t row, int64_t rows, int64_t block,
                               void *to)
{
    R_(element) *packed = to;
    if (c->x_transposed) {
        R_(compact_pack_x_transposed)(c, row, rows, block, packed);
        return;
    }
    const int64_t first = c->depth_cuts[block], span = c->depth_cuts[block + 1] - first;
    for (int64_t r = 0; r < GROUP_ROWS; r++) {
        R_(element) *out = packed + r * BLOCK_DEPTH;
        if (r >= rows) {
            memset(out, 0, BLOCK_DEPTH * sizeof *out);
            continue;
        }
        const R_(element) *x = (const R_(element) *)c->x + (row + r) * c->x_stride + first;
        /* what is written beyond the block's units belongs to the next row, written later */
        R_(copy_active)(x, span, &c->depth, first, out, BLOCK_DEPTH);
    }
}

static void R_(compact_pack_plain)(const compact_operands *c, int64_t block, int64_t panel_number,
                                   R_(element) *panel)
{
    const int64_t width = PANEL_VECTORS * R_(lanes);
    const int64_t column = c->column_cuts[panel_number];
    const int64_t span = c->column_cuts[panel_number + 1] - column;
    const R_(element) *w = (const R_(element) *)c->w + column;
    for (int64_t k = c->depth_cuts[block]; k < c->depth_cuts[block + 1]; k++) {
        if (c->depth.bits && !fd_test_bit(c->depth.bits, c->depth.bit + k)) {
            continue;
        }
        R_(copy_active)(w + k * c->w_stride, span, &c->columns, column, panel, width);
        panel += width;
    }
}

/* w transposed: the active parts of as many rows as a vector has lanes side by side, then turned. */
static void R_(compact_pack_transposed)(const compact_operands *c, int64_t block,
                                        int64_t panel_number, R_(element) *panel)
{
    enum { STRIDE = BLOCK_DEPTH + COMPACT_SLACK };
    const int64_t width = PANEL_VECTORS * R_(lanes);
    const int64_t first = c->depth_cuts[block], span = c->depth_cuts[block + 1] - first;
    const R_(element) *w = (const R_(element) *)c->w + first;
    R_(element) rows[R_(lanes)][STRIDE];
    int lane = 0;
    const int64_t end = c->column_cuts[panel_number + 1];
    for (int64_t j = c->column_cuts[panel_number]; j < end; j++) {
        if (!c->columns.bits || fd_test_bit(c->columns.bits, c->columns.bit + j)) {
            R_(copy_active)(w + j * c->w_stride, span, &c->depth, first, rows[lane], BLOCK_DEPTH);
            lane++;
        }
        if (lane == R_(lanes) || (lane > 0 && j + 1 == end)) {
            memset(rows[lane], 0, sizeof rows[0] * (size_t)(R_(lanes) - lane));
            for (int k = 0; k < BLOCK_DEPTH; k += R_(transpose_depth)) {
                R_(transpose)(rows[0] + k, STRIDE, panel + k * width, width);
            }
            panel += R_(lanes);
            lane = 0;
        }
    }
}

static void R_(compact_pack_w)(const compact_operands *c, int64_t block, int64_t panel_number,
                               void *panel)
{
    if (c->w_transposed) {
        R_(compact_pack_transposed)(c, block, panel_number, panel);
    } else {
        R_(compact_pack_plain)(c, block, panel_number, panel);
    }
}

/* Adds `depth` steps of the packed rows and the panel to the tile, for `groups` groups of rows,
 * `stride` elements from one group's rows to the next group's. The next panel's source is fetched on
 * the way. */
static void R_(compact_multiply)(const void *packed, int64_t stride, int64_t groups, int64_t depth,
                                 const void *packed_panel, int64_t vectors, void *sums,
                                 const skip_prefetch *next)
{
    const int64_t width = PANEL_VECTORS * R_(lanes);
    const R_(element) *x = packed, *panel = packed_panel;
    R_(element) *tile = sums;
    skip_prefetch ahead = *next;
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t column = 0; column < vectors * R_(lanes); column += 2 * R_(lanes)) {
            R_(vector) v[GROUP_ROWS][2];
            R_(element) *sum = tile + g * GROUP_ROWS * width + column;
            skip_fetch_ahead(&ahead);
#pragma GCC unroll 8
            for (int r = 0; r < GROUP_ROWS; r++) {
                v[r][0] = R_(load)(sum + r * width);
                v[r][1] = R_(load)(sum + r * width + R_(lanes));
            }
            const R_(element) *value = x + g * stride, *p = panel + column;
            for (int64_t t = 0; t < depth; t++, p += width, value++) {
                const R_(vector) w0 = R_(load)(p), w1 = R_(load)(p + R_(lanes));
#pragma GCC unroll 8
                for (int r = 0; r < GROUP_ROWS; r++) {
                    const R_(vector) factor = R_(one)(value[r * BLOCK_DEPTH]);
                    v[r][0] = R_(multiply_add)(factor, w0, v[r][0]);
                    v[r][1] = R_(multiply_add)(factor, w1, v[r][1]);
                }
            }
#pragma GCC unroll 8
            for (int r = 0; r < GROUP_ROWS; r++) {
                R_(store)(sum + r * width, v[r][0]);
                R_(store)(sum + r * width + R_(lanes), v[r][1]);
            }
        }
    }
}

#include "unjoin.h"
