/* compact_put_body.h: sums of active units to their places in a result, for one element type R (f32, f64).
 *
 * Sums lie side by side, and are spread over whole vectors of the result, with zeros in between. */
#include "simd/join.h"

/* Where the sums of one block of columns go, prepared for whole vectors. */
typedef struct {
    const compact_piece *pieces;
    int64_t count, begin, end, length; /* of the axis */
    R_(vector) scales, bias_scales;
    const R_(element) *bias;
    R_(vector) watch; /* 0, until an infinity or NaN was among the results */
} R_(places);

/* One piece of which not all lanes are the block's own, or not before column `at`. */
static void R_(put_part)(R_(places) *p, const R_(element) *sums, compact_piece piece,
                         int64_t at, int accumulate, R_(element) *out)
{
    R_(element) lanes[R_(lanes)], near[R_(lanes)] = {0};
    const int64_t last = piece.source + R_(lanes);
    const int64_t first = piece.source > at ? piece.source : at;
    const int64_t stop = last < p->end ? last : p->end;
    R_(vector) v = R_(multiply)(R_(expand)(sums + piece.place, piece.lanes), p->scales);
    if (p->bias) {
        memcpy(near + (first - piece.source), p->bias + first,
               (size_t)(stop - first) * sizeof *near);
        v = R_(multiply_add)(R_(load)(near), p->bias_scales, v);
    }
    v = R_(keep)(v, piece.lanes);
    p->watch = R_(multiply_add)(v, R_(one)(0), p->watch);
    if (!accumulate) {
        const uint64_t before_stop = ((uint64_t)1 << (stop - piece.source)) - 1;
        const uint64_t before_first = ((uint64_t)1 << (first - piece.source)) - 1;
        R_(store_lanes)(out + piece.source, v, before_stop & ~before_first);
        return;
    }
    R_(store)(lanes, v);
    for (int64_t j = first; j < stop; j++) {
        if (piece.lanes >> (j - piece.source) & 1) {
            out[j] += lanes[j - piece.source];
        }
    }
}

/* All units active: sums lie as the result does. */
static void R_(put_run)(R_(places) *p, const R_(element) *sums, int accumulate,
                        R_(element) *out)
{
    int64_t j = p->begin;
    R_(vector) watch = p->watch;
    for (; j + R_(lanes) <= p->end; j += R_(lanes)) {
        R_(vector) v = R_(multiply)(R_(load)(sums + (j - p->begin)), p->scales);
        if (accumulate) {
            v = R_(add)(R_(load)(out + j), v);
        } else if (p->bias) {
            v = R_(multiply_add)(R_(load)(p->bias + j), p->bias_scales, v);
        }
        watch = R_(multiply_add)(v, R_(one)(0), watch);
        R_(store)(out + j, v);
    }
    p->watch = watch;
    if (j < p->end) {
        const compact_piece rest = {.source = j, .place = (int32_t)(j - p->begin),
                                    .lanes = ((uint32_t)1 << (p->end - j)) - 1};
        R_(put_part)(p, sums, rest, j, accumulate, out);
    }
}

/* A row is added. Whole vectors are, with zeros in between and beyond the block: a masked store would be
 * slower. Only where there is no whole vector of it an axis is treated lane by lane. */
static void R_(put_added)(R_(places) *p, const R_(element) *sums, R_(element) *out)
{
    if (p->length < R_(lanes)) {
        for (int64_t n = 0; n < p->count; n++) {
            R_(put_part)(p, sums, p->pieces[n], p->begin, 1, out);
        }
        return;
    }
    for (int64_t n = 0; n < p->count; n++) {
        const compact_piece piece = p->pieces[n];
        const R_(vector) v = R_(expand)(sums + piece.place, piece.lanes);
        R_(element) *place = out + piece.source;
        R_(store)(place, R_(multiply_add)(v, p->scales, R_(load)(place)));
    }
}

/* +0.0 from column `at` on, in whole vectors, until `end` is reached; returns where that is. */
static inline int64_t R_(put_zeros)(int64_t at, int64_t end, R_(element) *out)
{
    for (; at < end; at += R_(lanes)) {
        R_(store)(out + at, R_(one)(0));
    }
    return at;
}

/* A row with zeros in between. */
static void R_(put_new)(R_(places) *p, const R_(element) *sums, R_(element) *out)
{
    int64_t at = p->begin;
    for (int64_t n = 0; n + 1 < p->count; n++, at += R_(lanes)) {
        const compact_piece piece = p->pieces[n];
        at = R_(put_zeros)(at, piece.source, out);
        R_(vector) v = R_(multiply)(R_(expand)(sums + piece.place, piece.lanes), p->scales);
        if (p->bias) {
            v = R_(multiply_add)(R_(load)(p->bias + at), p->bias_scales, v);
        }
        R_(store)(out + at, R_(keep)(v, piece.lanes));
    }
    if (p->count > 0) {
        const compact_piece last = p->pieces[p->count - 1];
        at = R_(put_zeros)(at, last.source, out);
        R_(put_part)(p, sums, last, at, 0, out);
        at = last.source + R_(lanes);
    }
    if (at < p->end) {
        memset(out + at, 0, (size_t)(p->end - at) * sizeof *out);
    }
}

/* Rows of sums of the active units of one block of an axis go to their places in the rows of the
 * result, number rows[i] (or first + i): times scale and plus bias, +0.0 in between, or with
 * accumulate added to what is there. A vector beyond the sums may be read. */
static void R_(compact_put)(const void *from, int64_t stride, const compact_axis *axis,
                            int64_t block, int accumulate, const compact_result *result,
                            const int64_t *numbers, int64_t first, int64_t rows)
{
    R_(places) p = {
        .begin = axis->cuts[block],
        .end = axis->cuts[block + 1],
        .length = axis->length,
        .scales = R_(one)((R_(element))result->scale),
        .bias_scales = R_(one)((R_(element))result->bias_scale),
        .bias = result->bias,
        .watch = R_(one)(0),
    };
    if (axis->pieces) {
        p.pieces = axis->pieces + axis->starts[block];
        p.count = axis->starts[block + 1] - axis->starts[block];
    }
    for (int64_t i = 0; i < rows; i++) {
        const R_(element) *sums = (const R_(element) *)from + i * stride;
        const int64_t number = numbers ? numbers[i] : first + i;
        R_(element) *out = (R_(element) *)result->data + number * result->stride;
        if (axis->pieces == NULL) {
            R_(put_run)(&p, sums, accumulate, out);
        } else if (accumulate) {
            R_(put_added)(&p, sums, out);
        } else {
            R_(put_new)(&p, sums, out);
        }
    }
    if (result->infinite && R_(nonzero)(p.watch)) { /* NaN is not zero */
        atomic_store_explicit(result->infinite, 1, memory_order_relaxed);
    }
}

/* What `count` shares bring to `vectors` vectors of a row, a constant, from vector number `first` on, added
 * to `v` one share after the other. */
static inline __attribute__((always_inline)) void
R_(add_shares)(const compact_share *shares, int64_t count, int64_t first, R_(vector) scale,
               const int vectors, R_(vector) *v)
{
    for (int64_t s = 0; s < count; s++) {
        const compact_vector *vector = shares[s].vectors + first;
#pragma GCC unroll 4
        for (int q = 0; q < vectors; q++) {
            const R_(element) *sums = (const R_(element) *)shares[s].sums + vector[q].place;
            v[q] = R_(multiply_add)(R_(expand)(sums, vector[q].lanes), scale, v[q]);
        }
    }
}

/* A row of a gradient, from the shares of groups of rows: each element is written once. */
static void R_(compact_put_row)(const compact_share *shares, int64_t count, int64_t length, double scale,
                                int accumulate, void *to)
{
    R_(element) *out = to, last[R_(lanes)] = {0};
    const R_(vector) scales = R_(one)((R_(element))scale);
    R_(vector) v[4];
    int64_t j = 0;
    for (; j + 4 * R_(lanes) <= length; j += 4 * R_(lanes)) {
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            v[q] = accumulate ? R_(load)(out + j + q * R_(lanes)) : R_(one)(0);
        }
        R_(add_shares)(shares, count, j / R_(lanes), scales, 4, v);
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            R_(store)(out + j + q * R_(lanes), v[q]);
        }
    }
    for (; j + R_(lanes) <= length; j += R_(lanes)) {
        v[0] = accumulate ? R_(load)(out + j) : R_(one)(0);
        R_(add_shares)(shares, count, j / R_(lanes), scales, 1, v);
        R_(store)(out + j, v[0]);
    }
    if (j < length) {
        const size_t bytes = (size_t)(length - j) * sizeof *out;
        if (accumulate) {
            memcpy(last, out + j, bytes);
        }
        v[0] = R_(load)(last);
        R_(add_shares)(shares, count, j / R_(lanes), scales, 1, v);
        R_(store)(last, v[0]);
        memcpy(out + j, last, bytes);
    }
}

#include "simd/unjoin.h"
