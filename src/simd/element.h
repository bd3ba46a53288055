/* element.h: one element of each type, and the product of it and the scale, the same on every instruction set.
 * R_wide is what an element is computed in. */
#ifndef FASTDROP_ELEMENT_H
#define FASTDROP_ELEMENT_H

#include "simd/half.h"

#define f16_wide float
#define bf16_wide float
#define f32_wide float
#define f64_wide double
static inline float f16_to_wide(uint16_t x) { return fd_float_from_half(x); }
static inline float bf16_to_wide(uint16_t x) { return fd_float_from_bfloat(x); }
static inline float f32_to_wide(float x) { return x; }
static inline double f64_to_wide(double x) { return x; }
static inline uint16_t f16_from_wide(float x) { return fd_half_from_float(x); }
static inline uint16_t bf16_from_wide(float x) { return fd_bfloat_from_float(x); }
static inline float f32_from_wide(float x) { return x; }
static inline double f64_from_wide(double x) { return x; }
/* A scale as the element type rounds it. */
static inline float f16_factor(double s) { return fd_float_from_half(fd_half_from_double(s)); }
static inline float bf16_factor(double s) { return fd_float_from_bfloat(fd_bfloat_from_double(s)); }
static inline float f32_factor(double s) { return (float)s; }
static inline double f64_factor(double s) { return s; }

/* Rounded once: the product of two halves is exact in float, and that of two bfloat16 unless it is below 2^-126 and
 * the scale below 2^-9. */
#define FD_DEFINE_PRODUCT_ONE(R, type)                                                             \
    static inline type R##_product_one(type x, double scale)                                       \
    {                                                                                              \
        return R##_from_wide(R##_to_wide(x) * R##_factor(scale));                                  \
    }
FD_DEFINE_PRODUCT_ONE(f16, uint16_t)
FD_DEFINE_PRODUCT_ONE(bf16, uint16_t)
FD_DEFINE_PRODUCT_ONE(f32, float)
FD_DEFINE_PRODUCT_ONE(f64, double)

#endif
