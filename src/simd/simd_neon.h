/* simd_neon.h: aarch64 Advanced SIMD. There are no non-temporal vector stores worth having. */
#include <arm_neon.h>

#define FD_WORD_LANES 2
typedef uint64x2_t fd_words;

static inline fd_words words_set(uint64_t value) { return vdupq_n_u64(value); }
static inline fd_words words_add(fd_words a, fd_words b) { return vaddq_u64(a, b); }
static inline fd_words words_and(fd_words a, fd_words b) { return vandq_u64(a, b); }
static inline fd_words words_or(fd_words a, fd_words b) { return vorrq_u64(a, b); }
static inline fd_words words_andnot(fd_words a, fd_words b) { return vbicq_u64(a, b); }
static inline fd_words words_xor(fd_words a, fd_words b) { return veorq_u64(a, b); }
static inline fd_words words_multiply(fd_words a, fd_words b)
{
    return vmull_u32(vmovn_u64(a), vmovn_u64(b));
}
static inline fd_words words_high(fd_words a) { return vshrq_n_u64(a, 32); }
static inline int words_any(fd_words a) { return vmaxvq_u32(vreinterpretq_u32_u64(a)) != 0; }

static inline fd_words words_xor3(fd_words a, fd_words b, fd_words c)
{
    return veorq_u64(veorq_u64(a, b), c);
}

static inline fd_words words_pack(fd_words low, fd_words high)
{
    return vreinterpretq_u64_u32(
        vtrn1q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)));
}

static inline fd_words words_lane_numbers(void)
{
    return vcombine_u64(vcreate_u64(0), vcreate_u64(1));
}

static inline void words_store(uint8_t *to, fd_words a, fd_words b)
{
    vst1q_u8(to, vreinterpretq_u8_u64(vzip1q_u64(a, b)));
    vst1q_u8(to + 16, vreinterpretq_u8_u64(vzip2q_u64(a, b)));
}

static inline fd_words words_in_order(void) { return words_lane_numbers(); }

#define f32_element float
#define f32_lanes 4
typedef float32x4_t f32_vector;
static const uint32_t f32_bits_of_lanes[4] = {1, 2, 4, 8};
static inline uint32x4_t f32_lanes_of(uint64_t bits)
{
    return vtstq_u32(vdupq_n_u32((uint32_t)bits), vld1q_u32(f32_bits_of_lanes));
}
static inline f32_vector f32_keep(f32_vector v, uint64_t bits)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), f32_lanes_of(bits)));
}
static inline void f32_store(float *p, f32_vector v) { vst1q_f32(p, v); }
static inline void f32_stream(float *p, f32_vector v) { vst1q_f32(p, v); }

#define f64_element double
#define f64_lanes 2
typedef float64x2_t f64_vector;
static const uint64_t f64_bits_of_lanes[2] = {1, 2};
static inline uint64x2_t f64_lanes_of(uint64_t bits)
{
    return vtstq_u64(vdupq_n_u64(bits), vld1q_u64(f64_bits_of_lanes));
}
static inline f64_vector f64_keep(f64_vector v, uint64_t bits)
{
    return vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(v), f64_lanes_of(bits)));
}
static inline void f64_store(double *p, f64_vector v) { vst1q_f64(p, v); }
static inline void f64_stream(double *p, f64_vector v) { vst1q_f64(p, v); }

#define f16_element uint16_t
#define f16_lanes 4
typedef float32x4_t f16_vector; /* products, in float */
static inline f16_vector f16_load(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline void f16_store(uint16_t *p, f16_vector v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
static inline void f16_stream(uint16_t *p, f16_vector v) { f16_store(p, v); }

#define bf16_element uint16_t
#define bf16_lanes 4
typedef float32x4_t bf16_vector; /* products, in float */
static inline bf16_vector bf16_load(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline void bf16_store(uint16_t *p, bf16_vector v)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(v), high = vshrq_n_u32(bits, 16);
    const uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1));
    const uint32x4_t sum = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(high, vdupq_n_u32(0x40));
    vst1_u16(p, vmovn_u32(vbslq_u32(vceqq_f32(v, v), vshrq_n_u32(sum, 16), quiet)));
}
static inline void bf16_stream(uint16_t *p, bf16_vector v) { bf16_store(p, v); }

/* For matrix products. */
#define FD_VECTOR_REGISTERS 32
#define FD_IN_REGISTER(v) __asm__("" : "+w"(v))

static inline f32_vector f32_load(const float *p) { return vld1q_f32(p); }
static inline f32_vector f32_one(float value) { return vdupq_n_f32(value); }
static inline f32_vector f32_multiply(f32_vector a, f32_vector b) { return vmulq_f32(a, b); }
static inline f32_vector f32_multiply_add(f32_vector a, f32_vector b, f32_vector c)
{
    return vfmaq_f32(c, a, b);
}
static inline uint64_t f32_nonzero(f32_vector v)
{
    return 15 & ~(uint64_t)vaddvq_u32(vandq_u32(vceqzq_f32(v), vld1q_u32(f32_bits_of_lanes)));
}
static inline f64_vector f64_load(const double *p) { return vld1q_f64(p); }
static inline f64_vector f64_one(double value) { return vdupq_n_f64(value); }
static inline f64_vector f64_multiply(f64_vector a, f64_vector b) { return vmulq_f64(a, b); }
static inline f64_vector f64_multiply_add(f64_vector a, f64_vector b, f64_vector c)
{
    return vfmaq_f64(c, a, b);
}
static inline uint64_t f64_nonzero(f64_vector v)
{
    return 3 & ~vaddvq_u64(vandq_u64(vceqzq_f64(v), vld1q_u64(f64_bits_of_lanes)));
}

#include "simd/simd_compress.h"
FD_DEFINE_EXPAND(f32)
FD_DEFINE_EXPAND(f64)
static inline int fd_count_lanes(uint64_t bits) { return __builtin_popcountll(bits); }

/* For updates. */
static inline f32_vector f32_add(f32_vector a, f32_vector b) { return vaddq_f32(a, b); }
static inline f32_vector f32_subtract(f32_vector a, f32_vector b) { return vsubq_f32(a, b); }
static inline f32_vector f32_divide(f32_vector a, f32_vector b) { return vdivq_f32(a, b); }
static inline f32_vector f32_root(f32_vector v) { return vsqrtq_f32(v); }
static inline f32_vector f32_larger(f32_vector a, f32_vector b) { return vmaxq_f32(a, b); }
static inline f32_vector f32_choose(f32_vector old, f32_vector new_one, uint64_t bits)
{
    return vbslq_f32(f32_lanes_of(bits), new_one, old);
}
static inline f64_vector f64_add(f64_vector a, f64_vector b) { return vaddq_f64(a, b); }
static inline f64_vector f64_subtract(f64_vector a, f64_vector b) { return vsubq_f64(a, b); }
static inline f64_vector f64_divide(f64_vector a, f64_vector b) { return vdivq_f64(a, b); }
static inline f64_vector f64_root(f64_vector v) { return vsqrtq_f64(v); }
static inline f64_vector f64_larger(f64_vector a, f64_vector b) { return vmaxq_f64(a, b); }
static inline f64_vector f64_choose(f64_vector old, f64_vector new_one, uint64_t bits)
{
    return vbslq_f64(f64_lanes_of(bits), new_one, old);
}

/* For noise. */
typedef uint32x4_t u32_vector; /* as many lanes as f32_vector */
static inline u32_vector u32_load(const uint32_t *p) { return vld1q_u32(p); }
static inline u32_vector u32_set(uint32_t value) { return vdupq_n_u32(value); }
static inline u32_vector u32_add(u32_vector a, u32_vector b) { return vaddq_u32(a, b); }
static inline u32_vector u32_and(u32_vector a, u32_vector b) { return vandq_u32(a, b); }
static inline u32_vector u32_or(u32_vector a, u32_vector b) { return vorrq_u32(a, b); }
static inline u32_vector u32_xor(u32_vector a, u32_vector b) { return veorq_u32(a, b); }
#define u32_left(v, by) vshlq_n_u32(v, by)
#define u32_right(v, by) vshrq_n_u32(v, by)
static inline f32_vector f32_of_signed(u32_vector v)
{
    return vcvtq_f32_s32(vreinterpretq_s32_u32(v));
}
static inline f32_vector f32_of_bits(u32_vector v) { return vreinterpretq_f32_u32(v); }
static inline u32_vector f32_bits(f32_vector v) { return vreinterpretq_u32_f32(v); }
static inline f32_vector f32_where_negative(u32_vector v, f32_vector a, f32_vector b)
{
    return vbslq_f32(vcltzq_s32(vreinterpretq_s32_u32(v)), a, b);
}
static inline f64_vector f64_widen(const float *p) { return vcvt_f64_f32(vld1_f32(p)); }

static inline f64_vector f64_power_of_two(f64_vector v)
{
    const float64x2_t sum = vaddq_f64(v, vdupq_n_f64(0x1.8p52 + 1023));
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(sum), 52));
}

static inline void fd_stream_fence(void) {}
