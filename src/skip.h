/* skip.h: what the parts of a product that skips zeros hand to each other. */
#ifndef FASTDROP_SKIP_H
#define FASTDROP_SKIP_H

#include <stdint.h>

/* Rows of x that one packing of w serves: their sums over a panel, 256 KB, stay in the L2 cache. */
#define FD_BLOCK_ROWS 512
#define FD_CACHE_LINE 64

static inline int64_t fd_aligned(int64_t bytes)
{
    return (bytes + FD_CACHE_LINE - 1) / FD_CACHE_LINE * FD_CACHE_LINE;
}

#define FD_PANEL_VECTORS 8
#define FD_MAX_BLOCK_DEPTH 64
#define FD_MAX_LANES 16

/* The sparse side, (rows, depth). Plain: element (i, k) at data[i * stride + k], its mask bit
 * number i / rows_per_mask * depth + k. Transposed: at data[k * stride + i], bit number
 * k / rows_per_mask * rows + i. bits may be NULL. Strides count elements. */
typedef struct {
    const void *data;
    int64_t stride, rows, depth;
    int transposed, skip_zeros;
    const uint8_t *bits;
    int64_t rows_per_mask;
} skip_operand;

/* The dense side, (depth, columns): element (k, j) at data[k * stride + j], transposed: at
 * data[j * stride + k]. */
typedef struct {
    const void *data;
    int64_t stride, depth, columns;
    int transposed;
} skip_weights;

/* The result: row i at data + i * stride, times scale, plus bias[j] * bias_scale (bias may be
 * NULL), +0.0 where bit number i / rows_per_mask * columns + j of bits is 0 (bits may be NULL). */
typedef struct {
    void *data;
    int64_t stride, columns;
    double scale, bias_scale;
    const void *bias;
    const uint8_t *bits;
    int64_t rows_per_mask;
} skip_result;

/* The stored elements of a block of rows over one block of depth. */
typedef struct {
    void *values;      /* in list order */
    uint32_t *places;  /* rows of the panel */
    uint64_t *words;   /* scratch: one word a row */
    uint16_t *order;   /* rows, by the length of their lists */
    int32_t rows_of_count[FD_MAX_BLOCK_DEPTH + 1]; /* how many rows have lists of each length */
    int32_t *count_of_group;
    int64_t total;     /* stored elements */
} skip_lists;

/* The source of the next panel: the active ones (bits NULL: all) of `rows` runs of row_bytes, some
 * lines of which are fetched at every step. */
typedef struct {
    const char *from;
    int64_t stride, rows, row_bytes; /* bytes */
    const uint8_t *bits;
    int64_t bit;
    int lines_per_step;
    int64_t row, byte; /* next */
} skip_prefetch;

/* An axis of a unit mask: its bits from bit `bit` on; bits NULL: all active. */
typedef struct {
    const uint8_t *bits;
    int64_t bit, length;
} fd_units;

/* Depth of a block of a compact product: two vectors of a panel, 20 KB, and GROUP_ROWS rows of x fill a
 * 32 KB L1 cache. */
#define FD_COMPACT_DEPTH 160

/* One vector of an axis' units, from unit `source` on: those of its lanes that are set in `lanes` are
 * active, and go side by side to `place` of their block. */
typedef struct {
    int64_t source;
    int32_t place;
    uint32_t lanes;
} compact_piece;

/* An axis of a compact product as the kernels walk it, cut into blocks of `step` active units.
 * numbers: the active units, in order; NULL where all are. pieces: those of block b are
 * pieces[starts[b] .. starts[b + 1]); NULL where all units are active. An axis has the one or the
 * other, as the operands need. */
typedef struct {
    int64_t length, active, step, blocks;
    const int64_t *numbers, *starts;
    const compact_piece *pieces;
} compact_axis;

/* The operands of a compact product: x (rows, depth) and w (depth, columns), each plain or
 * transposed, strides in elements. Of x transposed (its depth is then all active) the active rows
 * are multiplied, and the others of the result are +0.0, or with accumulate as they were. */
typedef struct {
    const void *x, *w;
    int64_t x_stride, w_stride;
    int x_transposed, w_transposed;
    fd_units rows, depth, columns;
} compact_operands;

/* The same, prepared for the kernels. */
typedef struct {
    const void *x, *w;
    int64_t x_stride, w_stride;
    int x_transposed, w_transposed;
    compact_axis rows, depth, columns;
} compact_plan;

/* The blocks of depth and the panels of w that are packed together: block after block, of each the
 * panels, FD_COMPACT_DEPTH rows each. */
typedef struct {
    int64_t block, blocks, panel, panels;
} compact_part;

#endif
