/* dropouts.h: the part of fastdrop.h's contract that the dropouts are, multi-threaded.
 *
 * Masks come packed from fd_draw_bernoulli or fd_draw_exact_count, but for fd_dropout_forward. */
#ifndef FASTDROP_DROPOUTS_H
#define FASTDROP_DROPOUTS_H

#include "fastdrop.h"

/* What alpha dropout computes: kept(i) ? x * scale + shift : dropped, each step rounded once, in float32
 * for the half types, whose result is rounded once more. */
typedef struct {
    double scale, shift, dropped;
} fd_affine;

/* Draws the mask of n contiguous elements into `bits` and applies it in the same pass. */
void fd_dropout_forward(const fd_stream *stream, uint64_t threshold, int keep_all, fd_dtype dtype,
                        const void *x, void *out, int64_t n, double scale, uint8_t *bits);

/* Applies a packed mask to an array of any layout. `mask_strides` counts elements of the mask (0
 * on a shared axis), the others bytes. Row i of axis 0 uses mask row i / rows_per_mask.
 * Elements must be aligned; out may be x with the same strides, else they do not overlap. */
void fd_apply_mask(fd_dtype dtype, int dimensions, const int64_t *shape, const char *x,
                   const int64_t *x_strides, char *out, const int64_t *out_strides,
                   const uint8_t *bits, const int64_t *mask_strides, int64_t rows_per_mask,
                   double scale);

/* The kernel `rectify` on n contiguous elements, float32 or float64. Returns how many pass. */
int64_t fd_rectify(fd_dtype dtype, void *x, int64_t n, const uint8_t *bits, double scale,
                   uint8_t *gate);

/* The same layouts, with the affine function in the place of the product. (apply.c) */
void fd_apply_affine(fd_dtype dtype, int dimensions, const int64_t *shape, const char *x,
                     const int64_t *x_strides, char *out, const int64_t *out_strides,
                     const uint8_t *bits, const int64_t *mask_strides, int64_t rows_per_mask,
                     const fd_affine *affine);

/* A matrix (rows, width), contiguous: x, out and residual, of which out may be one of the other two; bias
 * has `width` elements or is NULL. Element (i, j) is element i * width + j of the mask. (residual.c) */
typedef struct {
    const void *x, *bias, *residual;
    void *out;
    int64_t rows, width;
    const uint8_t *bits; /* NULL: all are kept */
    double scale;
} fd_residual;

/* out = residual + (kept ? (x + bias) * scale : +0.0). */
void fd_residual_forward(fd_dtype dtype, const fd_residual *call);

/* out = kept ? x * scale : +0.0, where x is the gradient of the output, and `sums`, of `width` float64, the
 * sums of its columns. Returns 0, or -1 without memory (then nothing has been written). */
int fd_residual_backward(fd_dtype dtype, const fd_residual *call, double *sums);

/* Rows of scores (rows, width), contiguous, float32 or float64. Row i attends to the columns whose bit, from
 * bit attend_starts[i] on, is set in `attend` (NULL: to all); and where `causal` is not 0, only to columns up
 * to i % causal. */
typedef struct {
    const void *x;
    int64_t rows, width;
    const uint8_t *attend;
    const int64_t *attend_starts;
    int64_t causal;
    const uint8_t *bits; /* of the dropout, one for each score; NULL: all are kept */
    double scale;
    void *probabilities, *out; /* either may be x; out may be the other where nothing is dropped */
} fd_softmax;

/* probabilities = softmax of each row, +0.0 where it does not attend, all of them where it attends to nothing
 * but -inf; out = kept ? probabilities * scale : +0.0. (softmax.c) */
void fd_softmax_forward(fd_dtype dtype, const fd_softmax *call);

/* out = the gradient with respect to the scores, of `x`, that of the output; out may be x. */
void fd_softmax_backward(fd_dtype dtype, const fd_softmax *call);

/* Blocks of dropped places. seeds: one bit for each of `maps` maps of `depth - block + 1` by `height - block
 * + 1` by `width - block + 1` places, set where a block of `block` places along each axis begins; an axis of
 * extent 1 has blocks of 1. bits: of maps * depth * height * width places, 0 in a block. Returns the number
 * of ones, or -1 without memory. (blocks.c) */
typedef struct {
    int64_t maps, extent[3], block[3];
} fd_blocks;
int64_t fd_drop_blocks(const fd_blocks *shape, const uint8_t *seeds, uint8_t *bits);

#endif
