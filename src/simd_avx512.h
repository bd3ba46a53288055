/* simd_avx512.h: AVX-512 F, BW, DQ, VL. */
#include <immintrin.h>

#define FD_WORD_LANES 8
typedef __m512i fd_words;

static inline fd_words words_set(uint64_t value) { return _mm512_set1_epi64((long long)value); }
static inline fd_words words_add(fd_words a, fd_words b) { return _mm512_add_epi64(a, b); }
static inline fd_words words_and(fd_words a, fd_words b) { return _mm512_and_si512(a, b); }
static inline fd_words words_or(fd_words a, fd_words b) { return _mm512_or_si512(a, b); }
static inline fd_words words_andnot(fd_words a, fd_words b) { return _mm512_andnot_si512(b, a); }
static inline fd_words words_xor(fd_words a, fd_words b) { return _mm512_xor_si512(a, b); }
static inline fd_words words_multiply(fd_words a, fd_words b) { return _mm512_mul_epu32(a, b); }
static inline fd_words words_high(fd_words a) { return _mm512_srli_epi64(a, 32); }
static inline int words_any(fd_words a) { return _mm512_test_epi64_mask(a, a) != 0; }

static inline fd_words words_xor3(fd_words a, fd_words b, fd_words c)
{
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

static inline fd_words words_pack(fd_words low, fd_words high)
{
    return _mm512_mask_shuffle_epi32(low, 0xaaaa, high, (_MM_PERM_ENUM)0xa0);
}

/* Unpacking works on the even, then the odd lanes of each 128-bit part. */
static inline fd_words words_lane_numbers(void)
{
    return _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
}

static inline void words_store(uint8_t *to, fd_words a, fd_words b)
{
    _mm512_storeu_si512(to, _mm512_unpacklo_epi64(a, b));
    _mm512_storeu_si512(to + 64, _mm512_unpackhi_epi64(a, b));
}

#define f32_element float
#define f32_lanes 16
typedef __m512 f32_vector;
static inline f32_vector f32_splat(double s) { return _mm512_set1_ps((float)s); }
static inline f32_vector f32_product(const float *p, f32_vector s)
{
    return _mm512_mul_ps(_mm512_loadu_ps(p), s);
}
static inline f32_vector f32_keep(f32_vector v, uint64_t bits)
{
    return _mm512_maskz_mov_ps((__mmask16)bits, v);
}
static inline void f32_store(float *p, f32_vector v) { _mm512_storeu_ps(p, v); }
static inline void f32_stream(float *p, f32_vector v) { _mm512_stream_ps(p, v); }

#define f64_element double
#define f64_lanes 8
typedef __m512d f64_vector;
static inline f64_vector f64_splat(double s) { return _mm512_set1_pd(s); }
static inline f64_vector f64_product(const double *p, f64_vector s)
{
    return _mm512_mul_pd(_mm512_loadu_pd(p), s);
}
static inline f64_vector f64_keep(f64_vector v, uint64_t bits)
{
    return _mm512_maskz_mov_pd((__mmask8)bits, v);
}
static inline void f64_store(double *p, f64_vector v) { _mm512_storeu_pd(p, v); }
static inline void f64_stream(double *p, f64_vector v) { _mm512_stream_pd(p, v); }

#define f16_element uint16_t
#define f16_lanes 16
typedef __m512 f16_vector; /* products, in float */
static inline f16_vector f16_splat(double s)
{
    return _mm512_set1_ps(fd_float_from_half(fd_half_from_double(s)));
}
static inline f16_vector f16_product(const uint16_t *p, f16_vector s)
{
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)), s);
}
static inline f16_vector f16_keep(f16_vector v, uint64_t bits) { return f32_keep(v, bits); }
static inline __m256i f16_round(f16_vector v)
{
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline void f16_store(uint16_t *p, f16_vector v)
{
    _mm256_storeu_si256((__m256i *)p, f16_round(v));
}
static inline void f16_stream(uint16_t *p, f16_vector v)
{
    _mm256_stream_si256((__m256i *)p, f16_round(v));
}

static inline void fd_stream_fence(void) { _mm_sfence(); }
