/* softmax.c: softmax and dropout of rows of scores, cut into tasks for the threads. */
#include "kernels.h"

/* Elements of one task, and what a thread must have to do to be worth waking. */
#define SOFTMAX_TASK (1 << 14)
#define MINIMUM_SOFTMAX (1 << 15)

typedef struct {
    const fd_kernels *kernels;
    const fd_softmax *call;
    fd_dtype dtype;
} softmax_pass;

static void softmax_part(const void *context, int64_t first, int64_t count)
{
    const softmax_pass *p = context;
    const fd_softmax *c = p->call;
    for (int64_t row = first; row < first + count; row++) {
        const int64_t element = row * c->width, at = element * fd_element_bytes(p->dtype);
        const int64_t last = c->causal ? row % c->causal + 1 : c->width;
        p->kernels->softmax[p->dtype]((const char *)c->x + at, c->width,
                                      last < c->width ? last : c->width, c->attend,
                                      c->attend ? c->attend_starts[row] : 0, c->bits, element,
                                      c->scale, (char *)c->probabilities + at, (char *)c->out + at);
    }
}

static void gradient_part(const void *context, int64_t first, int64_t count)
{
    const softmax_pass *p = context;
    const fd_softmax *c = p->call;
    for (int64_t row = first; row < first + count; row++) {
        const int64_t element = row * c->width, at = element * fd_element_bytes(p->dtype);
        p->kernels->softmax_gradient[p->dtype]((const char *)c->x + at,
                                               (const char *)c->probabilities + at, c->width,
                                               c->bits, element, c->scale, (char *)c->out + at);
    }
}

static void run_rows(fd_dtype dtype, const fd_softmax *call, fd_part part)
{
    const int64_t n = call->rows * call->width;
    if (n == 0) {
        return;
    }
    const int64_t rows = call->width < SOFTMAX_TASK ? SOFTMAX_TASK / call->width : 1;
    const softmax_pass p = {fd_active_kernels(), call, dtype};
    fd_parallel_parts(fd_threads_for(n, MINIMUM_SOFTMAX), call->rows, rows, part, &p);
}

void fd_softmax_forward(fd_dtype dtype, const fd_softmax *call)
{
    run_rows(dtype, call, softmax_part);
}

void fd_softmax_backward(fd_dtype dtype, const fd_softmax *call)
{
    run_rows(dtype, call, gradient_part);
}
