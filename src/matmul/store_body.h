/* store_body.h: sums of kept columns to their places in C, for one element type R (f32, f64).
 *
 * Sums lie side by side, and are scattered over whole vectors of C, with zeros in between. */
#include "simd/join.h"

/* Where the sums of one panel of columns go, prepared for whole vectors. */
typedef struct {
    int64_t begin, end; /* of the panel */
    R_(vector) scales, bias_scales;
    const R_(element) *bias;
    R_(vector) watch; /* 0, until an infinity or NaN was stored */
} R_(columns_of_c);

/* A vector of C at column j, of which `lanes` are kept, or a part of it: beside it other panels begin, or the row
 * ends. */
static void R_(store_part)(R_(columns_of_c) *n, const R_(element) *sums, uint64_t lanes, int64_t j,
                           R_(element) *c)
{
    const int64_t first = fd_larger(n->begin - j, 0), stop = fd_smaller(n->end - j, R_(lanes));
    const uint64_t inside = (((uint64_t)1 << stop) - 1) & ~(((uint64_t)1 << first) - 1);
    R_(vector) v = R_(multiply)(R_(expand)(sums, lanes & inside), n->scales);
    if (n->bias) {
        v = R_(multiply_add)(R_(load_lanes)(n->bias + j, inside), n->bias_scales, v);
    }
    v = R_(keep)(v, lanes & inside);
    n->watch = R_(multiply_add)(v, R_(one)(0), n->watch);
    R_(store_lanes)(c + j, v, inside);
}

/* All columns are kept: sums lie as C does. */
static void R_(store_run)(R_(columns_of_c) *n, const R_(element) *sums, R_(element) *c)
{
    int64_t j = n->begin;
    R_(vector) watch = n->watch;
    for (; j + R_(lanes) <= n->end; j += R_(lanes), sums += R_(lanes)) {
        R_(vector) v = R_(multiply)(R_(load)(sums), n->scales);
        if (n->bias) {
            v = R_(multiply_add)(R_(load)(n->bias + j), n->bias_scales, v);
        }
        watch = R_(multiply_add)(v, R_(one)(0), watch);
        R_(store)(c + j, v);
    }
    n->watch = watch;
    if (j < n->end) {
        R_(store_part)(n, sums, ~(uint64_t)0, j, c);
    }
}

/* Sums of kept columns number `rank` and following. */
static void R_(store_kept)(R_(columns_of_c) *n, const R_(element) *sums, const kept_vector *vectors,
                           int64_t rank, R_(element) *c)
{
    int64_t j = n->begin / R_(lanes) *R_(lanes);
    const kept_vector *vector = vectors + j / R_(lanes);
    if (j < n->begin) { /* the vector's first sums are the panel's before */
        R_(store_part)(n, sums, vector->lanes, j, c);
        j += R_(lanes);
        vector++;
    }
    for (; j + R_(lanes) <= n->end; j += R_(lanes), vector++) {
        R_(vector) v =
            R_(multiply)(R_(expand)(sums + (vector->place - rank), vector->lanes), n->scales);
        if (n->bias) {
            v = R_(multiply_add)(R_(load)(n->bias + j), n->bias_scales, v);
        }
        R_(store)(c + j, R_(keep)(v, vector->lanes));
    }
    if (j < n->end) {
        R_(store_part)(n, sums + (vector->place - rank), vector->lanes, j, c);
    }
}

static int R_(store_c)(const void *tile, int64_t stride, const kept_units *columns, int64_t panel,
                       const fd_product *p, double scale, int64_t row, int64_t rows)
{
    R_(columns_of_c) n = {
        .begin = columns->cuts[panel],
        .end = columns->cuts[panel + 1],
        .scales = R_(one)((R_(element))scale),
        .bias_scales = R_(one)((R_(element))p->mask_c.scale),
        .bias = p->bias,
        .watch = R_(one)(0),
    };
    const R_(element) *sums = tile;
    R_(element) *c = (R_(element) *)p->c.data + row * p->c.row_stride;
    for (int64_t i = 0; i < rows; i++, sums += stride, c += p->c.row_stride) {
        if (columns->numbers) {
            R_(store_kept)(&n, sums, columns->vectors, columns->ranks[panel], c);
        } else {
            R_(store_run)(&n, sums, c);
        }
    }
    return R_(nonzero)(n.watch) == 0; /* NaN is not zero */
}

/* What `count` groups bring to `vectors` vectors of a row, a constant, from vector number `first` on, added
 * to `v` one group after the other. */
static inline
    __attribute__((always_inline)) void R_(add_groups)(const row_of_sums *groups, int64_t count,
                                                       int64_t first, R_(vector) scale,
                                                       const int vectors, R_(vector) *v)
{
    for (int64_t s = 0; s < count; s++) {
        const kept_vector *vector = groups[s].vectors + first;
#pragma GCC unroll 4
        for (int q = 0; q < vectors; q++) {
            const R_(element) *sums = (const R_(element) *)groups[s].sums + vector[q].place;
            v[q] = R_(multiply_add)(R_(expand)(sums, vector[q].lanes), scale, v[q]);
        }
    }
}

static void R_(store_row)(const row_of_sums *groups, int64_t count, int64_t length, double scale,
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
        R_(add_groups)(groups, count, j / R_(lanes), scales, 4, v);
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            R_(store)(out + j + q * R_(lanes), v[q]);
        }
    }
    for (; j + R_(lanes) <= length; j += R_(lanes)) {
        v[0] = accumulate ? R_(load)(out + j) : R_(one)(0);
        R_(add_groups)(groups, count, j / R_(lanes), scales, 1, v);
        R_(store)(out + j, v[0]);
    }
    if (j < length) {
        const size_t bytes = (size_t)(length - j) * sizeof *out;
        if (accumulate) {
            memcpy(last, out + j, bytes);
        }
        v[0] = R_(load)(last);
        R_(add_groups)(groups, count, j / R_(lanes), scales, 1, v);
        R_(store)(last, v[0]);
        memcpy(out + j, last, bytes);
    }
}

#include "simd/unjoin.h"
