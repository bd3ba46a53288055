/* values.c: kernels that move, sum and update values.
 *
 * On small whole numbers and halves of them, whose sums and products are exact, fused or not and in
 * whatever order: every machine has to give the same bits, those of the plain loops here.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/bits.h"
#include "check.h"
#include "kernels.h"

#define SHAPES 5

static const int64_t shapes[SHAPES][3] = {
    /* rows, depth, columns: around vector widths, panels and blocks */
    {1, 1, 1}, {3, 17, 33}, {8, 64, 128}, {33, 161, 129}, {130, 70, 260},
};

/* Gathers the active part, and scatters it back. */
static int check_movement(fd_dtype dtype, int64_t rows, int64_t columns)
{
    void *x = numbers(dtype, rows * columns, 1), *back = wrong(dtype, rows * columns);
    void *expected = wrong(dtype, rows * columns);
    uint8_t *row_bits = draw_bits(rows, 3), *column_bits = draw_bits(columns, 4);
    const fd_units row_units = {row_bits, 0, rows}, column_units = {column_bits, 0, columns};
    const int64_t n = fd_count_units(&row_units) * fd_count_units(&column_units);
    void *part = wrong(dtype, n), *expected_part = wrong(dtype, n);
    int64_t place = 0;
    for (int64_t i = 0; i < rows * columns; i++) {
        const int active =
            fd_test_bit(row_bits, i / columns) && fd_test_bit(column_bits, i % columns);
        if (active) {
            set(dtype, expected_part, place++, get(dtype, x, i));
        }
        set(dtype, expected, i, active ? get(dtype, x, i) * 0.5 : 0);
    }
    fd_gather(dtype, x, columns, &row_units, &column_units, part);
    compare(dtype, part, expected_part, n, "gather");
    fd_scatter(dtype, part, &row_units, &column_units, 0.5, NULL, 0, 0, back, columns);
    compare(dtype, back, expected, rows * columns, "scatter");
    free(x);
    free(back);
    free(expected);
    free(row_bits);
    free(column_bits);
    free(part);
    free(expected_part);
    return 2;
}

/* x @ w where `transposed` says how w lies; x's zeros and dropped elements are skipped. */
static int check_product(fd_dtype dtype, int64_t rows, int64_t depth, int64_t columns,
                         int transposed, int64_t rows_per_mask)
{
    void *x = numbers(dtype, rows * depth, 5), *w = numbers(dtype, depth * columns, 6);
    void *bias = numbers(dtype, columns, 7);
    void *y = wrong(dtype, rows * columns), *expected = wrong(dtype, rows * columns);
    uint8_t *bits = draw_bits(rows * depth, 5), *out_bits = draw_bits(rows * columns, 6);
    int64_t multiplied = 0;
    for (int64_t i = 0; i < rows * columns; i++) {
        double sum = 0;
        for (int64_t k = 0; k < depth; k++) {
            const int64_t at = i / columns * depth + k;
            if (fd_test_bit(bits, i / columns / rows_per_mask * depth + k)) {
                const int64_t in_w =
                    transposed ? i % columns * depth + k : k * columns + i % columns;
                sum += get(dtype, x, at) * get(dtype, w, in_w);
            }
        }
        const double value = sum * 0.25 + get(dtype, bias, i % columns) * 0.5;
        set(dtype, expected, i, fd_test_bit(out_bits, i) ? value : 0);
    }
    for (int64_t i = 0; i < rows * depth; i++) {
        const int64_t bit = i / depth / rows_per_mask * depth + i % depth;
        multiplied += fd_test_bit(bits, bit) && get(dtype, x, i) != 0;
    }
    multiplied *= columns;
    const fd_product product = {
        .dtype = dtype,
        .flags = FD_SKIP_ZEROS,
        .method = FD_SPMM,
        .m = rows,
        .n = columns,
        .k = depth,
        .a = {x, depth, 1},
        .b = {w, transposed ? 1 : columns, transposed ? depth : 1},
        .c = {y, columns, 1},
        .mask_a = {bits, rows_per_mask, 0.5, -1},
        .mask_b = {NULL, 1, 1, 1},
        .mask_c = {out_bits, 1, 0.5, -1},
        .bias = bias,
    };
    const int64_t count = fd_matmul(&product);
    /* Rows that share a list share its zeros, too: more is multiplied. */
    if (rows_per_mask == 1 ? count != multiplied : count < multiplied) {
        fail("a product took %" PRId64 " multiply-adds instead of %" PRId64, count, multiplied);
    }
    compare(dtype, y, expected, rows * columns, transposed ? "product with w'" : "product");
    free(x);
    free(w);
    free(bias);
    free(y);
    free(expected);
    free(bits);
    free(out_bits);
    return 1;
}

/* One step with momentum 1/2 and learning rate 1/4. */
static int check_update(fd_dtype dtype, int64_t rows, int64_t columns)
{
    const int64_t n = rows * columns;
    void *w = numbers(dtype, n, 8), *velocity = numbers(dtype, n, 9), *g = numbers(dtype, n, 10);
    void *expected = numbers(dtype, n, 8), *expected_velocity = numbers(dtype, n, 9);
    uint8_t *row_bits = draw_bits(rows, 8), *column_bits = draw_bits(columns, 9);
    for (int64_t i = 0; i < n; i++) {
        if (fd_test_bit(row_bits, i / columns) && fd_test_bit(column_bits, i % columns)) {
            const double u = 0.5 * get(dtype, velocity, i) + get(dtype, g, i);
            set(dtype, expected_velocity, i, u);
            set(dtype, expected, i, get(dtype, w, i) - 0.25 * u);
        }
    }
    const fd_rule rule = {
        .kind = FD_SGD, .learning_rate = 0.25, .beta1 = 0.5, .max_norm = INFINITY};
    const fd_weights weights = {
        .value = w,
        .first = velocity,
        .gradient = g,
        .rows = {row_bits, 0, rows},
        .columns = {column_bits, 0, columns},
    };
    if (fd_update(dtype, &rule, &weights) != 0) {
        fail("no memory for an update");
    }
    compare(dtype, w, expected, n, "weights");
    compare(dtype, velocity, expected_velocity, n, "velocity");
    free(w);
    free(velocity);
    free(g);
    free(expected);
    free(expected_velocity);
    free(row_bits);
    free(column_bits);
    return 2;
}

/* Adam's arrays, moved by one step on the active instruction set. */
typedef struct {
    void *value, *first, *second;
    int64_t *row_counts, *column_counts;
} adam_state;

static int64_t *counts(int64_t n)
{
    int64_t *made = filled_bytes((size_t)n * sizeof *made, 0);
    for (int64_t i = 0; i < n; i++) {
        made[i] = 1 + i % 5;
    }
    return made;
}

static adam_state step_adam(fd_dtype dtype, int64_t rows, int64_t columns)
{
    const int64_t n = rows * columns;
    const adam_state a = {numbers(dtype, n, 11), numbers(dtype, n, 12), numbers(dtype, n, 13),
                          counts(rows), counts(columns)};
    void *g = numbers(dtype, n, 14);
    uint8_t *row_bits = draw_bits(rows, 11), *column_bits = draw_bits(columns, 12);
    double table[12][2];
    for (int k = 0; k < 12; k++) {
        table[k][0] = 1 - ldexp(1, -k);
        table[k][1] = 1 - ldexp(1, -2 * k);
    }
    for (int64_t i = 0; i < n; i++) {
        set(dtype, a.second, i, fabs(get(dtype, a.second, i)));
    }
    const fd_rule rule = {.kind = FD_ADAM,
                          .learning_rate = 0.1,
                          .beta1 = 0.25,
                          .beta2 = 0.5,
                          .epsilon = 1e-3,
                          .weight_decay = 0.01,
                          .max_norm = 7,
                          .decoupled = 1};
    const fd_weights weights = {
        .value = a.value,
        .first = a.first,
        .second = a.second,
        .gradient = g,
        .rows = {row_bits, 0, rows},
        .columns = {column_bits, 0, columns},
        .row_counts = a.row_counts,
        .column_counts = a.column_counts,
        .steps = 7,
        .table = &table[0][0],
    };
    if (fd_update(dtype, &rule, &weights) != 0) {
        fail("no memory for an update");
    }
    free(g);
    free(row_bits);
    free(column_bits);
    return a;
}

static void free_adam(const adam_state *a)
{
    free(a->value);
    free(a->first);
    free(a->second);
    free(a->row_counts);
    free(a->column_counts);
}

/* Not exact, but the same operations in the same order: as on the baseline and one thread. */
static int check_adam(fd_dtype dtype, int64_t rows, int64_t columns)
{
    const int threads = fd_get_num_threads();
    const char *active = fd_active_kernels()->name; /* once: another thread may change it */
    int level = 0;
    while (strcmp(fd_level_name(level), active) != 0) {
        level++;
    }
    const adam_state actual = step_adam(dtype, rows, columns);
    fd_select_level(0);
    fd_set_num_threads(1);
    const adam_state expected = step_adam(dtype, rows, columns);
    fd_select_level(level);
    fd_set_num_threads(threads);
    compare(dtype, actual.value, expected.value, rows * columns, "Adam's weights");
    compare(dtype, actual.first, expected.first, rows * columns, "Adam's first moment");
    compare(dtype, actual.second, expected.second, rows * columns, "Adam's second moment");
    free_adam(&actual);
    free_adam(&expected);
    return 3;
}

int check_exact_values(void)
{
    int results = 0;
    for (int shape = 0; shape < SHAPES; shape++) {
        const int64_t rows = shapes[shape][0], depth = shapes[shape][1], columns = shapes[shape][2];
        for (int dtype = FD_FLOAT32; dtype <= FD_FLOAT64; dtype++) {
            results += check_movement((fd_dtype)dtype, rows, columns);
            for (int transposed = 0; transposed < 2; transposed++) {
                results += check_product((fd_dtype)dtype, rows, depth, columns, transposed, 1);
                results += check_product((fd_dtype)dtype, rows, depth, columns, transposed, 8);
            }
            results += check_update((fd_dtype)dtype, rows, columns);
            results += check_adam((fd_dtype)dtype, rows, columns);
            results += check_compact((fd_dtype)dtype, rows, depth, columns);
            results += check_activations((fd_dtype)dtype, rows, columns);
        }
    }
    return results;
}
