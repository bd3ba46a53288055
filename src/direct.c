/* direct.c: a product for which w need not be packed.
 *
 * w lies in the L1 or L2 cache as it is: the compact multiplication takes it for a packed panel. Only x
 * is packed, and masked on the way. Where rows of w end within a vector, the rest of the vector is of
 * the next rows, whose products go to columns that nobody looks at; the last rows, behind which w ends, are
 * copied. Threads share the rows of x. */
#include <stdatomic.h>
#include <string.h>

#include "fastdrop.h"
#include "integers.h"
#include "packed.h"

/* What a thread must have to do to be worth waking. */
#define MINIMUM_PRODUCTS (1 << 19)

int fd_direct_fits(fd_dtype dtype, int64_t rows, int64_t depth, int64_t columns)
{
    const int64_t bytes = fd_second_level_cache_bytes() / 2;
    return rows > 0 && depth > 0 && columns > 0 && depth <= bytes && columns <= bytes &&
           depth * columns * fd_element_bytes(dtype) <= bytes;
}

/* Groups of packed rows of x, `rows` in the last one, and a block of depth of w. `whole` of its rows are
 * followed by the rest of a vector. */
typedef struct {
    fd_dtype dtype;
    const char *packed, *w;
    int64_t groups, rows, depth, whole, columns;
    int clear;
    char *last; /* room for the rows that are not whole */
} direct_block;

/* The packed rows from element `first` on by rows of w. */
static void multiply_strips(const direct_block *b, int64_t first, int64_t depth,
                            const compact_strips *strips, char *sums, int64_t stride, int clear)
{
    const fd_kernels *k = fd_active_kernels();
    const char *packed = b->packed + first * fd_element_bytes(b->dtype);
    compact_ahead none = {.rows = 0};
    if (b->groups == 1 && b->rows <= k->compact_rows - 2) {
        k->multiply_few[b->dtype](packed, b->rows, depth, strips, sums, stride, clear);
    } else {
        k->compact_multiply[b->dtype](packed, b->groups, depth, strips, sums, stride, clear, &none);
    }
}

/* Adds products of `vectors` vectors of columns from column `first` on to sums. */
static void multiply_columns(const direct_block *b, int64_t first, int64_t vectors, char *sums,
                             int64_t stride)
{
    const int64_t size = fd_element_bytes(b->dtype), lanes = fd_active_kernels()->lanes[b->dtype];
    const int inside = first + vectors * lanes <= b->columns;
    const int64_t whole = inside ? b->depth : b->whole, rest = b->depth - whole;
    const char *w = b->w + first * size;
    compact_strips strips = {w, vectors, b->columns, FD_COMPACT_STRIP * lanes};
    multiply_strips(b, 0, whole, &strips, sums, stride, b->clear);
    if (rest > 0) {
        const int64_t row_bytes = vectors * lanes * size;
        memset(b->last, 0, (size_t)(rest * row_bytes));
        for (int64_t i = 0; i < rest; i++) {
            memcpy(b->last + i * row_bytes, w + (whole + i) * b->columns * size,
                   (size_t)((b->columns - first) * size));
        }
        strips.data = b->last;
        strips.stride = vectors * lanes;
        multiply_strips(b, whole, rest, &strips, sums, stride, 0);
    }
}

/* Columns [first, columns) of the first rows of sums, to the result. */
static void copy_columns(const direct_operands *c, int64_t size, const char *sums, int64_t stride,
                         int64_t first, int64_t rows, char *out)
{
    for (int64_t i = 0; i < rows; i++) {
        memcpy(out + (i * c->columns + first) * size, sums + i * stride * size,
               (size_t)((c->columns - first) * size));
    }
}

/* `rows` rows from row `row` on; returns 0, or -1 without memory. */
static int multiply_rows(fd_dtype dtype, const direct_operands *c, int64_t row, int64_t rows, char *out)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(dtype), lanes = k->lanes[dtype], unit = k->compact_rows;
    const int64_t vectors = fd_divide_up(c->columns, lanes), inside = c->columns / lanes;
    const int64_t groups = fd_divide_up(rows, unit), whole_groups = rows / unit;
    const int64_t done = whole_groups * unit;
    const int64_t group_bytes = unit * (FD_COMPACT_DEPTH + lanes) * size;
    /* Sums of whole groups are where the result is, but for the vector that reaches beyond it; of the last
     * rows none are. */
    const int64_t edge_bytes = fd_aligned(done * lanes * size);
    const int64_t sums_bytes = fd_aligned(unit * vectors * lanes * size);
    /* Rows of w behind which there is less than the rest of a vector. */
    const int64_t last_rows = (vectors * lanes - 1) / c->columns;
    const int64_t whole_rows = c->x.depth > last_rows ? c->x.depth - last_rows : 0;
    char *packed = fd_workspace(FD_SLOT_PANEL, (size_t)(groups * group_bytes + edge_bytes + sums_bytes +
                                                        last_rows * vectors * lanes * size));
    if (packed == NULL) {
        return -1;
    }
    char *edge = packed + groups * group_bytes, *sums = edge + edge_bytes;
    for (int64_t first = 0; first < c->x.depth; first += FD_COMPACT_DEPTH) {
        const int64_t depth = fd_smaller(c->x.depth - first, FD_COMPACT_DEPTH);
        direct_block block = {
            .dtype = dtype,
            .packed = packed,
            .w = (const char *)c->w + first * c->columns * size,
            .groups = whole_groups,
            .rows = unit,
            .depth = depth,
            .whole = whole_rows > first ? fd_smaller(whole_rows - first, depth) : 0,
            .columns = c->columns,
            .clear = first == 0,
            .last = sums + sums_bytes,
        };
        for (int64_t g = 0; g < groups; g++) {
            const int64_t begin = g * unit, count = fd_smaller(rows - begin, unit);
            fd_pack_masked_rows(dtype, &c->x, row + begin, count, first, depth,
                                packed + g * group_bytes);
        }
        multiply_columns(&block, 0, inside, out, c->columns);
        if (inside < vectors) {
            multiply_columns(&block, inside * lanes, 1, edge, lanes);
        }
        block.packed += whole_groups * group_bytes;
        block.groups = groups - whole_groups;
        block.rows = rows - done;
        multiply_columns(&block, 0, vectors, sums, vectors * lanes);
    }
    if (inside < vectors) {
        copy_columns(c, size, edge, lanes, inside * lanes, done, out);
    }
    copy_columns(c, size, sums, vectors * lanes, 0, rows - done, out + done * c->columns * size);
    return 0;
}

typedef struct {
    fd_dtype dtype;
    const direct_operands *c;
    char *out;
    int64_t rows; /* of a task */
    atomic_int failed, infinite;
} direct_pass;

static void multiply_task(const void *context, int64_t task)
{
    direct_pass *p = (direct_pass *)context;
    const int64_t row = task * p->rows, row_bytes = p->c->columns * fd_element_bytes(p->dtype);
    const int64_t rows = fd_smaller(p->c->rows - row, p->rows);
    char *out = p->out + row * row_bytes;
    if (multiply_rows(p->dtype, p->c, row, rows, out) != 0) {
        p->failed = 1;
    } else if (!fd_active_kernels()->all_finite[p->dtype](out, rows * p->c->columns)) {
        p->infinite = 1;
    }
}

int fd_direct_matmul(fd_dtype dtype, const direct_operands *c, void *out)
{
    const int64_t unit = fd_active_kernels()->compact_rows;
    const int threads = fd_threads_for(c->rows * c->x.depth * c->columns, MINIMUM_PRODUCTS);
    const int64_t share = fd_divide_up(fd_divide_up(c->rows, unit), threads) * unit;
    direct_pass p = {.dtype = dtype, .c = c, .out = out};
    p.rows = fd_smaller(share, FD_BLOCK_ROWS);
    if (c->rows == 0) {
        return 1;
    }
    fd_parallel(threads, fd_divide_up(c->rows, p.rows), multiply_task, &p);
    return p.failed ? -1 : !p.infinite;
}
