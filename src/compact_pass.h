/* compact_pass.h: what the two ways to walk a product of active units have in common; see compact.c. */
#ifndef FASTDROP_COMPACT_PASS_H
#define FASTDROP_COMPACT_PASS_H

#include <stdatomic.h>

#include "compact_axis.h"
#include "fastdrop.h"
#include "packed.h"

typedef struct {
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

/* The packed operand of a pass, and the task of one panel. */
typedef struct {
    packed_operand (*operand)(const compact_pass *p);
    void (*multiply_panel)(const void *pass, int64_t panel);
} compact_walk;

/* Rows of x by strips of w: compact.c. */
extern const compact_walk fd_walk_strips_of_w;
/* Rows of w transposed by strips of x, for groups whose rows fill strips: compact_turned.c. */
extern const compact_walk fd_walk_rows_of_w;

#endif
