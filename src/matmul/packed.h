/* packed.h: an operand, packed, that all threads of a product read; and what is prefetched meanwhile. */
#ifndef FASTDROP_PACKED_H
#define FASTDROP_PACKED_H

#include <stddef.h>
#include <stdint.h>

#include "fastdrop.h"
#include "matmul/gemm.h"
#include "runtime/integers.h"

/* Packs part `part` of the operand; `packed` is where the operand begins. */
typedef void (*fd_pack)(const void *context, int64_t part, char *packed);

typedef struct {
    fd_pack pack;
    const void *context;
    int64_t parts;
    size_t bytes;
    char *shared;    /* packed once for all threads; NULL: each thread has its own */
    uint64_t number; /* of the operand, of all that there ever were */
} packed_operand;

/* Packs the operand for `threads` threads, itself on up to `packers` of them. Returns 0, or -1
 * without memory. */
int fd_pack_operand(packed_operand *operand, int threads, int packers);

/* The operand as the calling thread may read it, NULL without memory; packed now if need be. */
char *fd_packed(const packed_operand *operand);

/* Spreads what is prefetched over `turns` turns of FD_PREFETCH_STEPS steps; where there are fewer turns than rows, the
 * last rows are left out. */
static inline void fd_prefetch_in(next_panel *next, int64_t turns)
{
    const int64_t each = next->rows > 0 && turns > next->rows ? turns / next->rows : 1;
    next->share = fd_divide_up(next->row_bytes, each);
}

#endif
