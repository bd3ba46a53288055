/* compact_pass.h: what the two ways to walk a product of active units have in common; see compact.c. */
#ifndef FASTDROP_COMPACT_PASS_H
#define FASTDROP_COMPACT_PASS_H

#include <stdatomic.h>

#include "matmul/compact_axis.h"
#include "kernels.h"
#include "matmul/packed.h"

struct compact_walk;

typedef struct {
    const struct compact_walk *walk;
    const fd_kernels *kernels;
    fd_dtype dtype;
    const compact_operands *c;
    const compact_result *result;
    int64_t row, groups, group; /* groups of rows, all but the last `group` rows long */
    int64_t rows;
    int threads;
    compact_axis depth[FD_COMPACT_GROUPS], columns[FD_COMPACT_GROUPS]; /* of each group */
    packed_operand packed; /* x */
    int64_t widest; /* active columns of the widest panel */
    atomic_int failed;
} compact_pass;

static inline int64_t fd_rows_of_group(const compact_pass *p, int64_t g)
{
    const int64_t left = p->rows - g * p->group;
    return left < p->group ? left : p->group;
}

/* What a multiplication of group g's rows by a block of depth and a panel of w fetches in `turns` turns of
 * FD_AHEAD_STEPS steps: what is needed next. `next` lives as long as what is returned. */
compact_ahead fd_fetched_by(const compact_pass *p, int64_t g, int64_t block, int64_t panel, int64_t turns,
                            compact_ahead *next);

/* What one thread works with: room for packed parts of w, and the sums of each group over a panel. */
typedef struct {
    int64_t panel, block;
    int64_t scratch_bytes, tile_bytes, tile_stride; /* whole cache lines; bytes; elements */
    const char *packed;
    char *scratch, *tiles;
} compact_work;

static inline char *fd_tile_of(const compact_work *work, int64_t g)
{
    return work->tiles + g * work->tile_bytes;
}

/* A way to walk a pass: how x is packed, what a thread needs, how a group's rows are multiplied by a block
 * of w, and how its sums over a panel go to the result. */
typedef struct compact_walk {
    packed_operand (*operand)(const compact_pass *p);
    void (*set_sizes)(const compact_pass *p, compact_work *work);
    void (*multiply_block)(const compact_pass *p, const compact_work *work, int64_t g);
    void (*put_tile)(const compact_pass *p, const compact_work *work, int64_t g);
} compact_walk;

/* Rows of x by strips of w: compact.c. */
extern const compact_walk fd_walk_strips_of_w;
/* Rows of w transposed by strips of x, for groups whose rows fill strips: compact_turned.c. */
extern const compact_walk fd_walk_rows_of_w;

#endif
