/* cache.c: the sizes of a core's own caches of data, and of the last-level cache that it can fill. */
#include "runtime/cache.h"

#include <stdatomic.h>
#include <unistd.h>

#define UNKNOWN ((int64_t)32 << 20) /* a common size of a server core's share */
#define UNKNOWN_FIRST ((int64_t)32 << 10)
#define UNKNOWN_SECOND ((int64_t)512 << 10)

/* The largest last-level cache that one core can fill on Intel's processors: a desktop's. */
#define LARGEST_OF_FEW ((int64_t)40 << 20)
/* What a core keeps of a socket's, in second-level caches. Measured on a Xeon of 2023: there storing past the
 * caches and reading the result again takes less time from four to eight on. */
#define SECOND_LEVELS 4

enum { ANY_LEVEL = 0, FIRST_LEVEL = 1, SECOND_LEVEL = 2 };

#if defined(__x86_64__)
#include <cpuid.h>

enum { INSTRUCTIONS = 2 };

/* The largest cache in the deterministic cache parameters: leaf 4, on AMD leaf 0x8000001d, which
 * have the same layout; or the data cache of one level. (The C library's figure may add up all caches of
 * the machine.) */
static int64_t largest_of_leaf(unsigned leaf, unsigned level)
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
        if (level != ANY_LEVEL && ((eax & 31) == INSTRUCTIONS || (eax >> 5 & 7) != level)) {
            continue;
        }
        const int64_t line = (ebx & 0xfff) + 1, partitions = (ebx >> 12 & 0x3ff) + 1;
        const int64_t bytes = line * partitions * ((ebx >> 22) + 1) * ((int64_t)ecx + 1);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static int64_t largest_cache(unsigned level)
{
    const int64_t intel = largest_of_leaf(4, level), amd = largest_of_leaf(0x8000001du, level);
    return intel > amd ? intel : amd;
}
#elif defined(_SC_LEVEL3_CACHE_SIZE)
static int64_t largest_cache(unsigned level)
{
    const int64_t second = sysconf(_SC_LEVEL2_CACHE_SIZE), third = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return level == FIRST_LEVEL              ? sysconf(_SC_LEVEL1_DCACHE_SIZE)
           : level == ANY_LEVEL && third > 0 ? third
                                             : second;
}
#else
static int64_t largest_cache(unsigned level)
{
    (void)level;
    return 0;
}
#endif

static int64_t measure_first(void) { return largest_cache(FIRST_LEVEL); }

static int64_t measure_second(void) { return largest_cache(SECOND_LEVEL); }

static int64_t measure_last(void) { return largest_cache(ANY_LEVEL); }

/* AMD's leaf describes the cache of a complex of a few cores, any of which can fill it. The other one tells of
 * the cache of a whole socket, or in a virtual machine of its host's, with the number of the guest's cores: so
 * a large one is the sum of slices of unknown owners, in which a core keeps a few times its second level. */
static int64_t measure_core(void)
{
#if defined(__x86_64__)
    const int64_t complex_cache = largest_of_leaf(0x8000001du, ANY_LEVEL),
                  socket = largest_of_leaf(4, ANY_LEVEL);
    if (complex_cache < socket && socket > LARGEST_OF_FEW) {
        return SECOND_LEVELS * measure_second();
    }
#endif
    return measure_last();
}

/* Measures once. */
static int64_t look_up(_Atomic int64_t *known, int64_t (*measure)(void), int64_t unknown)
{
    int64_t bytes = *known;
    if (bytes == 0) {
        bytes = measure();
        bytes = bytes > 0 ? bytes : unknown;
        *known = bytes;
    }
    return bytes;
}

int64_t fd_last_level_cache_bytes(void)
{
    static _Atomic int64_t known = 0;
    return look_up(&known, measure_last, UNKNOWN);
}

static _Atomic int64_t of_core = 0;

int64_t fd_cache_of_core_bytes(void) { return look_up(&of_core, measure_core, UNKNOWN); }

void fd_assume_cache_of_core(int64_t bytes) { of_core = bytes; }

int64_t fd_second_level_cache_bytes(void)
{
    static _Atomic int64_t known = 0;
    return look_up(&known, measure_second, UNKNOWN_SECOND);
}

static _Atomic int64_t first_level = 0;

int64_t fd_first_level_cache_bytes(void)
{
    return look_up(&first_level, measure_first, UNKNOWN_FIRST);
}

void fd_assume_first_level_cache(int64_t bytes) { first_level = bytes; }
