/* direct.c: a product for which w is not packed.
 *
 * The compact multiplication takes w, as it is, for a packed panel, which pays where w is small, or its depth,
 * or the number of rows of x. Only x is packed, and masked on the way, a group of rows just before it is
 * multiplied. Where rows of w end within a vector, the rest of the vector is of the next rows, whose products go
 * to columns that nobody looks at; the last rows, behind which w ends, are copied. Threads share the rows of x,
 * or the columns, of which there are more, unless their rows are short. */
#include <stdatomic.h>
#include <string.h>

#include "kernels.h"
#include "matmul/drivers.h"
#include "runtime/integers.h"
#include "matmul/packed.h"

/* What a thread must have to do to be worth waking. */
#define MINIMUM_PRODUCTS (1 << 19)
/* Vectors of columns that all groups of rows are multiplied by before the next ones, a block deep: 120 KB,
 * which stay in the L2 cache. */
#define WINDOW_VECTORS 12
/* Whole vectors that are part of the edge: it is multiplied at once then. */
#define NARROW_VECTORS 2
/* Vectors that are one tile for any number of rows. */
#define LEAST_TILE 2
/* Vectors of columns that threads share: what the multiplication of few rows takes at once. */
#define SHARED_VECTORS 4

/* Part of a product: rows [row, row + rows), columns [first, first + columns), which begin with a vector. */
typedef struct {
    int64_t row, rows, first, columns;
} direct_part;

/* One block of depth of a part: rows [step, + depth) of w. */
typedef struct {
    fd_dtype dtype;
    const fd_kernels *kernels;
    const direct_operands *c;
    const direct_part *part;
    int64_t step, depth;
    int64_t whole;       /* rows of w that are followed by the rest of a vector */
    char *last;          /* the others, from where the edge begins, as wide as it is */
    char *packed;        /* groups of rows of x */
    int64_t group_bytes; /* from one to the next; 0 where each takes the place of the one before */
    char *out;           /* the part's rows of the result */
    char *edge;          /* sums of columns the last of which fill no vector */
    int64_t edge_first, edge_vectors;
    int64_t edge_bytes; /* of a row; 0 where all groups of rows take the same place */
    /* Rows are one tile wide, and finished at once: each may reach into the places of the next ones, which are
     * written after it. */
    int spilling;
} direct_block;

/* Columns that are multiplied one after the other: from column `first` on, `vectors` vectors, and the edge
 * behind them. */
typedef struct {
    int64_t first, vectors;
    int edge;
} direct_window;

static const char *row_of_w(const direct_block *b, int64_t row)
{
    return (const char *)b->c->w + (b->step + row) * b->c->columns * fd_element_bytes(b->dtype);
}

/* Rows of w behind which there is less than the rest of a vector. */
static int64_t last_rows(const direct_block *b)
{
    const int64_t columns = b->c->columns, lanes = b->kernels->lanes[b->dtype];
    return fd_smaller((fd_divide_up(columns, lanes) * lanes - 1) / columns, b->c->x.depth);
}

/* Fills `last`. */
static void copy_last_rows(const direct_block *b)
{
    const int64_t size = fd_element_bytes(b->dtype), lanes = b->kernels->lanes[b->dtype];
    const int64_t first = b->edge_first, row_bytes = b->edge_vectors * lanes * size;
    memset(b->last, 0, (size_t)((b->depth - b->whole) * row_bytes));
    for (int64_t row = b->whole; row < b->depth; row++) {
        memcpy(b->last + (row - b->whole) * row_bytes, row_of_w(b, row) + first * size,
               (size_t)((b->c->columns - first) * size));
    }
}

/* Brings finished sums of the edge to the result. */
static void copy_edge(const direct_block *b, int64_t row, int64_t rows, const char *sums)
{
    const int64_t size = fd_element_bytes(b->dtype), lanes = b->kernels->lanes[b->dtype];
    const int64_t columns = b->part->first + b->part->columns - b->edge_first;
    for (int64_t i = 0; i < rows; i++) {
        memcpy(b->out + ((row + i) * b->c->columns + b->edge_first) * size,
               sums + i * b->edge_vectors * lanes * size, (size_t)(columns * size));
    }
}

/* Adds products of up to compact_rows packed rows, from row `row` of the part on, and a window's columns to
 * the sums. */
static void multiply_window(const direct_block *b, const direct_window *window, const char *packed, int64_t row,
                            int64_t rows)
{
    const int64_t size = fd_element_bytes(b->dtype), lanes = b->kernels->lanes[b->dtype];
    const int64_t columns = b->c->columns, first = window->first;
    const int64_t wide = b->edge_vectors * lanes, below = b->part->rows - row - rows;
    const int clear = b->step == 0, spilling = b->spilling && below * columns >= wide - columns;
    const int64_t stride = spilling ? columns : wide;
    char *sums = spilling ? b->out + row * columns * size : b->edge + row * b->edge_bytes;
    if (window->vectors > 0) {
        const compact_strips strips = {row_of_w(b, 0) + first * size, window->vectors, columns, 0};
        b->kernels->multiply_few[b->dtype](packed, rows, b->depth, &strips,
                                           b->out + (row * columns + first) * size, columns, clear);
    }
    if (window->edge) {
        const compact_strips strips = {row_of_w(b, 0) + b->edge_first * size, b->edge_vectors, columns, 0};
        const compact_strips last = {b->last, b->edge_vectors, wide, 0};
        b->kernels->multiply_few[b->dtype](packed, rows, b->whole, &strips, sums, stride, clear);
        if (b->whole < b->depth) {
            b->kernels->multiply_few[b->dtype](packed + b->whole * size, rows, b->depth - b->whole, &last,
                                               sums, stride, 0);
        }
        if (!spilling && b->step + b->depth == b->c->x.depth) {
            copy_edge(b, row, rows, sums);
        }
    }
}

/* The same of all groups of rows, which the first window packs. The last two share their rows: one row loads
 * as much of w as eight. */
static void multiply_unpacked_groups(const direct_block *b, const direct_window *window)
{
    const int64_t rows = b->part->rows, unit = b->kernels->compact_rows;
    char *packed = b->packed;
    for (int64_t row = 0, count; row < rows; row += count, packed += b->group_bytes) {
        const int64_t left = rows - row;
        count = left > unit && left < 2 * unit ? (left + 1) / 2 : fd_smaller(left, unit);
        if (window->first == b->part->first) {
            b->kernels->pack_masked[b->dtype](&b->c->x, b->part->row + row, count, b->step, b->depth,
                                              packed);
        }
        multiply_window(b, window, packed, row, count);
    }
}

static void multiply_unpacked_block(const direct_block *b, int64_t widest)
{
    const int64_t lanes = b->kernels->lanes[b->dtype];
    const int64_t vectors = (b->edge_first - b->part->first) / lanes;
    int64_t vector = 0;
    if (b->edge_vectors > 0) {
        copy_last_rows(b);
    }
    do {
        const int64_t wide = fd_smaller(vectors - vector, widest), first = b->part->first + vector * lanes;
        const direct_window window = {first, wide, b->edge_vectors > 0 && vector + wide == vectors};
        multiply_unpacked_groups(b, &window);
        vector += wide;
    } while (vector < vectors);
}

/* Decides what belongs to the edge, and lays out the memory of the block. Returns vectors of the widest window,
 * or -1 without memory. */
static int64_t lay_out_unpacked(direct_block *b)
{
    const int64_t size = fd_element_bytes(b->dtype), lanes = b->kernels->lanes[b->dtype];
    const int64_t unit = b->kernels->compact_rows, rows = b->part->rows, depth = b->c->x.depth;
    const int64_t vectors = b->part->columns / lanes, narrow = vectors <= NARROW_VECTORS;
    b->edge_vectors = b->part->columns % lanes == 0 ? 0 : narrow ? vectors + 1 : 1;
    const int64_t inside = b->edge_vectors > 1 ? 0 : vectors, edge_row = b->edge_vectors * lanes * size;
    b->edge_first = b->part->first + inside * lanes;
    const int64_t groups = fd_divide_up(rows, unit), widest = groups > 1 ? WINDOW_VECTORS : inside;
    const int64_t held = inside > widest ? groups : 1, group_bytes = unit * (FD_COMPACT_DEPTH + lanes) * size;
    const int64_t once = depth <= FD_COMPACT_DEPTH, edge_bytes = fd_aligned((once ? unit : rows) * edge_row);
    const size_t bytes = (size_t)(held * group_bytes + edge_bytes + last_rows(b) * edge_row);
    b->packed = fd_workspace(FD_SLOT_PANEL, bytes);
    if (b->packed == NULL) {
        return -1;
    }
    b->group_bytes = held > 1 ? group_bytes : 0;
    b->edge = b->packed + held * group_bytes;
    b->edge_bytes = once ? 0 : edge_row;
    b->last = b->edge + edge_bytes;
    b->spilling = once && inside == 0 && b->edge_vectors <= LEAST_TILE && b->part->columns == b->c->columns;
    return widest;
}

/* Returns 0, or -1 without memory. */
static int multiply_part(fd_dtype dtype, const direct_operands *c, const direct_part *part, char *out)
{
    direct_block block = {.dtype = dtype, .kernels = fd_active_kernels(), .c = c, .part = part, .out = out};
    const int64_t widest = lay_out_unpacked(&block), whole_rows = c->x.depth - last_rows(&block);
    if (widest < 0) {
        return -1;
    }
    for (; block.step < c->x.depth; block.step += FD_COMPACT_DEPTH) {
        block.depth = fd_smaller(c->x.depth - block.step, FD_COMPACT_DEPTH);
        block.whole = fd_smaller(fd_larger(whole_rows - block.step, 0), block.depth);
        multiply_unpacked_block(&block, widest);
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
        .rows = fd_smaller(p->c->x.rows - row, p->rows),
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
    if (p->c->x.depth < p->c->x.rows) {
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
    const int threads = fd_threads_for(c->x.rows * c->x.depth * c->columns, MINIMUM_PRODUCTS);
    const int short_rows = c->columns * fd_element_bytes(dtype) <= FD_SHORT_ROW;
    const int whole_rows = short_rows && c->x.rows >= 2 * unit * threads;
    const int by_columns = c->columns > c->x.rows && !whole_rows;
    const int64_t share = fd_divide_up(fd_divide_up(c->x.rows, unit), by_columns ? 1 : threads) * unit;
    direct_pass p = {.dtype = dtype, .c = c, .out = out};
    if (c->x.rows == 0) {
        return 1;
    }
    p.rows = fd_smaller(share, FD_BLOCK_ROWS);
    p.columns = by_columns ? fd_divide_up(fd_divide_up(c->columns, shared), threads) * shared : c->columns;
    p.parts = fd_divide_up(c->columns, p.columns);
    fd_parallel(threads, fd_divide_up(c->x.rows, p.rows) * p.parts, multiply_task, &p);
    if (!p.failed && c->x.depth < c->x.rows) {
        p.infinite = !fd_all_finite(dtype, c->w, c->x.depth * c->columns);
    }
    return p.failed ? -1 : !p.infinite;
}
