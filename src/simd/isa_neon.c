/* isa_neon.c: aarch64 Advanced SIMD. */
#if defined(__aarch64__)
#define FD_LEVEL neon
#define FD_ISA_NEON
#include "simd/kernels_body.h"
#endif
typedef int fd_isa_neon_is_not_empty;
