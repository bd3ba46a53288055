/* isa_avx512.c: x86-64 with AVX-512 F, BW, DQ and VL. */
#if defined(__x86_64__)
#include <immintrin.h>

#define FD_LEVEL avx512
#define FD_ISA_AVX512
#define FD_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2,popcnt"
#include "simd/target_begin.h"

#include "simd/kernels_body.h"

#include "simd/target_end.h"
#endif
typedef int fd_isa_avx512_is_not_empty;
