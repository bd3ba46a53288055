/* affine_one.h: the affine function of one element, the same on every instruction set. */
#ifndef FASTDROP_AFFINE_ONE_H
#define FASTDROP_AFFINE_ONE_H

#include "fastdrop.h"
#include "simd/element.h"

/* The sum of the value and a zero, as the vectors have it: no result is -0.0. */
#define DEFINE_AFFINE_ONE(R, type)                                                                 \
    static inline type R##_affine_one(type x, const fd_affine *affine, int kept)                   \
    {                                                                                              \
        const R##_wide zero = 0, dropped = (R##_wide)affine->dropped;                              \
        const R##_wide product = R##_to_wide(x) * (R##_wide)affine->scale;                         \
        const R##_wide sum = product + (R##_wide)affine->shift;                                    \
        return R##_from_wide(kept ? sum + zero : zero + dropped);                                  \
    }

DEFINE_AFFINE_ONE(f16, uint16_t)
DEFINE_AFFINE_ONE(bf16, uint16_t)
DEFINE_AFFINE_ONE(f32, float)
DEFINE_AFFINE_ONE(f64, double)

#endif
