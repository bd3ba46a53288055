/* packed.c: an operand, packed, that all threads of a product read.
 *
 * What one core packs another one has to fetch from its cache, line by line, and the next time the
 * first one has to claim the lines back before it can write: together several times what packing
 * takes. So a few threads had better all pack for themselves; many share the work. */
#include "matmul/packed.h"

#include <stdatomic.h>

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
