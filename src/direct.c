/* direct.c: a product so small that packing w would take as long as multiplying.
 *
 * w lies in the L1 or L2 cache as it is, in rows of whole vectors: the compact multiplication takes it
 * for a packed panel. Only x is packed, and masked on the way. One thread: the whole product takes
 * less time than it takes to wake a second. */
#include <string.h>

#include "fastdrop.h"
#include "packed.h"

/* Rows from which on a group of rows of x is not mostly empty, and those up to which packing would not
 * pay; bytes of w, which all groups read. */
#define LEAST_ROWS 4
#define MOST_ROWS 32
#define MOST_BYTES (1 << 16)

int fd_direct_fits(fd_dtype dtype, int64_t rows, int64_t depth, int64_t columns)
{
    return rows >= LEAST_ROWS && rows <= MOST_ROWS && depth > 0 && columns > 0 &&
           columns % fd_active_kernels()->lanes[dtype] == 0 &&
           depth * columns * fd_element_bytes(dtype) <= MOST_BYTES;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int fd_direct_matmul(fd_dtype dtype, const direct_operands *c, void *out)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(dtype), rows = c->rows;
    const int64_t groups = (rows + k->compact_rows - 1) / k->compact_rows;
    const int64_t whole = rows / k->compact_rows, left = rows - whole * k->compact_rows;
    const int64_t vectors = c->columns / k->lanes[dtype];
    const int64_t group_bytes = k->compact_rows * (FD_COMPACT_DEPTH + k->lanes[dtype]) * size;
    const int64_t tile_bytes = k->compact_rows * c->columns * size;
    char *packed = fd_workspace(FD_SLOT_PANEL, (size_t)(groups * group_bytes + tile_bytes));
    if (packed == NULL) {
        return -1;
    }
    char *tile = packed + groups * group_bytes; /* of a last group that is not whole */
    char *rest = (char *)out + whole * tile_bytes;
    for (int64_t block = 0; block * FD_COMPACT_DEPTH < c->x.depth; block++) {
        const int64_t first = block * FD_COMPACT_DEPTH;
        const int64_t depth = smaller(c->x.depth - first, FD_COMPACT_DEPTH);
        const char *w = (const char *)c->w + first * c->columns * size;
        compact_ahead none = {.rows = 0};
        for (int64_t g = 0; g < groups; g++) {
            const int64_t row = g * k->compact_rows;
            fd_pack_masked_rows(dtype, &c->x, row, smaller(rows - row, k->compact_rows), first, depth,
                                packed + g * group_bytes);
        }
        k->compact_multiply[dtype](packed, whole, depth, w, c->columns, vectors, out, c->columns,
                                   block == 0, &none);
        if (left > 0) {
            k->compact_multiply[dtype](packed + whole * group_bytes, 1, depth, w, c->columns, vectors,
                                       tile, c->columns, block == 0, &none);
        }
    }
    memcpy(rest, tile, (size_t)(left * c->columns * size));
    return fd_all_finite(dtype, out, rows * c->columns);
}
