/* level_avx2.c: x86-64 with AVX2, FMA and F16C (2013 and later). */
#if defined(__x86_64__)
#include <immintrin.h> /* before the target: its own functions carry their own */

#define FD_LEVEL avx2
#define FD_ISA_AVX2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt")
#endif
#include "kernels_body.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
typedef int fd_level_avx2_is_not_empty;
