/* noise_runs.c: lines of tests/data/golden_noise.txt, and that arrays get the same numbers. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kernels.h"

#define MOST 1000

static const struct {
    fd_noise noise;
    uint64_t draw;
    int64_t first;
    uint32_t numbers[4];
} runs[] = {
    {FD_NORMAL, 0, 0, {0x3ca01db0, 0xbd8b2b94, 0xbff0ac83, 0x3f82246f}},
    {FD_NORMAL, 0, 62, {0x3d70e434, 0x3eb6ec27, 0xbf420136, 0xbef88d3d}},
    {FD_NORMAL, UINT64_C(1099511627779), 126, {0x3f0d9712, 0x401bf289, 0xbf5d929d, 0x3fc1bb43}},
    {FD_NORMAL,
     UINT64_C(72057594037927935),
     INT64_C(549755813886),
     {0x3f6a2351, 0xbf3de788, 0xbfea3704, 0xbeae3bdf}},
    {FD_UNIFORM, 0, 62, {0xbf147e03, 0xbed8af72, 0xbc0679f6, 0xbee9557a}},
};

int check_noise(void)
{
    int checked = 0;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++, checked++) {
        const fd_stream stream = {0xb0f478be, 0xdb2cd7e7, runs[i].draw};
        const int64_t shape = INT64_MAX, start = runs[i].first, stop = start + 4;
        float *numbers = wrong(FD_FLOAT32, 4);
        fd_draw_noise(&stream, runs[i].noise, 1, &shape, &start, &stop, numbers);
        compare(FD_FLOAT32, numbers, runs[i].numbers, 4, "noise");
        free(numbers);
    }
    /* of 1.0, and 1.0 + z / 2: the same numbers as those of a window */
    for (int64_t n = 1; n <= MOST; n = 3 * n - 1 + (n == 1), checked++) {
        const fd_stream stream = {1, 2, 3};
        const int64_t start = 0;
        float *z = wrong(FD_FLOAT32, n), *x = wrong(FD_FLOAT32, n);
        fd_draw_noise(&stream, FD_NORMAL, 1, &n, &start, &n, z);
        for (int64_t i = 0; i < n; i++) {
            x[i] = 1.0f;
            z[i] = 1.0f + 0.5f * z[i];
        }
        fd_apply_noise(&stream, FD_NORMAL, FD_FLOAT32, x, x, n, 0.5, 0);
        compare(FD_FLOAT32, x, z, n, "noise applied");
        free(z);
        free(x);
    }
    return checked;
}
