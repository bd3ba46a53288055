/* compact_put_body.h: sums of active units to their places in a result, for one element type R (f32, f64).
 *
 * Sums lie side by side, and are spread over whole vectors of the result, with zeros in between. */
#include "simd/join.h"

/* Where the sums of one block of columns go, prepared for whole vectors. */
typedef struct {
    int64_t begin, end; /* of the block */
    R_(vector) scales, bias_scales;
    const R_(element) *bias;
    R_(vector) watch; /* 0, until an infinity or NaN was among the results */
} R_(places);

/* Lanes [first, stop) of a vector of the result at column j, of which `lanes` are active: before or behind them
 * other blocks begin, or the row ends. */
static void R_(put_part)(R_(places) *p, const R_(element) *sums, uint64_t lanes, int64_t j, R_(element) *out)
{
    const int64_t first = fd_larger(p->begin - j, 0), stop = fd_smaller(p->end - j, R_(lanes));
    const uint64_t inside = (((uint64_t)1 << stop) - 1) & ~(((uint64_t)1 << first) - 1);
    R_(element) near[R_(lanes)] = {0};
    R_(vector) v = R_(multiply)(R_(expand)(sums, lanes & inside), p->scales);
    if (p->bias) {
        memcpy(near + first, p->bias + j + first, (size_t)(stop - first) * sizeof *near);
        v = R_(multiply_add)(R_(load)(near), p->bias_scales, v);
    }
    v = R_(keep)(v, lanes & inside);
    p->watch = R_(multiply_add)(v, R_(one)(0), p->watch);
    R_(store_lanes)(out + j, v, inside);
}

/* All units active: sums lie as the result does. */
static int64_t R_(put_run)(R_(places) *p, const R_(element) *sums, R_(element) *out)
{
    int64_t j = p->begin;
    R_(vector) watch = p->watch;
    for (; j + R_(lanes) <= p->end; j += R_(lanes)) {
        R_(vector) v = R_(multiply)(R_(load)(sums + (j - p->begin)), p->scales);
        if (p->bias) {
            v = R_(multiply_add)(R_(load)(p->bias + j), p->bias_scales, v);
        }
        watch = R_(multiply_add)(v, R_(one)(0), watch);
        R_(store)(out + j, v);
    }
    p->watch = watch;
    return j;
}

/* A row of the result from a row of sums, of active units number `rank` and following. */
static void R_(put_kept)(R_(places) *p, const R_(element) *sums, const compact_vector *vectors, int64_t rank,
                         R_(element) *out)
{
    int64_t j = p->begin / R_(lanes) * R_(lanes);
    const compact_vector *vector = vectors + j / R_(lanes);
    if (j < p->begin) { /* sums of the block before are not here */
        R_(put_part)(p, sums, vector->lanes, j, out);
        j += R_(lanes);
        vector++;
    }
    for (; j + R_(lanes) <= p->end; j += R_(lanes), vector++) {
        R_(vector) v = R_(multiply)(R_(expand)(sums + (vector->place - rank), vector->lanes), p->scales);
        if (p->bias) {
            v = R_(multiply_add)(R_(load)(p->bias + j), p->bias_scales, v);
        }
        R_(store)(out + j, R_(keep)(v, vector->lanes));
    }
    if (j < p->end) {
        R_(put_part)(p, sums + (vector->place - rank), vector->lanes, j, out);
    }
}

/* Rows of sums of the active units of one block of an axis go to their places in rows first, first + 1, ... of
 * the result, times scale and plus bias, +0.0 in between. A vector beyond the sums may be read. */
static void R_(compact_put)(const void *from, int64_t stride, const compact_axis *axis, int64_t block,
                            const compact_result *result, int64_t first, int64_t rows)
{
    R_(places) p = {
        .begin = axis->cuts[block],
        .end = axis->cuts[block + 1],
        .scales = R_(one)((R_(element))result->scale),
        .bias_scales = R_(one)((R_(element))result->bias_scale),
        .bias = result->bias,
        .watch = R_(one)(0),
    };
    for (int64_t i = 0; i < rows; i++) {
        const R_(element) *sums = (const R_(element) *)from + i * stride;
        R_(element) *out = (R_(element) *)result->data + (first + i) * result->stride;
        if (axis->numbers) {
            R_(put_kept)(&p, sums, axis->vectors, axis->ranks[block], out);
            continue;
        }
        const int64_t j = R_(put_run)(&p, sums, out);
        if (j < p.end) {
            R_(put_part)(&p, sums + (j - p.begin), ~(uint64_t)0, j, out);
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
