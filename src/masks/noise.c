/* noise.c: windows of normal and uniform numbers, cut into tasks for the threads. */
#include "masks/noise.h"

#include <string.h>

#include "kernels.h"
#include "masks/window.h"

/* Numbers of one task, and what a thread must have to do to be worth waking. */
#define NOISE_TASK (1 << 14)
#define MINIMUM_NOISE (1 << 14)

typedef struct {
    const fd_kernels *kernels;
    const fd_stream *stream;
    fd_noise noise;
    float *out;
} noise_draw;

/* `count` numbers from element `element` on, by way of a buffer where they do not begin or end a block. */
static void draw_noise_run(const void *context, uint64_t element, int64_t count, int64_t to)
{
    const noise_draw *d = context;
    while (count > 0) {
        const int64_t offset = (int64_t)(element % FD_BLOCK);
        int64_t take = count / FD_BLOCK * FD_BLOCK;
        if (offset == 0 && take > 0) {
            d->kernels->noise_blocks(d->stream, d->noise, element / FD_BLOCK, take / FD_BLOCK,
                                     d->out + to);
        } else {
            float block[FD_BLOCK];
            d->kernels->noise_blocks(d->stream, d->noise, element / FD_BLOCK, 1, block);
            take = count < FD_BLOCK - offset ? count : FD_BLOCK - offset;
            memcpy(d->out + to, block + offset, (size_t)take * sizeof *block);
        }
        element += (uint64_t)take;
        to += take;
        count -= take;
    }
}

void fd_draw_noise(const fd_stream *stream, fd_noise noise, int dimensions, const int64_t *shape,
                   const int64_t *starts, const int64_t *stops, float *out)
{
    const window_runs w = window_make(dimensions, shape, starts, stops, 1);
    const noise_draw d = {fd_active_kernels(), stream, noise, out};
    window_draw(&w, fd_threads_for(w.outer * w.length, MINIMUM_NOISE), NOISE_TASK, draw_noise_run,
                &d);
}
