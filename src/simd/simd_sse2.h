/* simd_sse2.h: the x86-64 baseline. Halves go one by one: SSE2 has no conversion. */
#include <emmintrin.h>

#define FD_WORD_LANES 2
typedef __m128i fd_words;

static inline fd_words words_set(uint64_t value) { return _mm_set1_epi64x((long long)value); }
static inline fd_words words_add(fd_words a, fd_words b) { return _mm_add_epi64(a, b); }
static inline fd_words words_and(fd_words a, fd_words b) { return _mm_and_si128(a, b); }
static inline fd_words words_or(fd_words a, fd_words b) { return _mm_or_si128(a, b); }
static inline fd_words words_andnot(fd_words a, fd_words b) { return _mm_andnot_si128(b, a); }
static inline fd_words words_xor(fd_words a, fd_words b) { return _mm_xor_si128(a, b); }
static inline fd_words words_multiply(fd_words a, fd_words b) { return _mm_mul_epu32(a, b); }
static inline fd_words words_high(fd_words a) { return _mm_srli_epi64(a, 32); }
static inline int words_any(fd_words a)
{
    return _mm_movemask_epi8(_mm_cmpeq_epi8(a, _mm_setzero_si128())) != 0xffff;
}

static inline fd_words words_xor3(fd_words a, fd_words b, fd_words c)
{
    return words_xor(words_xor(a, b), c);
}

static inline fd_words words_pack(fd_words low, fd_words high)
{
    return _mm_or_si128(_mm_and_si128(low, _mm_set1_epi64x(0xffffffff)), _mm_slli_epi64(high, 32));
}

static inline fd_words words_lane_numbers(void) { return _mm_set_epi64x(1, 0); }

static inline void words_store(uint8_t *to, fd_words a, fd_words b)
{
    _mm_storeu_si128((__m128i *)to, _mm_unpacklo_epi64(a, b));
    _mm_storeu_si128((__m128i *)(to + 16), _mm_unpackhi_epi64(a, b));
}

static inline fd_words words_in_order(void) { return words_lane_numbers(); }

#define f32_element float
#define f32_lanes 4
typedef __m128 f32_vector;
static inline __m128 f32_lanes_of(uint64_t bits)
{
    const __m128i lane = _mm_set_epi32(8, 4, 2, 1);
    return _mm_castsi128_ps(_mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32((int)bits), lane), lane));
}
static inline f32_vector f32_keep(f32_vector v, uint64_t bits)
{
    return _mm_and_ps(v, f32_lanes_of(bits));
}
static inline void f32_store(float *p, f32_vector v) { _mm_storeu_ps(p, v); }
static inline void f32_stream(float *p, f32_vector v) { _mm_stream_ps(p, v); }

#define f64_element double
#define f64_lanes 2
typedef __m128d f64_vector;
static inline __m128d f64_lanes_of(uint64_t bits)
{
    const __m128i lane = _mm_set_epi32(2, 2, 1, 1); /* a double's mask is two equal words */
    return _mm_castsi128_pd(_mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32((int)bits), lane), lane));
}
static inline f64_vector f64_keep(f64_vector v, uint64_t bits)
{
    return _mm_and_pd(v, f64_lanes_of(bits));
}
static inline void f64_store(double *p, f64_vector v) { _mm_storeu_pd(p, v); }
static inline void f64_stream(double *p, f64_vector v) { _mm_stream_pd(p, v); }

#include "simd/simd_half_one.h"

#define bf16_element uint16_t
#define bf16_lanes 4
typedef __m128 bf16_vector; /* products, in float */
static inline bf16_vector bf16_load(const uint16_t *p)
{
    const __m128i halves = _mm_loadl_epi64((const __m128i *)p);
    return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), halves));
}
/* Shifts that keep the sign, for a pack that saturates signed numbers. */
static inline void bf16_store(uint16_t *p, bf16_vector v)
{
    const __m128i bits = _mm_castps_si128(v), high = _mm_srai_epi32(bits, 16);
    const __m128i odd = _mm_and_si128(high, _mm_set1_epi32(1));
    const __m128i sum = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
    const __m128i nan = _mm_castps_si128(_mm_cmpunord_ps(v, v));
    const __m128i quiet = _mm_and_si128(nan, _mm_or_si128(high, _mm_set1_epi32(0x40)));
    const __m128i rounded = _mm_or_si128(quiet, _mm_andnot_si128(nan, _mm_srai_epi32(sum, 16)));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi32(rounded, rounded));
}
static inline void bf16_stream(uint16_t *p, bf16_vector v) { bf16_store(p, v); }

/* For matrix products. */
#define FD_VECTOR_REGISTERS 16

static inline f32_vector f32_load(const float *p) { return _mm_loadu_ps(p); }
static inline f32_vector f32_one(float value) { return _mm_set1_ps(value); }
static inline f32_vector f32_multiply(f32_vector a, f32_vector b) { return _mm_mul_ps(a, b); }
static inline f32_vector f32_multiply_add(f32_vector a, f32_vector b, f32_vector c)
{
    return _mm_add_ps(_mm_mul_ps(a, b), c);
}
static inline uint64_t f32_nonzero(f32_vector v)
{
    return (uint64_t)_mm_movemask_ps(_mm_cmpneq_ps(v, _mm_setzero_ps()));
}
static inline f64_vector f64_load(const double *p) { return _mm_loadu_pd(p); }
static inline f64_vector f64_one(double value) { return _mm_set1_pd(value); }
static inline f64_vector f64_multiply(f64_vector a, f64_vector b) { return _mm_mul_pd(a, b); }
static inline f64_vector f64_multiply_add(f64_vector a, f64_vector b, f64_vector c)
{
    return _mm_add_pd(_mm_mul_pd(a, b), c);
}
static inline uint64_t f64_nonzero(f64_vector v)
{
    return (uint64_t)_mm_movemask_pd(_mm_cmpneq_pd(v, _mm_setzero_pd()));
}

#include "simd/simd_compress.h"
static inline FD_ALWAYS_INLINE f32_vector f32_expand(const float *p, uint64_t bits)
{
    const float *second = p + (bits & 1), *third = second + (bits >> 1 & 1);
    const float *fourth = third + (bits >> 2 & 1);
    const __m128 low = _mm_unpacklo_ps(_mm_load_ss(p), _mm_load_ss(second));
    const __m128 high = _mm_unpacklo_ps(_mm_load_ss(third), _mm_load_ss(fourth));
    return f32_keep(_mm_movelh_ps(low, high), bits);
}
static inline FD_ALWAYS_INLINE f64_vector f64_expand(const double *p, uint64_t bits)
{
    return f64_keep(_mm_loadh_pd(_mm_load_sd(p), p + (bits & 1)), bits);
}
/* Without an instruction of its own, counting is a call of a function. */
static inline int fd_count_lanes(uint64_t bits)
{
    return (int)((bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1) + (bits >> 3 & 1));
}

/* For updates. */
static inline f32_vector f32_add(f32_vector a, f32_vector b) { return _mm_add_ps(a, b); }
static inline f32_vector f32_subtract(f32_vector a, f32_vector b) { return _mm_sub_ps(a, b); }
static inline f32_vector f32_divide(f32_vector a, f32_vector b) { return _mm_div_ps(a, b); }
static inline f32_vector f32_root(f32_vector v) { return _mm_sqrt_ps(v); }
static inline f32_vector f32_larger(f32_vector a, f32_vector b) { return _mm_max_ps(a, b); }
static inline f32_vector f32_choose(f32_vector old, f32_vector new_one, uint64_t bits)
{
    const __m128 chosen = f32_lanes_of(bits);
    return _mm_or_ps(_mm_and_ps(chosen, new_one), _mm_andnot_ps(chosen, old));
}
static inline f64_vector f64_add(f64_vector a, f64_vector b) { return _mm_add_pd(a, b); }
static inline f64_vector f64_subtract(f64_vector a, f64_vector b) { return _mm_sub_pd(a, b); }
static inline f64_vector f64_divide(f64_vector a, f64_vector b) { return _mm_div_pd(a, b); }
static inline f64_vector f64_root(f64_vector v) { return _mm_sqrt_pd(v); }
static inline f64_vector f64_larger(f64_vector a, f64_vector b) { return _mm_max_pd(a, b); }
static inline f64_vector f64_choose(f64_vector old, f64_vector new_one, uint64_t bits)
{
    const __m128d chosen = f64_lanes_of(bits);
    return _mm_or_pd(_mm_and_pd(chosen, new_one), _mm_andnot_pd(chosen, old));
}

/* For noise. */
typedef __m128i u32_vector; /* as many lanes as f32_vector */
static inline u32_vector u32_load(const uint32_t *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline u32_vector u32_set(uint32_t value) { return _mm_set1_epi32((int)value); }
static inline u32_vector u32_add(u32_vector a, u32_vector b) { return _mm_add_epi32(a, b); }
static inline u32_vector u32_and(u32_vector a, u32_vector b) { return _mm_and_si128(a, b); }
static inline u32_vector u32_or(u32_vector a, u32_vector b) { return _mm_or_si128(a, b); }
static inline u32_vector u32_xor(u32_vector a, u32_vector b) { return _mm_xor_si128(a, b); }
#define u32_left(v, by) _mm_slli_epi32(v, by)
#define u32_right(v, by) _mm_srli_epi32(v, by)
static inline f32_vector f32_of_signed(u32_vector v) { return _mm_cvtepi32_ps(v); }
static inline f32_vector f32_of_bits(u32_vector v) { return _mm_castsi128_ps(v); }
static inline u32_vector f32_bits(f32_vector v) { return _mm_castps_si128(v); }
static inline f32_vector f32_where_negative(u32_vector v, f32_vector a, f32_vector b)
{
    const __m128 negative = _mm_castsi128_ps(_mm_srai_epi32(v, 31));
    return _mm_or_ps(_mm_and_ps(negative, a), _mm_andnot_ps(negative, b));
}
static inline f64_vector f64_widen(const float *p)
{
    return _mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)p)));
}

static inline f64_vector f64_power_of_two(f64_vector v)
{
    const __m128d sum = _mm_add_pd(v, _mm_set1_pd(0x1.8p52 + 1023));
    return _mm_castsi128_pd(_mm_slli_epi64(_mm_castpd_si128(sum), 52));
}

static inline void fd_stream_fence(void) { _mm_sfence(); }
