/* apply_body.h: applying mask bits to one element type, R (f16, bf16, f32, f64), on one instruction set.
 *
 * Per vector: one load that multiplies, one selection, one store. In the cache the store port is
 * the limit (32 bytes a cycle on current cores), beyond it memory is; bits are read 64 at a time
 * and cost a shift a vector. Included once per element type, by dropout_body.h.
 */
#include "simd/join.h"

/* Elements that `p` lies behind the last place where a vector is aligned, and before the next one: a vector
 * of 64 bytes is a cache line. */
static inline int64_t R_(past_alignment)(const R_(element) *p)
{
    const uintptr_t width = R_(lanes) *sizeof *p;
    return (int64_t)(((uintptr_t)p & (width - 1)) / sizeof *p);
}

static inline int64_t R_(to_alignment)(const R_(element) *p)
{
    const int64_t past = R_(past_alignment)(p);
    return past ? R_(lanes) - past : 0;
}

/* How far ahead of streaming stores the input is fetched, in elements. */
static inline int64_t R_(ahead)(fd_stores stores)
{
    return stores == FD_STORES_STREAMED_AHEAD ? AHEAD_BYTES / (int64_t)sizeof(R_(element)) : 0;
}

/* The cache lines of 64 elements that are read `ahead` elements later, into the second-level cache:
 * streaming stores leave the first level's few open lines to the loads. */
static inline FD_ALWAYS_INLINE void R_(prefetch_word)(const R_(element) *x, int64_t ahead)
{
#pragma GCC unroll 8
    for (int line = 0; line < 64; line += 64 / (int)sizeof(R_(element))) {
        __builtin_prefetch(x + ahead + line, 0, 2);
    }
}

/* At most 64 elements: whole vectors, then one by one. */
static inline void R_(apply_rest)(const R_(element) *x, R_(element) *out, int64_t n, uint64_t word,
                                  double scale)
{
    const R_(vector) s = R_(splat)(scale);
    int64_t i = 0;
    for (; i + R_(lanes) <= n; i += R_(lanes)) {
        R_(store)(out + i, R_(keep)(R_(product)(x + i, s), word));
        word >>= R_(lanes);
    }
    for (; i < n; i++, word >>= 1) {
        out[i] = word & 1 ? R_(product_one)(x[i], scale) : (R_(element))0;
    }
}

static inline FD_ALWAYS_INLINE void R_(write)(R_(element) *out, R_(vector) v, const int streaming)
{
    if (streaming) {
        R_(stream)(out, v);
    } else {
        R_(store)(out, v);
    }
}

/* `all` says where this is compiled that everything is kept. */
static inline FD_ALWAYS_INLINE R_(vector)
    R_(kept_product)(const R_(element) *x, R_(vector) s, uint64_t word, const int all)
{
    const R_(vector) v = R_(product)(x, s);
    return all ? v : R_(keep)(v, word);
}

/* 64 elements. */
static inline FD_ALWAYS_INLINE void R_(apply_word)(const R_(element) *x, R_(element) *out,
                                                   uint64_t word, R_(vector) s, const int all,
                                                   const int streaming)
{
    for (int part = 0; part < 64; part += R_(lanes)) {
        R_(write)(out + part, R_(kept_product)(x + part, s, word, all), streaming);
        word >>= R_(lanes);
    }
}

/* n >= R_lanes. Stores are aligned. The first and the last vector of the run overlap what lies between
 * them: both are computed before anything is stored, for out may be x, and stored after it. */
static inline FD_ALWAYS_INLINE void R_(apply_vectors)(const R_(element) *x, R_(element) *out,
                                                      int64_t n, const uint8_t *bits, int64_t bit,
                                                      double scale, const int all,
                                                      const int streaming, int64_t ahead)
{
    const R_(vector) s = R_(splat)(scale);
    const int64_t head = R_(to_alignment)(out), end = n - R_(lanes);
    const uint64_t first_bits = all ? 0 : fd_load_bits_part(bits, bit, R_(lanes));
    const uint64_t last_bits = all ? 0 : fd_load_bits_part(bits, bit + end, R_(lanes));
    const R_(vector) first = R_(kept_product)(x, s, first_bits, all);
    const R_(vector) last = R_(kept_product)(x + end, s, last_bits, all);
    int64_t i = head;
    for (; i + 64 <= n; i += 64) {
        if (streaming) {
            R_(prefetch_word)(x + i, ahead);
        }
        R_(apply_word)(x + i, out + i, all ? 0 : fd_load_bits(bits, bit + i), s, all, streaming);
    }
    uint64_t word = all ? 0 : fd_load_bits_part(bits, bit + i, n - i);
    for (; i + R_(lanes) <= n; i += R_(lanes), word >>= R_(lanes)) {
        R_(store)(out + i, R_(kept_product)(x + i, s, word, all));
    }
    if (head) {
        R_(store)(out, first);
    }
    if (i < n) {
        R_(store)(out + end, last);
    }
}

/* Not fenced. */
static inline FD_ALWAYS_INLINE void R_(apply_any)(const R_(element) *x, R_(element) *out, int64_t n,
                                                  const uint8_t *bits, int64_t bit, double scale,
                                                  const int all, fd_stores stores)
{
    if (n < R_(lanes)) {
        R_(apply_rest)(x, out, n, all ? ~(uint64_t)0 : fd_load_bits_part(bits, bit, n), scale);
    } else if (stores == FD_STORES_CACHED) {
        R_(apply_vectors)(x, out, n, bits, bit, scale, all, 0, 0);
    } else {
        R_(apply_vectors)(x, out, n, bits, bit, scale, all, 1, R_(ahead)(stores));
    }
}

static inline void R_(apply_kept)(const R_(element) *x, R_(element) *out, int64_t n,
                                  const uint8_t *bits, int64_t bit, double scale, fd_stores stores)
{
    R_(apply_any)(x, out, n, bits, bit, scale, 0, stores);
}

static void R_(apply_bits)(const void *x, void *out, int64_t n, const uint8_t *bits, int64_t bit,
                           double scale, fd_stores stores)
{
    R_(apply_kept)(x, out, n, bits, bit, scale, stores);
    if (stores != FD_STORES_CACHED) {
        fd_stream_fence();
    }
}

/* What is applied first, fetched while the multipliers make its bits. */
static inline void R_(prefetch_first)(const R_(element) *x, int64_t n)
{
    const int64_t line = 64 / (int64_t)sizeof *x;
    for (int64_t i = 0; i < n && i < PREFETCH_BYTES / (int64_t)sizeof *x; i += line) {
        __builtin_prefetch(x + i);
    }
}

static void R_(dropout)(const fd_stream *stream, uint64_t threshold, uint64_t first, int64_t n,
                        const void *from, void *to, double scale, fd_stores stores, uint8_t *bits)
{
    const R_(element) *x = from;
    R_(element) *out = to;
    philox_draw draw;
    philox_start_draw(&draw, stream, (uint32_t)(first / FD_BLOCK >> 32));
    int64_t applied = 0;
    for (int64_t done = 0; done < n;) {
        const int64_t count = n - done < DROPOUT_CHUNK ? n - done : DROPOUT_CHUNK;
        if (stores != FD_STORES_CACHED) {
            R_(prefetch_first)(x + applied, count);
        }
        bernoulli_bits(&draw, threshold, (first + (uint64_t)done) / FD_BLOCK, count,
                       bits + done / 8);
        done += count;
        /* up to where a vector of out begins: what is left over waits for the next chunk */
        const int64_t end = done < n ? done - R_(past_alignment)(out + done) : n;
        R_(apply_kept)(x + applied, out + applied, end - applied, bits, applied, scale, stores);
        applied = end;
    }
    if (stores != FD_STORES_CACHED) {
        fd_stream_fence();
    }
}

static void R_(apply_run)(const void *x, void *out, int64_t n, double scale, fd_stores stores)
{
    R_(apply_any)(x, out, n, NULL, 0, scale, 1, stores);
    if (stores != FD_STORES_CACHED) {
        fd_stream_fence();
    }
}

#include "simd/unjoin.h"
