/* affine_one.h: the affine function of one element, and what it and the residual sum read of one, the same on
 * every instruction set. R_wide is what an element is computed in. */
#ifndef FASTDROP_AFFINE_ONE_H
#define FASTDROP_AFFINE_ONE_H

#include "fastdrop.h"
#include "simd/element.h"

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
/* A scale as the element type rounds it: what the gradient is multiplied by, too. */
static inline float f16_factor(double s) { return fd_float_from_half(fd_half_from_double(s)); }
static inline float bf16_factor(double s) { return fd_float_from_bfloat(fd_bfloat_from_double(s)); }
static inline float f32_factor(double s) { return (float)s; }
static inline double f64_factor(double s) { return s; }

/* The sum of the value and a zero, as the vectors have it: no result is -0.0. */
#define DEFINE_AFFINE_ONE(R, type)                                                          \
    static inline type R##_affine_one(type x, const fd_affine *affine, int kept)            \
    {                                                                                       \
        const R##_wide zero = 0, dropped = (R##_wide)affine->dropped;                       \
        const R##_wide product = R##_to_wide(x) * (R##_wide)affine->scale;                    \
        const R##_wide sum = product + (R##_wide)affine->shift;                             \
        return R##_from_wide(kept ? sum + zero : zero + dropped);                              \
    }

DEFINE_AFFINE_ONE(f16, uint16_t)
DEFINE_AFFINE_ONE(bf16, uint16_t)
DEFINE_AFFINE_ONE(f32, float)
DEFINE_AFFINE_ONE(f64, double)

#endif
