/* window.h: a window of what is drawn, as runs of consecutive elements. */
#ifndef FASTDROP_WINDOW_H
#define FASTDROP_WINDOW_H

#include "fastdrop.h"

/* A window, its axes merged as far as they are contiguous: `outer` runs of `length` elements. */
typedef struct {
    int axes;                         /* of the outer part */
    int64_t shape[FD_MAX_DIMENSIONS]; /* of the mask */
    int64_t start[FD_MAX_DIMENSIONS], extent[FD_MAX_DIMENSIONS];
    int64_t outer, first, length; /* runs; start within the last axis; elements of a run */
    int64_t last_shape;           /* the mask's extent along the last axis */
} window_runs;

static inline window_runs window_make(int dimensions, const int64_t *shape, const int64_t *starts,
                                      const int64_t *stops, int merge)
{
    window_runs w = {.axes = 0, .outer = 1, .first = 0, .length = 1, .last_shape = 1};
    for (int axis = 0; axis < dimensions; axis++) {
        if (stops[axis] == starts[axis]) { /* nothing: other axes may be long beyond any product */
            w.length = 0;
            return w;
        }
    }
    for (int axis = 0; axis < dimensions; axis++) {
        w.shape[axis] = shape[axis];
        w.start[axis] = starts[axis];
        w.extent[axis] = stops[axis] - starts[axis];
    }
    int last = dimensions - 1;
    while (merge && last > 0 && w.extent[last] == w.shape[last]) {
        w.start[last - 1] *= w.shape[last];
        w.extent[last - 1] *= w.shape[last];
        w.shape[last - 1] *= w.shape[last];
        last--;
    }
    if (last >= 0) {
        w.axes = last;
        w.first = w.start[last];
        w.length = w.extent[last];
        w.last_shape = w.shape[last];
        for (int axis = 0; axis < last; axis++) {
            w.outer *= w.extent[axis];
        }
    }
    return w;
}

/* The mask's element index of the start of the last axis in run `run`. */
static inline uint64_t window_row(const window_runs *w, int64_t run)
{
    uint64_t row = 0, stride = 1;
    for (int axis = w->axes - 1; axis >= 0; axis--) {
        row += (uint64_t)(w->start[axis] + run % w->extent[axis]) * stride;
        run /= w->extent[axis];
        stride *= (uint64_t)w->shape[axis];
    }
    return row * (uint64_t)w->last_shape;
}

/* Draws `count` elements from element `element` on, into places `to` and after of what is drawn. */
typedef void (*window_run)(const void *context, uint64_t element, int64_t count, int64_t to);

typedef struct {
    const window_runs *window;
    window_run run;
    const void *context;
} window_walk;

static inline void window_part(const void *context, int64_t from, int64_t count)
{
    const window_walk *walk = context;
    const window_runs *w = walk->window;
    for (const int64_t to = from + count; from < to;) {
        const int64_t offset = from % w->length, left = w->length - offset;
        const int64_t take = left < to - from ? left : to - from;
        walk->run(walk->context, window_row(w, from / w->length) + (uint64_t)(w->first + offset),
                  take, from);
        from += take;
    }
}

/* Draws a window run by run, threads share tasks of `task` places. */
static inline void window_draw(const window_runs *w, int threads, int64_t task, window_run run,
                               const void *context)
{
    const window_walk walk = {w, run, context};
    fd_parallel_parts(threads, w->outer * w->length, task, window_part, &walk);
}

#endif
