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

#endif
