/* packed.c: an operand, packed, that all threads of a product read.
 *
 * What one core packs another one has to fetch from its cache, line by line, and the next time the
 * first one has to claim the lines back before it can write: together several times what packing
 * takes. So a few threads had better all pack for themselves; many share the work. */
#include "packed.h"

#include <stdatomic.h>
#include <string.h>

#include "fastdrop.h"

/* Most threads that each pack for themselves. */
#define MOST_OWN 4

static _Atomic uint64_t latest;
static _Thread_local uint64_t held; /* number of the operand in this thread's memory */

static void pack_part(const void *context, int64_t part)
{
    const packed_operand *operand = context;
    operand->pack(operand->context, part, operand->shared);
}

int fd_pack_operand(packed_operand *operand, int threads, int packers)
{
    operand->number = ++latest;
    operand->shared = NULL;
    if (threads > 1 && threads <= MOST_OWN) {
        return 0;
    }
    held = 0;
    operand->shared = fd_workspace(FD_SLOT_LISTS, operand->bytes);
    if (operand->shared == NULL) {
        return -1;
    }
    fd_parallel(packers, operand->parts, pack_part, operand);
    return 0;
}

char *fd_packed(const packed_operand *operand)
{
    if (operand->shared) {
        return operand->shared;
    }
    char *own = fd_workspace(FD_SLOT_LISTS, operand->bytes);
    if (own != NULL && held != operand->number) {
        for (int64_t part = 0; part < operand->parts; part++) {
            operand->pack(operand->context, part, own);
        }
        held = operand->number;
    }
    return own;
}

void fd_pack_masked_rows(fd_dtype dtype, const masked_rows *x, int64_t row, int64_t rows, int64_t first,
                         int64_t depth, char *packed)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(dtype);
    const int64_t row_bytes = (FD_COMPACT_DEPTH + k->lanes[dtype]) * size;
    for (int64_t i = 0; i < rows; i++) {
        const char *from = (const char *)x->x + ((row + i) * x->stride + first) * size;
        const int64_t bit = (row + i) / x->rows_per_mask * x->depth + first;
        k->apply_bits[dtype](from, packed + i * row_bytes, depth, x->bits, bit, x->scale, 0);
    }
    for (int64_t i = rows; i < k->compact_rows; i++) {
        memset(packed + i * row_bytes, 0, (size_t)row_bytes);
    }
}
