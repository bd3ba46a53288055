/* sums.c: sums of columns, of what a mask keeps: the gradient of a bias; and what elements are: finite, or
 * not zero. */
#include <string.h>

#include "matmul/compact_axis.h"
#include "kernels.h"

/* Columns of one task: their sums stay in the L1 cache. */
#define TASK_COLUMNS 512
/* Elements that a thread must have to add to be worth waking. */
#define MINIMUM_ADDED (1 << 17)

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const char *x;
    int64_t stride, rows; /* stride in bytes */
    const compact_mask *mask;
    double scale;
    char *out;
} masked_sums;

static void sum_columns(const void *context, int64_t task)
{
    const masked_sums *s = context;
    const int64_t size = fd_element_bytes(s->dtype);
    const int64_t first = task * TASK_COLUMNS, left = s->mask->units.length - first;
    const int64_t columns = left < TASK_COLUMNS ? left : TASK_COLUMNS;
    char *out = s->out + first * size;
    memset(out, 0, (size_t)(columns * size));
    for (int64_t i = 0; i < s->rows; i++) {
        const fd_units units = fd_units_of_row(s->mask, i);
        s->kernels->add_kept[s->dtype](s->x + i * s->stride + first * size, columns, units.bits,
                                       units.bit + first, out);
    }
    s->kernels->apply_run[s->dtype](out, out, columns, s->scale, 0);
}

void fd_masked_sums(fd_dtype dtype, const void *x, int64_t stride, int64_t rows,
                    const compact_mask *mask, double scale, void *out)
{
    const int64_t columns = mask->units.length;
    const masked_sums s = {
        .kernels = fd_active_kernels(),
        .dtype = dtype,
        .x = x,
        .stride = stride * fd_element_bytes(dtype),
        .rows = rows,
        .mask = mask,
        .scale = scale,
        .out = out,
    };
    fd_parallel(fd_threads_for(rows * columns, MINIMUM_ADDED),
                (columns + TASK_COLUMNS - 1) / TASK_COLUMNS, sum_columns, &s);
}

int fd_all_finite(fd_dtype dtype, const void *x, int64_t n)
{
    return fd_active_kernels()->all_finite[dtype](x, n);
}

#define ADD_NONZEROS(type)                                                                       \
    for (int64_t i = 0; i < rows; i += every) {                                                  \
        const char *row = (const char *)x + i * row_bytes;                                       \
        int32_t found = 0;                                                                       \
        if (column_bytes == (int64_t)sizeof(type)) {                                             \
            for (int64_t j = 0; j < columns; j++) {                                              \
                found += ((const type *)row)[j] != 0;                                            \
            }                                                                                    \
        } else {                                                                                 \
            for (int64_t j = 0; j < columns; j++) {                                              \
                found += *(const type *)(row + j * column_bytes) != 0;                           \
            }                                                                                    \
        }                                                                                        \
        count += found;                                                                          \
    }

int64_t fd_count_nonzeros(fd_dtype dtype, const void *x, int64_t row_bytes, int64_t column_bytes,
                          int64_t rows, int64_t columns, int64_t every)
{
    int64_t count = 0;
    if (dtype == FD_FLOAT32) {
        ADD_NONZEROS(float)
    } else {
        ADD_NONZEROS(double)
    }
    return count;
}
