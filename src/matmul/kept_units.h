/* kept_units.h: the kept units of the axes of a product, listed for its kernels. */
#ifndef FASTDROP_KEPT_UNITS_H
#define FASTDROP_KEPT_UNITS_H

#include "matmul/gemm.h"
#include "runtime/bits.h"
#include "runtime/integers.h"

/* An axis of `length` units of `groups` groups of `group` rows, from row `row` of the mask on, and how to list
 * its kept units: in blocks of at most `most`, as few as can be, then a multiple of `parts`, all of about the
 * same length. Where the groups have units of their own, `common` cuts them all at the same units, multiples of
 * a vector; a group alone is cut into multiples of `unit` kept units. */
typedef struct {
    const fd_row_mask *mask;
    int64_t length, row, group, groups;
    int common;
    int vectors; /* are listed */
    int64_t most, parts, unit;
    /* Elements from the begin of a cache line to unit 0 of the rows that are gathered along the axis: windows
     * begin with lines where they can, as a load across two lines costs two. */
    int64_t phase;
    kept_units *units; /* one a group */
} kept_request;

/* Fills the lists of all requests, in memory of the calling thread, valid until the next call. Returns 0, or -1
 * without memory. */
int fd_list_kept(const kept_request *requests, int count, int lanes);

/* The units of the mask row that row `row` of a matrix uses. */
static inline fd_units fd_units_of_row(const fd_row_mask *mask, int64_t length, int64_t row)
{
    return (fd_units){mask->bits, mask->bits ? row / mask->rows_per_mask * length : 0, length};
}

/* The phase of the rows of a matrix: that of the first one. */
static inline int64_t fd_phase(const void *data, int64_t size)
{
    return (int64_t)((uintptr_t)data % FD_CACHE_LINE) / size;
}

static inline int64_t fd_kept_in_block(const kept_units *units, int64_t block)
{
    return units->ranks[block + 1] - units->ranks[block];
}

/* Most kept units of any block of any group. */
int64_t fd_widest_block(const kept_units *units, int64_t groups);

/* Elements from row to row of a tile of sums of some columns: a vector more than they fill, whose row
 * is an odd number of vectors. */
static inline int64_t fd_tile_stride(int64_t columns, int64_t lanes)
{
    return (((columns + lanes - 1) / lanes + 1) | 1) * lanes;
}

#endif
