/* direct.c: a product so small that packing w would take as long as multiplying.
 *
 * w lies in the L1 or L2 cache as it is: the compact multiplication takes it for a packed panel. Only x
 * is packed, and masked on the way. Where rows of w end within a vector, the rest of the vector is of
 * the next row, whose products go to columns that nobody looks at; the last row is copied. One thread:
 * the whole product takes less time than it takes to wake a second. */
#include <string.h>

#include "fastdrop.h"
#include "packed.h"

/* Rows from which on a group of rows of x is not mostly empty; bytes of w, which all groups read; and
 * multiply-adds, of which a second thread could take its share. */
#define LEAST_ROWS 4
#define MOST_BYTES (1 << 16)
#define MOST_PRODUCTS (1 << 20)

int fd_direct_fits(fd_dtype dtype, int64_t rows, int64_t depth, int64_t columns)
{
    return rows >= LEAST_ROWS && depth > 0 && columns >= fd_active_kernels()->lanes[dtype] &&
           depth <= MOST_BYTES && columns <= MOST_BYTES &&
           depth * columns * fd_element_bytes(dtype) <= MOST_BYTES &&
           rows <= MOST_PRODUCTS / (depth * columns);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A block of depth of a product: `groups` groups of rows of x, packed, and rows of w. */
typedef struct {
    const char *packed, *w;
    int64_t groups, depth;
    int clear;
} direct_block;

/* Adds a block's products to sums that are whole vectors wide. With `last`, a row's worth of room, its
 * last row is w's last. */
static void multiply_block(fd_dtype dtype, const direct_block *b, int64_t columns, char *sums, char *last)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(dtype), lanes = k->lanes[dtype];
    const int64_t vectors = (columns + lanes - 1) / lanes, depth = b->depth - (last != NULL);
    compact_ahead none = {.rows = 0};
    compact_strips strips = {b->w, vectors, columns, FD_COMPACT_STRIP * lanes};
    k->compact_multiply[dtype](b->packed, b->groups, depth, &strips, sums, vectors * lanes, b->clear,
                               &none);
    if (last) {
        memcpy(last, b->w + depth * columns * size, (size_t)(columns * size));
        strips.data = last;
        k->compact_multiply[dtype](b->packed + depth * size, b->groups, 1, &strips, sums,
                                   vectors * lanes, 0, &none);
    }
}

int fd_direct_matmul(fd_dtype dtype, const direct_operands *c, void *out)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(dtype), lanes = k->lanes[dtype], unit = k->compact_rows;
    const int64_t groups = (c->rows + unit - 1) / unit;
    const int64_t wide = (c->columns + lanes - 1) / lanes * lanes; /* of the sums */
    const int64_t row_bytes = wide * size;
    const int64_t group_bytes = unit * (FD_COMPACT_DEPTH + lanes) * size;
    /* Groups whose sums can be where the result is. */
    const int64_t whole = wide == c->columns ? c->rows / unit : 0, done = whole * unit;
    const int64_t sums_bytes = (groups - whole) * unit * row_bytes;
    char *packed = fd_workspace(FD_SLOT_PANEL, (size_t)(groups * group_bytes + sums_bytes + row_bytes));
    if (packed == NULL) {
        return -1;
    }
    char *sums = packed + groups * group_bytes, *last = sums + sums_bytes;
    for (int64_t first = 0; first < c->x.depth; first += FD_COMPACT_DEPTH) {
        const int64_t depth = smaller(c->x.depth - first, FD_COMPACT_DEPTH);
        const int ends = wide > c->columns && first + depth == c->x.depth;
        direct_block block = {packed, (const char *)c->w + first * c->columns * size, whole, depth,
                              first == 0};
        for (int64_t g = 0; g < groups; g++) {
            fd_pack_masked_rows(dtype, &c->x, g * unit, smaller(c->rows - g * unit, unit), first, depth,
                                packed + g * group_bytes);
        }
        multiply_block(dtype, &block, c->columns, out, NULL);
        block.packed += whole * group_bytes;
        block.groups = groups - whole;
        multiply_block(dtype, &block, c->columns, sums, ends ? last : NULL);
    }
    for (int64_t i = done; i < c->rows; i++) {
        memcpy((char *)out + i * c->columns * size, sums + (i - done) * row_bytes,
               (size_t)(c->columns * size));
    }
    return fd_all_finite(dtype, out, c->rows * c->columns);
}
