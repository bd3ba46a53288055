/* product.h: what a matrix product is: its matrices, their masks, and what goes with them. */
#ifndef FASTDROP_PRODUCT_H
#define FASTDROP_PRODUCT_H

#include "fastdrop.h"

/* Element (i, j) at data[i * row_stride + j * column_stride]; what is read is not written to. */
typedef struct {
    void *data;
    int64_t row_stride, column_stride;
} fd_matrix;

/* The mask of a matrix's rows, each `width` long: row i has bits i / rows_per_mask * width to that + width.
 * bits NULL: everything is kept. What is kept is multiplied by scale. keep: the share that is kept on
 * average, negative where nobody knows. */
typedef struct {
    const uint8_t *bits;
    int64_t rows_per_mask;
    double scale, keep;
} fd_row_mask;

/* Ways to a product. DENSE is a BLAS; PACKED and SMALL multiply everything, too, by our own GEMM, SMALL
 * without packing B; GATHERED multiplies the kept rows and columns of B, gathered while they are packed; SPMM
 * multiplies the stored elements of A. */
typedef enum { FD_AUTO, FD_GATHERED, FD_SPMM, FD_DENSE, FD_PACKED, FD_SMALL, FD_METHODS } fd_method;

enum {
    FD_SKIP_ZEROS = 1, /* zeros of A are left out like dropped elements */
    FD_SUM_ROWS =
        2, /* A is the transpose of a matrix, whose rows mask_a is about: a gradient of weights */
    /* What mask_a and mask_b drop is 0 already, what mask_c drops nobody reads, B is finite, and more kernels
     * follow on the same threads. */
    FD_FUSED = 4,
    FD_MASKED_COLUMNS_OF_B =
        8, /* mask_b is about the columns of B, which are contiguous: B is a transpose */
};

typedef struct fd_product fd_product;

/* C (m, n) = mask_c of (mask_a of A (m, k)) @ B (k, n) + bias; with FD_SUM_ROWS (mask_a of A')' @ mask_b of B.
 * Rows of A are contiguous, with FD_SUM_ROWS its columns; rows of C; rows or columns of B, rows if mask_b is
 * about them. C overlaps nothing. What a mask of A or B drops has no part in a sum, whatever it is; what mask_c
 * drops is +0.0. bias (n elements or NULL) is not for FD_SUM_ROWS.
 * With FD_SUM_ROWS mask_b is about the rows that are summed; without, it is a mask of weights (DropConnect), and
 * so is mask_c with FD_SUM_ROWS. A product with a mask of weights is not FD_FUSED, and one with mask_b is computed
 * by FD_PACKED or FD_DENSE. */
struct fd_product {
    fd_dtype dtype;
    int flags;
    fd_method method;
    int64_t m, n, k;
    fd_matrix a, b, c;
    fd_row_mask mask_a, mask_b, mask_c;
    const void *bias;
    double
        nonzeros; /* share of the elements of A that are not 0; negative: fd_plan looks, where it matters */
    /* c = a @ b of a product without masks and bias, by somebody else's BLAS. Returns 0, or else fd_matmul
     * FD_BLAS_FAILED. NULL: there is none. */
    int (*blas)(void *context, const fd_product *product);
    void *context;
};

enum { FD_NO_MEMORY = -1, FD_BLAS_FAILED = -2, FD_NO_GROUPS = -3 };

#endif
