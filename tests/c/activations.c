/* activations.c: kernels of activations and of their gradients' sums, on numbers whose results are
 * exact; see values.c. */
#include <inttypes.h>
#include <stdlib.h>

#include "runtime/bits.h"
#include "check.h"
#include "fastdrop.h"

/* ReLU, mask and a scale of 2. */
static int check_rectify(fd_dtype dtype, int64_t n)
{
    void *x = numbers(dtype, n, 15), *expected = numbers(dtype, n, 15);
    uint8_t *bits = draw_bits(n, 15), *gate = filled_bytes((size_t)(n + 7) / 8, 0xa5);
    int64_t passing = 0;
    for (int64_t i = 0; i < n; i++) {
        const int passes = fd_test_bit(bits, i) && get(dtype, x, i) > 0;
        set(dtype, expected, i, passes ? 2 * get(dtype, x, i) : 0);
        passing += passes;
    }
    const int64_t count = fd_rectify(dtype, x, n, bits, 2, gate);
    compare(dtype, x, expected, n, "ReLU");
    if (count != passing) {
        fail("%" PRId64 " elements pass a ReLU instead of %" PRId64, count, passing);
    }
    for (int64_t i = 0; i < n; i++) {
        if (fd_test_bit(gate, i) != (get(dtype, x, i) != 0)) {
            fail("bit %" PRId64 " of %" PRId64 " of a ReLU's gate is wrong", i, n);
        }
    }
    free(x);
    free(expected);
    free(bits);
    free(gate);
    return 1;
}

/* Sums of columns, of all elements or of what groups of eight rows keep. */
static int check_sums(fd_dtype dtype, int64_t rows, int64_t columns, int masked)
{
    void *x = numbers(dtype, rows * columns, 16);
    void *sums = wrong(dtype, columns), *expected = wrong(dtype, columns);
    uint8_t *bits = draw_bits(rows * columns, 16);
    for (int64_t j = 0; j < columns; j++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++) {
            if (!masked || fd_test_bit(bits, i / 8 * columns + j)) {
                sum += get(dtype, x, i * columns + j);
            }
        }
        set(dtype, expected, j, 0.5 * sum);
    }
    const fd_row_mask mask = {masked ? bits : NULL, 8, 0.5, -1};
    fd_masked_sums(dtype, x, columns, rows, columns, &mask, sums);
    compare(dtype, sums, expected, columns, "sums");
    free(x);
    free(sums);
    free(expected);
    free(bits);
    return 1;
}

int check_activations(fd_dtype dtype, int64_t rows, int64_t columns)
{
    return check_rectify(dtype, rows * columns) + check_sums(dtype, rows, columns, 0) +
           check_sums(dtype, rows, columns, 1);
}
