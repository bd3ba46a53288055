/* golden.c: the masks of tests/data/golden_masks.txt, whose header explains the columns. */
#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/bits.h"
#include "check.h"
#include "fastdrop.h"
#include "simd/half.h"

#define LONGEST_LINE 4096

typedef struct {
    int exact, keep_all;
    fd_stream stream;
    uint64_t parameter; /* threshold below 2^64, or elements to keep */
    int dimensions;
    int64_t shape[FD_MAX_DIMENSIONS], starts[FD_MAX_DIMENSIONS], stops[FD_MAX_DIMENSIONS];
    int64_t kept, size; /* of the window */
    const char *bits;   /* hexadecimal, or "crc32=" and one */
} golden_mask;

static int read_numbers(const char *text, int64_t *numbers)
{
    int count = 0;
    while (*text && *text != '-') {
        char *end;
        numbers[count++] = strtoll(text, &end, 10);
        text = *end == ',' ? end + 1 : end;
    }
    return count;
}

/* Reads one line, which it cuts up. */
static golden_mask read_mask(char *line)
{
    char *fields[10], *rest;
    for (int i = 0; i < 10; i++) {
        fields[i] = strtok_r(i ? NULL : line, " \n", &rest);
        if (fields[i] == NULL) {
            fail("a line of golden masks with %d columns", i);
        }
    }
    golden_mask mask = {.exact = strcmp(fields[0], "exact") == 0, .size = 1, .bits = fields[9]};
    mask.stream.key0 = (uint32_t)strtoul(fields[1], NULL, 16);
    mask.stream.key1 = (uint32_t)strtoul(fields[2], NULL, 16);
    mask.stream.draw = strtoull(fields[3], NULL, 10);
    /* 17 digits: the first one is 2^64. */
    mask.keep_all = !mask.exact && fields[4][0] == '1';
    mask.parameter = strtoull(fields[4] + !mask.exact, NULL, mask.exact ? 10 : 16);
    mask.dimensions = read_numbers(fields[5], mask.shape);
    read_numbers(fields[6], mask.starts);
    read_numbers(fields[7], mask.stops);
    mask.kept = strtoll(fields[8], NULL, 10);
    for (int axis = 0; axis < mask.dimensions; axis++) {
        mask.size *= mask.stops[axis] - mask.starts[axis];
    }
    return mask;
}

/* The one of zlib and PNG. */
static uint32_t crc32_of(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

static void check_bits(const golden_mask *mask, const uint8_t *bits, const char *what)
{
    const size_t bytes = (size_t)(mask->size + 7) / 8;
    int64_t kept = 0;
    for (size_t i = 0; i < bytes; i++) {
        kept += __builtin_popcount(bits[i]);
    }
    if (kept != mask->kept) {
        fail("%s of draw %" PRIu64 " keeps %" PRId64 " elements instead of %" PRId64, what,
             mask->stream.draw, kept, mask->kept);
    }
    if (strncmp(mask->bits, "crc32=", 6) == 0) {
        if (crc32_of(bits, bytes) != strtoul(mask->bits + 6, NULL, 16)) {
            fail("%s of draw %" PRIu64 " has another checksum than %s", what, mask->stream.draw,
                 mask->bits);
        }
        return;
    }
    for (size_t i = 0; i < bytes; i++) {
        unsigned expected;
        if (sscanf(mask->bits + 2 * i, "%2x", &expected) != 1 || expected != bits[i]) {
            fail("%s of draw %" PRIu64 ": byte %zu is %02x, the mask is %s", what,
                 mask->stream.draw, i, bits[i], mask->bits);
        }
    }
}

/* A number that every type but bfloat16, which rounds it and twice it alike, has exactly, also twice it. */
static double number(int64_t i) { return (double)(i % 1000 - 500); }

static void store_number(fd_dtype dtype, void *x, int64_t i, double value)
{
    switch (dtype) {
    case FD_FLOAT16:
        ((uint16_t *)x)[i] = fd_half_from_double(value);
        break;
    case FD_BFLOAT16:
        ((uint16_t *)x)[i] = fd_bfloat_from_double(value);
        break;
    case FD_FLOAT32:
        ((float *)x)[i] = (float)value;
        break;
    default:
        ((double *)x)[i] = value;
    }
}

/* Draws and applies the whole mask in one pass, then applies it again. */
static void check_dropout(const golden_mask *mask, fd_dtype dtype)
{
    const int64_t n = mask->size, size = fd_element_bytes(dtype), bit_stride = 1;
    const size_t bytes = (size_t)(n * size);
    void *x = filled_bytes(bytes, 0), *expected = filled_bytes(bytes, 0);
    void *out = filled_bytes(bytes, 0xa5);
    uint8_t *bits = filled_bytes((size_t)(n + 7) / 8, 0xa5);
    for (int64_t i = 0; i < n; i++) {
        store_number(dtype, x, i, number(i));
    }
    fd_dropout_forward(&mask->stream, mask->parameter, mask->keep_all, dtype, x, out, n, 2, bits);
    check_bits(mask, bits, "the mask of dropout");
    for (int64_t i = 0; i < n; i++) {
        store_number(dtype, expected, i, fd_test_bit(bits, i) ? 2 * number(i) : 0);
    }
    if (memcmp(out, expected, bytes) != 0) {
        fail("dropout of %" PRId64 " elements of type %d has wrong values", n, (int)dtype);
    }
    memset(out, 0xa5, bytes);
    fd_apply_mask(dtype, 1, &n, x, &size, out, &size, bits, &bit_stride, 1, 2);
    if (memcmp(out, expected, bytes) != 0) {
        fail("a mask of %" PRId64 " elements on type %d has wrong values", n, (int)dtype);
    }
    free(x);
    free(expected);
    free(out);
    free(bits);
}

static void draw_mask(const golden_mask *mask)
{
    uint8_t *bits = filled_bytes((size_t)(mask->size + 7) / 8, 0xff);
    if (!mask->exact) {
        fd_draw_bernoulli(&mask->stream, mask->parameter, mask->keep_all, mask->dimensions,
                          mask->shape, mask->starts, mask->stops, bits);
    } else if (fd_draw_exact_count(&mask->stream, (int64_t)mask->parameter, mask->dimensions,
                                   mask->shape, mask->starts, mask->stops, bits) != 0) {
        fail("no memory for a mask of exact counts");
    }
    check_bits(mask, bits, "the mask");
    free(bits);
}

int check_golden_masks(const char *path, int64_t largest)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fail("cannot open %s", path);
    }
    char line[LONGEST_LINE];
    int masks = 0;
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || line[0] == '\n') {
            continue;
        }
        const golden_mask mask = read_mask(line);
        if (mask.size > largest) {
            continue;
        }
        draw_mask(&mask);
        masks++;
        int whole = !mask.exact;
        for (int axis = 0; axis < mask.dimensions; axis++) {
            whole &= mask.starts[axis] == 0 && mask.stops[axis] == mask.shape[axis];
        }
        for (int dtype = FD_FLOAT16; whole && dtype < FD_DROPOUT_DTYPES; dtype++) {
            check_dropout(&mask, (fd_dtype)dtype);
        }
    }
    fclose(file);
    return masks;
}
