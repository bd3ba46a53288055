/* micro_kernel_body.h: MR x NR sums in registers over steps of k, for one element type R (f32, f64).
 *
 * A step takes FD_NR loads of B and MR broadcasts of A for FD_NR * MR multiply-adds, so that the multipliers are the
 * limit. A packed micro-panel of B stays in the L1 cache for all micro-panels of A; loading and storing the sums is
 * then one operation in ten multiply-adds at most. */
#include "simd/join.h"

/* Rows of B that one row of A is multiplied by together: its factors stay in registers. */
#define LINES (FD_VECTOR_REGISTERS == 32 ? 8 : 4)

/* From what is multiplied to what is prefetched into the L1 cache, where B is not packed: rows of B, which the
 * hardware does not prefetch so soon, or vectors of a row. */
#define ROWS_AHEAD 4
#define VECTORS_AHEAD 4

/* A tile of C of `rows` rows by `vectors` vectors, constants, which are registers: from memory or from zero, and
 * back. `last`: the lanes of the last vector that belong to it, if masked, a constant, is not 0. The compiler would
 * hold the addresses of all rows, on the stack. */
static inline FD_ALWAYS_INLINE void R_(load_c)(const R_(element) *c, int64_t ldc, int clear,
                                               R_(vector) (*v)[4], uint64_t last, const int rows,
                                               const int vectors, const int masked)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            const R_(element) *from = c + i * R_(lanes);
            v[r][i] = clear                        ? R_(one)(0)
                      : masked && i == vectors - 1 ? R_(load_lanes)(from, last)
                                                   : R_(load)(from);
        }
        c += ldc;
        __asm__("" : "+r"(c));
    }
}

static inline FD_ALWAYS_INLINE void R_(unload_c)(R_(element) *c, int64_t ldc, R_(vector) (*v)[4],
                                                 uint64_t last, const int rows, const int vectors,
                                                 const int masked)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            if (masked && i == vectors - 1) {
                R_(store_lanes)(c + i * R_(lanes), v[r][i], last);
            } else {
                R_(store)(c + i * R_(lanes), v[r][i]);
            }
        }
        c += ldc;
        __asm__("" : "+r"(c));
    }
}

/* One step of k: an element of each of `rows` packed rows by `vectors` vectors of B. */
static inline FD_ALWAYS_INLINE void R_(add_step)(const R_(element) *a, const R_(element) *b,
                                                 R_(vector) (*v)[4], uint64_t last, const int rows,
                                                 const int vectors, const int masked)
{
    R_(vector) column[4];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        const R_(element) *from = b + i * R_(lanes);
        column[i] = masked && i == vectors - 1 ? R_(load_lanes)(from, last) : R_(load)(from);
        if (rows <= 3) {
            FD_IN_REGISTER(column[i]); /* instead of loading it for each row */
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const R_(vector) factor = R_(one)(a[r * A_STRIDE]);
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            v[r][i] = R_(multiply_add)(factor, column[i], v[r][i]);
        }
    }
}

static inline FD_ALWAYS_INLINE void R_(multiply_tile)(const R_(element) *a, const R_(element) *b,
                                                      int64_t kc, R_(element) *c, int64_t ldc,
                                                      int clear, next_panel *next,
                                                      const int vectors)
{
    R_(vector) v[MR][4];
    R_(load_c)(c, ldc, clear, v, 0, MR, vectors, 0);
    for (int64_t left = kc; left > 0; left -= FD_PREFETCH_STEPS) {
        const int64_t steps = left < FD_PREFETCH_STEPS ? left : FD_PREFETCH_STEPS;
        int64_t line_step;
        const char *line = prefetched_by(next, b, steps, &line_step);
        for (int64_t t = 0; t < steps; t++, b += FD_NR * R_(lanes), a++, line += line_step) {
            __builtin_prefetch(line, 0, 2);
            R_(add_step)(a, b, v, 0, MR, vectors, 0);
        }
    }
    R_(unload_c)(c, ldc, v, 0, MR, vectors, 0);
}

static void R_(micro_kernel)(const void *packed_a, int64_t count, int64_t kc, const void *packed_b,
                             int64_t vectors, void *tile, int64_t ldc, int clear, next_panel *next)
{
    const R_(element) *a = packed_a;
    R_(element) *c = tile;
    for (int64_t i = 0; i < count; i++, a += MR * A_STRIDE, c += MR * ldc) {
        if (vectors == FD_NR) {
            R_(multiply_tile)(a, packed_b, kc, c, ldc, clear, next, FD_NR);
        } else {
            R_(multiply_tile)(a, packed_b, kc, c, ldc, clear, next, 1);
        }
    }
}

/* The same by a B that is not packed. */
static inline FD_ALWAYS_INLINE void R_(unpacked_tile)(const R_(element) *a, const R_(element) *b,
                                                      int64_t ldb, int64_t kc, R_(element) *c,
                                                      int64_t ldc, int clear, uint64_t last,
                                                      const int rows, const int vectors,
                                                      const int masked)
{
    R_(vector) v[MR][4];
    R_(load_c)(c, ldc, clear, v, last, rows, vectors, masked);
    for (int64_t k = 0; k < kc; k++, b += ldb) {
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            __builtin_prefetch(b + ROWS_AHEAD * ldb + i * R_(lanes));
        }
        R_(add_step)(a + k, b, v, last, rows, vectors, masked);
    }
    R_(unload_c)(c, ldc, v, last, rows, vectors, masked);
}

/* The lanes of the last of `vectors` vectors of `columns` columns. */
static inline uint64_t R_(last_lanes)(int64_t columns, int64_t vectors)
{
    const int64_t lanes = columns - (vectors - 1) * R_(lanes);
    return lanes >= R_(lanes) ? ~(uint64_t)0 : ((uint64_t)1 << lanes) - 1;
}

/* `rows` rows, in tiles of up to `wide` vectors, constants: about as many sums in registers as of MR by FD_NR. */
static inline FD_ALWAYS_INLINE void R_(unpacked_rows)(const R_(element) *a, const R_(element) *b,
                                                      int64_t ldb, int64_t columns, int64_t kc,
                                                      R_(element) *c, int64_t ldc, int clear,
                                                      const int rows, const int wide)
{
    while (columns > 0) {
        const int whole = columns >= wide * R_(lanes);
        const int64_t done = whole ? wide : columns > R_(lanes) ? 2 : 1;
        const uint64_t last = R_(last_lanes)(columns, done);
        if (whole) {
            R_(unpacked_tile)(a, b, ldb, kc, c, ldc, clear, 0, rows, wide, 0);
        } else if (done == 2) {
            R_(unpacked_tile)(a, b, ldb, kc, c, ldc, clear, last, rows, 2, 1);
        } else {
            R_(unpacked_tile)(a, b, ldb, kc, c, ldc, clear, last, rows, 1, 1);
        }
        b += done * R_(lanes);
        c += done * R_(lanes);
        columns -= done * R_(lanes);
    }
}

/* Adds products of a row of A with `steps` rows of B, a constant, to the row of C. */
static inline FD_ALWAYS_INLINE void R_(add_lines)(const R_(element) *a, const R_(element) *b,
                                                  int64_t ldb, int64_t vectors, R_(element) *c,
                                                  int clear, const int steps)
{
    R_(vector) factor[LINES];
#pragma GCC unroll 8
    for (int t = 0; t < steps; t++) {
        factor[t] = R_(one)(a[t]);
    }
    for (int64_t j = 0; j < vectors * R_(lanes); j += R_(lanes)) {
        R_(vector) v = clear ? R_(one)(0) : R_(load)(c + j);
#pragma GCC unroll 8
        for (int t = 0; t < steps; t++) {
            const R_(element) *place = b + t * ldb + j;
            __builtin_prefetch(place + VECTORS_AHEAD * R_(lanes));
            v = R_(multiply_add)(factor[t], R_(load)(place), v);
        }
        R_(store)(c + j, v);
    }
}

/* One row of A: B is read from begin to end, from the L2 cache or from behind it, which is fast in order, and the
 * sums stay in the L1 cache: a load and a store of them for several rows of B. */
static void R_(unpacked_gemv)(const R_(element) *a, const R_(element) *b, int64_t ldb,
                              int64_t columns, int64_t kc, R_(element) *c, int clear)
{
    const int64_t vectors = columns / R_(lanes), whole = vectors * R_(lanes);
    int64_t k = 0;
    for (; vectors > 0 && k + LINES <= kc; k += LINES) {
        R_(add_lines)(a + k, b + k * ldb, ldb, vectors, c, clear && k == 0, LINES);
    }
    for (; vectors > 0 && k < kc; k++) {
        R_(add_lines)(a + k, b + k * ldb, ldb, vectors, c, clear && k == 0, 1);
    }
    if (whole < columns) {
        R_(unpacked_tile)(a, b + whole, ldb, kc, c + whole, 0, clear,
                          R_(last_lanes)(columns - whole, 1), 1, 1, 1);
    }
}

static void R_(unpacked_kernel)(const void *a, int64_t rows, int64_t kc, const void *b, int64_t ldb,
                                int64_t columns, void *c, int64_t ldc, int clear)
{
    switch (rows) {
    case 1:
        R_(unpacked_gemv)(a, b, ldb, columns, kc, c, clear);
        break;
    case 2:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 2, 4);
        break;
#if FD_VECTOR_REGISTERS == 32
    case 3:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 3, 4);
        break;
    case 4:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 4, 4);
        break;
    case 5:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 5, 4);
        break;
    case 6:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 6, 4);
        break;
    case 7:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 7, 3);
        break;
    case 8:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 8, 3);
        break;
#else
    case 3:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 3, 2);
        break;
    case 4:
        R_(unpacked_rows)(a, b, ldb, columns, kc, c, ldc, clear, 4, 2);
        break;
#endif
    }
}

#undef LINES
#undef ROWS_AHEAD
#undef VECTORS_AHEAD
#include "simd/unjoin.h"
