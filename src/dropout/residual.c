/* residual.c: bias, dropout and residual sum, and their gradient, cut into tasks for the threads. */
#include <stdlib.h>
#include <string.h>

#include "dropout/affine_one.h"
#include "dropout/stores.h"
#include "kernels.h"

/* Rows whose column sums are taken in the element's precision before they are added up in float64, so that
 * long columns lose nothing; and the most tasks of a sum, each with sums of its own. */
#define ROWS_TOGETHER 64
#define MOST_TASKS 64

typedef struct {
    const fd_kernels *kernels;
    const fd_residual *call;
    fd_dtype dtype;
    fd_stores stores;
    int64_t rows; /* of a task */
    char *together;
    double *sums;
} residual_pass;

/* Rows of a task: as many as make it worth one. */
static int64_t rows_of_task(const fd_residual *call)
{
    return call->width < FD_DROPOUT_TASK ? FD_DROPOUT_TASK / (call->width ? call->width : 1) : 1;
}

static const char *element_at(const void *array, int64_t element, int64_t size)
{
    return array ? (const char *)array + element * size : NULL;
}

static void residual_part(const void *context, int64_t first, int64_t rows)
{
    const residual_pass *p = context;
    const fd_residual *c = p->call;
    const int64_t size = fd_element_bytes(p->dtype);
    /* without a bias the rows are one */
    const int64_t calls = c->bias ? rows : 1, length = c->bias ? c->width : rows * c->width;
    for (int64_t row = 0; row < calls; row++) {
        const int64_t element = (first + row) * c->width;
        p->kernels->residual[p->dtype](
            element_at(c->x, element, size), c->bias, element_at(c->residual, element, size),
            (char *)c->out + element * size, length, c->bits, element, c->scale, p->stores);
    }
}

static residual_pass residual_start(fd_dtype dtype, const fd_residual *call)
{
    const residual_pass p = {
        .kernels = fd_active_kernels(),
        .call = call,
        .dtype = dtype,
        .stores = call->out == call->residual
                      ? FD_STORES_CACHED
                      : fd_best_stores(call->x, call->out,
                                       call->rows * call->width * fd_element_bytes(dtype)),
        .rows = rows_of_task(call),
    };
    return p;
}

void fd_residual_forward(fd_dtype dtype, const fd_residual *call)
{
    const int64_t n = call->rows * call->width;
    if (n == 0) {
        return;
    }
    fd_residual flat = *call; /* without a bias where rows end does not matter */
    flat.rows = n;
    flat.width = 1;
    call = call->bias ? call : &flat;
    const residual_pass p = residual_start(dtype, call);
    fd_parallel_parts(fd_threads_for(n, FD_DROPOUT_MINIMUM), call->rows, p.rows, residual_part, &p);
}

/* Sums of up to ROWS_TOGETHER rows at a time in `together`, of all in `sums`. */
static void sums_part(const void *context, int64_t first, int64_t rows)
{
    const residual_pass *p = context;
    const fd_residual *c = p->call;
    const int64_t size = fd_element_bytes(p->dtype), width = c->width, task = first / p->rows,
                  end = first + rows;
    double *sums = p->sums + task * width;
    memset(sums, 0, (size_t)width * sizeof *sums);
    void *together = p->together + task * width * (int64_t)sizeof *sums;
    for (int64_t row = first; row < end;) {
        memset(together, 0, (size_t)width * sizeof *sums);
        const int64_t stop = row + ROWS_TOGETHER < end ? row + ROWS_TOGETHER : end;
        for (; row < stop; row++) {
            const int64_t element = row * width;
            p->kernels->residual_sums[p->dtype](element_at(c->x, element, size),
                                                (char *)c->out + element * size, width, c->bits,
                                                element, c->scale, together, p->stores);
        }
        for (int64_t j = 0; j < width; j++) {
            sums[j] +=
                p->dtype == FD_FLOAT64 ? ((double *)together)[j] : (double)((float *)together)[j];
        }
    }
}

int fd_residual_backward(fd_dtype dtype, const fd_residual *call, double *sums)
{
    const int64_t n = call->rows * call->width, width = call->width;
    memset(sums, 0, (size_t)width * sizeof *sums);
    if (n == 0) {
        return 0;
    }
    residual_pass p = residual_start(dtype, call);
    const int64_t least = (call->rows + MOST_TASKS - 1) / MOST_TASKS;
    p.rows = p.rows > least ? p.rows : least;
    const int64_t tasks = (call->rows + p.rows - 1) / p.rows;
    p.sums = malloc((size_t)(2 * tasks * width) * sizeof *sums);
    if (p.sums == NULL) {
        return -1;
    }
    p.together = (char *)(p.sums + tasks * width);
    fd_parallel_parts(fd_threads_for(n, FD_DROPOUT_MINIMUM), call->rows, p.rows, sums_part, &p);
    for (int64_t task = 0; task < tasks;
         task++) { /* in order: the same sum on any number of threads */
        for (int64_t j = 0; j < width; j++) {
            sums[j] += p.sums[task * width + j];
        }
    }
    free(p.sums);
    return 0;
}
