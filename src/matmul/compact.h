/* compact.h: what the parts of a product of active units hand to each other. */
#ifndef FASTDROP_COMPACT_H
#define FASTDROP_COMPACT_H

#include <stdatomic.h>
#include <stdint.h>

#include "fastdrop.h"
#include "matmul/skip.h"

/* The mask of a matrix: row i has its units at bit i / rows_per_mask * units.length of them. */
typedef struct {
    fd_units units;
    int64_t rows_per_mask;
} compact_mask;

/* Most depth of a block: two vectors of a panel, 20 KB, and a few rows of x fill a 32 KB L1
 * cache. */
#define FD_COMPACT_DEPTH 160
/* Most active units of the inputs whose gradients are summed at a time. */
#define FD_COMPACT_UNITS 96
/* Most vectors of a panel: all units in common, groups of rows with units of their own. */
#define FD_COMPACT_VECTORS 8
#define FD_COMPACT_GROUP_VECTORS 14

/* Vectors of a strip, whose sums fit in the registers. */
#define FD_COMPACT_STRIP 2

/* Most groups of rows that are multiplied together. */
#define FD_COMPACT_GROUPS 64

/* Two vectors of an axis' units, from unit `source` on, of which up to a vector's lanes are active and
 * follow each other: units source + order[0], source + order[1], ... go side by side to `place` of their
 * block; what the other lanes bring is overwritten or not looked at. */
typedef struct {
    int64_t source, place;
    uint8_t order[FD_MAX_LANES];
} compact_window;

/* A vector of an axis: the units of its lanes that are set are active, and are numbered from `place` on. */
typedef struct {
    int32_t place;
    uint32_t lanes;
} compact_vector;

/* An axis as one group of rows has it and the kernels walk it, cut into blocks: block b is units
 * [cuts[b], cuts[b + 1]), with active units number ranks[b] to ranks[b + 1]. numbers: the active
 * units, in order. Strip s of block b are FD_COMPACT_STRIP vectors of its active units, collected by
 * windows[strip_starts[b * strips + s] .. strip_starts[b * strips + s + 1]). These lists are NULL where all
 * units are active, windows also where the axis is shorter than one. vectors, if the layout wants them,
 * are those of the whole axis, also where none or all of their units are active. */
typedef struct {
    int64_t length, blocks, strips;
    const int64_t *cuts, *ranks, *numbers, *strip_starts;
    const compact_window *windows;
    const compact_vector *vectors;
} compact_axis;

/* Packed columns as they are multiplied: `vectors` vectors in strips, `next` elements apart, whose rows
 * are `stride` elements apart. */
typedef struct {
    const void *data;
    int64_t vectors, stride, next;
} compact_strips;

/* Where sums go: row i of the result at data + i * stride, times scale, plus bias[j] * bias_scale
 * of column j (bias may be NULL). infinite, if not NULL, becomes 1 where a result all of whose columns
 * are active holds an infinity or NaN: the thread that writes it looks, as each line that another one
 * reads for that would have to travel, and back. */
typedef struct {
    void *data;
    int64_t stride;
    double scale, bias_scale;
    const void *bias;
    atomic_int *infinite;
} compact_result;

/* What a group of rows adds to a row of a gradient: sums of its active columns, followed by a vector that
 * may be read, and where they go. */
typedef struct {
    const void *sums;
    const compact_vector *vectors;
} compact_share;

/* Memory that will be used soon, fetched while something else is multiplied: `row_bytes` bytes from
 * data + number * stride bytes on, of rows number numbers[i] (or first + i), i from `row` on. Each
 * FD_AHEAD_STEPS steps of a multiplication fetch `lines` cache lines more. */
typedef struct {
    const char *data;
    int64_t stride, row_bytes, first, rows, lines;
    const int64_t *numbers;
    int64_t row, byte; /* where the fetching is */
} compact_ahead;

#define FD_AHEAD_STEPS 32

/* `rows` rows of x of which dropped elements count as zeros and the others are multiplied by scale: row i,
 * `depth` long, uses bits i / rows_per_mask * depth to that + depth. Strides count elements. */
typedef struct {
    const void *x;
    int64_t stride, rows, depth;
    const uint8_t *bits;
    int64_t rows_per_mask;
    double scale;
} masked_rows;

/* One dense matrix as a kernel packs it; transposed: element (i, j) at data[j * stride + i]. masked, if not NULL,
 * is the matrix as it is stored with a mask of elements: then all units of both axes are active. */
typedef struct {
    const void *data;
    int64_t stride;
    int transposed;
    const masked_rows *masked;
} compact_matrix;

/* y = x @ w: x (rows, depth), w (depth, columns). Every `group` rows have units of their own: those
 * of mask_in take part, those of mask_out are computed. Where all take part, `masked`, if not NULL, is
 * x with a mask of elements. */
typedef struct {
    const void *x;
    int64_t x_stride, rows, group;
    const masked_rows *masked;
    compact_matrix w;
    compact_mask mask_in, mask_out;
} compact_operands;

/* y = x @ w of small matrices: x masked, w (x.depth, columns), contiguous. */
typedef struct {
    masked_rows x;
    const void *w;
    int64_t columns;
} direct_operands;

/* dw = x' @ dy, added up over the groups of rows: x (rows, depth), dy (rows, columns), masks
 * likewise. */
typedef struct {
    const void *x, *grad;
    int64_t x_stride, grad_stride, rows, group;
    compact_mask mask_in, mask_out;
} compact_batch;

#endif
