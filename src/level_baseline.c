/* level_baseline.c: what every machine of the architecture runs. */
#define FD_LEVEL baseline
#include "kernels_body.h"
