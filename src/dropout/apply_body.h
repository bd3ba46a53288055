/* apply_body.h: applying mask bits to one element type, R (f16, f32, f64), on one instruction set.
 *
 * Per vector: one load that multiplies, one selection, one store. In the cache the store port is
 * the limit (32 bytes a cycle on current cores), beyond it memory is; bits are read 64 at a time
 * and cost a shift a vector. Included once per element type, by dropout_body.h.
 */
#include "simd/join.h"

/* Elements until `out` is aligned for streaming stores. */
static inline int64_t R_(to_alignment)(const R_(element) *out, int64_t n)
{
    const int64_t width = (int64_t)(R_(lanes) * sizeof(R_(element)));
    const int64_t head = (-(int64_t)(uintptr_t)out & (width - 1)) / (int64_t)sizeof(R_(element));
    return head < n ? head : n;
}

/* At most 64 elements: whole vectors, then one by one. */
static inline void R_(apply_rest)(const R_(element) *x, R_(element) *out, int64_t n,
                                  const uint8_t *bits, int64_t bit, double scale)
{
    uint64_t word = fd_load_bits_part(bits, bit, n);
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

/* 64 elements. */
static inline FD_ALWAYS_INLINE void R_(apply_word)(const R_(element) *x, R_(element) *out,
                                                   uint64_t word, R_(vector) s,
                                                   const int streaming)
{
    for (int part = 0; part < 64; part += R_(lanes)) {
        const R_(vector) v = R_(keep)(R_(product)(x + part, s), word);
        if (streaming) {
            R_(stream)(out + part, v);
        } else {
            R_(store)(out + part, v);
        }
        word >>= R_(lanes);
    }
}

static inline void R_(apply_vectors)(const R_(element) *x, R_(element) *out, int64_t n,
                                     const uint8_t *bits, int64_t bit, double scale,
                                     const int streaming)
{
    if (n < R_(lanes)) {
        R_(apply_rest)(x, out, n, bits, bit, scale);
        return;
    }
    const R_(vector) s = R_(splat)(scale);
    const int64_t tail = n % R_(lanes), end = n - R_(lanes);
    /* What is left over ends the last whole vector there is, which overlaps the one before: in time, for
     * out may be x. */
    const uint64_t word = fd_load_bits_part(bits, bit + end, R_(lanes));
    const R_(vector) last = R_(keep)(R_(product)(x + end, s), word);
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        R_(apply_word)(x + i, out + i, fd_load_bits(bits, bit + i), s, streaming);
    }
    R_(apply_rest)(x + i, out + i, n - i - tail, bits, bit + i, scale);
    if (tail) {
        R_(store)(out + end, last);
    }
}

/* Not fenced. */
static inline void R_(apply_any)(const R_(element) *x, R_(element) *out, int64_t n,
                                 const uint8_t *bits, int64_t bit, double scale, int streaming)
{
    if (!streaming) {
        R_(apply_vectors)(x, out, n, bits, bit, scale, 0);
        return;
    }
    const int64_t head = R_(to_alignment)(out, n);
    R_(apply_rest)(x, out, head, bits, bit, scale);
    R_(apply_vectors)(x + head, out + head, n - head, bits, bit + head, scale, 1);
}

static void R_(apply_bits)(const void *x, void *out, int64_t n, const uint8_t *bits, int64_t bit,
                           double scale, int streaming)
{
    R_(apply_any)(x, out, n, bits, bit, scale, streaming);
    if (streaming) {
        fd_stream_fence();
    }
}

static void R_(dropout)(const fd_stream *stream, uint64_t threshold, uint64_t first, int64_t n,
                        const void *from, void *to, double scale, int streaming, uint8_t *bits)
{
    const R_(element) *x = from;
    R_(element) *out = to;
    philox_draw draw;
    philox_start_draw(&draw, stream, (uint32_t)(first / FD_BLOCK >> 32));
    for (int64_t done = 0; done < n; done += DROPOUT_CHUNK) {
        const int64_t count = n - done < DROPOUT_CHUNK ? n - done : DROPOUT_CHUNK;
        uint8_t *part = bits + done / 8;
        for (int64_t i = 0; i < count && i < PREFETCH_BYTES / (int64_t)sizeof *x;
             i += 64 / (int64_t)sizeof *x) {
            __builtin_prefetch(x + done + i);
        }
        bernoulli_bits(&draw, threshold, (first + (uint64_t)done) / FD_BLOCK, count, part);
        R_(apply_any)(x + done, out + done, count, part, 0, scale, streaming);
    }
    if (streaming) {
        fd_stream_fence();
    }
}

static inline void R_(run_vectors)(const R_(element) *x, R_(element) *out, int64_t n, double scale,
                                   const int streaming)
{
    const R_(vector) s = R_(splat)(scale);
    int64_t i = 0;
    for (; i + R_(lanes) <= n; i += R_(lanes)) {
        const R_(vector) v = R_(product)(x + i, s);
        if (streaming) {
            R_(stream)(out + i, v);
        } else {
            R_(store)(out + i, v);
        }
    }
    for (; i < n; i++) {
        out[i] = R_(product_one)(x[i], scale);
    }
}

static void R_(apply_run)(const void *from, void *to, int64_t n, double scale, int streaming)
{
    const R_(element) *x = from;
    R_(element) *out = to;
    if (!streaming) {
        R_(run_vectors)(x, out, n, scale, 0);
        return;
    }
    const int64_t head = R_(to_alignment)(out, n);
    R_(run_vectors)(x, out, head, scale, 0);
    R_(run_vectors)(x + head, out + head, n - head, scale, 1);
    fd_stream_fence();
}

#include "simd/unjoin.h"
