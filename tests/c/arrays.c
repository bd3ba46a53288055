/* arrays.c: arrays of small whole numbers, of float32 and float64; and how a check fails. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kernels.h"

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s, %d threads: ", fd_active_kernels()->name, fd_get_num_threads());
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void *filled_bytes(size_t bytes, int fill)
{
    void *memory = malloc(bytes ? bytes : 1);
    if (memory == NULL) {
        fail("no memory for %zu bytes", bytes);
    }
    return memset(memory, fill, bytes);
}

double get(fd_dtype dtype, const void *x, int64_t i)
{
    return dtype == FD_FLOAT32 ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

void set(fd_dtype dtype, void *x, int64_t i, double value)
{
    if (dtype == FD_FLOAT32) {
        ((float *)x)[i] = (float)value;
    } else {
        ((double *)x)[i] = value;
    }
}

void *numbers(fd_dtype dtype, int64_t n, uint32_t seed)
{
    void *x = filled_bytes((size_t)(n * fd_element_bytes(dtype)), 0);
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        set(dtype, x, i, (double)(seed >> 16) / 65536 < 0.4 ? 0 : (double)((seed >> 8) % 17) - 8);
    }
    return x;
}

uint8_t *draw_bits(int64_t n, uint64_t draw)
{
    const fd_stream stream = {0xb0f478beu, 0xdb2cd7e7u, draw};
    const int64_t start = 0;
    uint8_t *bits = filled_bytes((size_t)(n + 7) / 8, 0);
    fd_draw_bernoulli(&stream, UINT64_C(0x9000000000000000), 0, 1, &n, &start, &n, bits);
    return bits;
}

void *wrong(fd_dtype dtype, int64_t n)
{
    return filled_bytes((size_t)(n * fd_element_bytes(dtype)), 0xa5);
}

void compare(fd_dtype dtype, const void *actual, const void *expected, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        if (memcmp((const char *)actual + i * fd_element_bytes(dtype),
                   (const char *)expected + i * fd_element_bytes(dtype),
                   (size_t)fd_element_bytes(dtype)) != 0) {
            fail("%s, type %d: element %" PRId64 " of %" PRId64 " is %g instead of %g", what,
                 (int)dtype, i, n, get(dtype, actual, i), get(dtype, expected, i));
        }
    }
}
