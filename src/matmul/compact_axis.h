/* compact_axis.h: the axes of a compact product, laid out for its kernels. */
#ifndef FASTDROP_COMPACT_AXIS_H
#define FASTDROP_COMPACT_AXIS_H

#include "runtime/bits.h"
#include "matmul/compact.h"
#include "runtime/integers.h"

/* An axis of `groups` groups of `group` rows, from row `row` of the mask on, and what to make of
 * it: blocks of at most `most` active units, as few as can be, then a multiple of `parts`, all of
 * about the same length. Where the groups have units of their own, `common` cuts them all at the
 * same units, multiples of a vector; a group alone is cut into multiples of `unit` active units. */
typedef struct {
    const compact_mask *mask;
    int64_t row, group, groups;
    int common;
    int vectors; /* are listed */
    int64_t most, parts, unit;
    /* Elements from the begin of a cache line to unit 0 of the rows that are collected along the axis:
     * windows begin with lines where they can, as a load across two lines costs two. */
    int64_t phase;
    compact_axis *axes; /* one a group */
} compact_layout;

/* Fills the axes of all layouts, with lists in memory of the calling thread, valid until the next
 * call. Returns 0, or -1 without memory. */
int fd_lay_out_axes(const compact_layout *layouts, int count, int lanes);

/* The units of the mask row that row `row` uses. */
fd_units fd_units_of_row(const compact_mask *mask, int64_t row);

/* The phase of the rows of a matrix: that of the first one. */
static inline int64_t fd_phase(const void *data, int64_t size)
{
    return (int64_t)((uintptr_t)data % FD_CACHE_LINE) / size;
}

static inline int64_t fd_active_in_block(const compact_axis *axis, int64_t block)
{
    return axis->ranks[block + 1] - axis->ranks[block];
}

/* Elements from row to row of a panel of some columns: a vector more than they fill, whose row
 * is an odd number of vectors. */
static inline int64_t fd_panel_stride(int64_t columns, int64_t lanes)
{
    return (((columns + lanes - 1) / lanes + 1) | 1) * lanes;
}

static inline int64_t fd_vectors_in_block(const compact_axis *axis, int64_t block, int64_t lanes)
{
    return fd_divide_up(fd_active_in_block(axis, block), lanes);
}

/* Most active units of any block of any group. */
int64_t fd_widest_block(const compact_axis *axes, int64_t groups);

#endif
