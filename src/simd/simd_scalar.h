/* simd_scalar.h: one lane, for machines without a vector unit we know. */
#define FD_WORD_LANES 1
typedef uint64_t fd_words;

static inline fd_words words_set(uint64_t value) { return value; }
static inline fd_words words_add(fd_words a, fd_words b) { return a + b; }
static inline fd_words words_and(fd_words a, fd_words b) { return a & b; }
static inline fd_words words_or(fd_words a, fd_words b) { return a | b; }
static inline fd_words words_andnot(fd_words a, fd_words b) { return a & ~b; }
static inline fd_words words_xor(fd_words a, fd_words b) { return a ^ b; }
static inline fd_words words_xor3(fd_words a, fd_words b, fd_words c) { return a ^ b ^ c; }
static inline fd_words words_multiply(fd_words a, fd_words b)
{
    return (a & 0xffffffffu) * (b & 0xffffffffu);
}
static inline fd_words words_high(fd_words a) { return a >> 32; }
static inline int words_any(fd_words a) { return a != 0; }
static inline fd_words words_pack(fd_words low, fd_words high)
{
    return (low & 0xffffffffu) | high << 32;
}
static inline fd_words words_lane_numbers(void) { return 0; }
static inline void words_store(uint8_t *to, fd_words a, fd_words b)
{
    memcpy(to, &a, 8);
    memcpy(to + 8, &b, 8);
}

static inline fd_words words_in_order(void) { return words_lane_numbers(); }

#define f32_element float
#define f32_lanes 1
typedef float f32_vector;
static inline f32_vector f32_keep(f32_vector v, uint64_t bits) { return bits & 1 ? v : 0.0f; }
static inline void f32_store(float *p, f32_vector v) { *p = v; }
static inline void f32_stream(float *p, f32_vector v) { *p = v; }

#define f64_element double
#define f64_lanes 1
typedef double f64_vector;
static inline f64_vector f64_keep(f64_vector v, uint64_t bits) { return bits & 1 ? v : 0.0; }
static inline void f64_store(double *p, f64_vector v) { *p = v; }
static inline void f64_stream(double *p, f64_vector v) { *p = v; }

#include "simd/simd_half_one.h"

#define bf16_element uint16_t
#define bf16_lanes 1
typedef float bf16_vector; /* the product, in float */
static inline bf16_vector bf16_load(const uint16_t *p) { return fd_float_from_bfloat(*p); }
static inline void bf16_store(uint16_t *p, bf16_vector v) { *p = fd_bfloat_from_float(v); }
static inline void bf16_stream(uint16_t *p, bf16_vector v) { bf16_store(p, v); }

/* For matrix products. */
#define FD_VECTOR_REGISTERS 16

static inline f32_vector f32_load(const float *p) { return *p; }
static inline f32_vector f32_one(float value) { return value; }
static inline f32_vector f32_multiply(f32_vector a, f32_vector b) { return a * b; }
static inline f32_vector f32_multiply_add(f32_vector a, f32_vector b, f32_vector c)
{
    return a * b + c;
}
static inline uint64_t f32_nonzero(f32_vector v) { return v != 0.0f; }
static inline f64_vector f64_load(const double *p) { return *p; }
static inline f64_vector f64_one(double value) { return value; }
static inline f64_vector f64_multiply(f64_vector a, f64_vector b) { return a * b; }
static inline f64_vector f64_multiply_add(f64_vector a, f64_vector b, f64_vector c)
{
    return a * b + c;
}
static inline uint64_t f64_nonzero(f64_vector v) { return v != 0.0; }

#include "simd/simd_compress.h"
FD_DEFINE_EXPAND(f32)
FD_DEFINE_EXPAND(f64)
static inline int fd_count_lanes(uint64_t bits) { return __builtin_popcountll(bits); }

/* For updates. */
static inline f32_vector f32_add(f32_vector a, f32_vector b) { return a + b; }
static inline f32_vector f32_subtract(f32_vector a, f32_vector b) { return a - b; }
static inline f32_vector f32_divide(f32_vector a, f32_vector b) { return a / b; }
static inline f32_vector f32_root(f32_vector v) { return __builtin_sqrtf(v); }
static inline f32_vector f32_larger(f32_vector a, f32_vector b) { return a > b ? a : b; }
static inline f32_vector f32_choose(f32_vector old, f32_vector new_one, uint64_t bits)
{
    return bits & 1 ? new_one : old;
}
static inline f64_vector f64_add(f64_vector a, f64_vector b) { return a + b; }
static inline f64_vector f64_subtract(f64_vector a, f64_vector b) { return a - b; }
static inline f64_vector f64_divide(f64_vector a, f64_vector b) { return a / b; }
static inline f64_vector f64_root(f64_vector v) { return __builtin_sqrt(v); }
static inline f64_vector f64_larger(f64_vector a, f64_vector b) { return a > b ? a : b; }
static inline f64_vector f64_choose(f64_vector old, f64_vector new_one, uint64_t bits)
{
    return bits & 1 ? new_one : old;
}

/* For noise. */
typedef uint32_t u32_vector;
static inline u32_vector u32_load(const uint32_t *p) { return *p; }
static inline u32_vector u32_set(uint32_t value) { return value; }
static inline u32_vector u32_add(u32_vector a, u32_vector b) { return a + b; }
static inline u32_vector u32_and(u32_vector a, u32_vector b) { return a & b; }
static inline u32_vector u32_or(u32_vector a, u32_vector b) { return a | b; }
static inline u32_vector u32_xor(u32_vector a, u32_vector b) { return a ^ b; }
#define u32_left(v, by) ((v) << (by))
#define u32_right(v, by) ((v) >> (by))
static inline f32_vector f32_of_signed(u32_vector v) { return (float)(int32_t)v; }
static inline f32_vector f32_of_bits(u32_vector v)
{
    f32_vector value;
    memcpy(&value, &v, 4);
    return value;
}
static inline u32_vector f32_bits(f32_vector v)
{
    u32_vector bits;
    memcpy(&bits, &v, 4);
    return bits;
}
static inline f32_vector f32_where_negative(u32_vector v, f32_vector a, f32_vector b)
{
    return v >> 31 ? a : b;
}
static inline f64_vector f64_widen(const float *p) { return *p; }

static inline f64_vector f64_power_of_two(f64_vector v)
{
    const double sum = v + (0x1.8p52 + 1023);
    uint64_t bits;
    memcpy(&bits, &sum, 8);
    bits <<= 52;
    memcpy(&v, &bits, 8);
    return v;
}

static inline void fd_stream_fence(void) {}
