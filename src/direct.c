/* direct.c: a product for which w is not packed.
 *
 * The compact multiplication takes w, as it is, for a packed panel: where it lies in a cache of the core, or
 * where there are so few rows of x that to read it once is all there is to do. Only x is packed, and masked
 * on the way. Where rows of w end within a vector, the rest of the vector is of the next rows, whose products
 * go to columns that nobody looks at; the last rows, behind which w ends, are copied. Threads share the rows
 * of x, or the columns, of which there are more. */
#include <stdatomic.h>
#include <string.h>

#include "fastdrop.h"
#include "integers.h"
#include "packed.h"

/* A w that may be read anew for every few rows: in the L1 cache, or almost. */
#define SMALL_BYTES (1 << 16)
/* Rows that packing w would not pay for, wherever it lies. */
#define MOST_ROWS 256
/* What a thread must have to do to be worth waking. */
#define MINIMUM_PRODUCTS (1 << 19)
/* Vectors of columns that all groups of rows are multiplied by before the next ones, a block deep: 120 KB,
 * which stay in the L2 cache. */
#define WINDOW_VECTORS 12
/* Vectors of columns that threads share: what the multiplication of few rows takes at once. */
#define SHARED_VECTORS 4

int fd_direct_fits(fd_dtype dtype, int64_t rows, int64_t depth, int64_t columns)
{
    const int64_t most = SMALL_BYTES / fd_element_bytes(dtype);
    return rows > 0 && depth > 0 && columns > 0 &&
           (rows <= MOST_ROWS || (depth <= most && columns <= most && depth * columns <= most));
}

/* A group of packed rows of x, and a block of depth of w. `whole` of its rows are followed by the rest of a
 * vector. */
typedef struct {
    fd_dtype dtype;
    const char *packed, *w;
    int64_t rows, depth, whole, columns;
    int clear;
    char *last; /* room for the rows that are not whole */
} direct_block;

/* Adds products of `vectors` vectors of columns from column `first` on to sums. */
static void multiply_columns(const direct_block *b, int64_t first, int64_t vectors, char *sums,
                             int64_t stride)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(b->dtype), lanes = k->lanes[b->dtype];
    const int inside = first + vectors * lanes <= b->columns;
    const int64_t whole = inside ? b->depth : b->whole, rest = b->depth - whole;
    const char *w = b->w + first * size;
    compact_strips strips = {w, vectors, b->columns, FD_COMPACT_STRIP * lanes};
    k->multiply_few[b->dtype](b->packed, b->rows, whole, &strips, sums, stride, b->clear);
    if (rest > 0) {
        const int64_t row_bytes = vectors * lanes * size;
        memset(b->last, 0, (size_t)(rest * row_bytes));
        for (int64_t i = 0; i < rest; i++) {
            memcpy(b->last + i * row_bytes, w + (whole + i) * b->columns * size,
                   (size_t)((b->columns - first) * size));
        }
        strips.data = b->last;
        strips.stride = vectors * lanes;
        k->multiply_few[b->dtype](b->packed + whole * size, b->rows, rest, &strips, sums, stride, 0);
    }
}

/* Part of a product: rows [row, row + rows), columns [first, first + columns), which begin with a vector. */
typedef struct {
    int64_t row, rows, first, columns;
} direct_part;

/* Adds products of `rows` packed rows and `vectors` vectors of columns from column `first` on to sums. */
static void multiply_groups(direct_block *b, int64_t first, int64_t vectors, const char *packed, int64_t rows,
                            char *sums, int64_t stride)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(b->dtype), unit = k->compact_rows;
    const int64_t row_bytes = (FD_COMPACT_DEPTH + k->lanes[b->dtype]) * size;
    for (int64_t row = 0; row < rows; row += unit) {
        b->packed = packed + row * row_bytes;
        b->rows = fd_smaller(rows - row, unit);
        multiply_columns(b, first, vectors, sums + row * stride * size, stride);
    }
}

/* Returns 0, or -1 without memory. */
static int multiply_part(fd_dtype dtype, const direct_operands *c, const direct_part *part, char *out)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t size = fd_element_bytes(dtype), lanes = k->lanes[dtype], unit = k->compact_rows;
    const int64_t first = part->first, rows = part->rows, inside = part->columns / lanes;
    const int64_t beyond = part->columns - inside * lanes; /* columns of a vector that reaches beyond all */
    const int64_t end = first + inside * lanes, groups = fd_divide_up(rows, unit);
    const int64_t window = groups > 1 ? WINDOW_VECTORS : inside;
    const int64_t group_bytes = unit * (FD_COMPACT_DEPTH + lanes) * size;
    const int64_t edge_bytes = fd_aligned(rows * lanes * size);
    /* Rows of w behind which there is less than the rest of a vector. */
    const int64_t last_rows = (fd_divide_up(c->columns, lanes) * lanes - 1) / c->columns;
    const int64_t whole_rows = c->x.depth > last_rows ? c->x.depth - last_rows : 0;
    const int64_t last_bytes = last_rows * (inside + 1) * lanes * size;
    char *packed = fd_workspace(FD_SLOT_PANEL, (size_t)(groups * group_bytes + edge_bytes + last_bytes));
    if (packed == NULL) {
        return -1;
    }
    char *edge = packed + groups * group_bytes;
    for (int64_t step = 0; step < c->x.depth; step += FD_COMPACT_DEPTH) {
        const int64_t depth = fd_smaller(c->x.depth - step, FD_COMPACT_DEPTH);
        direct_block block = {
            .dtype = dtype,
            .w = (const char *)c->w + step * c->columns * size,
            .depth = depth,
            .whole = whole_rows > step ? fd_smaller(whole_rows - step, depth) : 0,
            .columns = c->columns,
            .clear = step == 0,
            .last = edge + edge_bytes,
        };
        for (int64_t g = 0; g < groups; g++) {
            const int64_t begin = g * unit, count = fd_smaller(rows - begin, unit);
            fd_pack_masked_rows(dtype, &c->x, part->row + begin, count, step, depth,
                                packed + g * group_bytes);
        }
        for (int64_t vector = 0; vector < inside; vector += window) {
            const int64_t column = first + vector * lanes;
            multiply_groups(&block, column, fd_smaller(inside - vector, window), packed, rows,
                            out + column * size, c->columns);
        }
        if (beyond > 0) {
            multiply_groups(&block, end, 1, packed, rows, edge, lanes);
        }
    }
    for (int64_t i = 0; i < rows && beyond > 0; i++) {
        memcpy(out + (i * c->columns + end) * size, edge + i * lanes * size, (size_t)(beyond * size));
    }
    return 0;
}

typedef struct {
    fd_dtype dtype;
    const direct_operands *c;
    char *out;
    int64_t rows, columns; /* of a task */
    int64_t parts;         /* that the columns are shared in */
    atomic_int failed, infinite;
} direct_pass;

static void multiply_task(const void *context, int64_t task)
{
    direct_pass *p = (direct_pass *)context;
    const int64_t size = fd_element_bytes(p->dtype);
    const int64_t row = task / p->parts * p->rows, first = task % p->parts * p->columns;
    const direct_part part = {
        .row = row,
        .rows = fd_smaller(p->c->rows - row, p->rows),
        .first = first,
        .columns = fd_smaller(p->c->columns - first, p->columns),
    };
    char *out = p->out + row * p->c->columns * size;
    if (multiply_part(p->dtype, p->c, &part, out) != 0) {
        p->failed = 1;
        return;
    }
    const int whole = p->parts == 1; /* rows, which follow each other then */
    const int64_t runs = whole ? 1 : part.rows, length = whole ? part.rows * part.columns : part.columns;
    if (p->c->x.depth < p->c->rows) {
        return; /* w is looked at, which is smaller */
    }
    for (int64_t i = 0; i < runs; i++) {
        if (!fd_all_finite(p->dtype, out + (i * p->c->columns + first) * size, length)) {
            p->infinite = 1;
        }
    }
}

int fd_direct_matmul(fd_dtype dtype, const direct_operands *c, void *out)
{
    const fd_kernels *k = fd_active_kernels();
    const int64_t unit = k->compact_rows, shared = SHARED_VECTORS * k->lanes[dtype];
    const int threads = fd_threads_for(c->rows * c->x.depth * c->columns, MINIMUM_PRODUCTS);
    const int by_columns = c->columns > c->rows;
    const int64_t share = fd_divide_up(fd_divide_up(c->rows, unit), by_columns ? 1 : threads) * unit;
    direct_pass p = {.dtype = dtype, .c = c, .out = out};
    if (c->rows == 0) {
        return 1;
    }
    p.rows = fd_smaller(share, FD_BLOCK_ROWS);
    p.columns = by_columns ? fd_divide_up(fd_divide_up(c->columns, shared), threads) * shared : c->columns;
    p.parts = fd_divide_up(c->columns, p.columns);
    fd_parallel(threads, fd_divide_up(c->rows, p.rows) * p.parts, multiply_task, &p);
    if (!p.failed && c->x.depth < c->rows) {
        p.infinite = !fd_all_finite(dtype, c->w, c->x.depth * c->columns);
    }
    return p.failed ? -1 : !p.infinite;
}
