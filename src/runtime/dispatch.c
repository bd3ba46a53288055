/* dispatch.c: which instruction set. This file must run on every machine the package installs on,
 * so it is compiled for the baseline and refuses anything above it. */
#include "kernels.h"

#if defined(__AVX__)
#error "dispatch.c must be compiled for the baseline: remove -march flags from CFLAGS"
#endif

#include <stdatomic.h>

#if defined(__x86_64__)
#include <cpuid.h>

static int machine_has_avx2(void)
{
    unsigned eax, ebx, ecx, edx;
    __builtin_cpu_init();
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_F16C)) {
        return 0;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt");
}

static int machine_has_avx512(void)
{
    return machine_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

#if defined(__x86_64__) && defined(NDEBUG)
enum { STATE_LEAF = 13, XGETBV_1 = 4, YMM = 4, ZMM = 64 };

static int upper_halves(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return (low & (YMM | ZMM)) != 0;
}

int fd_upper_halves_in_use(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!machine_has_avx2() || !__get_cpuid_count(STATE_LEAF, 1, &eax, &ebx, &ecx, &edx) ||
        !(eax & XGETBV_1)) {
        return -1;
    }
    const int in_use = upper_halves();
    /* a processor may keep saying so although they are empty again */
    __asm__ volatile("vcmptrueps %%ymm0, %%ymm0, %%ymm0" : : : "xmm0");
    const int before = upper_halves();
    __asm__ volatile("vzeroupper" : : : "xmm0");
    return before && !upper_halves() ? in_use : -1;
}
#else /* without optimisation nobody clears them */
int fd_upper_halves_in_use(void)
{
    return -1;
}
#endif

static int always(void)
{
    return 1;
}

static const struct {
    const fd_kernels *kernels;
    int (*available)(void);
} levels[] = {
    {&fd_kernels_baseline, always},
#if defined(__x86_64__)
    {&fd_kernels_avx2, machine_has_avx2},
    {&fd_kernels_avx512, machine_has_avx512},
#elif defined(__aarch64__)
    {&fd_kernels_neon, always},
#endif
};

static _Atomic(const fd_kernels *) active = &fd_kernels_baseline;

const fd_kernels *fd_active_kernels(void)
{
    return atomic_load_explicit(&active, memory_order_relaxed);
}

int fd_level_count(void)
{
    return (int)(sizeof levels / sizeof levels[0]);
}

const char *fd_level_name(int level)
{
    return levels[level].kernels->name;
}

int fd_level_available(int level)
{
    return levels[level].available();
}

int fd_select_level(int level)
{
    if (level < 0 || level >= fd_level_count() || !levels[level].available()) {
        return -1;
    }
    active = levels[level].kernels;
    return 0;
}
