/* noise_body.h: normal and uniform numbers, compiled once per instruction set.
 *
 * A block of 128 elements has 128 words: those of the 32 counters whose digits are 64 to 95, which no mask
 * uses. Digits stand side by side in the lanes, so that the first two words of all counters, and the last
 * two, are 64 words in their order without a shuffle. The Box-Muller transform makes two normal numbers of
 * word i of the one half and word i of the other, numbers i and 64 + i of the block: about 30 operations
 * each, fewer than a polynomial for the inverse of the distribution function needs, and without its branches.
 *
 * There is no fused multiply-add here: the baseline has none, and the numbers are the same everywhere.
 */
#include "kernels.h"
#include "masks/philox.h"

#define NOISE_DIGIT 64
#define NOISE_HALF (FD_BLOCK / 2)

/* first[i] is word i & 1 of counter i >> 1 of the block, second[i] is word 2 + (i & 1) of it. */
static inline void noise_words(const philox_draw *p, uint64_t block, uint32_t *first,
                               uint32_t *second)
{
    const philox_group g = philox_start_group(p, words_set(block));
    for (int digit = 0; digit < NOISE_HALF / 2; digit += FD_WORD_LANES) {
        fd_words a, b;
        philox_digit(p, &g, words_add(words_set(NOISE_DIGIT + (uint64_t)digit), words_in_order()),
                     &a, &b);
        memcpy(first + 2 * digit, &a, sizeof a);
        memcpy(second + 2 * digit, &b, sizeof b);
    }
}

/* ((c[last] * x + c[last - 1]) * x + ...) * x + c[0] */
static inline FD_ALWAYS_INLINE f32_vector noise_polynomial(const float *c, const int last,
                                                           f32_vector x)
{
    f32_vector sum = f32_one(c[last]);
#pragma GCC unroll 16
    for (int i = last - 1; i >= 0; i--) {
        sum = f32_add(f32_multiply(sum, x), f32_one(c[i]));
    }
    return sum;
}

/* The minimax polynomials of -2 log(1 + x) / x on [-1/2, 0], and, of z = t * t on [0, 1/4],
 * sin(pi/2 t) / t and cos(pi/2 t); and -2 log(2). */
static const float noise_log[] = {
    -0x1.000000p+1f, 0x1.fffe20p-1f,  -0x1.55b59ep-1f, 0x1.f143ccp-2f,  -0x1.141556p-1f,
    -0x1.a0d8c4p-2f, -0x1.41f692p+1f, -0x1.b220a2p+1f, -0x1.70ec66p+1f,
};
static const float noise_sine[] = {0x1.921fb6p+0f, -0x1.4abbbap-1f, 0x1.465e92p-4f,
                                   -0x1.2d9302p-8f};
static const float noise_cosine[] = {0x1.000000p+0f, -0x1.3bd3ccp+0f, 0x1.03c1dap-2f,
                                     -0x1.55c4eap-6f, 0x1.d99f54p-11f};
#define NOISE_TWO_LOG_2 (-0x1.62e430p+0f)

/* sqrt(-2 log(u)), u = (word | 1) / 2^32. As a signed integer a word of 2^31 or more is what is missing to
 * 2^32: u - 1 then has its relative accuracy near u = 1, and the logarithm with it. Below, u is a power of 2
 * times a number in [1/2, 1). */
static inline f32_vector noise_radius(u32_vector word)
{
    const u32_vector odd = u32_or(word, u32_set(1));
    const f32_vector u = f32_multiply(f32_of_signed(odd), f32_one(0x1p-32f));
    const u32_vector bits = f32_bits(u);
    const u32_vector fraction = u32_or(u32_and(bits, u32_set(0x7fffff)), u32_set(0x3f000000));
    const f32_vector power = f32_of_signed(u32_add(u32_right(bits, 23), u32_set((uint32_t)-126)));
    const f32_vector x =
        f32_where_negative(odd, u, f32_subtract(f32_of_bits(fraction), f32_one(1.0f)));
    const f32_vector whole =
        f32_where_negative(odd, f32_one(0.0f), f32_multiply(power, f32_one(NOISE_TWO_LOG_2)));
    return f32_root(f32_add(whole, f32_multiply(x, noise_polynomial(noise_log, 8, x))));
}

/* 30 bits of `turn` are an angle of -1/8 to 1/8 of a turn, one exchanges sine and cosine, one is the sign of
 * both: the whole circle once. */
static inline void noise_normals(u32_vector length, u32_vector turn, f32_vector *cosine,
                                 f32_vector *sine)
{
    const u32_vector radius = f32_bits(noise_radius(length));
    const f32_vector r = f32_of_bits(u32_xor(radius, u32_and(turn, u32_set(0x80000000u))));
    const f32_vector t = f32_multiply(f32_of_signed(u32_left(turn, 2)), f32_one(0x1p-32f));
    const f32_vector z = f32_multiply(t, t);
    const f32_vector s = f32_multiply(t, noise_polynomial(noise_sine, 3, z));
    const f32_vector c = noise_polynomial(noise_cosine, 4, z);
    const u32_vector exchange = u32_left(turn, 1);
    *cosine = f32_multiply(r, f32_where_negative(exchange, s, c));
    *sine = f32_multiply(r, f32_where_negative(exchange, c, s));
}

static inline f32_vector noise_uniform(u32_vector word)
{
    return f32_multiply(f32_of_signed(u32_or(word, u32_set(1))), f32_one(0x1p-31f));
}

static void noise_blocks(const fd_stream *stream, fd_noise noise, uint64_t first, int64_t blocks,
                         float *to)
{
    uint32_t a[NOISE_HALF], b[NOISE_HALF];
    philox_draw p;
    uint32_t high = 0;
    for (int64_t block = 0; block < blocks; block++, first++, to += FD_BLOCK) {
        if (block == 0 || (uint32_t)(first >> 32) != high) {
            high = (uint32_t)(first >> 32);
            philox_start_draw(&p, stream, high);
        }
        noise_words(&p, first, a, b);
        for (int i = 0; i < NOISE_HALF; i += f32_lanes) {
            f32_vector one = noise_uniform(u32_load(a + i)), other = noise_uniform(u32_load(b + i));
            if (noise == FD_NORMAL) {
                noise_normals(u32_load(a + i), u32_load(b + i), &one, &other);
            }
            f32_store(to + i, one);
            f32_store(to + NOISE_HALF + i, other);
        }
    }
}
