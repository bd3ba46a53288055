/* compact_body.h: products of packed matrices, for one element type R (f32, f64).
 *
 * The multiplication is an ordinary one, of COMPACT_ROWS rows by two vectors in registers: per step
 * of depth 2 loads of the panel and COMPACT_ROWS broadcasts for 2 * COMPACT_ROWS multiply-adds, so
 * that the multipliers are the limit. A strip of two vectors, FD_COMPACT_DEPTH deep, is 20 KB and
 * stays in the L1 cache for all groups of rows; loading and storing the sums, 2 * COMPACT_ROWS of
 * each, is then one operation in ten multiply-adds at most. */
#include "simd/join.h"

/* Rows of w that one row of x is multiplied by together: its factors stay in registers. */
#define LINES (FD_VECTOR_REGISTERS == 32 ? 8 : 4)

/* From what is multiplied to what is fetched into the L1 cache, where w is not packed: rows of w, which the
 * processor does not fetch by itself so soon, or vectors of a row. */
#define FETCHED_STEPS 4
#define FETCHED_VECTORS 4

/* A tile of sums, of `rows` rows by `vectors` vectors, constants, which are registers: from memory or from
 * zero, and back. The compiler would hold the addresses of them all, on the stack. */
static inline FD_ALWAYS_INLINE void R_(begin_sums)(const R_(element) *sums, int64_t stride, int clear,
                                                   R_(vector) (*v)[4], const int rows, const int vectors)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            v[r][i] = clear ? R_(one)(0) : R_(load)(sums + i * R_(lanes));
        }
        sums += stride;
        __asm__("" : "+r"(sums));
    }
}

static inline FD_ALWAYS_INLINE void R_(end_sums)(R_(element) *sums, int64_t stride, R_(vector) (*v)[4],
                                                 const int rows, const int vectors)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            R_(store)(sums + i * R_(lanes), v[r][i]);
        }
        sums += stride;
        __asm__("" : "+r"(sums));
    }
}

/* One step of depth: an element of each of `rows` packed rows by `vectors` vectors of w. */
static inline FD_ALWAYS_INLINE void R_(add_step)(const R_(element) *x, const R_(element) *w, R_(vector) (*v)[4],
                                                 const int rows, const int vectors)
{
    R_(vector) column[4];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        column[i] = R_(load)(w + i * R_(lanes));
        if (rows <= 3) {
            FD_IN_REGISTER(column[i]); /* instead of loading it for each row */
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const R_(vector) factor = R_(one)(x[r * X_STRIDE]);
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            v[r][i] = R_(multiply_add)(factor, column[i], v[r][i]);
        }
    }
}

/* `depth` steps of `rows` packed rows and `vectors` vectors of the panel, constants, into the sums. */
static inline FD_ALWAYS_INLINE void R_(compact_sums)(const R_(element) *x, const R_(element) *panel,
                                                     int64_t panel_stride, int64_t depth, R_(element) *sums,
                                                     int64_t sums_stride, int clear, compact_ahead *ahead,
                                                     const int rows, const int vectors)
{
    R_(vector) v[COMPACT_ROWS][4];
    R_(begin_sums)(sums, sums_stride, clear, v, rows, vectors);
    for (int64_t left = depth; left > 0; left -= FD_AHEAD_STEPS) {
        const int64_t steps = left < FD_AHEAD_STEPS ? left : FD_AHEAD_STEPS;
        fetch_ahead(ahead);
        for (int64_t t = 0; t < steps; t++, panel += panel_stride, x++) {
            R_(add_step)(x, panel, v, rows, vectors);
        }
    }
    R_(end_sums)(sums, sums_stride, v, rows, vectors);
}

/* The same by a w that is not packed. */
static inline FD_ALWAYS_INLINE void R_(direct_sums)(const R_(element) *x, const R_(element) *w, int64_t w_stride,
                                                    int64_t depth, R_(element) *sums, int64_t sums_stride,
                                                    int clear, const int rows, const int vectors)
{
    R_(vector) v[COMPACT_ROWS][4];
    R_(begin_sums)(sums, sums_stride, clear, v, rows, vectors);
    for (int64_t k = 0; k < depth; k++, w += w_stride) {
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            __builtin_prefetch(w + FETCHED_STEPS * w_stride + i * R_(lanes));
        }
        R_(add_step)(x + k, w, v, rows, vectors);
    }
    R_(end_sums)(sums, sums_stride, v, rows, vectors);
}

/* Adds `depth` steps of the packed rows and the strips to the tile (clear: begins it), for `groups`
 * groups of rows. */
static void R_(compact_multiply)(const void *packed, int64_t groups, int64_t depth,
                                 const compact_strips *strips, void *tile, int64_t tile_stride,
                                 int clear, compact_ahead *ahead)
{
    const R_(element) *x = packed, *strip = strips->data;
    R_(element) *sums = tile;
    for (int64_t vector = 0; vector < strips->vectors; vector += FD_COMPACT_STRIP) {
        for (int64_t g = 0; g < groups; g++) {
            const R_(element) *rows = x + g * COMPACT_ROWS * X_STRIDE;
            R_(element) *place = sums + g * COMPACT_ROWS * tile_stride + vector * R_(lanes);
            if (vector + 1 < strips->vectors) {
                R_(compact_sums)(rows, strip, strips->stride, depth, place, tile_stride, clear,
                                 ahead, COMPACT_ROWS, 2);
            } else {
                R_(compact_sums)(rows, strip, strips->stride, depth, place, tile_stride, clear,
                                 ahead, COMPACT_ROWS, 1);
            }
        }
        strip += strips->next;
    }
}

/* Adds products of a row of x with `steps` rows of w, a constant, to the sums. */
static inline __attribute__((always_inline)) void
R_(add_lines)(const R_(element) *x, const R_(element) *w, int64_t stride, int64_t vectors,
              R_(element) *sums, int clear, const int steps)
{
    R_(vector) factor[LINES];
#pragma GCC unroll 8
    for (int t = 0; t < steps; t++) {
        factor[t] = R_(one)(x[t]);
    }
    for (int64_t j = 0; j < vectors * R_(lanes); j += R_(lanes)) {
        R_(vector) v = clear ? R_(one)(0) : R_(load)(sums + j);
#pragma GCC unroll 8
        for (int t = 0; t < steps; t++) {
            const R_(element) *place = w + t * stride + j;
            __builtin_prefetch(place + FETCHED_VECTORS * R_(lanes));
            v = R_(multiply_add)(factor[t], R_(load)(place), v);
        }
        R_(store)(sums + j, v);
    }
}

/* The same of one row of x, by rows of w from begin to end: they come from the L2 cache or from behind it,
 * which is fast where it is read in order, and the sums stay in the L1 cache. Several rows of w at a time: a
 * load and a store of sums for all of them. */
static void R_(multiply_lines)(const R_(element) *x, int64_t depth, const compact_strips *strips,
                               R_(element) *sums, int clear)
{
    const R_(element) *w = strips->data;
    const int64_t stride = strips->stride, vectors = strips->vectors;
    int64_t k = 0;
    for (; k + LINES <= depth; k += LINES, clear = 0) {
        R_(add_lines)(x + k, w + k * stride, stride, vectors, sums, clear, LINES);
    }
    for (; k < depth; k++, clear = 0) {
        R_(add_lines)(x + k, w + k * stride, stride, vectors, sums, clear, 1);
    }
    if (clear) { /* no depth at all */
        memset(sums, 0, (size_t)vectors * sizeof(R_(vector)));
    }
}

/* The same of `rows` rows by up to `wide` vectors at once, constants: about as many sums in registers as of
 * COMPACT_ROWS by two. */
static inline __attribute__((always_inline)) void
R_(multiply_wide)(const R_(element) *x, int64_t depth, const compact_strips *strips, R_(element) *sums,
                  int64_t sums_stride, int clear, const int rows, const int wide)
{
    const R_(element) *w = strips->data;
    int64_t left = strips->vectors;
    while (left > 0) {
        const int64_t done = left >= wide ? wide : left >= 2 ? 2 : 1;
        if (done == wide) {
            R_(direct_sums)(x, w, strips->stride, depth, sums, sums_stride, clear, rows, wide);
        } else if (done == 2) {
            R_(direct_sums)(x, w, strips->stride, depth, sums, sums_stride, clear, rows, 2);
        } else {
            R_(direct_sums)(x, w, strips->stride, depth, sums, sums_stride, clear, rows, 1);
        }
        w += done * R_(lanes);
        sums += done * R_(lanes);
        left -= done;
    }
}

/* The same of up to COMPACT_ROWS rows, of a w that is not packed: its strips lie side by side. */
static void R_(multiply_few)(const void *packed, int64_t rows, int64_t depth,
                             const compact_strips *strips, void *tile, int64_t tile_stride, int clear)
{
    switch (rows) {
    case 1:
        R_(multiply_lines)(packed, depth, strips, tile, clear);
        break;
    case 2:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 2, 4);
        break;
#if FD_VECTOR_REGISTERS == 32
    case 3:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 3, 4);
        break;
    case 4:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 4, 4);
        break;
    case 5:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 5, 4);
        break;
    case 6:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 6, 4);
        break;
    case 7:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 7, 3);
        break;
    case 8:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 8, 3);
        break;
#else
    case 3:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 3, 2);
        break;
    case 4:
        R_(multiply_wide)(packed, depth, strips, tile, tile_stride, clear, 4, 2);
        break;
#endif
    }
}

#undef LINES
#undef FETCHED_STEPS
#undef FETCHED_VECTORS
#include "simd/unjoin.h"
