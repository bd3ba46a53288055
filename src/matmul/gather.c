/* gather.c: the active part of a matrix, side by side, and back. */
#include <string.h>

#include "runtime/bits.h"
#include "kernels.h"
#include "matmul/drivers.h"

/* Rows of one task. */
#define TASK_ROWS 64
/* Active rows between the one gathered and the one fetched into the cache. */
#define ROWS_AHEAD 2
/* Elements that a thread must have to look at to be worth waking: some 20 microseconds, or twice that
 * where they come from memory. */
#define MINIMUM_PER_THREAD (1 << 17)

static int64_t count_bits(const uint8_t *bits, int64_t bit, int64_t count)
{
    int64_t total = 0;
    for (; count > 0; count -= 64, bit += 64) {
        total += __builtin_popcountll(fd_load_bits_part(bits, bit, count));
    }
    return total;
}

int64_t fd_count_units(const fd_units *units)
{
    return units->bits ? count_bits(units->bits, units->bit, units->length) : units->length;
}

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const char *x;
    char *out;
    int64_t stride; /* bytes, of the array that is not compact */
    const fd_units *rows, *columns;
    int64_t active_rows, active_columns;
    double scale, bias_scale;
    const void *bias;
    int accumulate;
} movement;

static int unit_is_kept(const fd_units *units, int64_t i)
{
    return units->bits == NULL || fd_test_bit(units->bits, units->bit + i);
}

/* Active units before unit i. */
static int64_t kept_units_before(const fd_units *units, int64_t i)
{
    return units->bits ? count_bits(units->bits, units->bit, i) : i;
}

/* The row `ahead` active rows after row i, or the last one there is. */
static int64_t row_ahead(const fd_units *units, int64_t i, int ahead)
{
    int64_t row = i;
    while (ahead > 0 && ++i < units->length) {
        if (unit_is_kept(units, i)) {
            row = i;
            ahead--;
        }
    }
    return row;
}

static void gather_rows(const void *context, int64_t task)
{
    const movement *m = context;
    const size_t size = (size_t)fd_element_bytes(m->dtype);
    const int64_t from = task * TASK_ROWS, left = m->rows->length - from;
    const int64_t to = from + (left < TASK_ROWS ? left : TASK_ROWS);
    int64_t rank = kept_units_before(m->rows, from);
    const int64_t end = kept_units_before(m->rows, to); /* rows after this are another thread's */
    for (int64_t i = from; i < to; i++) {
        if (!unit_is_kept(m->rows, i)) {
            continue;
        }
        const char *x = m->x + i * m->stride;
        char *out = m->out + (size_t)(rank * m->active_columns) * size;
        if (m->columns->bits) {
            const char *next = m->x + row_ahead(m->rows, i, ROWS_AHEAD) * m->stride;
            m->kernels->gather[m->dtype](x, next, m->columns->length, m->columns->bits,
                                         m->columns->bit, out, (end - rank) * m->active_columns);
        } else {
            memcpy(out, x, (size_t)m->active_columns * size);
        }
        rank++;
    }
}

void fd_gather(fd_dtype dtype, const void *x, int64_t stride, const fd_units *rows,
               const fd_units *columns, void *out)
{
    const movement m = {
        .kernels = fd_active_kernels(),
        .dtype = dtype,
        .x = x,
        .out = out,
        .stride = stride * fd_element_bytes(dtype),
        .rows = rows,
        .columns = columns,
        .active_rows = fd_count_units(rows),
        .active_columns = fd_count_units(columns),
    };
    if (m.active_columns == 0) {
        return;
    }
    fd_parallel(fd_threads_for(m.active_rows * columns->length, MINIMUM_PER_THREAD),
                (rows->length + TASK_ROWS - 1) / TASK_ROWS, gather_rows, &m);
}

/* All columns active: a run of ones for bits. */
static void scatter_whole_row(fd_dtype dtype, const char *x, int64_t room, int64_t columns,
                              double scale, const char *bias, double bias_scale, int accumulate,
                              char *out)
{
    static const uint8_t ones[] = {255, 255, 255, 255, 255, 255, 255, 255,
                                   255, 255, 255, 255, 255, 255, 255, 255};
    const int64_t size = fd_element_bytes(dtype);
    for (int64_t j = 0; j < columns; j += 64) {
        fd_active_kernels()->scatter[dtype](
            x + j * size, room - j, columns - j < 64 ? columns - j : 64, ones, 0, scale,
            bias ? bias + j * size : NULL, bias_scale, accumulate, out + j * size);
    }
}

void fd_scatter_row(fd_dtype dtype, const void *x, int64_t room, const fd_units *columns,
                    double scale, const void *bias, double bias_scale, int accumulate, void *out)
{
    if (columns->bits) {
        fd_active_kernels()->scatter[dtype](x, room, columns->length, columns->bits, columns->bit,
                                            scale, bias, bias_scale, accumulate, out);
    } else {
        scatter_whole_row(dtype, x, room, columns->length, scale, bias, bias_scale, accumulate,
                          out);
    }
}

static void scatter_rows(const void *context, int64_t task)
{
    const movement *m = context;
    const size_t size = (size_t)fd_element_bytes(m->dtype);
    const int64_t from = task * TASK_ROWS, left = m->rows->length - from;
    const int64_t to = from + (left < TASK_ROWS ? left : TASK_ROWS);
    int64_t rank = kept_units_before(m->rows, from);
    for (int64_t i = from; i < to; i++) {
        char *out = m->out + i * m->stride;
        if (!unit_is_kept(m->rows, i)) {
            if (!m->accumulate) {
                memset(out, 0, (size_t)m->columns->length * size);
            }
            continue;
        }
        const char *x = m->x + (size_t)(rank * m->active_columns) * size;
        const int64_t room = (m->active_rows - rank) * m->active_columns;
        fd_scatter_row(m->dtype, x, room, m->columns, m->scale, m->bias, m->bias_scale,
                       m->accumulate, out);
        rank++;
    }
}

void fd_scatter(fd_dtype dtype, const void *x, const fd_units *rows, const fd_units *columns,
                double scale, const void *bias, double bias_scale, int accumulate, void *out,
                int64_t stride)
{
    const movement m = {
        .kernels = fd_active_kernels(),
        .dtype = dtype,
        .x = x,
        .out = out,
        .stride = stride * fd_element_bytes(dtype),
        .rows = rows,
        .columns = columns,
        .active_rows = fd_count_units(rows),
        .active_columns = fd_count_units(columns),
        .scale = scale,
        .bias_scale = bias_scale,
        .bias = bias,
        .accumulate = accumulate,
    };
    if (columns->length == 0) {
        return;
    }
    fd_parallel(fd_threads_for(rows->length * columns->length, MINIMUM_PER_THREAD),
                (rows->length + TASK_ROWS - 1) / TASK_ROWS, scatter_rows, &m);
}
