/* drivers.h: the drivers that fd_matmul chooses from. All return multiply-adds, or -1 without memory, and
 * then the result holds nothing of use. */
#ifndef FASTDROP_DRIVERS_H
#define FASTDROP_DRIVERS_H

#include "kernels.h"

/* The rows that masks are about: those of A and C, or the rows of both matrices that are summed over. */
static inline int64_t fd_masked_rows_of(const fd_product *p)
{
    return p->flags & FD_SUM_ROWS ? p->k : p->m;
}

/* The mask of the other side: of C, or of B where rows are summed. */
static inline const fd_row_mask *fd_second_mask(const fd_product *p)
{
    return p->flags & FD_SUM_ROWS ? &p->mask_b : &p->mask_c;
}

static inline double fd_product_scale(const fd_product *p)
{
    return p->mask_a.scale * p->mask_b.scale * p->mask_c.scale;
}

/* Whether columns of B are contiguous, not rows. An axis of one element is contiguous in any case. */
static inline int fd_transposed_b(const fd_product *p)
{
    return p->flags & FD_MASKED_COLUMNS_OF_B || (p->n > 1 && p->b.column_stride != 1);
}

/* Whether weights have a mask of their own, and B are the weights. */
static inline int fd_masked_weights(const fd_product *p)
{
    return p->mask_b.bits && !(p->flags & FD_SUM_ROWS);
}

/* Whether the GEMM that does not pack B takes the product: masks of A, and B and C in one piece. */
static inline int fd_small_takes(const fd_product *p)
{
    return p->mask_a.bits && !p->mask_b.bits && !(p->flags & (FD_SUM_ROWS | FD_FUSED)) && !fd_transposed_b(p) &&
           p->m > 0 && p->k > 0 && p->n > 0 && (p->k == 1 || p->b.row_stride == p->n) &&
           (p->m == 1 || p->c.row_stride == p->n);
}

/* Rows that share the units of both masks; 0 where there are no such groups. */
int64_t fd_group_rows(const fd_product *p);

/* SpMM. (skip.c) */
int64_t fd_skip_matmul(fd_dtype dtype, const skip_operand *x, const skip_weights *w,
                       const skip_result *result);

/* Gathered GEMM: result = the product of the units of x that mask_in keeps and w, +0.0 in columns that
 * mask_out does not keep. (compact.c) */
int64_t fd_compact_matmul(fd_dtype dtype, const compact_operands *c, const compact_result *result);

/* The same of a gradient: result (depth, columns) = the sum of the groups' products of the units of x,
 * transposed, and of the gradient, +0.0 where no group has any; no bias. (compact_gradient.c) */
int64_t fd_compact_gradient(fd_dtype dtype, const compact_batch *c, const compact_result *result);

/* out (rows, columns), contiguous, = the product, whose depth is not 0. Returns whether it holds no
 * infinity and no NaN, which may come of a dropped element's zero, or -1 without memory. (direct.c) */
int fd_direct_matmul(fd_dtype dtype, const direct_operands *c, void *out);

/* One row of fd_scatter: `room` elements of x may be read, more than are active. (gather.c) */
void fd_scatter_row(fd_dtype dtype, const void *x, int64_t room, const fd_units *columns,
                    double scale, const void *bias, double bias_scale, int accumulate, void *out);

/* How many elements of every `every`th row of x are not zero, from the first one on; float32 or float64,
 * fewer than 2^31 columns, which are contiguous. (sums.c) */
int64_t fd_count_nonzeros(fd_dtype dtype, const void *x, int64_t stride, int64_t rows, int64_t columns,
                          int64_t every);

#endif
