/* active_units.c: products that only active units of groups of rows take part in. */
#include <stdlib.h>

#include "runtime/bits.h"
#include "check.h"

/* The operands of a layer; every `group` rows share their active inputs and outputs. */
typedef struct {
    fd_dtype dtype;
    int64_t rows, depth, columns, group;
    void *x, *w, *grad, *bias;
    uint8_t *in, *out;
} layer;

static int takes_part(const layer *l, int64_t row, int64_t k)
{
    return fd_test_bit(l->in, row / l->group * l->depth + k);
}

static int computed(const layer *l, int64_t row, int64_t j)
{
    return fd_test_bit(l->out, row / l->group * l->columns + j);
}

static fd_row_mask mask_of(const layer *l, const uint8_t *bits, double scale)
{
    return (fd_row_mask){bits, l->group, scale, -1};
}

static void check_forward(const layer *l, int transposed)
{
    const int64_t n = l->rows * l->columns;
    void *y = wrong(l->dtype, n), *expected = wrong(l->dtype, n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = i / l->columns, j = i % l->columns;
        double sum = 0;
        for (int64_t k = 0; k < l->depth; k++) {
            const int64_t in_w = transposed ? j * l->depth + k : k * l->columns + j;
            if (takes_part(l, row, k)) {
                sum += get(l->dtype, l->x, row * l->depth + k) * get(l->dtype, l->w, in_w);
            }
        }
        const double value = sum * 0.25 + get(l->dtype, l->bias, j) * 0.5;
        set(l->dtype, expected, i, computed(l, row, j) ? value : 0);
    }
    const fd_product product = {
        .dtype = l->dtype,
        .method = FD_GATHERED,
        .m = l->rows,
        .n = l->columns,
        .k = l->depth,
        .a = {l->x, l->depth, 1},
        .b = {l->w, transposed ? 1 : l->columns, transposed ? l->depth : 1},
        .c = {y, l->columns, 1},
        .mask_a = mask_of(l, l->in, 0.5),
        .mask_b = {NULL, 1, 1, 1},
        .mask_c = mask_of(l, l->out, 0.5),
        .bias = l->bias,
    };
    if (fd_matmul(&product) < 0) {
        fail("no memory for a compact product");
    }
    compare(l->dtype, y, expected, n, transposed ? "compact product with w'" : "compact product");
    free(y);
    free(expected);
}

static void check_gradient(const layer *l)
{
    const int64_t n = l->depth * l->columns;
    void *dw = wrong(l->dtype, n), *expected = wrong(l->dtype, n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t k = i / l->columns, j = i % l->columns;
        double sum = 0;
        for (int64_t row = 0; row < l->rows; row++) {
            if (takes_part(l, row, k) && computed(l, row, j)) {
                sum += get(l->dtype, l->x, row * l->depth + k) *
                       get(l->dtype, l->grad, row * l->columns + j);
            }
        }
        set(l->dtype, expected, i, sum * 0.5);
    }
    const fd_product product = {
        .dtype = l->dtype,
        .flags = FD_SUM_ROWS,
        .method = FD_GATHERED,
        .m = l->depth,
        .n = l->columns,
        .k = l->rows,
        .a = {l->x, 1, l->depth},
        .b = {l->grad, l->columns, 1},
        .c = {dw, l->columns, 1},
        .mask_a = mask_of(l, l->in, 0.5),
        .mask_b = mask_of(l, l->out, 1),
        .mask_c = {NULL, 1, 1, 1},
    };
    if (fd_matmul(&product) < 0) {
        fail("no memory for a compact gradient");
    }
    compare(l->dtype, dw, expected, n, "compact gradient");
    free(dw);
    free(expected);
}

int check_compact(fd_dtype dtype, int64_t rows, int64_t depth, int64_t columns)
{
    const int64_t group_rows[] = {8, rows};
    for (int i = 0; i < 2; i++) {
        const int64_t group = group_rows[i], groups = (rows + group - 1) / group;
        const layer l = {
            .dtype = dtype,
            .rows = rows,
            .depth = depth,
            .columns = columns,
            .group = group,
            .x = numbers(dtype, rows * depth, 21),
            .w = numbers(dtype, depth * columns, 22),
            .grad = numbers(dtype, rows * columns, 23),
            .bias = numbers(dtype, columns, 24),
            .in = draw_bits(groups * depth, 21),
            .out = draw_bits(groups * columns, 22),
        };
        check_forward(&l, 0);
        check_forward(&l, 1);
        check_gradient(&l);
        free(l.x);
        free(l.w);
        free(l.grad);
        free(l.bias);
        free(l.in);
        free(l.out);
    }
    return 6;
}
