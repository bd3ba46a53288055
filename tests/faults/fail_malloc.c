/* fail_malloc.c: an allocator, to be preloaded, of which one chosen call fails.
 *
 * fail_malloc_arm(n, of_ours, least) makes the n-th allocation from now on return NULL: of those that
 * fastdrop's compiled module asks for (of_ours), or of all, of at least `least` bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_long left = -1;
static int only_ours;
static size_t least_bytes;

void fail_malloc_arm(long n, int of_ours, size_t least)
{
    only_ours = of_ours;
    least_bytes = least;
    left = n;
}

/* Allocations still to come before the one that fails; negative after it. */
long fail_malloc_left(void)
{
    return left;
}

static int fails(size_t bytes, void *caller)
{
    Dl_info info;
    if (left < 0 || bytes < least_bytes) {
        return 0;
    }
    if (!dladdr(caller, &info) || strstr(info.dli_fname, "openblas") ||
        strstr(info.dli_fname, "ld-linux") ||
        (only_ours && !strstr(info.dli_fname, "fastdrop/_kernels"))) {
        /* These end the process when they have no memory: OpenBLAS, and the dynamic linker, which
         * allocates the thread-local data of NumPy. */
        return 0;
    }
    if (atomic_fetch_sub(&left, 1) != 0) {
        return 0;
    }
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t bytes)
{
    return fails(bytes, __builtin_return_address(0)) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return fails(count * bytes, __builtin_return_address(0)) ? NULL : __libc_calloc(count, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return fails(bytes, __builtin_return_address(0)) ? NULL : __libc_memalign(alignment, bytes);
}
