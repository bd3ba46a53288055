/* noisy.c: arrays multiplied by noise, or noise added to them, cut into tasks for the threads. */
#include "kernels.h"

/* Elements of one task: a multiple of 128. And what a thread must have to do to be worth waking. */
#define NOISY_TASK (1 << 14)
#define MINIMUM_NOISY (1 << 14)

typedef struct {
    const fd_kernels *kernels;
    const fd_stream *stream;
    fd_noise noise;
    fd_dtype dtype;
    const char *x;
    char *out;
    double scale;
    int additive;
} noisy_pass;

static void noisy_part(const void *context, int64_t first, int64_t count)
{
    const noisy_pass *p = context;
    const int64_t bytes = first * fd_element_bytes(p->dtype);
    p->kernels->apply_noise[p->dtype](p->stream, p->noise, (uint64_t)first, count, p->x + bytes,
                                      p->out + bytes, p->scale, p->additive);
}

void fd_apply_noise(const fd_stream *stream, fd_noise noise, fd_dtype dtype, const void *x,
                    void *out, int64_t n, double scale, int additive)
{
    const noisy_pass p = {fd_active_kernels(), stream, noise, dtype, x, out, scale, additive};
    fd_parallel_parts(fd_threads_for(n, MINIMUM_NOISY), n, NOISY_TASK, noisy_part, &p);
}
