/* dropout.c: drawing and applying in one pass, and ReLU with a mask, cut into tasks for the threads. */
#include "dropout/stores.h"
#include "kernels.h"

/* The same for activations, which are as small as a batch: they come from a cache. */
#define SMALL_TASK (1 << 14)
#define MINIMUM_RECTIFIED (1 << 16)

typedef struct {
    const fd_kernels *kernels;
    const fd_stream *stream;
    uint64_t threshold;
    fd_dtype dtype;
    const char *x;
    char *out;
    double scale;
    fd_stores stores;
    uint8_t *bits;
} forward_pass;

static void forward_part(const void *context, int64_t first, int64_t count)
{
    const forward_pass *f = context;
    const int64_t bytes = first * fd_element_bytes(f->dtype);
    f->kernels->dropout[f->dtype](f->stream, f->threshold, (uint64_t)first, count, f->x + bytes,
                                  f->out + bytes, f->scale, f->stores, f->bits + first / 8);
}

void fd_dropout_forward(const fd_stream *stream, uint64_t threshold, int keep_all, fd_dtype dtype,
                        const void *x, void *out, int64_t n, double scale, uint8_t *bits)
{
    const int64_t size = fd_element_bytes(dtype);
    if (keep_all || threshold == 0) {
        const int64_t shape = n, start = 0, stride = size, mask_stride = 1;
        fd_draw_bernoulli(stream, threshold, keep_all, 1, &shape, &start, &shape, bits);
        fd_apply_mask(dtype, 1, &shape, x, &stride, out, &stride, bits, &mask_stride, 1, scale);
        return;
    }
    const forward_pass f = {fd_active_kernels(),
                            stream,
                            threshold,
                            dtype,
                            x,
                            out,
                            scale,
                            fd_best_stores(x, out, n * size),
                            bits};
    fd_parallel_parts(fd_threads_for(n, FD_DROPOUT_MINIMUM), n, FD_DROPOUT_TASK, forward_part, &f);
}

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    char *x;
    const uint8_t *bits;
    double scale;
    uint8_t *gate;
} rectification;

static void rectify_part(const void *context, int64_t first, int64_t count)
{
    const rectification *r = context;
    r->kernels->rectify[r->dtype](r->x + first * fd_element_bytes(r->dtype), count,
                                  r->bits ? r->bits + first / 8 : NULL, r->scale,
                                  r->gate + first / 8);
}

int64_t fd_rectify(fd_dtype dtype, void *x, int64_t n, const uint8_t *bits, double scale,
                   uint8_t *gate)
{
    const rectification r = {fd_active_kernels(), dtype, x, bits, scale, gate};
    fd_parallel_parts(fd_threads_for(n, MINIMUM_RECTIFIED), n, SMALL_TASK, rectify_part, &r);
    const fd_units passing = {gate, 0, n};
    return fd_count_units(&passing);
}
