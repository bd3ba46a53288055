/* spmm.h: what the parts of SpMM hand to each other: C = the stored elements of A @ B. */
#ifndef FASTDROP_SPMM_H
#define FASTDROP_SPMM_H

#include <stdint.h>

#include "matmul/product.h"

/* MC: rows of A that one packing of B serves; their sums over a panel, 256 KB, stay in the L2 cache. */
#define FD_BLOCK_ROWS 512
/* The largest KC: the stored elements of a row are the bits of so many words. */
#define FD_SPMM_WORDS 2
#define FD_SPMM_KC (64 * FD_SPMM_WORDS)
/* Rows between the one that is multiplied and the one whose place in C is prefetched, and a pair's more. */
#define FD_ROWS_AHEAD 8
/* Rows of A of a skinny product, which B is not packed for, and bytes of its strips of columns. Of 1024 x 1024
 * in float32 one row takes 12 times as long with B packed where a quarter is stored, twice where everything is;
 * four rows 2.5 and 1.03 times (Intel Emerald Rapids, one thread). */
#define FD_SKINNY_ROWS 4
#define FD_SKINNY_BYTES 4096
#define FD_CACHE_LINE 64
#define FD_MAX_LANES 16

static inline int64_t fd_aligned(int64_t bytes)
{
    return (bytes + FD_CACHE_LINE - 1) / FD_CACHE_LINE * FD_CACHE_LINE;
}

/* The stored elements of rows [row, + rows) and columns [first, + kc) of A, in the order in which they are
 * multiplied: first two rows at a time whose lists have the same length, then rows alone, both by the length of
 * their lists. Of two rows: indices that both have, the first row's values there, the second's, and then what
 * each has for itself. */
typedef struct {
    int64_t row, rows, first, kc;
    void *values;
    uint16_t *indices; /* rows of the panel, as bytes from its begin */
    int32_t row_bytes; /* of the panel */
    uint64_t *words;   /* scratch: FD_SPMM_WORDS a row */
    uint16_t *order;   /* rows as they are multiplied, then FD_ROWS_AHEAD zeros */
    uint8_t *counts;   /* the length of the lists of each pair, then of each row alone */
    uint8_t *shared;   /* how many indices the two rows of each pair have in common in the lists */
    int32_t pairs, singles;
    int64_t total; /* stored elements */
} spmm_lists;

/* A panel of B, packed: columns [column, + columns) of C, zeros up to `vectors` vectors; and the sums of a block
 * of rows over it, in a tile whose rows have `vectors` vectors. The first block of k begins the sums, the last one
 * finishes them; those of the first so many thousand of k wait in C. */
typedef struct {
    char *data, *tile;
    int64_t column, columns;
    int vectors;
    enum { FD_FROM_ZERO, FD_FROM_TILE, FD_FROM_C } from;
    enum { FD_TO_TILE, FD_TO_C, FD_TO_C_FINISHED } to;
} spmm_panel;

#endif
