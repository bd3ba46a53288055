/* integers.h: arithmetic of sizes and places. */
#ifndef FASTDROP_INTEGERS_H
#define FASTDROP_INTEGERS_H

#include <stdint.h>

static inline int64_t fd_smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t fd_larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* a / b, rounded up; a + b may be out of range. */
static inline int64_t fd_divide_up(int64_t a, int64_t b) { return a / b + (a % b != 0); }

#endif
