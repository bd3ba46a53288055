/* simd_avx2.h: AVX2, FMA, F16C. */
#include <immintrin.h>

#define FD_WORD_LANES 4
typedef __m256i fd_words;

static inline fd_words words_set(uint64_t value) { return _mm256_set1_epi64x((long long)value); }
static inline fd_words words_add(fd_words a, fd_words b) { return _mm256_add_epi64(a, b); }
static inline fd_words words_and(fd_words a, fd_words b) { return _mm256_and_si256(a, b); }
static inline fd_words words_or(fd_words a, fd_words b) { return _mm256_or_si256(a, b); }
static inline fd_words words_andnot(fd_words a, fd_words b) { return _mm256_andnot_si256(b, a); }
static inline fd_words words_xor(fd_words a, fd_words b) { return _mm256_xor_si256(a, b); }
static inline fd_words words_multiply(fd_words a, fd_words b) { return _mm256_mul_epu32(a, b); }
static inline fd_words words_high(fd_words a) { return _mm256_srli_epi64(a, 32); }
static inline int words_any(fd_words a) { return !_mm256_testz_si256(a, a); }

static inline fd_words words_xor3(fd_words a, fd_words b, fd_words c)
{
    return words_xor(words_xor(a, b), c);
}

static inline fd_words words_pack(fd_words low, fd_words high)
{
    return _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xaa);
}

/* Unpacking works on the even, then the odd lanes of each 128-bit half. */
static inline fd_words words_lane_numbers(void) { return _mm256_set_epi64x(3, 1, 2, 0); }

static inline void words_store(uint8_t *to, fd_words a, fd_words b)
{
    _mm256_storeu_si256((__m256i *)to, _mm256_unpacklo_epi64(a, b));
    _mm256_storeu_si256((__m256i *)(to + 32), _mm256_unpackhi_epi64(a, b));
}

#define f32_element float
#define f32_lanes 8
typedef __m256 f32_vector;
static inline f32_vector f32_splat(double s) { return _mm256_set1_ps((float)s); }
static inline f32_vector f32_product(const float *p, f32_vector s)
{
    return _mm256_mul_ps(_mm256_loadu_ps(p), s);
}
static inline f32_vector f32_keep(f32_vector v, uint64_t bits)
{
    const __m256i lane = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
    const __m256i hit = _mm256_and_si256(_mm256_set1_epi32((int)bits), lane);
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(hit, lane)));
}
static inline void f32_store(float *p, f32_vector v) { _mm256_storeu_ps(p, v); }
static inline void f32_stream(float *p, f32_vector v) { _mm256_stream_ps(p, v); }

#define f64_element double
#define f64_lanes 4
typedef __m256d f64_vector;
static inline f64_vector f64_splat(double s) { return _mm256_set1_pd(s); }
static inline f64_vector f64_product(const double *p, f64_vector s)
{
    return _mm256_mul_pd(_mm256_loadu_pd(p), s);
}
static inline f64_vector f64_keep(f64_vector v, uint64_t bits)
{
    const __m256i lane = _mm256_set_epi64x(8, 4, 2, 1);
    const __m256i hit = _mm256_and_si256(_mm256_set1_epi64x((long long)bits), lane);
    return _mm256_and_pd(v, _mm256_castsi256_pd(_mm256_cmpeq_epi64(hit, lane)));
}
static inline void f64_store(double *p, f64_vector v) { _mm256_storeu_pd(p, v); }
static inline void f64_stream(double *p, f64_vector v) { _mm256_stream_pd(p, v); }

#define f16_element uint16_t
#define f16_lanes 8
typedef __m256 f16_vector; /* products, in float */
static inline f16_vector f16_splat(double s)
{
    return _mm256_set1_ps(fd_float_from_half(fd_half_from_double(s)));
}
static inline f16_vector f16_product(const uint16_t *p, f16_vector s)
{
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), s);
}
static inline f16_vector f16_keep(f16_vector v, uint64_t bits) { return f32_keep(v, bits); }
static inline __m128i f16_round(f16_vector v)
{
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline void f16_store(uint16_t *p, f16_vector v)
{
    _mm_storeu_si128((__m128i *)p, f16_round(v));
}
static inline void f16_stream(uint16_t *p, f16_vector v)
{
    _mm_stream_si128((__m128i *)p, f16_round(v));
}

static inline void fd_stream_fence(void) { _mm_sfence(); }
