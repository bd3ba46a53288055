/* affine_body.h: an affine function of kept elements, a constant in the place of the others, for one element
 * type R. Per vector: one load that multiplies, a sum, two selections and their sum, one store. */
#include "simd/join.h"

typedef struct {
    R_(vector) scale, shift, dropped;
} R_(affine_constants);

static inline FD_ALWAYS_INLINE R_(vector)
    R_(affine_vector)(const R_(element) *x, R_(affine_constants) c, uint64_t word)
{
    const R_(vector) kept = R_(add)(R_(product)(x, c.scale), c.shift);
    return R_(add)(R_(keep)(kept, word), R_(keep)(c.dropped, ~word));
}

static inline FD_ALWAYS_INLINE void R_(affine_all)(const R_(element) *x, R_(element) *out,
                                                   int64_t n, const uint8_t *bits, int64_t bit,
                                                   const fd_affine *affine, const int streaming,
                                                   int64_t ahead)
{
    const R_(affine_constants) c = {R_(constant)(affine->scale), R_(constant)(affine->shift),
                                    R_(constant)(affine->dropped)};
    const uint64_t all = bit ? ~(uint64_t)0 : 0; /* where there are no bits */
    const int64_t head = R_(to_alignment)(out);
    int64_t i = 0;
    for (; i < n && i < head; i++) {
        out[i] = R_(affine_one)(x[i], affine, bits ? fd_test_bit(bits, bit + i) : all != 0);
    }
    for (; i + 64 <= n; i += 64) {
        if (streaming) {
            R_(prefetch_word)(x + i, ahead);
        }
        uint64_t word = bits ? fd_load_bits(bits, bit + i) : all;
        for (int part = 0; part < 64; part += R_(lanes)) {
            R_(write)(out + i + part, R_(affine_vector)(x + i + part, c, word), streaming);
            word >>= R_(lanes);
        }
    }
    uint64_t word = bits && i < n ? fd_load_bits_part(bits, bit + i, n - i) : all;
    for (; i + R_(lanes) <= n; i += R_(lanes), word >>= R_(lanes)) {
        R_(store)(out + i, R_(affine_vector)(x + i, c, word));
    }
    for (; i < n; i++, word >>= 1) {
        out[i] = R_(affine_one)(x[i], affine, word & 1);
    }
}

static void R_(affine)(const void *x, void *out, int64_t n, const uint8_t *bits, int64_t bit,
                       const fd_affine *affine, fd_stores stores)
{
    if (stores == FD_STORES_CACHED) {
        R_(affine_all)(x, out, n, bits, bit, affine, 0, 0);
    } else {
        R_(affine_all)(x, out, n, bits, bit, affine, 1, R_(ahead)(stores));
        fd_stream_fence();
    }
}

#include "simd/unjoin.h"
