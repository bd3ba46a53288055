/* isa_baseline.c: what every machine of the architecture runs. */
#define FD_LEVEL baseline
#include "simd/kernels_body.h"
