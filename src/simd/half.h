/* half.h: IEEE 754 binary16 and bfloat16, bit by bit, for machines without conversion instructions. */
#ifndef FASTDROP_HALF_H
#define FASTDROP_HALF_H

#include <stdint.h>
#include <string.h>

static inline float fd_float_from_half(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t magnitude = half & 0x7fffu;
    uint32_t bits;
    float value;
    if (magnitude >= 0x7c00u) { /* infinity, or NaN made quiet */
        bits = sign | 0x7f800000u | magnitude << 13;
        if (magnitude > 0x7c00u) {
            bits |= 0x00400000u;
        }
    } else if (magnitude >= 0x0400u) {
        bits = sign | ((magnitude << 13) + ((127u - 15u) << 23));
    } else { /* zero or subnormal: magnitude * 2^-24, exact */
        value = (float)magnitude * 0x1p-24f;
        memcpy(&bits, &value, 4);
        bits |= sign;
    }
    memcpy(&value, &bits, 4);
    return value;
}

/* Rounds to nearest, ties to even. */
static inline uint16_t fd_half_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
    }
    if (magnitude >= 0x477ff000u) { /* 65520 and above */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (magnitude < 0x38800000u) { /* below 2^-14: a multiple of 2^-24, rounded by the adder */
        float absolute;
        memcpy(&absolute, &magnitude, 4);
        absolute += 0.5f;
        memcpy(&bits, &absolute, 4);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    const uint32_t odd = magnitude >> 13 & 1u;
    return (uint16_t)(sign | (magnitude + 0xfffu + odd - ((127u - 15u) << 23)) >> 13);
}

/* To float by rounding to odd, which no later rounding to fewer bits can see. */
static inline float fd_float_to_odd(double value)
{
    float narrow = (float)value;
    if ((double)narrow != value && value == value && narrow - narrow == 0.0f) {
        uint32_t bits;
        memcpy(&bits, &narrow, 4);
        const double absolute = value < 0 ? -value : value;
        const double rounded = narrow < 0 ? -(double)narrow : (double)narrow;
        if (rounded > absolute) {
            bits -= 1; /* towards zero */
        }
        bits |= 1;
        memcpy(&narrow, &bits, 4);
    }
    return narrow;
}

static inline uint16_t fd_half_from_double(double value)
{
    return fd_half_from_float(fd_float_to_odd(value));
}

/* A bfloat16 is the upper half of a float. */
static inline float fd_float_from_bfloat(uint16_t bfloat)
{
    const uint32_t bits = (uint32_t)bfloat << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Rounds to nearest, ties to even; a NaN keeps its upper half and becomes quiet. */
static inline uint16_t fd_bfloat_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline uint16_t fd_bfloat_from_double(double value)
{
    return fd_bfloat_from_float(fd_float_to_odd(value));
}

#endif
