/* softmax_body.h: softmax and dropout of one row, and their gradient, for one element type R (f32, f64).
 *
 * Three passes over a row that the first one brings into the L1 cache: the maximum; the exponentials and
 * their sum; the quotients, selected and stored. Rows end in a vector padded with -inf (with 0 in the
 * gradient). */
#include "simd/join.h"

#if !defined(EXP_CONSTANTS)
#define EXP_CONSTANTS
#define f32_exp_degree 7
#define f64_exp_degree 13
/* 1.5 * 2^23 and 2^52: adding it rounds to an integer. */
#define f32_exp_round 0x1.8p23
#define f64_exp_round 0x1.8p52
/* ln 2, its head short enough that integers times it are exact, and the lowest exponent that gives 0. */
#define f32_ln2_head 0x1.62ep-1
#define f32_ln2_tail 0x1.0bfbe8e7bcd5ep-15
#define f64_ln2_head 0x1.62e42feep-1
#define f64_ln2_tail 0x1.a39ef35793c76p-33
#define f32_exp_lowest (-127.0)
#define f64_exp_lowest (-1023.0)
static const double exp_coefficients[] = {
    1.0,
    1.0,
    1.0 / 2,
    1.0 / 6,
    1.0 / 24,
    1.0 / 120,
    1.0 / 720,
    1.0 / 5040,
    1.0 / 40320,
    1.0 / 362880,
    1.0 / 3628800,
    1.0 / 39916800,
    1.0 / 479001600,
    1.0 / 6227020800,
};
#endif

/* e^x for x <= 0 to 2 units in the last place; 0 where it is below the smallest normal number, of -inf too. */
static inline FD_ALWAYS_INLINE R_(vector) R_(exp)(R_(vector) x)
{
    const double ln2 = 0x1.62e42fefa39efp-1;
    const R_(vector) round = R_(splat)(R_(exp_round));
    /* the maximum of a number and a NaN that stands second is NaN */
    x = R_(larger)(R_(splat)(R_(exp_lowest) *ln2), x);
    const R_(vector) n = R_(subtract)(R_(multiply_add)(x, R_(splat)(1 / ln2), round), round);
    R_(vector) rest = R_(multiply_add)(n, R_(splat)(-R_(ln2_head)), x);
    rest = R_(multiply_add)(n, R_(splat)(-R_(ln2_tail)), rest);
    R_(vector) sum = R_(splat)(exp_coefficients[R_(exp_degree)]);
#pragma GCC unroll 16
    for (int power = R_(exp_degree) - 1; power >= 0; power--) {
        sum = R_(multiply_add)(sum, rest, R_(splat)(exp_coefficients[power]));
    }
    return R_(multiply)(sum, R_(power_of_two)(n));
}

/* The first `count` elements, the rest `fill`. */
static inline R_(vector) R_(load_first)(const R_(element) *p, int64_t count, double fill)
{
    R_(element) lanes[R_(lanes)];
    for (int lane = 0; lane < R_(lanes); lane++) {
        lanes[lane] = lane < count ? p[lane] : (R_(element))fill;
    }
    return R_(load)(lanes);
}

static inline FD_ALWAYS_INLINE R_(vector)
    R_(load_padded)(const R_(element) *p, int64_t i, int64_t n)
{
    return n - i >= R_(lanes) ? R_(load)(p + i) : R_(load_first)(p + i, n - i, 0);
}

static inline R_(element) R_(sum_of_lanes)(R_(vector) v)
{
    R_(element) lanes[R_(lanes)];
    R_(store)(lanes, v);
    for (int half = R_(lanes) / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; lane++) {
            lanes[lane] += lanes[lane + half];
        }
    }
    return lanes[0];
}

static inline R_(element) R_(largest_lane)(R_(vector) v)
{
    R_(element) lanes[R_(lanes)];
    R_(store)(lanes, v);
    for (int half = R_(lanes) / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; lane++) {
            lanes[lane] = lanes[lane] > lanes[lane + half] ? lanes[lane] : lanes[lane + half];
        }
    }
    return lanes[0];
}

/* Scores i .. i + lanes of a row of n, -inf behind its end and where it does not attend. */
static inline FD_ALWAYS_INLINE R_(vector) R_(scores)(const R_(element) *x, int64_t i, int64_t n,
                                                     const uint8_t *attend, int64_t attend_bit)
{
    const int64_t left = n - i;
    R_(vector) v =
        left >= R_(lanes) ? R_(load)(x + i) : R_(load_first)(x + i, left, -__builtin_inf());
    if (attend) {
        const uint64_t word =
            fd_load_bits_part(attend, attend_bit + i, left < R_(lanes) ? left : R_(lanes));
        v = R_(choose)(R_(splat)(-__builtin_inf()), v, word);
    }
    return v;
}

static inline void R_(store_first)(R_(element) *p, R_(vector) v, int64_t count)
{
    if (count >= R_(lanes)) {
        R_(store)(p, v);
    } else {
        R_(store_lanes)(p, v, ((uint64_t)1 << count) - 1);
    }
}

/* What stands in a row whose largest score is -inf: NaN if one of them is that, else 0. */
static inline R_(element)
    R_(of_nothing)(const R_(element) *x, int64_t n, const uint8_t *attend, int64_t attend_bit)
{
    for (int64_t i = 0; i < n; i++) {
        if (x[i] != x[i] && (!attend || fd_test_bit(attend, attend_bit + i))) {
            return x[i];
        }
    }
    return 0;
}

static void R_(softmax)(const void *from, int64_t n, int64_t attended, const uint8_t *attend,
                        int64_t attend_bit, const uint8_t *bits, int64_t bit, double scale,
                        void *probabilities, void *to)
{
    const R_(element) *x = from;
    R_(element) *p = probabilities, *out = to;
    R_(vector) most = R_(splat)(-__builtin_inf());
    for (int64_t i = 0; i < attended; i += R_(lanes)) {
        most = R_(larger)(most, R_(scores)(x, i, attended, attend, attend_bit));
    }
    const R_(element) largest = R_(largest_lane)(most);
    R_(vector) factor = R_(splat)(0);
    if (largest == (R_(element))-__builtin_inf()) {
        const R_(element) value = R_(of_nothing)(x, attended, attend, attend_bit);
        for (int64_t i = 0; i < attended; i++) {
            p[i] = value;
        }
        factor = R_(one)(1);
    } else {
        const R_(vector) shift = R_(one)(largest);
        R_(vector) sum = R_(splat)(0);
        for (int64_t i = 0; i < attended; i += R_(lanes)) {
            const R_(vector) e =
                R_(exp)(R_(subtract)(R_(scores)(x, i, attended, attend, attend_bit), shift));
            sum = R_(add)(sum, e); /* of what is behind the end, 0 */
            R_(store_first)(p + i, e, attended - i);
        }
        factor = R_(one)(1 / R_(sum_of_lanes)(sum));
    }
    const R_(vector) s = R_(splat)(scale);
    for (int64_t i = 0; i < attended; i += R_(lanes)) {
        const int64_t left = attended - i, count = left < R_(lanes) ? left : R_(lanes);
        R_(vector) v = R_(multiply)(R_(load_padded)(p, i, attended), factor);
        R_(store_first)(p + i, v, left);
        if (bits) {
            v = R_(keep)(R_(multiply)(v, s), fd_load_bits_part(bits, bit + i, count));
            R_(store_first)(out + i, v, left);
        } else if (out != p) {
            R_(store_first)(out + i, R_(multiply)(v, s), left);
        }
    }
    for (int64_t i = attended; i < n; i++) {
        p[i] = out[i] = 0;
    }
}

/* Elements i .. i + lanes of a gradient of n, under the mask. */
static inline FD_ALWAYS_INLINE R_(vector)
    R_(masked_gradient)(const R_(element) *grad, int64_t i, int64_t n, const uint8_t *bits,
                        int64_t bit, R_(vector) scale)
{
    const R_(vector) g = R_(multiply)(R_(load_padded)(grad, i, n), scale);
    return bits ? R_(keep)(g,
                           fd_load_bits_part(bits, bit + i, n - i < R_(lanes) ? n - i : R_(lanes)))
                : g;
}

/* The gradient of an output that dropped the softmax: p * (g - sum of g * p), g the gradient under the mask. */
static void R_(softmax_gradient)(const void *gradient, const void *probabilities, int64_t n,
                                 const uint8_t *bits, int64_t bit, double scale, void *to)
{
    const R_(element) *p = probabilities;
    const R_(vector) s = R_(splat)(scale);
    R_(vector) sum = R_(splat)(0);
    for (int64_t i = 0; i < n; i += R_(lanes)) {
        sum = R_(multiply_add)(R_(masked_gradient)(gradient, i, n, bits, bit, s),
                               R_(load_padded)(p, i, n), sum);
    }
    const R_(vector) total = R_(one)(R_(sum_of_lanes)(sum));
    for (int64_t i = 0; i < n; i += R_(lanes)) {
        const R_(vector) g = R_(masked_gradient)(gradient, i, n, bits, bit, s);
        R_(store_first)((R_(element) *)to + i,
                        R_(multiply)(R_(load_padded)(p, i, n), R_(subtract)(g, total)), n - i);
    }
}

#include "simd/unjoin.h"
