/* isa_avx2.c: x86-64 with AVX2, FMA and F16C (2013 and later). */
#if defined(__x86_64__)
#include <immintrin.h>

#define FD_LEVEL avx2
#define FD_ISA_AVX2
#define FD_TARGET "avx2,fma,f16c,bmi,bmi2,popcnt"
#include "simd/target_begin.h"

#include "simd/kernels_body.h"

#include "simd/target_end.h"
#endif
typedef int fd_isa_avx2_is_not_empty;
