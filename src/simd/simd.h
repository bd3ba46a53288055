/* simd.h: the few vector operations the kernel bodies are written in.
 *
 * One header per instruction set defines the same names. A source file sets FD_SIMD_HEADER through
 * its instruction set, includes this, then the bodies.
 *
 *   FD_WORD_LANES          64-bit lanes of a fd_words vector
 *   fd_words               a vector of 64-bit lanes; Philox words live in the low halves
 *   words_set(u64), words_and/or/andnot(a, b) (andnot: a & ~b), words_any(a)
 *   words_xor(a, b), words_xor3(a, b, c)
 *   words_multiply(a, b)   low 32 bits times low 32 bits, 64-bit product; upper halves ignored
 *   words_high(a)          a >> 32
 *   words_pack(low, high)  low's low halves below, high's low halves above
 *   words_lane_numbers()   which block (or digit) of a group each lane holds, so that
 *   words_store(p, a, b)   stores packed pairs (words 0 1 in a, 2 3 in b) as FD_WORD_LANES
 *                          consecutive 16-byte blocks
 *   words_add(a, b), words_in_order()   0, 1, 2, ... from the lowest lane in memory on
 *
 * and for R in f16, bf16, f32, f64 (R_element: the C type, R_lanes per vector, R_vector):
 *   R_splat(double scale)  scale as the element type
 *   R_product(p, s)        load, times s
 *   R_keep(v, u64 bits)    lane i if bit i of bits, else +0.0 (higher bits are ignored)
 *   R_store(p, v), R_stream(p, v)   any alignment; aligned to sizeof(vector), non-temporal
 *   fd_stream_fence()
 *
 * and for R in f32, f64, for the matrix products:
 *   FD_VECTOR_REGISTERS
 *   FD_IN_REGISTER(v)      the vector v is loaded once, not where it is used (a hint)
 *   R_load(p), R_one(element), R_multiply(a, b)
 *   R_multiply_add(a, b, c)   a * b + c, fused where there is an fma
 *   R_nonzero(v)           bit i: lane i is not zero (NaN is not)
 *   R_compress(p, v, bits) lanes of set bits side by side from p on; p[0 .. lanes) is overwritten
 *   write_numbers(p, u64, first, unit)   first and the numbers of the set bits, times unit, side by side,
 *                          as u16 from p on; up to 16 more may be overwritten
 *   R_expand(p, bits)      the reverse: lane i is the next element of p if bit i is set, else 0;
 *                          p[0 .. lanes) must be readable
 *   R_order, R_order_of(u8 *)   numbers of lanes of two vectors, 0 to 2 * lanes - 1, made ready for:
 *   R_collect(p, order)    lane i is p[number i]; p[0 .. 2 * lanes) must be readable
 *   R_load_lanes(p, bits)   those lanes whose bit is set, from p; +0.0 in the others, unread
 *   R_store_lanes(p, v, bits)   those lanes of v whose bit is set, to p; the rest stays, unread
 *   fd_count_lanes(bits)   how many bits are set; none above those of a vector's lanes
 *   R_transpose(p, stride, to, to_stride)   to[d * to_stride + i] = p[i * stride + d]
 *                          for i < R_lanes, d < R_transpose_depth
 *
 * and for R in f32, f64, for updates:
 *   R_add(a, b), R_subtract(a, b), R_divide(a, b), R_root(v)   rounded once each, never fused
 *   R_choose(old, new_one, bits)   lane i of new_one if bit i of bits, else of old, bit for bit
 *   R_larger(a, b)                    of numbers, not NaN
 *
 * and for noise:
 *   u32_vector             as many lanes as f32_vector: u32_load(p), u32_set(u32), u32_add/and/or/xor(a, b),
 *                          u32_left(v, by), u32_right(v, by) by a constant
 *   f32_of_signed(u32)     signed integers, rounded to nearest, ties to even
 *   f32_of_bits(u32), f32_bits(f32)   the same bits
 *   f32_where_negative(u32, a, b)     lane i of a where the sign bit of lane i is set, else of b
 *   f64_widen(float *)     f64_lanes floats as doubles
 *   f16_widen(u16 *, float *), f16_narrow(float *, u16 *)   f16_lanes elements, rounded to nearest
 * and for R in f16, bf16, f32, f64:
 *   R_constant(double)     rounded to the vector's own lanes, which of the half types are float32
 *   R_add(a, b), R_multiply(a, b)
 *   R_add_to(p, v)         p[i] += lane i, of float32 for the half types
 *
 * and for R in f32, f64, for exponentials:
 *   R_power_of_two(v)      2^v of integers v from the smallest exponent - 1, where it is 0, to the largest
 *
 * (R_product_one, for one element, is in element.h.)
 */
#ifndef FASTDROP_SIMD_H
#define FASTDROP_SIMD_H

#include <stdint.h>
#include <string.h>

#include "simd/element.h"

#if defined(FD_ISA_AVX512)
#include "simd/simd_avx512.h"
#elif defined(FD_ISA_AVX2)
#include "simd/simd_avx2.h"
#elif defined(FD_ISA_NEON)
#include "simd/simd_neon.h"
#elif defined(__SSE2__)
#include "simd/simd_sse2.h"
#else
#include "simd/simd_scalar.h"
#endif
#if !defined(FD_ISA_AVX512) && !defined(FD_ISA_AVX2)
#include "simd/simd_some_lanes.h"
#endif

/* What is the same on every instruction set. */
static inline f32_vector f32_splat(double s) { return f32_one((float)s); }
static inline f64_vector f64_splat(double s) { return f64_one(s); }

#define FD_DEFINE_SINGLE_AND_DOUBLE(R)                                                             \
    static inline R##_vector R##_product(const R##_element *p, R##_vector s)                       \
    {                                                                                              \
        return R##_multiply(R##_load(p), s);                                                       \
    }                                                                                              \
    static inline R##_vector R##_constant(double value) { return R##_splat(value); }               \
    static inline void R##_add_to(R##_element *p, R##_vector v)                                    \
    {                                                                                              \
        R##_store(p, R##_add(R##_load(p), v));                                                     \
    }
FD_DEFINE_SINGLE_AND_DOUBLE(f32)
FD_DEFINE_SINGLE_AND_DOUBLE(f64)

/* The half types: vectors of float32, whose operations begin with V. */
#define FD_DEFINE_HALF(R, V)                                                                       \
    static inline R##_vector R##_multiply(R##_vector a, R##_vector b)                              \
    {                                                                                              \
        return V##_multiply(a, b);                                                                 \
    }                                                                                              \
    static inline R##_vector R##_add(R##_vector a, R##_vector b) { return V##_add(a, b); }         \
    static inline R##_vector R##_keep(R##_vector v, uint64_t bits) { return V##_keep(v, bits); }   \
    static inline R##_vector R##_constant(double value) { return V##_one((float)value); }          \
    static inline R##_vector R##_splat(double s) { return V##_one(R##_factor(s)); }                \
    static inline R##_vector R##_product(const uint16_t *p, R##_vector s)                          \
    {                                                                                              \
        return V##_multiply(R##_load(p), s);                                                       \
    }                                                                                              \
    static inline void R##_add_to(float *p, R##_vector v)                                          \
    {                                                                                              \
        V##_store(p, V##_add(V##_load(p), v));                                                     \
    }                                                                                              \
    static inline void R##_widen(const uint16_t *p, float *to) { V##_store(to, R##_load(p)); }     \
    static inline void R##_narrow(const float *p, uint16_t *to) { R##_store(to, V##_load(p)); }
FD_DEFINE_HALF(bf16, f32)
#if f16_lanes == f32_lanes
FD_DEFINE_HALF(f16, f32)
#else
static inline float one_one(float value) { return value; }
static inline float one_load(const float *p) { return *p; }
static inline void one_store(float *p, float v) { *p = v; }
static inline float one_keep(float v, uint64_t bits) { return bits & 1 ? v : 0.0f; }
static inline float one_add(float a, float b) { return a + b; }
static inline float one_multiply(float a, float b) { return a * b; }
FD_DEFINE_HALF(f16, one)
#endif

/* 2^v: the integer v, in the low bits of a sum whose exponent is known, moved to the exponent. */
static inline f32_vector f32_power_of_two(f32_vector v)
{
    return f32_of_bits(u32_left(f32_bits(f32_add(v, f32_one(0x1.8p23f + 127))), 23));
}

#if !defined(FD_IN_REGISTER)
#define FD_IN_REGISTER(v) ((void)(v))
#endif

#endif
