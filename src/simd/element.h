/* element.h: the product of one element and the scale, the same on every instruction set. */
#ifndef FASTDROP_ELEMENT_H
#define FASTDROP_ELEMENT_H

#include "simd/half.h"

static inline double f64_product_one(double x, double scale)
{
    return x * scale;
}

static inline float f32_product_one(float x, double scale)
{
    return x * (float)scale;
}

/* The product of two halves is exact in float, so it is rounded once. */
static inline uint16_t f16_product_one(uint16_t x, double scale)
{
    return fd_half_from_float(fd_float_from_half(x) *
                              fd_float_from_half(fd_half_from_double(scale)));
}

/* The same of two bfloat16, exact in float unless it is below 2^-126 and the scale below 2^-9. */
static inline uint16_t bf16_product_one(uint16_t x, double scale)
{
    return fd_bfloat_from_float(fd_float_from_bfloat(x) *
                                fd_float_from_bfloat(fd_bfloat_from_double(scale)));
}

#endif
