/* noise.c: windows of normal and uniform numbers, cut into tasks for the threads. */
#include "masks/noise.h"

#include <string.h>

#include "kernels.h"
#include "masks/window.h"

/* Numbers of one task, and what a thread must have to do to be worth waking. */
#define NOISE_TASK (1 << 14)
#define MINIMUM_NOISE (1 << 14)

/* `count` numbers from element `element` on, by way of a buffer where they do not begin or end a block. */
static void draw_noise_run(const fd_kernels *kernels, const fd_stream *stream, fd_noise noise,
                           uint64_t element, int64_t count, float *out)
{
    while (count > 0) {
        const int64_t offset = (int64_t)(element % FD_BLOCK);
        int64_t take = count / FD_BLOCK * FD_BLOCK;
        if (offset == 0 && take > 0) {
            kernels->noise_blocks(stream, noise, element / FD_BLOCK, take / FD_BLOCK, out);
        } else {
            float block[FD_BLOCK];
            kernels->noise_blocks(stream, noise, element / FD_BLOCK, 1, block);
            take = count < FD_BLOCK - offset ? count : FD_BLOCK - offset;
            memcpy(out, block + offset, (size_t)take * sizeof *out);
        }
        element += (uint64_t)take;
        out += take;
        count -= take;
    }
}

typedef struct {
    const fd_kernels *kernels;
    const fd_stream *stream;
    fd_noise noise;
    const window_runs *window;
    int64_t total;
    float *out;
} noise_draw;

static void draw_noise_part(const void *context, int64_t task)
{
    const noise_draw *d = context;
    const window_runs *w = d->window;
    int64_t from = task * NOISE_TASK;
    const int64_t to = from + NOISE_TASK < d->total ? from + NOISE_TASK : d->total;
    while (from < to) {
        const int64_t run = from / w->length, offset = from % w->length;
        const int64_t left = w->length - offset;
        const int64_t take = left < to - from ? left : to - from;
        const uint64_t element = window_row(w, run) + (uint64_t)(w->first + offset);
        draw_noise_run(d->kernels, d->stream, d->noise, element, take, d->out + from);
        from += take;
    }
}

void fd_draw_noise(const fd_stream *stream, fd_noise noise, int dimensions, const int64_t *shape,
                   const int64_t *starts, const int64_t *stops, float *out)
{
    const window_runs w = window_make(dimensions, shape, starts, stops, 1);
    const noise_draw d = {fd_active_kernels(), stream, noise, &w, w.outer * w.length, out};
    fd_parallel(fd_threads_for(d.total, MINIMUM_NOISE), (d.total + NOISE_TASK - 1) / NOISE_TASK,
                draw_noise_part, &d);
}
