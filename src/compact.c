/* compact.c: products of active units, cut into blocks for caches and threads.
 *
 * Groups of rows that have units of their own are multiplied together, up to FD_BLOCK_ROWS rows: x
 * is packed, and threads share the columns. Sums stay in a tile in the L2 cache; where there are
 * several groups, each takes its part of a block of w while it is there. Every sum is made by one
 * thread in the order of the depth. */
#include <stdatomic.h>
#include <string.h>

#include "compact_axis.h"
#include "fastdrop.h"
#include "packed.h"

/* What a thread must have to do to be worth waking: elements packed, multiply-adds. */
#define MINIMUM_PACKED (1 << 16)
#define MINIMUM_PRODUCTS (1 << 19)

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const compact_operands *c;
    compact_matrix x;
    const compact_result *result;
    int64_t row, groups, group; /* groups of rows, all but the last `group` rows long */
    int64_t rows;
    int threads;
    compact_axis depth[FD_COMPACT_GROUPS], columns[FD_COMPACT_GROUPS]; /* of each group */
    /* Bytes of compact_rows packed rows; as many of them as each group has. */
    int64_t octet_bytes, octets;
    packed_operand packed; /* x: block of depth after block, of each all octets */
    int64_t tile_stride;
    atomic_int failed;
} compact_pass;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t rows_of_group(const compact_pass *p, int64_t g)
{
    return smaller(p->rows - g * p->group, p->group);
}

static int64_t octet_at(const compact_pass *p, int64_t block, int64_t octet)
{
    return (block * p->groups * p->octets + octet) * p->octet_bytes;
}

static void pack_octet(const void *context, int64_t task, char *packed)
{
    const compact_pass *p = context;
    const int64_t g = task / p->octets, first = task % p->octets * p->kernels->compact_rows;
    const int64_t rows = smaller(rows_of_group(p, g) - first, p->kernels->compact_rows);
    for (int64_t block = 0; rows > 0 && block < p->depth[g].blocks; block++) {
        if (p->c->masked) {
            const int64_t *cuts = p->depth[g].cuts + block;
            fd_pack_masked_rows(p->dtype, p->c->masked, p->row + g * p->group + first, rows, cuts[0],
                                cuts[1] - cuts[0], packed + octet_at(p, block, task));
            continue;
        }
        p->kernels->compact_pack_rows[p->dtype](&p->x, p->row + g * p->group + first, rows,
                                                &p->depth[g], block,
                                                packed + octet_at(p, block, task));
    }
}

/* What one thread works with: a strip of w, and the sums of each group over a panel. */
typedef struct {
    int64_t panel, block, tile_bytes, tile_stride;
    const char *packed;
    char *strip, *tiles;
} compact_work;

static char *tile_of(const compact_work *work, int64_t g)
{
    return work->tiles + g * work->tile_bytes;
}

/* Turns of FD_AHEAD_STEPS steps that group g's multiplication with a block of w has. */
static int64_t turns_of(const compact_pass *p, const compact_work *work, int64_t g)
{
    const int64_t lanes = p->kernels->lanes[p->dtype];
    const int64_t strips = fd_divide_up(fd_vectors_in_block(&p->columns[g], work->panel, lanes),
                                        FD_COMPACT_STRIP);
    const int64_t depth = fd_active_in_block(&p->depth[g], work->block);
    return p->octets * strips * fd_divide_up(depth, FD_AHEAD_STEPS);
}

/* A block of depth and a panel of w, of which group g fetches its share. */
static compact_ahead ahead_of(const compact_pass *p, int64_t g, int64_t block, int64_t panel)
{
    const compact_matrix *w = &p->c->w;
    const int64_t size = fd_element_bytes(p->dtype);
    /* rows in memory are units of this axis, and run along the other */
    const compact_axis *rows = w->transposed ? &p->columns[g] : &p->depth[g];
    const compact_axis *along = w->transposed ? &p->depth[g] : &p->columns[g];
    const int64_t row = w->transposed ? panel : block, part = w->transposed ? block : panel;
    compact_ahead ahead = {.rows = 0};
    if (row >= rows->blocks || part >= along->blocks) {
        return ahead;
    }
    ahead.data = (const char *)w->data + along->cuts[part] * size;
    ahead.stride = w->stride * size;
    ahead.row_bytes = (along->cuts[part + 1] - along->cuts[part]) * size;
    if (p->groups > 1) { /* together they need nearly all of them */
        const int64_t all = rows->cuts[row + 1] - rows->cuts[row];
        ahead.first = rows->cuts[row] + all * g / p->groups;
        ahead.rows = rows->cuts[row] + all * (g + 1) / p->groups - ahead.first;
    } else {
        ahead.first = rows->ranks[row];
        ahead.numbers = rows->numbers ? rows->numbers + ahead.first : NULL;
        ahead.rows = fd_active_in_block(rows, row);
    }
    return ahead;
}

/* Where the sums of group g over a panel will go. */
static compact_ahead result_of(const compact_pass *p, int64_t g, int64_t panel)
{
    const int64_t size = fd_element_bytes(p->dtype), *cuts = p->columns[g].cuts + panel;
    return (compact_ahead){
        .data = (const char *)p->result->data + cuts[0] * size,
        .stride = p->result->stride * size,
        .row_bytes = (cuts[1] - cuts[0]) * size,
        .first = p->row + g * p->group,
        .rows = rows_of_group(p, g),
    };
}

/* Multiplies one block of w, strip by strip: each stays in the L1 cache until all rows of the group have
 * taken it. */
static void multiply_block(const compact_pass *p, const compact_work *work, int64_t g)
{
    const compact_axis *depth = &p->depth[g], *columns = &p->columns[g];
    const int64_t size = fd_element_bytes(p->dtype), unit = p->kernels->compact_rows;
    const int64_t lanes = p->kernels->lanes[p->dtype], turns = turns_of(p, work, g);
    const int64_t octets = fd_divide_up(rows_of_group(p, g), unit);
    const int64_t vectors = fd_vectors_in_block(columns, work->panel, lanes);
    const int last = work->block + 1 == depth->blocks;
    /* what is needed next, as far as can be told: where all threads are equally fast */
    compact_ahead next = last ? ahead_of(p, g, 0, work->panel + p->threads)
                              : ahead_of(p, g, work->block + 1, work->panel);
    compact_ahead result = last ? result_of(p, g, work->panel) : (compact_ahead){.rows = 0};
    fd_share_ahead(&result, turns / 2);
    fd_share_ahead(&next, last ? turns / 2 : turns);
    result.then = &next;
    for (int64_t vector = 0; vector < vectors; vector += FD_COMPACT_STRIP) {
        const compact_strips strip = {work->strip, smaller(vectors - vector, FD_COMPACT_STRIP),
                                      FD_COMPACT_STRIP * lanes, 0};
        p->kernels->compact_pack_strip[p->dtype](&p->c->w, depth, work->block, columns, work->panel,
                                                 vector / FD_COMPACT_STRIP, work->strip);
        p->kernels->compact_multiply[p->dtype](
            work->packed + octet_at(p, work->block, g * p->octets), octets,
            fd_active_in_block(depth, work->block), &strip,
            tile_of(work, g) + vector * lanes * size, work->tile_stride, work->block == 0, &result);
    }
}

static void multiply_panel(const void *context, int64_t panel)
{
    compact_pass *p = (compact_pass *)context;
    const int64_t size = fd_element_bytes(p->dtype), lanes = p->kernels->lanes[p->dtype];
    const int64_t blocks = p->depth[0].blocks, slack = FD_MAX_LANES * size;
    const int64_t strip = fd_aligned(fd_divide_up(FD_COMPACT_DEPTH, lanes) * lanes *
                                     FD_COMPACT_STRIP * lanes * size + slack);
    compact_work work = {.panel = panel, .tile_stride = p->tile_stride};
    work.tile_bytes = p->octets * p->kernels->compact_rows * p->tile_stride * size;
    const int64_t tiles = p->groups * work.tile_bytes;
    work.strip = fd_workspace(FD_SLOT_PANEL, (size_t)(strip + tiles + slack));
    work.packed = fd_packed(&p->packed);
    if (work.strip == NULL || work.packed == NULL) {
        p->failed = 1;
        return;
    }
    work.tiles = work.strip + strip;
    if (blocks == 0) {
        memset(work.tiles, 0, (size_t)tiles);
    }
    for (; work.block < blocks; work.block++) {
        for (int64_t g = 0; g < p->groups; g++) {
            multiply_block(p, &work, g);
        }
    }
    for (int64_t g = 0; g < p->groups; g++) {
        p->kernels->compact_put[p->dtype](tile_of(&work, g), work.tile_stride, &p->columns[g], panel,
                                          0, p->result, NULL, p->row + g * p->group,
                                          rows_of_group(p, g));
    }
}

/* The axes of all groups; returns 0, or -1 without memory. */
static int lay_out(compact_pass *p)
{
    const compact_operands *c = p->c;
    const int64_t lanes = p->kernels->lanes[p->dtype];
    const int64_t phase = fd_phase(c->w.data, fd_element_bytes(p->dtype));
    const int64_t vectors = p->groups > 1 ? FD_COMPACT_GROUP_VECTORS : FD_COMPACT_VECTORS;
    const compact_layout layouts[] = {
        {&c->mask_in, p->row, p->group, p->groups, 1, FD_COMPACT_DEPTH, 1, 1, phase, p->depth},
        {&c->mask_out, p->row, p->group, p->groups, 1, vectors * lanes, p->threads, lanes, phase,
         p->columns},
    };
    return fd_lay_out_axes(layouts, 2, (int)lanes);
}

/* Where no group of a pass has any column. */
static void clear_rows(const compact_pass *p)
{
    const compact_result *r = p->result;
    const int64_t size = fd_element_bytes(p->dtype);
    for (int64_t i = p->row; i < p->row + p->rows; i++) {
        memset((char *)r->data + i * r->stride * size, 0,
               (size_t)(p->c->mask_out.units.length * size));
    }
}

/* One pass: p->groups groups of rows from p->row on. Returns its multiply-adds, or -1. */
static int64_t multiply_groups(compact_pass *p)
{
    const int64_t unit = p->kernels->compact_rows, size = fd_element_bytes(p->dtype);
    int64_t products = 0;
    for (int64_t g = 0; g < p->groups; g++) {
        const int64_t row = p->row + g * p->group;
        const fd_units in = fd_units_of_row(&p->c->mask_in, row);
        const fd_units out = fd_units_of_row(&p->c->mask_out, row);
        products += rows_of_group(p, g) * fd_count_units(&in) * fd_count_units(&out);
    }
    p->threads = fd_threads_for(products, MINIMUM_PRODUCTS);
    if (lay_out(p) != 0) {
        return -1;
    }
    if (p->columns[0].blocks == 0) {
        clear_rows(p);
        return 0;
    }
    p->tile_stride = fd_panel_stride(fd_widest_block(p->columns, p->groups),
                                     p->kernels->lanes[p->dtype]);
    const int64_t octets = p->groups * p->octets, blocks = p->depth[0].blocks;
    p->octet_bytes = unit * (FD_COMPACT_DEPTH + p->kernels->lanes[p->dtype]) * size;
    p->packed = (packed_operand){.pack = pack_octet, .context = p, .parts = octets,
                                 .bytes = (size_t)(blocks * octets * p->octet_bytes + 1)};
    const int packers = fd_threads_for(p->rows * p->c->mask_in.units.length, MINIMUM_PACKED);
    if (fd_pack_operand(&p->packed, p->threads, packers) != 0) {
        return -1;
    }
    fd_parallel(p->threads, p->columns[0].blocks, multiply_panel, p);
    return p->failed ? -1 : products;
}

int64_t fd_compact_matmul(fd_dtype dtype, const compact_operands *c, const compact_result *result)
{
    compact_pass p;
    p.kernels = fd_active_kernels();
    p.dtype = dtype;
    p.c = c;
    p.x = (compact_matrix){c->x, c->x_stride, 0};
    p.result = result;
    p.failed = 0;
    const int64_t unit = p.kernels->compact_rows;
    int64_t total = 0;
    for (p.row = 0; p.row < c->rows; p.row += p.rows) {
        const int64_t left = c->rows - p.row;
        const int64_t of_group = smaller(c->group - p.row % c->group, left);
        p.group = smaller(of_group, FD_BLOCK_ROWS); /* a long group in parts */
        p.octets = (p.group + unit - 1) / unit;
        p.groups = 1;
        if (p.group == c->group) {
            p.groups = smaller(FD_COMPACT_GROUPS, FD_BLOCK_ROWS / (p.octets * unit));
            p.groups = smaller(p.groups, (left + c->group - 1) / c->group);
        }
        p.rows = smaller(p.groups * p.group, left);
        const int64_t products = multiply_groups(&p);
        if (products < 0) {
            return -1;
        }
        total += products;
    }
    return total;
}
