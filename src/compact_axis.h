/* compact_axis.h: the axes of a compact product, laid out for its kernels. */
#ifndef FASTDROP_COMPACT_AXIS_H
#define FASTDROP_COMPACT_AXIS_H

#include "bits.h"
#include "fastdrop.h"

/* What fd_lay_out_axes makes of one axis, whose units are `units`. */
typedef struct {
    const fd_units *units;
    compact_axis *axis;
    int numbers, pieces;
} compact_layout;

/* Counts an axis and cuts it into blocks of at most `most` active units: as few as can be, then a
 * multiple of `parts`, all of about the same length, which is a multiple of `unit`, which divides
 * `most`. */
void fd_cut_axis(const fd_units *units, int64_t most, int64_t parts, int64_t unit,
                 compact_axis *axis);

/* Gives every axis the numbers and the pieces that its layout asks for, none where all units are
 * active, in memory of the calling thread. Returns 0, or -1 without memory. */
int fd_lay_out_axes(const compact_layout *layouts, int count, int lanes);

/* The first unit of a block, in the source; 0 of the first block, whatever stands before its first
 * active unit belongs to it; the length after the last one. */
int64_t fd_cut_of(const compact_axis *axis, int64_t block);

#endif
