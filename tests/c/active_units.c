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

static compact_mask mask_of(const layer *l, const uint8_t *bits, int64_t units)
{
    return (compact_mask){{bits, 0, units}, l->group};
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
    const compact_operands operands = {
        .x = l->x,
        .x_stride = l->depth,
        .rows = l->rows,
        .group = l->group,
        .w = {l->w, transposed ? l->depth : l->columns, transposed},
        .mask_in = mask_of(l, l->in, l->depth),
        .mask_out = mask_of(l, l->out, l->columns),
    };
    const compact_result result = {y, l->columns, 0.25, 0.5, l->bias, NULL};
    if (fd_compact_matmul(l->dtype, &operands, &result) < 0) {
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
    const compact_batch batch = {
        .x = l->x,
        .grad = l->grad,
        .x_stride = l->depth,
        .grad_stride = l->columns,
        .rows = l->rows,
        .group = l->group,
        .mask_in = mask_of(l, l->in, l->depth),
        .mask_out = mask_of(l, l->out, l->columns),
    };
    const compact_result result = {dw, l->columns, 0.5, 0, NULL, NULL};
    if (fd_compact_gradient(l->dtype, &batch, &result) < 0) {
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
