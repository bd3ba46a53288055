/* skip.h: what the parts of a product that skips zeros hand to each other. */
#ifndef FASTDROP_SKIP_H
#define FASTDROP_SKIP_H

#include <stdint.h>

/* Rows of x that one packing of w serves: their sums over a panel, 256 KB, stay in the L2 cache. */
#define FD_BLOCK_ROWS 512
/* Blocks of rows whose lists are made together. */
#define FD_MOST_BLOCKS 4
/* Rows of x for which w is not packed at all. */
#define FD_FEW_ROWS 4
#define FD_CACHE_LINE 64

static inline int64_t fd_aligned(int64_t bytes)
{
    return (bytes + FD_CACHE_LINE - 1) / FD_CACHE_LINE * FD_CACHE_LINE;
}

#define FD_MAX_LANES 16
/* Most depth of a block: the stored elements of a row are the bits of so many words. */
#define FD_SKIP_WORDS 2
#define FD_SKIP_DEPTH (64 * FD_SKIP_WORDS)
#define FD_ROWS_AHEAD 8
/* Panels may have so many vectors or fewer, or the most that an instruction set has. */
#define FD_NARROW_VECTORS 5

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
 * data[j * stride + k]. One that is not transposed may have a mask: element (k, j) is +0.0 where bit number
 * k / rows_per_mask * columns + j of bits is 0 (bits may be NULL). */
typedef struct {
    const void *data;
    int64_t stride, depth, columns;
    int transposed;
    const uint8_t *bits;
    int64_t rows_per_mask;
} skip_weights;

/* The result: row i at data + i * stride: the sums times scale, plus bias[j] * bias_scale (bias may be
 * NULL), +0.0 where bit number i / rows_per_mask * columns + j of bits is 0 (bits may be NULL). */
typedef struct {
    void *data;
    int64_t stride, columns;
    double scale, bias_scale;
    const void *bias;
    const uint8_t *bits;
    int64_t rows_per_mask;
} skip_result;

/* The stored elements of a block of rows over one block of depth, in the order in which they are walked: first
 * two rows at a time whose lists have the same length, then rows alone, both by the length of their lists. Of
 * two rows: places that both have, the first row's values there, the second's, and then what each has for
 * itself. */
typedef struct {
    void *values;
    uint16_t *places; /* rows of the panel, as bytes from its begin; or, `unit` 1, as numbers */
    int32_t unit;     /* bytes of a row of the panel */
    int32_t sharing;  /* two rows may be walked together, which have places in common; else as they come */
    uint64_t *words;  /* scratch: FD_SKIP_WORDS a row */
    int64_t depth;    /* of the block */
    uint16_t *order;  /* rows as they are walked, then FD_ROWS_AHEAD zeros */
    uint8_t *counts;  /* the length of the lists of each walk */
    uint8_t *shared;  /* of each two rows: how many places they have in common in the lists */
    int32_t pairs, singles;
    int32_t *count_of_group;
    int64_t total; /* stored elements */
} skip_lists;

/* A piece of w, packed to `data`: rows [first, + depth), columns [column, + columns), zeros up to `vectors`
 * vectors. */
typedef struct {
    void *data;
    int64_t row_bytes, first, depth, column, columns;
    int vectors;
} skip_panel;

/* The sums of a block of rows over a panel, begun by the first block of depth, finished by the last.
 * In between they are kept in a tile, rows of `vectors` vectors. */
typedef struct {
    enum { FD_FROM_ZERO, FD_FROM_TILE, FD_FROM_RESULT } from;
    enum { FD_TO_TILE, FD_TO_RESULT } to;
    void *tile;
    int vectors;
    int64_t row, column; /* of the result, where the tile begins */
    int64_t columns;     /* of the result that it holds */
    skip_result result;
} skip_sums;

/* The source of the next panel, fetched while this one is multiplied. */
typedef struct {
    const char *row;
    int64_t stride, rows, row_bytes; /* bytes; rows that are left */
    uint32_t per_row, due; /* rows to fetch per row of x, and now, in 1/65536 */
} skip_prefetch;

#endif
