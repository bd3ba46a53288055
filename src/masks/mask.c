/* mask.c: windows of masks, cut into tasks for the threads. */
#include "kernels.h"

#include <stdlib.h>

#include "masks/window.h"
#include "runtime/bits.h"

/* Output elements of one task. A multiple of 8: no two tasks write to one byte. */
#define TASK (1 << 16)
/* What a thread must have to do to be worth waking: about 15 microseconds of work. */
#define MINIMUM_ONE_DIGIT (1 << 20)
#define MINIMUM_MANY_DIGITS (1 << 17)
#define MINIMUM_EXACT (1 << 15)
/* Blocks drawn into a buffer when a run does not start at a block. */
#define BUFFER_BLOCKS 64

typedef struct {
    const fd_kernels *kernels;
    const fd_stream *stream;
    uint64_t threshold;
    uint8_t *bits;
} bernoulli_draw;

/* `count` mask bits from element `element` on, written from bit `bit` on. */
static void draw_bernoulli_run(const void *context, uint64_t element, int64_t count, int64_t bit)
{
    const bernoulli_draw *d = context;
    if (element % FD_BLOCK == 0 && bit % 8 == 0) {
        const int64_t blocks = count / FD_BLOCK;
        d->kernels->bernoulli_blocks(d->stream, element / FD_BLOCK, blocks, d->threshold,
                                     d->bits + bit / 8);
        element += (uint64_t)(blocks * FD_BLOCK);
        bit += blocks * FD_BLOCK;
        count -= blocks * FD_BLOCK;
    }
    while (count > 0) {
        uint8_t buffer[(BUFFER_BLOCKS + 1) * FD_BLOCK_BYTES]; /* one more: fd_copy_bits reads on */
        const int64_t offset = (int64_t)(element % FD_BLOCK);
        const int64_t room = BUFFER_BLOCKS * FD_BLOCK - offset;
        const int64_t take = count < room ? count : room;
        const int64_t blocks = (offset + take + FD_BLOCK - 1) / FD_BLOCK;
        d->kernels->bernoulli_blocks(d->stream, element / FD_BLOCK, blocks, d->threshold, buffer);
        memset(buffer + blocks * FD_BLOCK_BYTES, 0, FD_BLOCK_BYTES);
        fd_copy_bits(buffer, offset, d->bits, bit, take);
        element += (uint64_t)take;
        bit += take;
        count -= take;
    }
}

void fd_draw_bernoulli(const fd_stream *stream, uint64_t threshold, int keep_all, int dimensions,
                       const int64_t *shape, const int64_t *starts, const int64_t *stops,
                       uint8_t *bits)
{
    const window_runs w = window_make(dimensions, shape, starts, stops, 1);
    const int64_t total = w.outer * w.length;
    if (keep_all || threshold == 0) {
        memset(bits, 0, (size_t)((total + 7) / 8));
        if (keep_all) {
            fd_fill_bits(bits, 0, total);
        }
        return;
    }
    const bernoulli_draw draw = {fd_active_kernels(), stream, threshold, bits};
    const int64_t minimum =
        threshold == (uint64_t)1 << 63 ? MINIMUM_ONE_DIGIT : MINIMUM_MANY_DIGITS;
    window_draw(&w, fd_threads_for(total, minimum), TASK, draw_bernoulli_run, &draw);
}

typedef struct {
    const fd_kernels *kernels;
    const fd_stream *stream;
    int64_t keep;
    const window_runs *window;
    int64_t parts; /* one per thread */
    uint8_t *scratch, *bits;
} exact_draw;

/* One thread's share of the rows, from a multiple of 8 on: its output starts at a whole byte. */
static void draw_exact_rows(const void *context, int64_t part)
{
    const exact_draw *d = context;
    const window_runs *w = d->window;
    const int64_t eighths = (w->outer + 7) / 8, n = w->last_shape;
    const int64_t end = eighths * (part + 1) / d->parts * 8;
    uint8_t *scratch = d->scratch + part * fd_exact_scratch_bytes(n);
    for (int64_t row = eighths * part / d->parts * 8; row < end && row < w->outer; row++) {
        const uint64_t element = window_row(w, row);
        d->kernels->exact_count_row(d->stream, element, n, d->keep, scratch);
        fd_copy_bits(scratch, (int64_t)(element % FD_BLOCK) + w->first, d->bits, row * w->length,
                     w->length);
    }
}

int fd_draw_exact_count(const fd_stream *stream, int64_t keep, int dimensions, const int64_t *shape,
                        const int64_t *starts, const int64_t *stops, uint8_t *bits)
{
    const window_runs w = window_make(dimensions, shape, starts, stops, 0);
    const int64_t total = w.outer * w.length;
    if (total == 0 || keep == 0 || keep == w.last_shape) {
        memset(bits, 0, (size_t)((total + 7) / 8));
        if (keep != 0) {
            fd_fill_bits(bits, 0, total);
        }
        return 0;
    }
    const int64_t eighths = (w.outer + 7) / 8;
    int threads = fd_threads_for(w.outer * w.last_shape, MINIMUM_EXACT);
    threads = eighths < threads ? (int)eighths : threads;
    const int64_t scratch_bytes = fd_exact_scratch_bytes(w.last_shape);
    uint8_t *scratch = scratch_bytes > PTRDIFF_MAX / threads
                           ? NULL
                           : malloc((size_t)scratch_bytes * (size_t)threads);
    if (scratch == NULL) {
        return -1;
    }
    const exact_draw draw = {fd_active_kernels(), stream, keep, &w, threads, scratch, bits};
    fd_parallel(threads, threads, draw_exact_rows, &draw);
    free(scratch);
    return 0;
}
