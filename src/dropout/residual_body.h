/* residual_body.h: bias, dropout and residual sum in one pass, and their gradient, for one element type R.
 *
 * Per vector: three loads (the bias is in the L1 cache), a sum, a product, a selection, a sum, one store.
 * Loads of the half types multiply by 1, which is exact. */
#include "simd/join.h"

static inline R_(element)
    R_(residual_one)(const R_(element) *x, const R_(element) *bias, const R_(element) *residual,
                     int64_t i, int kept, double scale)
{
    const R_(wide) zero = 0;
    R_(wide) value = R_(to_wide)(x[i]);
    if (bias) {
        value += R_(to_wide)(bias[i]);
    }
    value *= R_(factor)(scale);
    return R_(from_wide)((kept ? value : zero) + R_(to_wide)(residual[i]));
}

static inline FD_ALWAYS_INLINE R_(vector)
    R_(residual_vector)(const R_(element) *x, const R_(element) *bias, const R_(element) *residual,
                        R_(vector) scale, R_(vector) one, uint64_t word)
{
    R_(vector) value = R_(product)(x, one);
    if (bias) {
        value = R_(add)(value, R_(product)(bias, one));
    }
    value = R_(keep)(R_(multiply)(value, scale), word);
    return R_(add)(value, R_(product)(residual, one));
}

static inline FD_ALWAYS_INLINE void R_(residual_all)(const R_(element) *x, const R_(element) *bias,
                                                     const R_(element) *residual, R_(element) *out,
                                                     int64_t n, const uint8_t *bits, int64_t bit,
                                                     double scale, const int streaming,
                                                     int64_t ahead)
{
    const R_(vector) s = R_(splat)(scale), one = R_(splat)(1);
    const int64_t head = R_(to_alignment)(out);
    int64_t i = 0;
    for (; i < n && i < head; i++) {
        out[i] =
            R_(residual_one)(x, bias, residual, i, bits ? fd_test_bit(bits, bit + i) : 1, scale);
    }
    for (; i + 64 <= n; i += 64) {
        if (streaming) {
            R_(prefetch_word)(x + i, ahead);
            R_(prefetch_word)(residual + i, ahead);
        }
        uint64_t word = bits ? fd_load_bits(bits, bit + i) : ~(uint64_t)0;
        for (int64_t at = i; at < i + 64; at += R_(lanes)) {
            const R_(vector) y =
                R_(residual_vector)(x + at, bias ? bias + at : NULL, residual + at, s, one, word);
            R_(write)(out + at, y, streaming);
            word >>= R_(lanes);
        }
    }
    uint64_t word = bits && i < n ? fd_load_bits_part(bits, bit + i, n - i) : ~(uint64_t)0;
    for (; i + R_(lanes) <= n; i += R_(lanes), word >>= R_(lanes)) {
        R_(store)(out + i,
                  R_(residual_vector)(x + i, bias ? bias + i : NULL, residual + i, s, one, word));
    }
    for (; i < n; i++, word >>= 1) {
        out[i] = R_(residual_one)(x, bias, residual, i, word & 1, scale);
    }
}

/* Not fenced. */
static inline void R_(residual_stored)(const R_(element) *x, const R_(element) *bias,
                                       const R_(element) *residual, R_(element) *out, int64_t n,
                                       const uint8_t *bits, int64_t bit, double scale,
                                       fd_stores stores)
{
    if (stores == FD_STORES_CACHED) {
        R_(residual_all)(x, bias, residual, out, n, bits, bit, scale, 0, 0);
    } else {
        R_(residual_all)(x, bias, residual, out, n, bits, bit, scale, 1, R_(ahead)(stores));
    }
}

static void R_(residual)(const void *x, const void *bias, const void *residual, void *out,
                         int64_t n, const uint8_t *bits, int64_t bit, double scale,
                         fd_stores stores)
{
    R_(residual_stored)(x, bias, residual, out, n, bits, bit, scale, stores);
    if (stores != FD_STORES_CACHED) {
        fd_stream_fence();
    }
}

static inline R_(wide) R_(kept_one)(R_(element) x, int kept, double scale)
{
    return kept ? R_(to_wide)(x) * R_(factor)(scale) : 0;
}

static inline FD_ALWAYS_INLINE void R_(sums_all)(const R_(element) *x, R_(element) *out, int64_t n,
                                                 const uint8_t *bits, int64_t bit, double scale,
                                                 R_(wide) *sums, const int streaming, int64_t ahead)
{
    const R_(vector) s = R_(splat)(scale);
    const int64_t head = R_(to_alignment)(out);
    int64_t i = 0;
    for (; i < n && i < head; i++) {
        const R_(wide) value = R_(kept_one)(x[i], bits ? fd_test_bit(bits, bit + i) : 1, scale);
        out[i] = R_(from_wide)(value);
        sums[i] += value;
    }
    for (; i + 64 <= n; i += 64) {
        if (streaming) {
            R_(prefetch_word)(x + i, ahead);
        }
        uint64_t word = bits ? fd_load_bits(bits, bit + i) : ~(uint64_t)0;
        for (int64_t at = i; at < i + 64; at += R_(lanes)) {
            const R_(vector) value = R_(keep)(R_(product)(x + at, s), word);
            R_(write)(out + at, value, streaming);
            R_(add_to)(sums + at, value);
            word >>= R_(lanes);
        }
    }
    uint64_t word = bits && i < n ? fd_load_bits_part(bits, bit + i, n - i) : ~(uint64_t)0;
    for (; i < n; i++, word >>= 1) {
        const R_(wide) value = R_(kept_one)(x[i], word & 1, scale);
        out[i] = R_(from_wide)(value);
        sums[i] += value;
    }
}

static void R_(residual_sums)(const void *x, void *out, int64_t n, const uint8_t *bits, int64_t bit,
                              double scale, void *sums, fd_stores stores)
{
    if (stores == FD_STORES_CACHED) {
        R_(sums_all)(x, out, n, bits, bit, scale, sums, 0, 0);
    } else {
        R_(sums_all)(x, out, n, bits, bit, scale, sums, 1, R_(ahead)(stores));
        fd_stream_fence();
    }
}

#include "simd/unjoin.h"
