/* drivers.h: the drivers that fd_matmul chooses from. All return multiply-adds, or -1 without memory, and
 * then C holds nothing of use. */
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

/* Whether SpMM leaves B where it lies. */
static inline int fd_skinny_takes(const fd_product *p)
{
    return p->m <= FD_SKINNY_ROWS && !(p->flags & FD_SUM_ROWS) && !fd_transposed_b(p) &&
           !p->mask_b.bits;
}

/* Whether the GEMM that does not pack B takes the product. */
static inline int fd_small_takes(const fd_product *p)
{
    return p->mask_a.bits && !p->mask_b.bits && !(p->flags & (FD_SUM_ROWS | FD_FUSED)) &&
           !fd_transposed_b(p) && p->m > 0 && p->k > 0 && p->n > 0;
}

/* From row to row of B, or from column to column where it is transposed. */
static inline int64_t fd_stride_of_b(const fd_product *p)
{
    return fd_transposed_b(p) ? p->b.column_stride : p->b.row_stride;
}

/* Whether drivers that multiply everything have to mask A. */
static inline int fd_masks_elements_of_a(const fd_product *p)
{
    return p->mask_a.bits && !(p->flags & FD_FUSED);
}

/* Rows as they lie in memory, of which dropped elements count as zeros and the others are multiplied by scale: row
 * i, `width` long, has bits i / rows_per_mask * width to that + width. Strides count elements. */
typedef struct {
    const void *data;
    int64_t stride, rows, width;
    const uint8_t *bits;
    int64_t rows_per_mask;
    double scale;
} masked_rows;

/* The rows that mask_a is about: those of A', where rows are summed. A is multiplied by the product's scale. */
static inline masked_rows fd_masked_a(const fd_product *p)
{
    const int sum_rows = (p->flags & FD_SUM_ROWS) != 0;
    return (masked_rows){p->a.data,
                         sum_rows ? p->a.column_stride : p->a.row_stride,
                         fd_masked_rows_of(p),
                         sum_rows ? p->m : p->k,
                         p->mask_a.bits,
                         p->mask_a.rows_per_mask,
                         fd_product_scale(p)};
}

/* The rows that mask_b is about: those of B', where B is a transpose. */
static inline masked_rows fd_masked_b(const fd_product *p)
{
    const int columns = (p->flags & FD_MASKED_COLUMNS_OF_B) != 0;
    return (masked_rows){p->b.data,
                         columns ? p->b.column_stride : p->b.row_stride,
                         columns ? p->n : p->k,
                         columns ? p->k : p->n,
                         p->mask_b.bits,
                         p->mask_b.rows_per_mask,
                         1.0};
}

/* Rows that share the units of both masks; 0 where there are no such groups. */
int64_t fd_group_rows(const fd_product *p);

/* Rows [first, end) of C = 0. */
void fd_clear_rows(const fd_product *p, int64_t first, int64_t end);

/* SpMM: the elements of A that its mask keeps, and that are not 0 with FD_SKIP_ZEROS, are multiplied. (spmm.c) */
int64_t fd_spmm(const fd_product *p);

/* Gathered GEMM, whose groups of `group` rows share the units of masks of A and C; 0: the GEMM of everything, of A
 * and weights masked while they are packed, and mask_c left to the caller. Then *finite says whether C holds no
 * infinity and no NaN. (gemm.c) */
int64_t fd_gemm(const fd_product *p, int64_t group, int *finite);

/* The gathered GEMM of FD_SUM_ROWS: the sum of the products of groups of `group` rows. (grad_w.c) */
int64_t fd_grad_w(const fd_product *p, int64_t group);

/* GEMM of a product that fd_small_takes, without its bias and mask_c. *finite as with fd_gemm, or whether B holds
 * none. (small.c) */
int64_t fd_small_gemm(const fd_product *p, int *finite);

/* One row of fd_scatter: `room` elements of x may be read, more than are active. (gather.c) */
void fd_scatter_row(fd_dtype dtype, const void *x, int64_t room, const fd_units *columns,
                    double scale, const void *bias, double bias_scale, int accumulate, void *out);

/* How many elements of every `every`th row of x are not zero, from the first one on; float32 or float64,
 * fewer than 2^31 columns, which are contiguous. (sums.c) */
int64_t fd_count_nonzeros(fd_dtype dtype, const void *x, int64_t stride, int64_t rows,
                          int64_t columns, int64_t every);

/* Whether a matrix, float32 or float64, holds no infinity and no NaN; its rows or its columns are contiguous.
 * (sums.c) */
int fd_matrix_is_finite(fd_dtype dtype, const fd_matrix *x, int64_t rows, int64_t columns);

#endif
