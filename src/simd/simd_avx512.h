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
static inline fd_words words_lane_numbers(void) { return _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0); }

static inline void words_store(uint8_t *to, fd_words a, fd_words b)
{
    _mm512_storeu_si512(to, _mm512_unpacklo_epi64(a, b));
    _mm512_storeu_si512(to + 64, _mm512_unpackhi_epi64(a, b));
}

static inline fd_words words_in_order(void) { return _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0); }

/* Through a general register: GCC 12 has been seen to spill a mask of 8 bits as one byte and to load
 * it as 8, seven of them of something else. */
static inline uint64_t fd_mask_bits(uint32_t mask)
{
    __asm__("" : "+r"(mask));
    return mask;
}

/* Zeros, unbeknown to the compiler. The forms of compress and expand that clear the lanes they do not
 * fill wait for what their register held before, on Zen 4 (1.4 ns each instead of 0.4, as every one
 * then waits for the one before); the forms that keep those lanes of a register of zeros do not. */
static inline __m512i fd_zeros(void)
{
    __m512i zeros = _mm512_setzero_si512();
    __asm__("" : "+v"(zeros));
    return zeros;
}

#define f32_element float
#define f32_lanes 16
typedef __m512 f32_vector;
static inline f32_vector f32_keep(f32_vector v, uint64_t bits)
{
    return _mm512_maskz_mov_ps((__mmask16)bits, v);
}
static inline void f32_store(float *p, f32_vector v) { _mm512_storeu_ps(p, v); }
static inline void f32_stream(float *p, f32_vector v) { _mm512_stream_ps(p, v); }

#define f64_element double
#define f64_lanes 8
typedef __m512d f64_vector;
static inline f64_vector f64_keep(f64_vector v, uint64_t bits)
{
    return _mm512_maskz_mov_pd((__mmask8)bits, v);
}
static inline void f64_store(double *p, f64_vector v) { _mm512_storeu_pd(p, v); }
static inline void f64_stream(double *p, f64_vector v) { _mm512_stream_pd(p, v); }

#define f16_element uint16_t
#define f16_lanes 16
typedef __m512 f16_vector; /* products, in float */
static inline f16_vector f16_load(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
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

#define bf16_element uint16_t
#define bf16_lanes 16
typedef __m512 bf16_vector; /* products, in float */
static inline bf16_vector bf16_load(const uint16_t *p)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline __m256i bf16_round(bf16_vector v)
{
    const __m512i bits = _mm512_castps_si512(v), high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i rounded = _mm512_srli_epi32(sum, 16);
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)));
}
static inline void bf16_store(uint16_t *p, bf16_vector v)
{
    _mm256_storeu_si256((__m256i *)p, bf16_round(v));
}
static inline void bf16_stream(uint16_t *p, bf16_vector v)
{
    _mm256_stream_si256((__m256i *)p, bf16_round(v));
}

/* For matrix products. */
#define FD_VECTOR_REGISTERS 32
#define FD_IN_REGISTER(v) __asm__("" : "+v"(v))

static inline f32_vector f32_load(const float *p) { return _mm512_loadu_ps(p); }
static inline f32_vector f32_one(float value) { return _mm512_set1_ps(value); }
static inline f32_vector f32_multiply(f32_vector a, f32_vector b) { return _mm512_mul_ps(a, b); }
static inline f32_vector f32_multiply_add(f32_vector a, f32_vector b, f32_vector c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline uint64_t f32_nonzero(f32_vector v)
{
    return fd_mask_bits(_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ));
}
static inline void f32_compress(float *p, f32_vector v, uint64_t bits)
{
    /* in a register first: the form that stores is slow on some cores */
    const __m512 none = _mm512_castsi512_ps(fd_zeros());
    _mm512_storeu_ps(p, _mm512_mask_compress_ps(none, (__mmask16)bits, v));
}
typedef __m512i f32_order;
static inline f32_order f32_order_of(const uint8_t *numbers)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)numbers));
}
static inline f32_vector f32_collect(const float *p, f32_order order)
{
    return _mm512_permutex2var_ps(_mm512_loadu_ps(p), order, _mm512_loadu_ps(p + 16));
}
static inline FD_ALWAYS_INLINE f32_vector f32_expand(const float *p, uint64_t bits)
{
    __m512 v = _mm512_loadu_ps(p);
    __asm__("" : "+v"(v)); /* the form that reads memory is slow there, too */
    return _mm512_mask_expand_ps(_mm512_castsi512_ps(fd_zeros()), (__mmask16)bits, v);
}

static inline void write_numbers(uint16_t *to, uint64_t word, int first, int unit)
{
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
    __m512i products = _mm512_mullo_epi32(numbers, _mm512_set1_epi32(unit));
    for (int part = 0; part < 64; part += 16) {
        const __mmask16 set = (__mmask16)(word >> part);
        const __m512i chosen = _mm512_mask_compress_epi32(fd_zeros(), set, products);
        _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(chosen));
        to += __builtin_popcount(set);
        products = _mm512_add_epi32(products, _mm512_set1_epi32(16 * unit));
    }
}

#define f32_transpose_depth 4
static inline __m512 f32_rows4(const float *p, int64_t stride)
{
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 4 * stride), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 8 * stride), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(p + 12 * stride), 3);
}
static inline void f32_transpose(const float *p, int64_t stride, float *to, int64_t to_stride)
{
    const __m512 r0 = f32_rows4(p, stride), r1 = f32_rows4(p + stride, stride);
    const __m512 r2 = f32_rows4(p + 2 * stride, stride), r3 = f32_rows4(p + 3 * stride, stride);
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
    _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
    _mm512_storeu_ps(to + to_stride, _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
    _mm512_storeu_ps(to + 2 * to_stride, _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
    _mm512_storeu_ps(to + 3 * to_stride, _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
}

static inline f64_vector f64_load(const double *p) { return _mm512_loadu_pd(p); }
static inline f64_vector f64_one(double value) { return _mm512_set1_pd(value); }
static inline f64_vector f64_multiply(f64_vector a, f64_vector b) { return _mm512_mul_pd(a, b); }
static inline f64_vector f64_multiply_add(f64_vector a, f64_vector b, f64_vector c)
{
    return _mm512_fmadd_pd(a, b, c);
}
static inline uint64_t f64_nonzero(f64_vector v)
{
    return fd_mask_bits(_mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NEQ_UQ));
}
static inline void f64_compress(double *p, f64_vector v, uint64_t bits)
{
    const __m512d none = _mm512_castsi512_pd(fd_zeros());
    _mm512_storeu_pd(p, _mm512_mask_compress_pd(none, (__mmask8)bits, v));
}
typedef __m512i f64_order;
static inline f64_order f64_order_of(const uint8_t *numbers)
{
    return _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)numbers));
}
static inline f64_vector f64_collect(const double *p, f64_order order)
{
    return _mm512_permutex2var_pd(_mm512_loadu_pd(p), order, _mm512_loadu_pd(p + 8));
}
static inline FD_ALWAYS_INLINE f64_vector f64_expand(const double *p, uint64_t bits)
{
    __m512d v = _mm512_loadu_pd(p);
    __asm__("" : "+v"(v));
    return _mm512_mask_expand_pd(_mm512_castsi512_pd(fd_zeros()), (__mmask8)bits, v);
}

#define f64_transpose_depth 2
static inline __m512d f64_rows2(const double *p, int64_t stride)
{
    __m512d v = _mm512_castpd128_pd512(_mm_loadu_pd(p));
    v = _mm512_insertf64x2(v, _mm_loadu_pd(p + 2 * stride), 1);
    v = _mm512_insertf64x2(v, _mm_loadu_pd(p + 4 * stride), 2);
    return _mm512_insertf64x2(v, _mm_loadu_pd(p + 6 * stride), 3);
}
static inline void f64_transpose(const double *p, int64_t stride, double *to, int64_t to_stride)
{
    const __m512d r0 = f64_rows2(p, stride), r1 = f64_rows2(p + stride, stride);
    _mm512_storeu_pd(to, _mm512_unpacklo_pd(r0, r1));
    _mm512_storeu_pd(to + to_stride, _mm512_unpackhi_pd(r0, r1));
}

static inline int fd_count_lanes(uint64_t bits) { return __builtin_popcountll(bits); }

static inline f32_vector f32_load_lanes(const float *p, uint64_t bits)
{
    return _mm512_maskz_loadu_ps((__mmask16)bits, p);
}
static inline f64_vector f64_load_lanes(const double *p, uint64_t bits)
{
    return _mm512_maskz_loadu_pd((__mmask8)bits, p);
}
static inline void f32_store_lanes(float *p, f32_vector v, uint64_t bits)
{
    _mm512_mask_storeu_ps(p, (__mmask16)bits, v);
}
static inline void f64_store_lanes(double *p, f64_vector v, uint64_t bits)
{
    _mm512_mask_storeu_pd(p, (__mmask8)bits, v);
}

/* For updates. */
static inline f32_vector f32_add(f32_vector a, f32_vector b) { return _mm512_add_ps(a, b); }
static inline f32_vector f32_subtract(f32_vector a, f32_vector b) { return _mm512_sub_ps(a, b); }
static inline f32_vector f32_divide(f32_vector a, f32_vector b) { return _mm512_div_ps(a, b); }
static inline f32_vector f32_root(f32_vector v) { return _mm512_sqrt_ps(v); }
static inline f32_vector f32_larger(f32_vector a, f32_vector b) { return _mm512_max_ps(a, b); }
static inline f32_vector f32_choose(f32_vector old, f32_vector new_one, uint64_t bits)
{
    return _mm512_mask_mov_ps(old, (__mmask16)bits, new_one);
}

static inline f64_vector f64_add(f64_vector a, f64_vector b) { return _mm512_add_pd(a, b); }
static inline f64_vector f64_subtract(f64_vector a, f64_vector b) { return _mm512_sub_pd(a, b); }
static inline f64_vector f64_divide(f64_vector a, f64_vector b) { return _mm512_div_pd(a, b); }
static inline f64_vector f64_root(f64_vector v) { return _mm512_sqrt_pd(v); }
static inline f64_vector f64_larger(f64_vector a, f64_vector b) { return _mm512_max_pd(a, b); }
static inline f64_vector f64_choose(f64_vector old, f64_vector new_one, uint64_t bits)
{
    return _mm512_mask_mov_pd(old, (__mmask8)bits, new_one);
}

/* For noise. */
typedef __m512i u32_vector; /* as many lanes as f32_vector */
static inline u32_vector u32_load(const uint32_t *p) { return _mm512_loadu_si512(p); }
static inline u32_vector u32_set(uint32_t value) { return _mm512_set1_epi32((int)value); }
static inline u32_vector u32_add(u32_vector a, u32_vector b) { return _mm512_add_epi32(a, b); }
static inline u32_vector u32_and(u32_vector a, u32_vector b) { return _mm512_and_si512(a, b); }
static inline u32_vector u32_or(u32_vector a, u32_vector b) { return _mm512_or_si512(a, b); }
static inline u32_vector u32_xor(u32_vector a, u32_vector b) { return _mm512_xor_si512(a, b); }
#define u32_left(v, by) _mm512_slli_epi32(v, by)
#define u32_right(v, by) _mm512_srli_epi32(v, by)
static inline f32_vector f32_of_signed(u32_vector v) { return _mm512_cvtepi32_ps(v); }
static inline f32_vector f32_of_bits(u32_vector v) { return _mm512_castsi512_ps(v); }
static inline u32_vector f32_bits(f32_vector v) { return _mm512_castps_si512(v); }
static inline f32_vector f32_where_negative(u32_vector v, f32_vector a, f32_vector b)
{
    return _mm512_mask_blend_ps(_mm512_movepi32_mask(v), b, a);
}
static inline f64_vector f64_widen(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }

static inline f64_vector f64_power_of_two(f64_vector v)
{
    const __m512d sum = _mm512_add_pd(v, _mm512_set1_pd(0x1.8p52 + 1023));
    return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(sum), 52));
}

static inline void fd_stream_fence(void) { _mm_sfence(); }
