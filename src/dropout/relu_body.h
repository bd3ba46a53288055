/* relu_body.h: ReLU, mask and scale in one pass, for one element type R (f32, f64).
 *
 * Per vector: one load, a maximum and a comparison that make the bits, a product, one store. Bits are
 * put together 64 at a time; in the cache the store port is the limit. */
#include "simd/join.h"

/* Bits of 64 elements that pass: of what is not <= 0, so that NaN does. */
static inline FD_ALWAYS_INLINE uint64_t R_(passing)(const R_(element) *x)
{
    const R_(vector) zero = R_(splat)(0);
    uint64_t word = 0;
    for (int i = 0; i < 64; i += R_(lanes)) {
        /* The maximum of 0 and a NaN that stands second is NaN, on every instruction set. */
        word |= R_(nonzero)(R_(larger)(zero, R_(load)(x + i))) << i;
    }
    return word;
}

static void R_(rectify)(void *in_out, int64_t n, const uint8_t *bits, double scale, uint8_t *gate)
{
    R_(element) *x = in_out;
    const R_(vector) s = R_(splat)(scale);
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        uint64_t word = R_(passing)(x + i);
        if (bits) {
            word &= fd_load_bits(bits, i);
        }
        memcpy(gate + i / 8, &word, 8);
        R_(apply_word)(x + i, x + i, word, s, 0, 0);
    }
    if (i < n) {
        uint64_t word = 0;
        for (int64_t j = i; j < n; j++) {
            word |= (uint64_t)!(x[j] <= 0) << (j - i);
        }
        if (bits) {
            word &= fd_load_bits_part(bits, i, n - i);
        }
        memcpy(gate + i / 8, &word, (size_t)((n - i + 7) / 8));
        R_(apply_rest)(x + i, x + i, n - i, word, scale);
    }
}

#include "simd/unjoin.h"
