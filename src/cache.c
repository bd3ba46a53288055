/* cache.c: the size of the last-level cache that one core can fill. */
#include "fastdrop.h"

#include <stdatomic.h>
#include <unistd.h>

#define UNKNOWN ((int64_t)32 << 20) /* a common size of a server core's share */

#if defined(__x86_64__)
#include <cpuid.h>

/* The largest cache in the deterministic cache parameters: leaf 4, on AMD leaf 0x8000001d, which
 * have the same layout. (The C library's figure may add up all caches of the machine.) */
static int64_t largest_cache(unsigned leaf)
{
    unsigned eax, ebx, ecx, edx;
    int64_t largest = 0;
    if ((unsigned)__get_cpuid_max(leaf & 0x80000000u, NULL) < leaf) {
        return 0;
    }
    for (unsigned index = 0; index < 8; index++) {
        __cpuid_count(leaf, index, eax, ebx, ecx, edx);
        if ((eax & 31) == 0) {
            break;
        }
        const int64_t line = (ebx & 0xfff) + 1, partitions = (ebx >> 12 & 0x3ff) + 1;
        const int64_t bytes = line * partitions * ((ebx >> 22) + 1) * ((int64_t)ecx + 1);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static int64_t measure(void)
{
    const int64_t intel = largest_cache(4), amd = largest_cache(0x8000001du);
    return intel > amd ? intel : amd;
}
#elif defined(_SC_LEVEL3_CACHE_SIZE)
static int64_t measure(void)
{
    const int64_t third = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return third > 0 ? third : sysconf(_SC_LEVEL2_CACHE_SIZE);
}
#else
static int64_t measure(void)
{
    return 0;
}
#endif

int64_t fd_last_level_cache_bytes(void)
{
    static _Atomic int64_t known = 0;
    int64_t bytes = known;
    if (bytes == 0) {
        bytes = measure();
        bytes = bytes > 0 ? bytes : UNKNOWN;
        known = bytes;
    }
    return bytes;
}
