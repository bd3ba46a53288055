/* gemm.h: what the parts of our GEMM hand to each other: sizes of blocks, kept units, memory to prefetch. */
#ifndef FASTDROP_GEMM_H
#define FASTDROP_GEMM_H

#include <stdint.h>

#include "fastdrop.h"
#include "matmul/spmm.h"

/* KC: a micro-panel of B, 20 KB, and a few rows of A fill an L1 cache of 32 KB. */
#define FD_KC 160
/* NR: vectors of a micro-panel of B. */
#define FD_NR 2
/* NC: most vectors of a panel of B, where all rows of A share their units, and where groups have their own. */
#define FD_NC 8
#define FD_NC_GROUPS 14
/* Most rows of C of a block of a sum over groups. */
#define FD_MC_SUM 96
/* Most groups of rows that go through the loops together. */
#define FD_MOST_GROUPS 64

/* Two vectors of an axis' units, from unit `source` on, of which up to a vector's lanes are kept and
 * follow each other: units source + order[0], source + order[1], ... go side by side to `place` of their
 * block; what the other lanes bring is overwritten or not looked at. */
typedef struct {
    int64_t source, place;
    uint8_t order[FD_MAX_LANES];
} kept_window;

/* A vector of an axis: the units of its lanes that are set are kept, and are numbered from `place` on. */
typedef struct {
    int32_t place;
    uint32_t lanes;
} kept_vector;

/* The kept units of an axis (m, n or k), of one group of rows, cut into blocks: block b is units
 * [cuts[b], cuts[b + 1]), with kept units number ranks[b] to ranks[b + 1]. numbers: the kept units, in order.
 * Micro-panel s of block b is FD_NR vectors of its kept units, gathered by
 * windows[window_starts[b * micro_panels + s] .. window_starts[b * micro_panels + s + 1]). These lists are NULL
 * where all units are kept, windows also where the axis is shorter than one. vectors, if they were asked for,
 * are those of the whole axis, also where none or all of their units are kept. */
typedef struct {
    int64_t length, blocks, micro_panels;
    const int64_t *cuts, *ranks, *numbers, *window_starts;
    const kept_window *windows;
    const kept_vector *vectors;
} kept_units;

/* What a group of rows adds to a row of C: sums of its kept columns, followed by a vector that may be read, and
 * where they go. */
typedef struct {
    const void *sums;
    const kept_vector *vectors;
} row_of_sums;

/* Memory that pack_b reads next, prefetched by the micro-kernel a line or less a step, since more at a time make the
 * loads of the multiplication wait: `row_bytes` bytes from data + number * stride bytes on, of rows number numbers[i]
 * (or first + i), i from `row` on; up to `share` bytes of one row each FD_PREFETCH_STEPS steps of k. */
typedef struct {
    const char *data;
    int64_t stride, row_bytes, first, rows, share;
    const int64_t *numbers;
    int64_t row, byte; /* the next line */
} next_panel;

#define FD_PREFETCH_STEPS 64

#endif
