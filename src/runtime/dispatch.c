/* dispatch.c: which instruction set. This file must run on every machine the package installs on,
 * so it is compiled for the baseline and refuses anything above it. */
#include "kernels.h"

#if defined(__AVX__)
#error "dispatch.c must be compiled for the baseline: remove -march flags from CFLAGS"
#endif

/* The flags are those of every other file. gcc tells of each by a macro, clang of the first two. */
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) ||           \
    defined(__NO_SIGNED_ZEROS__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "fast-math would change results: remove -Ofast, -ffast-math and the like from CFLAGS"
#endif

#include <stdatomic.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* The processor is asked directly: __builtin_cpu_supports is the compiler's run-time library, and the
 * one that `zig cc` links says no to everything. */
enum { FEATURES = 1, MORE_FEATURES = 7 };

/* leaf 1, register ecx */
#define FMA (1u << 12)
#define POPCNT (1u << 23)
#define OSXSAVE (1u << 27) /* XGETBV may be executed */
#define AVX (1u << 28)
#define F16C (1u << 29)
/* leaf 7, subleaf 0, register ebx */
#define BMI1 (1u << 3)
#define AVX2 (1u << 5)
#define BMI2 (1u << 8)
#define AVX512F (1u << 16)
#define AVX512DQ (1u << 17)
#define AVX512BW (1u << 30)
#define AVX512VL (1u << 31)
/* XCR0: the registers that the operating system saves and restores */
#define SAVED_YMM 0x06u /* xmm and the upper halves of ymm */
#if defined(__APPLE__)
#define SAVED_ZMM                                                                                  \
    SAVED_YMM /* macOS saves the others from the first instruction that needs them on */
#else
#define SAVED_ZMM 0xe6u /* these, the mask registers, the upper halves of zmm, zmm16 to zmm31 */
#endif

/* Extended control register `number`, the lower half. */
static unsigned xgetbv(unsigned number)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(number));
    return low;
}

/* Whether the processor has all these features, and the operating system saves their registers. */
static int machine_has(unsigned leaf_1_ecx, unsigned leaf_7_ebx, unsigned saved)
{
    unsigned eax, ebx, ecx, edx;
    leaf_1_ecx |= OSXSAVE;
    if (!__get_cpuid(FEATURES, &eax, &ebx, &ecx, &edx) || (ecx & leaf_1_ecx) != leaf_1_ecx) {
        return 0;
    }
    if (!__get_cpuid_count(MORE_FEATURES, 0, &eax, &ebx, &ecx, &edx) ||
        (ebx & leaf_7_ebx) != leaf_7_ebx) {
        return 0;
    }
    return (xgetbv(0) & saved) == saved;
}

/* The features of FD_TARGET in simd/isa_avx2.c and simd/isa_avx512.c. */
static int machine_has_avx2(void)
{
    return machine_has(AVX | FMA | F16C | POPCNT, AVX2 | BMI1 | BMI2, SAVED_YMM);
}

static int machine_has_avx512(void)
{
    return machine_has_avx2() &&
           machine_has(AVX, AVX512F | AVX512BW | AVX512DQ | AVX512VL, SAVED_ZMM);
}
#endif

#if defined(__x86_64__) && defined(NDEBUG)
enum { STATE_LEAF = 13, XGETBV_1 = 4, YMM = 4, ZMM = 64 };

static int upper_halves(void) { return (xgetbv(1) & (YMM | ZMM)) != 0; }

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
int fd_upper_halves_in_use(void) { return -1; }
#endif

static int always(void) { return 1; }

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

int fd_level_count(void) { return (int)(sizeof levels / sizeof levels[0]); }

const char *fd_level_name(int level) { return levels[level].kernels->name; }

int fd_level_available(int level) { return levels[level].available(); }

int fd_select_level(int level)
{
    if (level < 0 || level >= fd_level_count() || !levels[level].available()) {
        return -1;
    }
    active = levels[level].kernels;
    return 0;
}
