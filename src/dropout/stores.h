/* stores.h: how the family's passes over an array are cut into tasks, and how they store. */
#ifndef FASTDROP_STORES_H
#define FASTDROP_STORES_H

#include "kernels.h"
#include "runtime/cache.h"

/* Elements of one task along the innermost axis: a multiple of 128, and enough that the fence
 * behind streaming stores does not matter. */
#define FD_DROPOUT_TASK (1 << 16)
/* What a thread must have to do to be worth waking: about 10 microseconds of work. */
#define FD_DROPOUT_MINIMUM (1 << 17)

/* Streaming stores save reading what is overwritten, but put the result into memory: worth it only
 * where it would not have stayed in the cache, and not in place: there the lines are read anyway. */
static inline fd_stores fd_best_stores(const void *x, const void *out, int64_t bytes)
{
    if (x == out || bytes <= fd_cache_of_core_bytes()) {
        return FD_STORES_CACHED;
    }
    return fd_cache_of_core_bytes() < fd_last_level_cache_bytes() ? FD_STORES_STREAMED_AHEAD
                                                                  : FD_STORES_STREAMED;
}

#endif
