/* product.c: one entry for every matrix product. It asks the plan for a driver, hands over the operands, and
 * sees to it that what is dropped has no part in a sum.
 *
 * Drivers that multiply everything multiply a dropped element as zero. Where its partner is infinite or NaN
 * that gives NaN, which is in the result then: where one is found there, another driver, which leaves dropped
 * elements out, computes the product again. */
#include <stdlib.h>
#include <string.h>

#include "matmul/drivers.h"
#include "runtime/bits.h"
#include "runtime/integers.h"

/* Rows of C that one task finishes. */
#define TASK_ROWS_OF_C 64
/* Elements that a thread must have to finish to be worth waking. */
#define MINIMUM_FINISHED (1 << 17)
/* Bytes of a masked operand above which its memory is given back at the end of the product. */
#define MOST_KEPT_BYTES (1 << 26)

int64_t fd_group_rows(const fd_product *p)
{
    const int64_t rows = fd_larger(fd_masked_rows_of(p), 1);
    const fd_row_mask *second = fd_second_mask(p);
    const int64_t first = p->mask_a.bits ? fd_smaller(p->mask_a.rows_per_mask, rows) : rows;
    const int64_t other = second->bits ? fd_smaller(second->rows_per_mask, rows) : rows;
    return first == other || other == rows ? first : first == rows ? other : 0;
}

void fd_clear_rows(const fd_product *p, int64_t first, int64_t end)
{
    const int64_t size = fd_element_bytes(p->dtype);
    for (int64_t i = first; i < end; i++) {
        memset((char *)p->c.data + i * p->c.row_stride * size, 0, (size_t)(p->n * size));
    }
}

static int64_t multiply_gathered(const fd_product *p, int64_t group)
{
    int finite;
    return p->flags & FD_SUM_ROWS ? fd_grad_w(p, group) : fd_gemm(p, group, &finite);
}

/* --- Everything ---------------------------------------------------------------------------------- */

/* Whether a mask of `rows` rows has to be applied: not where the share that it keeps is 1, and it does keep
 * everything. */
static int drops(const fd_product *p, const fd_row_mask *mask, int64_t rows, int64_t width)
{
    if (mask->bits == NULL || p->flags & FD_FUSED) {
        return 0;
    }
    const int64_t bits = fd_divide_up(rows, mask->rows_per_mask) * width;
    const fd_units all = {mask->bits, 0, bits};
    return mask->keep != 1 || fd_count_units(&all) != bits;
}

typedef struct {
    const fd_product *p;
    double scale;
} finished_rows;

static void finish_rows(const void *context, int64_t task)
{
    const finished_rows *f = context;
    const fd_product *p = f->p;
    const int64_t first = task * TASK_ROWS_OF_C, end = fd_smaller(first + TASK_ROWS_OF_C, p->m);
    const fd_units all = {NULL, 0, p->n};
    for (int64_t i = first; i < end; i++) {
        char *row = (char *)p->c.data + i * p->c.row_stride * fd_element_bytes(p->dtype);
        fd_scatter_row(p->dtype, row, p->n, &all, f->scale, p->bias, p->mask_c.scale, 0, row);
    }
}

/* What is left to do to sums in C: scale and bias, unless they have them, and the mask. */
static void finish(const fd_product *p, double scale, int with_bias)
{
    const finished_rows f = {p, scale};
    if (p->m == 0 || p->n == 0) {
        return;
    }
    if (scale != 1 || (p->bias && !with_bias)) {
        fd_parallel(fd_threads_for(p->m * p->n, MINIMUM_FINISHED),
                    fd_divide_up(p->m, TASK_ROWS_OF_C), finish_rows, &f);
    }
    if (drops(p, &p->mask_c, p->m, p->n)) {
        const int64_t size = fd_element_bytes(p->dtype), shape[] = {p->m, p->n};
        const int64_t strides[] = {p->c.row_stride * size, size}, mask_strides[] = {p->n, 1};
        fd_apply_mask(p->dtype, 2, shape, p->c.data, strides, p->c.data, strides, p->mask_c.bits,
                      mask_strides, p->mask_c.rows_per_mask, 1.0);
    }
}

/* A copy of rows, masked and scaled. */
static void copy_masked(fd_dtype dtype, const masked_rows *x, char *to)
{
    const int64_t size = fd_element_bytes(dtype), shape[] = {x->rows, x->width},
                  mask_strides[] = {x->width, 1};
    const int64_t strides[] = {x->stride * size, size}, packed[] = {x->width * size, size};
    if (x->rows > 0 && x->width > 0) {
        fd_apply_mask(dtype, 2, shape, x->data, strides, to, packed, x->bits, mask_strides,
                      x->rows_per_mask, x->scale);
    }
}

/* Multiplies masked copies of A and B, by a BLAS or by our own GEMM. */
static int64_t multiply_copies(const fd_product *p, fd_method method)
{
    fd_product plain = *p;
    const int sum_rows = (p->flags & FD_SUM_ROWS) != 0;
    const masked_rows a = fd_masked_a(p), b = fd_masked_b(p);
    const int64_t size = fd_element_bytes(p->dtype);
    const int masked_a = drops(p, &p->mask_a, a.rows, a.width),
              masked_b = drops(p, &p->mask_b, b.rows, b.width);
    const int64_t bytes_of_a = masked_a ? fd_aligned(p->m * p->k * size) : 0;
    const int64_t bytes = bytes_of_a + (masked_b ? p->k * p->n * size : 0);
    char *own = bytes > MOST_KEPT_BYTES ? malloc((size_t)bytes) : NULL;
    char *memory =
        own || bytes > MOST_KEPT_BYTES ? own : fd_workspace(FD_SLOT_MASKED, (size_t)bytes + 1);
    if (memory == NULL) {
        return FD_NO_MEMORY;
    }
    plain.mask_a = plain.mask_b = plain.mask_c = (fd_row_mask){NULL, 1, 1.0, 1.0};
    plain.bias = NULL;
    double scale = fd_product_scale(p);
    if (masked_a) {
        copy_masked(p->dtype, &a, memory);
        plain.a = (fd_matrix){memory, sum_rows ? 1 : a.width, sum_rows ? a.width : 1};
        scale = 1;
    }
    if (masked_b) {
        const int columns = (p->flags & FD_MASKED_COLUMNS_OF_B) != 0;
        copy_masked(p->dtype, &b, memory + bytes_of_a);
        plain.b = (fd_matrix){memory + bytes_of_a, columns ? 1 : b.width, columns ? b.width : 1};
    }
    int64_t products = p->m * p->n * p->k;
    if (method == FD_PACKED) {
        plain.mask_a.scale = scale;
        products = multiply_gathered(&plain, fd_larger(a.rows, 1));
        scale = 1;
    } else if (p->blas(p->context, &plain) != 0) {
        products = FD_BLAS_FAILED;
    }
    free(own);
    if (products >= 0) {
        finish(p, scale, 0);
    }
    return products;
}

/* Rows of A, and weights that have a mask, are masked while they are packed. */
static int64_t multiply_packed(const fd_product *p, int *finite)
{
    const int64_t products = fd_gemm(p, 0, finite);
    finish(p, 1, 1);
    return products;
}

static int64_t multiply_small(const fd_product *p, int *finite)
{
    const int64_t products = fd_small_gemm(p, finite);
    finish(p, 1, 0);
    return products;
}

/* --- Zero times infinity --------------------------------------------------------------------------- */

/* Whether no infinity or NaN of an operand can have met the zero of a dropped element. It would be in C, too:
 * the smaller one is looked at. */
static int none_leaked(const fd_product *p, int b_met_zeros, int a_met_zeros)
{
    const int64_t looked_at = (b_met_zeros ? p->k * p->n : 0) + (a_met_zeros ? p->m * p->k : 0);
    if (looked_at >= p->m * p->n) {
        return fd_matrix_is_finite(p->dtype, &p->c, p->m, p->n);
    }
    return (!b_met_zeros || fd_matrix_is_finite(p->dtype, &p->b, p->k, p->n)) &&
           (!a_met_zeros || fd_matrix_is_finite(p->dtype, &p->a, p->m, p->k));
}

typedef struct {
    const fd_product *p;
    masked_rows a, b;
} kept_products;

static int keeps(const masked_rows *x, int64_t i, int64_t j)
{
    return x->bits == NULL || fd_test_bit(x->bits, i / x->rows_per_mask * x->width + j);
}

#define ADD_KEPT(type)                                                                             \
    do {                                                                                           \
        const type x = ((const type *)p->a.data)[i * p->a.row_stride + k];                         \
        const type *w = (const type *)p->b.data + k * p->b.row_stride;                             \
        type *c = (type *)p->c.data + i * p->c.row_stride;                                         \
        const int taken = !(x == 0 && p->flags & FD_SKIP_ZEROS);                                   \
        for (int64_t j = 0; taken && j < p->n; j++) {                                              \
            if (keeps(&s->b, columns ? j : k, columns ? k : j)) {                                  \
                c[j] += x * w[j * p->b.column_stride];                                             \
            }                                                                                      \
        }                                                                                          \
    } while (0)

static void add_kept_products(const void *context, int64_t i)
{
    const kept_products *s = context;
    const fd_product *p = s->p;
    const int columns = (p->flags & FD_MASKED_COLUMNS_OF_B) != 0;
    const int64_t size = fd_element_bytes(p->dtype);
    memset((char *)p->c.data + i * p->c.row_stride * size, 0, (size_t)(p->n * size));
    for (int64_t k = 0; k < p->k; k++) {
        if (!keeps(&s->a, i, k)) {
            continue;
        }
        if (p->dtype == FD_FLOAT32) {
            ADD_KEPT(float);
        } else {
            ADD_KEPT(double);
        }
    }
}

/* A product of masked weights, element by element: slow, and for numbers that are not finite. */
static int64_t multiply_kept(const fd_product *p)
{
    const kept_products s = {p, fd_masked_a(p), fd_masked_b(p)};
    fd_parallel(fd_get_num_threads(), p->m, add_kept_products, &s);
    finish(p, fd_product_scale(p), 0);
    return p->m * p->n * p->k;
}

/* A gradient of weights that have a mask: sums that nobody needs are made and cleared. */
static int64_t sum_masked_rows(const fd_product *p)
{
    fd_product everything = *p;
    everything.mask_c.bits = NULL;
    const int64_t products = fd_matmul(&everything);
    if (products >= 0) {
        finish(p, 1, 1);
    }
    return products;
}

int64_t fd_matmul(const fd_product *p)
{
    if (p->flags & FD_SUM_ROWS && p->mask_c.bits) {
        return sum_masked_rows(p);
    }
    const fd_method wanted = p->method == FD_AUTO ? fd_plan(p) : p->method;
    const fd_method method = wanted == FD_SMALL && !fd_small_takes(p) ? FD_PACKED : wanted;
    const int64_t group = fd_group_rows(p);
    int64_t products;
    int finite = -1; /* not known */
    switch (method) {
    case FD_GATHERED:
        return group ? multiply_gathered(p, group) : FD_NO_GROUPS;
    case FD_SPMM:
        products = fd_spmm(p);
        break;
    case FD_SMALL:
        products = multiply_small(p, &finite);
        break;
    default:
        products = method == FD_DENSE && p->blas ? multiply_copies(p, FD_DENSE)
                   : p->flags & FD_SUM_ROWS      ? multiply_copies(p, FD_PACKED)
                                                 : multiply_packed(p, &finite);
    }
    const masked_rows a = fd_masked_a(p), b = fd_masked_b(p);
    const int zeros_in_a = method != FD_SPMM && drops(p, &p->mask_a, a.rows, a.width);
    const int zeros_in_b = drops(p, &p->mask_b, b.rows, b.width);
    if (products < 0 || !(zeros_in_a || zeros_in_b) || finite > 0 ||
        (finite < 0 && none_leaked(p, zeros_in_a, zeros_in_b))) {
        return products;
    }
    if (fd_masked_weights(p)) {
        return multiply_kept(p);
    }
    return zeros_in_b ? multiply_gathered(p, 1) : fd_spmm(p);
}
