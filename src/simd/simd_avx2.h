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

static inline fd_words words_in_order(void) { return _mm256_set_epi64x(3, 2, 1, 0); }

#define f32_element float
#define f32_lanes 8
typedef __m256 f32_vector;
/* All bits of the lanes whose bit is set. */
static inline __m256i fd_lanes_of(uint64_t bits)
{
    const __m256i lane = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lane), lane);
}
static inline __m256i fd_wide_lanes_of(uint64_t bits)
{
    const __m256i lane = _mm256_set_epi64x(8, 4, 2, 1);
    return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x((long long)bits), lane), lane);
}
static inline __m256 f32_lanes_of(uint64_t bits) { return _mm256_castsi256_ps(fd_lanes_of(bits)); }
static inline __m256d f64_lanes_of(uint64_t bits)
{
    return _mm256_castsi256_pd(fd_wide_lanes_of(bits));
}
static inline f32_vector f32_load_lanes(const float *p, uint64_t bits)
{
    return _mm256_maskload_ps(p, fd_lanes_of(bits));
}
static inline void f32_store_lanes(float *p, f32_vector v, uint64_t bits)
{
    _mm256_maskstore_ps(p, fd_lanes_of(bits), v);
}
static inline f32_vector f32_keep(f32_vector v, uint64_t bits)
{
    return _mm256_and_ps(v, f32_lanes_of(bits));
}
static inline void f32_store(float *p, f32_vector v) { _mm256_storeu_ps(p, v); }
static inline void f32_stream(float *p, f32_vector v) { _mm256_stream_ps(p, v); }

#define f64_element double
#define f64_lanes 4
typedef __m256d f64_vector;
static inline f64_vector f64_load_lanes(const double *p, uint64_t bits)
{
    return _mm256_maskload_pd(p, fd_wide_lanes_of(bits));
}
static inline void f64_store_lanes(double *p, f64_vector v, uint64_t bits)
{
    _mm256_maskstore_pd(p, fd_wide_lanes_of(bits), v);
}
static inline f64_vector f64_keep(f64_vector v, uint64_t bits)
{
    return _mm256_and_pd(v, f64_lanes_of(bits));
}
static inline void f64_store(double *p, f64_vector v) { _mm256_storeu_pd(p, v); }
static inline void f64_stream(double *p, f64_vector v) { _mm256_stream_pd(p, v); }

#define f16_element uint16_t
#define f16_lanes 8
typedef __m256 f16_vector; /* products, in float */
static inline f16_vector f16_load(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
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

#define bf16_element uint16_t
#define bf16_lanes 8
typedef __m256 bf16_vector; /* products, in float */
static inline bf16_vector bf16_load(const uint16_t *p)
{
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline __m128i bf16_round(bf16_vector v)
{
    const __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i rounded = _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), quiet, nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}
static inline void bf16_store(uint16_t *p, bf16_vector v)
{
    _mm_storeu_si128((__m128i *)p, bf16_round(v));
}
static inline void bf16_stream(uint16_t *p, bf16_vector v)
{
    _mm_stream_si128((__m128i *)p, bf16_round(v));
}

/* For matrix products. */
#define FD_VECTOR_REGISTERS 16

static inline f32_vector f32_load(const float *p) { return _mm256_loadu_ps(p); }
static inline f32_vector f32_one(float value) { return _mm256_set1_ps(value); }
static inline f32_vector f32_multiply(f32_vector a, f32_vector b) { return _mm256_mul_ps(a, b); }
static inline f32_vector f32_multiply_add(f32_vector a, f32_vector b, f32_vector c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline uint64_t f32_nonzero(f32_vector v)
{
    return (uint64_t)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_NEQ_UQ));
}

/* Bits to bytes of all ones, then the numbers of the set lanes side by side (or back). */
static inline uint64_t fd_lane_bytes(uint64_t bits)
{
    return _pdep_u64(bits, 0x0101010101010101u) * 0xff;
}
static inline __m256i fd_compress_order(uint64_t bits)
{
    const uint64_t order = _pext_u64(0x0706050403020100u, fd_lane_bytes(bits));
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order));
}
static inline FD_ALWAYS_INLINE __m256i fd_expand_order(uint64_t bits)
{
    const uint64_t order = _pdep_u64(0x0706050403020100u, fd_lane_bytes(bits));
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order));
}
/* Bits of doubles to bits of their halves. */
static inline uint64_t fd_pair_bits(uint64_t bits) { return _pdep_u64(bits, 0x55) * 3; }

static inline void f32_compress(float *p, f32_vector v, uint64_t bits)
{
    _mm256_storeu_ps(p, _mm256_permutevar8x32_ps(v, fd_compress_order(bits & 0xff)));
}
static inline FD_ALWAYS_INLINE f32_vector f32_expand(const float *p, uint64_t bits)
{
    const __m256i order = fd_expand_order(bits & 0xff);
    return f32_keep(_mm256_permutevar8x32_ps(_mm256_loadu_ps(p), order), bits);
}

typedef __m256i f32_order;
static inline f32_order f32_order_of(const uint8_t *numbers)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)numbers));
}
static inline f32_vector f32_collect(const float *p, f32_order order)
{
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), order);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(p + 8), order);
    const __m256i is_high = _mm256_slli_epi32(order, 28); /* bit 3 becomes the sign */
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(is_high));
}

static inline void write_numbers(uint16_t *to, uint64_t word, int first, int unit)
{
    const __m128i units = _mm_set1_epi16((short)unit);
    uint64_t bytes = 0x0706050403020100u + 0x0101010101010101u * (uint64_t)first;
    for (int part = 0; part < 64; part += 8) {
        const uint64_t set = word >> part & 0xff, chosen = _pext_u64(bytes, fd_lane_bytes(set));
        const __m128i numbers = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((long long)chosen));
        _mm_storeu_si128((__m128i *)to, _mm_mullo_epi16(numbers, units));
        to += __builtin_popcountll(set);
        bytes += 0x0808080808080808u;
    }
}

#define f32_transpose_depth 4
static inline __m256 f32_rows2(const float *p, int64_t stride)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)),
                                _mm_loadu_ps(p + 4 * stride), 1);
}
static inline void f32_transpose(const float *p, int64_t stride, float *to, int64_t to_stride)
{
    const __m256 r0 = f32_rows2(p, stride), r1 = f32_rows2(p + stride, stride);
    const __m256 r2 = f32_rows2(p + 2 * stride, stride), r3 = f32_rows2(p + 3 * stride, stride);
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r0, r1));
    const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(r0, r1));
    const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(r2, r3));
    const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(r2, r3));
    _mm256_storeu_ps(to, _mm256_castpd_ps(_mm256_unpacklo_pd(a, c)));
    _mm256_storeu_ps(to + to_stride, _mm256_castpd_ps(_mm256_unpackhi_pd(a, c)));
    _mm256_storeu_ps(to + 2 * to_stride, _mm256_castpd_ps(_mm256_unpacklo_pd(b, d)));
    _mm256_storeu_ps(to + 3 * to_stride, _mm256_castpd_ps(_mm256_unpackhi_pd(b, d)));
}

static inline f64_vector f64_load(const double *p) { return _mm256_loadu_pd(p); }
static inline f64_vector f64_one(double value) { return _mm256_set1_pd(value); }
static inline f64_vector f64_multiply(f64_vector a, f64_vector b) { return _mm256_mul_pd(a, b); }
static inline f64_vector f64_multiply_add(f64_vector a, f64_vector b, f64_vector c)
{
    return _mm256_fmadd_pd(a, b, c);
}
static inline uint64_t f64_nonzero(f64_vector v)
{
    return (uint64_t)_mm256_movemask_pd(_mm256_cmp_pd(v, _mm256_setzero_pd(), _CMP_NEQ_UQ));
}
static inline void f64_compress(double *p, f64_vector v, uint64_t bits)
{
    const __m256i order = fd_compress_order(fd_pair_bits(bits));
    const __m256 moved = _mm256_permutevar8x32_ps(_mm256_castpd_ps(v), order);
    _mm256_storeu_pd(p, _mm256_castps_pd(moved));
}
static inline FD_ALWAYS_INLINE f64_vector f64_expand(const double *p, uint64_t bits)
{
    const __m256 v = _mm256_castpd_ps(_mm256_loadu_pd(p));
    const __m256 moved = _mm256_permutevar8x32_ps(v, fd_expand_order(fd_pair_bits(bits)));
    return f64_keep(_mm256_castps_pd(moved), bits);
}

/* Numbers of halves; a double's halves are never apart. */
typedef __m256i f64_order;
static inline f64_order f64_order_of(const uint8_t *numbers)
{
    int32_t packed;
    memcpy(&packed, numbers, sizeof packed);
    const __m256i number = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(packed));
    const __m256i both = _mm256_or_si256(number, _mm256_slli_epi64(number, 32));
    return _mm256_add_epi32(_mm256_add_epi32(both, both), _mm256_set1_epi64x((int64_t)1 << 32));
}
static inline f64_vector f64_collect(const double *p, f64_order order)
{
    return _mm256_castps_pd(f32_collect((const float *)p, order));
}

#define f64_transpose_depth 2
static inline __m256d f64_rows2(const double *p, int64_t stride)
{
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)),
                                _mm_loadu_pd(p + 2 * stride), 1);
}
static inline void f64_transpose(const double *p, int64_t stride, double *to, int64_t to_stride)
{
    const __m256d r0 = f64_rows2(p, stride), r1 = f64_rows2(p + stride, stride);
    _mm256_storeu_pd(to, _mm256_unpacklo_pd(r0, r1));
    _mm256_storeu_pd(to + to_stride, _mm256_unpackhi_pd(r0, r1));
}

static inline int fd_count_lanes(uint64_t bits) { return __builtin_popcountll(bits); }

/* For updates. */
static inline f32_vector f32_add(f32_vector a, f32_vector b) { return _mm256_add_ps(a, b); }
static inline f32_vector f32_subtract(f32_vector a, f32_vector b) { return _mm256_sub_ps(a, b); }
static inline f32_vector f32_divide(f32_vector a, f32_vector b) { return _mm256_div_ps(a, b); }
static inline f32_vector f32_root(f32_vector v) { return _mm256_sqrt_ps(v); }
static inline f32_vector f32_larger(f32_vector a, f32_vector b) { return _mm256_max_ps(a, b); }
static inline f32_vector f32_choose(f32_vector old, f32_vector new_one, uint64_t bits)
{
    return _mm256_blendv_ps(old, new_one, f32_lanes_of(bits));
}

static inline f64_vector f64_add(f64_vector a, f64_vector b) { return _mm256_add_pd(a, b); }
static inline f64_vector f64_subtract(f64_vector a, f64_vector b) { return _mm256_sub_pd(a, b); }
static inline f64_vector f64_divide(f64_vector a, f64_vector b) { return _mm256_div_pd(a, b); }
static inline f64_vector f64_root(f64_vector v) { return _mm256_sqrt_pd(v); }
static inline f64_vector f64_larger(f64_vector a, f64_vector b) { return _mm256_max_pd(a, b); }
static inline f64_vector f64_choose(f64_vector old, f64_vector new_one, uint64_t bits)
{
    return _mm256_blendv_pd(old, new_one, f64_lanes_of(bits));
}

/* For noise. */
typedef __m256i u32_vector; /* as many lanes as f32_vector */
static inline u32_vector u32_load(const uint32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline u32_vector u32_set(uint32_t value) { return _mm256_set1_epi32((int)value); }
static inline u32_vector u32_add(u32_vector a, u32_vector b) { return _mm256_add_epi32(a, b); }
static inline u32_vector u32_and(u32_vector a, u32_vector b) { return _mm256_and_si256(a, b); }
static inline u32_vector u32_or(u32_vector a, u32_vector b) { return _mm256_or_si256(a, b); }
static inline u32_vector u32_xor(u32_vector a, u32_vector b) { return _mm256_xor_si256(a, b); }
#define u32_left(v, by) _mm256_slli_epi32(v, by)
#define u32_right(v, by) _mm256_srli_epi32(v, by)
static inline f32_vector f32_of_signed(u32_vector v) { return _mm256_cvtepi32_ps(v); }
static inline f32_vector f32_of_bits(u32_vector v) { return _mm256_castsi256_ps(v); }
static inline u32_vector f32_bits(f32_vector v) { return _mm256_castps_si256(v); }
static inline f32_vector f32_where_negative(u32_vector v, f32_vector a, f32_vector b)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(v));
}
static inline f64_vector f64_widen(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }

static inline f64_vector f64_power_of_two(f64_vector v)
{
    const __m256d sum = _mm256_add_pd(v, _mm256_set1_pd(0x1.8p52 + 1023));
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(sum), 52));
}

static inline void fd_stream_fence(void) { _mm_sfence(); }
