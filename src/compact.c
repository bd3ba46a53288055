/* compact.c: products of active units, cut into blocks for caches and threads.
 *
 * As in skip.c: up to FD_BLOCK_ROWS rows of x at a time are packed, block of depth by block of depth;
 * then threads share the panels of columns, whose sums stay in a tile in the L2 cache. Every sum
 * is made by one thread in the order of the depth.
 */
#include <stdatomic.h>
#include <string.h>

#include "compact_axis.h"
#include "fastdrop.h"

/* What a thread must have to do to be worth waking: elements packed, multiply-adds. */
#define MINIMUM_PACKED (1 << 16)
#define MINIMUM_PRODUCTS (1 << 20)
/* Elements that scattering may read beyond a row of a tile. */
#define SLACK (64 + FD_MAX_LANES)
/* Panels of w, 90 KB each, and bytes of sums that stay in a 1 MB L2 cache beside the packed x. */
#define PACKED_PANELS 4
#define TILE_BYTES (1 << 18)
/* Rows of a tile where the whole depth is packed at once, so that rows can be taken in turns. */
#define SHORT_TILE_ROWS 128

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    compact_plan c;
    const fd_units *column_units;
    const skip_result *result;
    int accumulate, threads;
    int64_t row, rows, groups; /* the block of rows */
    char *packed;
    int64_t group_stride; /* elements of packed x from group to group */
    int64_t packed_bytes; /* of one block of depth: all groups of rows */
    /* What a thread works on at a time: the blocks of depth and panels of w that it packs, and the
     * rows of a tile. */
    int64_t packed_blocks, panels, tile_rows, panel_bytes;
    atomic_int *failed;
} compact_pass;

static int64_t lanes_of(const compact_pass *p)
{
    return p->kernels->panel_columns[p->dtype] / FD_PANEL_VECTORS;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void pack_block(const void *context, int64_t block)
{
    const compact_pass *p = context;
    const int64_t group_rows = p->kernels->group_rows;
    const int64_t group_bytes = p->group_stride * fd_element_bytes(p->dtype);
    for (int64_t g = 0; g < p->groups; g++) {
        p->kernels->compact_pack_x[p->dtype](&p->c, p->row + g * group_rows,
                                             smaller(p->rows - g * group_rows, group_rows), block,
                                             p->packed + block * p->packed_bytes + g * group_bytes);
    }
}

/* The row of the result that active row i makes; the number of rows for the one after the last. */
static int64_t row_of(const compact_pass *p, int64_t i)
{
    if (i >= p->c.rows.active) {
        return p->c.rows.length;
    }
    return i >= 0 && p->c.rows.numbers ? p->c.rows.numbers[i] : i;
}

/* Clears `span` columns of the rows that are not active, between active row i and the one before. */
static void clear_dropped(const compact_pass *p, int64_t i, int64_t column, int64_t span)
{
    const skip_result *r = p->result;
    const int64_t size = fd_element_bytes(p->dtype), end = p->accumulate ? 0 : row_of(p, i);
    for (int64_t row = row_of(p, i - 1) + 1; row < end; row++) {
        memset((char *)r->data + (row * r->stride + column) * size, 0, (size_t)(span * size));
    }
}

/* A row of one panel of a tile goes to its place in the result. */
static void store_row(const compact_pass *p, int64_t panel, int64_t row, const char *sums)
{
    const fd_kernels *k = p->kernels;
    const skip_result *r = p->result;
    const int64_t size = fd_element_bytes(p->dtype), width = k->panel_columns[p->dtype];
    const int64_t column = fd_cut_of(&p->c.columns, panel);
    if (p->column_units->bits == NULL && !p->accumulate) {
        const int64_t step = p->c.columns.step;
        k->skip_store[p->dtype](r, row, column, (int)((step + lanes_of(p) - 1) / lanes_of(p)), sums);
        return;
    }
    const fd_units part = {.bits = p->column_units->bits, .bit = p->column_units->bit + column,
                           .length = fd_cut_of(&p->c.columns, panel + 1) - column};
    fd_scatter_row(p->dtype, sums, width + SLACK, &part, r->scale,
                   r->bias ? (const char *)r->bias + column * size : NULL, r->bias_scale,
                   p->accumulate, (char *)r->data + (row * r->stride + column) * size);
}

/* `rows` rows of x from number `first` of the block on, and a part of w: tile after tile. */
static void store_tiles(const compact_pass *p, const compact_part *part, int64_t first,
                        int64_t rows, const char *tiles, int64_t tile_bytes)
{
    const int64_t row_bytes = p->kernels->panel_columns[p->dtype] * fd_element_bytes(p->dtype);
    const int64_t column = fd_cut_of(&p->c.columns, part->panel);
    const int64_t span = fd_cut_of(&p->c.columns, part->panel + part->panels) - column;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t active = p->row + first + i;
        clear_dropped(p, active, column, span);
        for (int64_t n = 0; n < part->panels; n++) {
            store_row(p, part->panel + n, row_of(p, active), tiles + n * tile_bytes + i * row_bytes);
        }
    }
    if (p->row + first + rows == p->c.rows.active) {
        clear_dropped(p, p->c.rows.active, column, span);
    }
}

/* The products of `rows` packed rows with the part of w, block of depth after block: plain w one
 * block of all panels at a time, w transposed all blocks of a panel, as far as there is room. */
static void multiply_rows(const compact_pass *p, compact_part part, int64_t first, int64_t rows,
                          char *packed, char *tiles, int64_t tile_bytes)
{
    const fd_kernels *k = p->kernels;
    const compact_axis *depth = &p->c.depth, *columns = &p->c.columns;
    const int64_t group = first / k->group_rows * p->group_stride * fd_element_bytes(p->dtype);
    const int64_t groups = (rows + k->group_rows - 1) / k->group_rows;
    const int64_t panel_bytes = p->panel_bytes, lanes = lanes_of(p);
    for (int64_t block = 0; block < depth->blocks; block++) {
        if (block % p->packed_blocks == 0 && (first == 0 || depth->blocks > p->packed_blocks)) {
            part.block = block;
            part.blocks = smaller(depth->blocks - block, p->packed_blocks);
            k->compact_pack_w[p->dtype](&p->c, &part, packed);
        }
        const int64_t held = block % p->packed_blocks;
        for (int64_t n = 0; n < part.panels; n++) {
            const int64_t left = columns->active - (part.panel + n) * columns->step;
            k->compact_multiply[p->dtype](
                p->packed + block * p->packed_bytes + group, p->group_stride, groups,
                smaller(depth->active - block * depth->step, depth->step),
                packed + (held * part.panels + n) * panel_bytes,
                (smaller(left, columns->step) + lanes - 1) / lanes, tiles + n * tile_bytes,
                block == 0);
        }
    }
}

static void multiply_panels(const void *context, int64_t task)
{
    const compact_pass *p = context;
    const int64_t size = fd_element_bytes(p->dtype);
    const int64_t row_bytes = p->kernels->panel_columns[p->dtype] * size;
    compact_part part = {.panel = task * p->panels};
    part.panels = smaller(p->c.columns.blocks - part.panel, p->panels);
    const int64_t packed_bytes = fd_aligned(p->packed_blocks * part.panels * p->panel_bytes);
    const int64_t tile_bytes = fd_aligned((p->tile_rows * row_bytes));
    const int64_t bytes = packed_bytes + part.panels * tile_bytes + SLACK * size;
    char *packed = fd_workspace(FD_SLOT_PANEL, (size_t)bytes);
    if (packed == NULL) {
        *p->failed = 1;
        return;
    }
    char *tiles = packed + packed_bytes;
    if (p->c.depth.blocks == 0) {
        memset(tiles, 0, (size_t)(part.panels * tile_bytes));
    }
    for (int64_t first = 0; first < p->rows; first += p->tile_rows) {
        const int64_t rows = smaller(p->rows - first, p->tile_rows);
        multiply_rows(p, part, first, rows, packed, tiles, tile_bytes);
        store_tiles(p, &part, first, rows, tiles, tile_bytes);
    }
}

/* The axes as the kernels walk them; returns 0, or -1 without memory. */
static int plan_axes(compact_pass *p, const compact_operands *c)
{
    const int lanes = (int)lanes_of(p);
    const compact_layout layouts[] = {
        {&c->rows, &p->c.rows, c->x_transposed, 0},
        {&c->depth, &p->c.depth, !c->w_transposed, c->w_transposed || !c->x_transposed},
        {&c->columns, &p->c.columns, c->w_transposed, !c->w_transposed},
    };
    return fd_lay_out_axes(layouts, 3, lanes);
}

/* How much of w a thread packs at a time. Plain w, whose rows run along the columns, in wide parts of
 * one block of depth; w transposed in narrow, deep ones: so its memory is read row by row. */
static void divide_work(compact_pass *p)
{
    const compact_axis *depth = &p->c.depth, *columns = &p->c.columns;
    const int64_t width = p->kernels->panel_columns[p->dtype], size = fd_element_bytes(p->dtype);
    p->panel_bytes = FD_COMPACT_DEPTH * (width + lanes_of(p)) * size;
    p->packed_blocks = p->c.w_transposed ? smaller(depth->blocks, PACKED_PANELS) : 1;
    p->packed_blocks += p->packed_blocks == 0;
    const int64_t groups_rows = p->groups * p->kernels->group_rows;
    p->tile_rows =
        depth->blocks <= p->packed_blocks ? smaller(groups_rows, SHORT_TILE_ROWS) : groups_rows;
    p->panels = smaller(PACKED_PANELS / p->packed_blocks, TILE_BYTES / (p->tile_rows * width * size));
    p->panels = smaller(p->panels, (columns->blocks + p->threads - 1) / p->threads);
    p->panels += p->panels == 0;
}

int64_t fd_compact_matmul(fd_dtype dtype, const compact_operands *c, int accumulate,
                          const skip_result *result)
{
    atomic_int failed = 0;
    compact_pass p = {
        .kernels = fd_active_kernels(),
        .dtype = dtype,
        .c = {.x = c->x, .w = c->w, .x_stride = c->x_stride, .w_stride = c->w_stride,
              .x_transposed = c->x_transposed, .w_transposed = c->w_transposed},
        .column_units = &c->columns,
        .result = result,
        .accumulate = accumulate,
        .failed = &failed,
    };
    const fd_kernels *k = p.kernels;
    const int64_t size = fd_element_bytes(dtype), lanes = lanes_of(&p);
    compact_axis *rows = &p.c.rows, *depth = &p.c.depth, *columns = &p.c.columns;
    fd_cut_axis(&c->rows, INT64_MAX, 1, 1, rows);
    fd_cut_axis(&c->depth, FD_COMPACT_DEPTH, 1, 1, depth);
    const int64_t columns_active = fd_count_units(&c->columns);
    p.threads = fd_threads_for(smaller(rows->active, FD_BLOCK_ROWS) * (depth->active + 1) *
                                   columns_active,
                               MINIMUM_PRODUCTS);
    fd_cut_axis(&c->columns, k->panel_columns[dtype], p.threads, 2 * lanes, columns);
    if (columns->active == 0 || rows->active == 0) {
        rows->active = 0;
        clear_dropped(&p, 0, 0, columns->length);
        return 0;
    }
    if (plan_axes(&p, c) != 0) {
        return -1;
    }
    p.group_stride = k->group_rows * (FD_COMPACT_DEPTH + lanes);
    for (p.row = 0; p.row < rows->active; p.row += p.rows) {
        p.rows = smaller(rows->active - p.row, FD_BLOCK_ROWS);
        p.groups = (p.rows + k->group_rows - 1) / k->group_rows;
        p.packed_bytes = fd_aligned(p.groups * p.group_stride * size);
        p.packed = fd_workspace(FD_SLOT_LISTS, (size_t)(depth->blocks * p.packed_bytes + 1));
        if (p.packed == NULL) {
            return -1;
        }
        divide_work(&p);
        fd_parallel(fd_threads_for(p.rows * depth->length, MINIMUM_PACKED), depth->blocks,
                    pack_block, &p);
        fd_parallel(p.threads, (columns->blocks + p.panels - 1) / p.panels, multiply_panels, &p);
    }
    return failed ? -1 : rows->active * depth->active;
}
