/* sums.c: sums of columns, of what a mask keeps: the gradient of a bias; and what elements are: finite, or
 * not zero. */
#include <string.h>

#include "matmul/drivers.h"

/* Columns of one task: their sums stay in the L1 cache. */
#define TASK_COLUMNS 512
/* Elements that a thread must have to add to be worth waking. */
#define MINIMUM_ADDED (1 << 17)

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const char *x;
    int64_t stride, rows, columns; /* stride in bytes */
    const fd_row_mask *mask;
    char *out;
} masked_sums;

static void sum_columns(const void *context, int64_t first, int64_t columns)
{
    const masked_sums *s = context;
    const int64_t size = fd_element_bytes(s->dtype);
    char *out = s->out + first * size;
    memset(out, 0, (size_t)(columns * size));
    for (int64_t i = 0; i < s->rows; i++) {
        const int64_t bit = i / s->mask->rows_per_mask * s->columns + first;
        s->kernels->add_kept[s->dtype](s->x + i * s->stride + first * size, columns, s->mask->bits,
                                       bit, out);
    }
    s->kernels->apply_run[s->dtype](out, out, columns, s->mask->scale, 0);
}

void fd_masked_sums(fd_dtype dtype, const void *x, int64_t stride, int64_t rows, int64_t columns,
                    const fd_row_mask *mask, void *out)
{
    const masked_sums s = {
        .kernels = fd_active_kernels(),
        .dtype = dtype,
        .x = x,
        .stride = stride * fd_element_bytes(dtype),
        .rows = rows,
        .columns = columns,
        .mask = mask,
        .out = out,
    };
    fd_parallel_parts(fd_threads_for(rows * columns, MINIMUM_ADDED), columns, TASK_COLUMNS,
                      sum_columns, &s);
}

int fd_all_finite(fd_dtype dtype, const void *x, int64_t n)
{
    return fd_active_kernels()->all_finite[dtype](x, n);
}

#define ADD_NONZEROS(type)                                                                         \
    for (int64_t i = 0; i < rows; i += every) {                                                    \
        const type *row = (const type *)x + i * stride;                                            \
        int32_t found = 0;                                                                         \
        for (int64_t j = 0; j < columns; j++) {                                                    \
            found += row[j] != 0;                                                                  \
        }                                                                                          \
        count += found;                                                                            \
    }

int64_t fd_count_nonzeros(fd_dtype dtype, const void *x, int64_t stride, int64_t rows,
                          int64_t columns, int64_t every)
{
    int64_t count = 0;
    if (dtype == FD_FLOAT32) {
        ADD_NONZEROS(float)
    } else {
        ADD_NONZEROS(double)
    }
    return count;
}

int fd_matrix_is_finite(fd_dtype dtype, const fd_matrix *x, int64_t rows, int64_t columns)
{
    const int64_t size = fd_element_bytes(dtype);
    const int along_rows = columns <= 1 || x->column_stride == 1;
    const int64_t runs = along_rows ? rows : columns, length = along_rows ? columns : rows;
    const int64_t stride = along_rows ? x->row_stride : x->column_stride;
    if (stride == length) {
        return fd_all_finite(dtype, x->data, runs * length);
    }
    for (int64_t i = 0; i < runs; i++) {
        if (!fd_all_finite(dtype, (const char *)x->data + i * stride * size, length)) {
            return 0;
        }
    }
    return 1;
}
