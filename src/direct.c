/* direct.c: a product so small that packing w would take as long as multiplying.
 *
 * w lies in the L1 or L2 cache as it is: the compact multiplication takes it for a packed panel. Only x
 * is packed, and masked on the way. Where rows of w end within a vector, the rest of the vector is of
 * the next rows, whose products go to columns that nobody looks at; the last rows, behind which w ends, are
 * copied. One thread: the whole product takes less time than it takes to wake a second. */
#include <string.h>

#include "fastdrop.h"
#include "packed.h"

/* Bytes of w, which all groups of rows read, in a cache, or which one reads; and multiply-adds, of which a
 * second thread could take its share. */
#define MOST_BYTES (1 << 16)
#define MOST_BYTES_ONCE (1 << 20)
#define MOST_PRODUCTS (1 << 20)
/* Columns below which packing a row of x takes longer than multiplying it, and rows that do not matter. */
#define LEAST_COLUMNS 8
#define FEW_ENOUGH 128

int fd_direct_fits(fd_dtype dtype, int64_t rows, int64_t depth, int64_t columns)
{
    const int64_t most = rows == 3 || rows == 4 ? MOST_BYTES_ONCE : MOST_BYTES;
    return rows >= 2 && depth > 0 && columns > 0 && (columns >= LEAST_COLUMNS || rows <= FEW_ENOUGH) &&
           depth <= most && columns <= most && depth * columns * fd_element_bytes(dtype) <= most &&
           rows <= MOST_PRODUCTS / (depth * columns);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A block of depth of a product: `groups` groups of rows of x, packed, and rows of w, `whole` of which are
 * followed by a vector's rest. */
typedef struct {
    const char *packed, *w;
    int64_t groups, depth, whole;
    int clear;
} direct_block;

/* Adds a block's products to sums that are whole vectors wide. `last` has room for the rows that are not
 * whole. */
static void multiply_block(fd_dtype dtype, const direct_block *b, int64_t columns, char *sums, char *last)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(dtype), lanes = k->lanes[dtype];
    const int64_t vectors = (columns + lanes - 1) / lanes, rest = b->depth - b->whole;
    compact_ahead none = {.rows = 0};
    compact_strips strips = {b->w, vectors, columns, FD_COMPACT_STRIP * lanes};
    k->compact_multiply[dtype](b->packed, b->groups, b->whole, &strips, sums, vectors * lanes, b->clear,
                               &none);
    if (rest > 0) {
        const int64_t row_bytes = vectors * lanes * size;
        memset(last, 0, (size_t)(rest * row_bytes));
        for (int64_t i = 0; i < rest; i++) {
            memcpy(last + i * row_bytes, b->w + (b->whole + i) * columns * size, (size_t)(columns * size));
        }
        strips.data = last;
        strips.stride = vectors * lanes;
        k->compact_multiply[dtype](b->packed + b->whole * size, b->groups, rest, &strips, sums,
                                   vectors * lanes, 0, &none);
    }
}

/* `rows` rows from row `row` on; returns 0, or -1 without memory. */
static int multiply_rows(fd_dtype dtype, const direct_operands *c, int64_t row, int64_t rows, char *out)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(dtype), lanes = k->lanes[dtype], unit = k->compact_rows;
    const int64_t groups = (rows + unit - 1) / unit;
    const int64_t wide = (c->columns + lanes - 1) / lanes * lanes; /* of the sums */
    const int64_t row_bytes = wide * size, result_bytes = c->columns * size;
    const int64_t group_bytes = unit * (FD_COMPACT_DEPTH + lanes) * size;
    /* Groups whose sums can be where the result is. */
    const int64_t in_place = wide == c->columns ? rows / unit : 0, done = in_place * unit;
    const int64_t sums_bytes = (groups - in_place) * unit * row_bytes;
    /* Rows of w behind which there is less than the rest of a vector. */
    const int64_t last_rows = (wide - 1) / c->columns;
    const int64_t whole_rows = c->x.depth > last_rows ? c->x.depth - last_rows : 0;
    const int64_t bytes = groups * group_bytes + sums_bytes + last_rows * row_bytes + 1;
    char *packed = fd_workspace(FD_SLOT_PANEL, (size_t)bytes);
    if (packed == NULL) {
        return -1;
    }
    char *sums = packed + groups * group_bytes, *last = sums + sums_bytes;
    for (int64_t first = 0; first < c->x.depth; first += FD_COMPACT_DEPTH) {
        const int64_t depth = smaller(c->x.depth - first, FD_COMPACT_DEPTH);
        const int64_t whole = whole_rows > first ? smaller(whole_rows - first, depth) : 0;
        direct_block block = {packed, (const char *)c->w + first * result_bytes, in_place, depth, whole,
                              first == 0};
        for (int64_t g = 0; g < groups; g++) {
            fd_pack_masked_rows(dtype, &c->x, row + g * unit, smaller(rows - g * unit, unit), first,
                                depth, packed + g * group_bytes);
        }
        multiply_block(dtype, &block, c->columns, out, last);
        block.packed += in_place * group_bytes;
        block.groups = groups - in_place;
        multiply_block(dtype, &block, c->columns, sums, last);
    }
    for (int64_t i = done; i < rows; i++) {
        memcpy(out + i * result_bytes, sums + (i - done) * row_bytes, (size_t)result_bytes);
    }
    return 0;
}

int fd_direct_matmul(fd_dtype dtype, const direct_operands *c, void *out)
{
    const int64_t result_bytes = c->columns * fd_element_bytes(dtype);
    for (int64_t row = 0; row < c->rows; row += FD_BLOCK_ROWS) {
        const int64_t rows = smaller(c->rows - row, FD_BLOCK_ROWS);
        if (multiply_rows(dtype, c, row, rows, (char *)out + row * result_bytes) != 0) {
            return -1;
        }
    }
    return fd_all_finite(dtype, out, c->rows * c->columns);
}
