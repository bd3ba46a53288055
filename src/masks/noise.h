/* noise.h: normal and uniform numbers of a mask stream (docs: the mask stream, "normal, version 1").
 *
 * A number is a function of key, draw and element, as a digit of a mask is, and the same on every
 * instruction set: its arithmetic is in float32, every operation rounded once, in the order of
 * noise_body.h.
 */
#ifndef FASTDROP_NOISE_H
#define FASTDROP_NOISE_H

#include "fastdrop.h"

typedef enum { FD_NORMAL, FD_UNIFORM } fd_noise;

/* The numbers of a window, as fd_draw_bernoulli has its bits: standard normal ones, or uniform ones in
 * (-1, 1). Multi-threaded. (masks/noise.c) */
void fd_draw_noise(const fd_stream *stream, fd_noise noise, int dimensions, const int64_t *shape,
                   const int64_t *starts, const int64_t *stops, float *out);

/* n contiguous elements with the noise of elements 0 to n - 1 of a draw: out = x * (1 + scale * z), or with
 * `additive` x + scale * z. float32 (float16: in float32, then rounded) or float64, each operation rounded
 * once, scale cast to that type. out may be x, else they do not overlap. Multi-threaded.
 * (dropout/noisy.c) */
void fd_apply_noise(const fd_stream *stream, fd_noise noise, fd_dtype dtype, const void *x,
                    void *out, int64_t n, double scale, int additive);

#endif
