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
/* Panels of w, 75 KB each, and bytes of sums that stay in a 1 MB L2 cache beside the packed x. */
#define PACKED_PANELS 4
#define TILE_BYTES (1 << 18)

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
    /* What a thread works on at a time. */
    int64_t blocks, panels, panel_depth, panel_stride;
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

static int64_t vectors_of(const compact_pass *p, int64_t g, int64_t panel)
{
    const int64_t lanes = p->kernels->lanes[p->dtype];
    return (fd_active_in_block(&p->columns[g], panel) + lanes - 1) / lanes;
}

/* What one thread works with: a part of w of all groups of rows, and the sums of each. */
typedef struct {
    compact_part part;
    const char *packed;
    char *panels, *tiles;
    int64_t panel_bytes, tile_bytes; /* of one panel; of one group's sums over it */
} compact_work;

static char *tile_of(const compact_pass *p, const compact_work *work, int64_t g, int64_t n)
{
    return work->tiles + (n * p->groups + g) * work->tile_bytes;
}

/* Blocks [block, block + blocks) of depth and panels [panel, panel + panels) of w, to be fetched while
 * group g multiplies what is packed. */
static compact_ahead ahead_of(const compact_pass *p, const compact_part *part, int64_t g,
                              int64_t block, int64_t panel)
{
    const compact_matrix *w = &p->c->w;
    const int64_t size = fd_element_bytes(p->dtype);
    /* rows in memory are units of this axis, and run along the other */
    const compact_axis *rows = w->transposed ? &p->columns[g] : &p->depth[g];
    const compact_axis *along = w->transposed ? &p->depth[g] : &p->columns[g];
    const int64_t first = w->transposed ? panel : block, begin = w->transposed ? block : panel;
    const int64_t end = smaller(first + (w->transposed ? p->panels : p->blocks), rows->blocks);
    const int64_t stop = smaller(begin + (w->transposed ? p->blocks : p->panels), along->blocks);
    compact_ahead ahead = {.rows = 0};
    if (first >= end || begin >= stop) {
        return ahead;
    }
    ahead.data = (const char *)w->data + along->cuts[begin] * size;
    ahead.stride = w->stride * size;
    ahead.row_bytes = (along->cuts[stop] - along->cuts[begin]) * size;
    if (p->groups > 1) { /* together they need nearly all of them: each fetches its share */
        const int64_t all = rows->cuts[end] - rows->cuts[first];
        ahead.first = rows->cuts[first] + all * g / p->groups;
        ahead.rows = rows->cuts[first] + all * (g + 1) / p->groups - ahead.first;
    } else {
        ahead.first = rows->ranks[first];
        ahead.numbers = rows->numbers ? rows->numbers + ahead.first : NULL;
        ahead.rows = rows->ranks[end] - ahead.first;
    }
    const int64_t calls = p->octets * ((vectors_of(p, g, part->panel) + 1) / 2) *
                          part->blocks * part->panels;
    const int64_t depth = fd_active_in_block(&p->depth[g], part->block);
    fd_share_ahead(&ahead, calls * ((depth + FD_AHEAD_STEPS - 1) / FD_AHEAD_STEPS));
    return ahead;
}

/* What the thread will pack next, as far as can be told: the next blocks of depth, then the first of
 * the panels that are left to it where all threads are equally fast. */
static compact_ahead next_part(const compact_pass *p, const compact_part *part, int64_t g)
{
    if (part->block + part->blocks < p->depth[g].blocks) {
        return ahead_of(p, part, g, part->block + part->blocks, part->panel);
    }
    return ahead_of(p, part, g, 0, part->panel + p->threads * p->panels);
}

static void multiply_part(const compact_pass *p, const compact_work *work, int64_t g)
{
    const compact_part *part = &work->part;
    const compact_axis *depth = &p->depth[g];
    const int64_t rows = rows_of_group(p, g), unit = p->kernels->compact_rows;
    compact_ahead ahead = next_part(p, part, g);
    p->kernels->compact_pack_panels[p->dtype](&p->c->w, depth, &p->columns[g], part, work->panels);
    for (int64_t b = 0; b < part->blocks; b++) {
        const int64_t block = part->block + b;
        for (int64_t n = 0; n < part->panels; n++) {
            p->kernels->compact_multiply[p->dtype](
                work->packed + octet_at(p, block, g * p->octets), (rows + unit - 1) / unit,
                fd_active_in_block(depth, block),
                work->panels + (b * part->panels + n) * work->panel_bytes, part->stride,
                vectors_of(p, g, part->panel + n), tile_of(p, work, g, n), part->stride,
                block == 0, &ahead);
        }
    }
}

static void store_part(const compact_pass *p, const compact_work *work, int64_t g)
{
    const compact_part *part = &work->part;
    for (int64_t n = 0; n < part->panels; n++) {
        p->kernels->compact_put[p->dtype](tile_of(p, work, g, n), part->stride, &p->columns[g],
                                          part->panel + n, 0, p->result, NULL,
                                          p->row + g * p->group, rows_of_group(p, g));
    }
}

static void multiply_columns(const void *context, int64_t task)
{
    compact_pass *p = (compact_pass *)context;
    const int64_t size = fd_element_bytes(p->dtype), slack = FD_MAX_LANES * size;
    const int64_t blocks = p->depth[0].blocks, first = task * p->panels;
    compact_work work = {
        .part = {.panel = first, .depth = p->panel_depth, .stride = p->panel_stride},
    };
    compact_part *part = &work.part;
    part->panels = smaller(p->columns[0].blocks - first, p->panels);
    work.panel_bytes = p->panel_depth * p->panel_stride * size;
    work.tile_bytes = p->octets * p->kernels->compact_rows * p->panel_stride * size;
    const int64_t packed = fd_aligned(p->blocks * part->panels * work.panel_bytes + slack);
    const int64_t tiles = part->panels * p->groups * work.tile_bytes;
    work.panels = fd_workspace(FD_SLOT_PANEL, (size_t)(packed + tiles + slack));
    work.packed = fd_packed(&p->packed);
    if (work.panels == NULL || work.packed == NULL) {
        p->failed = 1;
        return;
    }
    work.tiles = work.panels + packed;
    if (blocks == 0) {
        memset(work.tiles, 0, (size_t)tiles);
    }
    for (part->block = 0; part->block < blocks; part->block += p->blocks) {
        part->blocks = smaller(blocks - part->block, p->blocks);
        for (int64_t g = 0; g < p->groups; g++) {
            multiply_part(p, &work, g);
        }
    }
    for (int64_t g = 0; g < p->groups; g++) {
        store_part(p, &work, g);
    }
}

/* How much of w a thread packs at a time. A group alone: plain w, whose rows run along the columns,
 * in wide parts of one block of depth, w transposed in narrow, deep ones, so that its memory is
 * read row by row. Several groups: what stays in the L2 cache until all have taken their part. */
static void divide_work(compact_pass *p)
{
    const int64_t lanes = p->kernels->lanes[p->dtype], columns = p->columns[0].blocks;
    /* w transposed is turned in whole vectors */
    p->panel_depth = (fd_widest_block(p->depth, p->groups) + lanes - 1) / lanes * lanes;
    p->panel_stride = fd_panel_stride(fd_widest_block(p->columns, p->groups), lanes);
    const int64_t rows = p->groups * p->octets * p->kernels->compact_rows;
    const int64_t tile_bytes = rows * p->panel_stride * fd_element_bytes(p->dtype);
    p->blocks = p->panels = 1;
    if (p->groups > 1) {
        return;
    }
    if (p->c->w.transposed) {
        p->blocks = smaller(PACKED_PANELS, p->depth[0].blocks);
        p->blocks += p->blocks == 0;
    } else {
        int64_t most = smaller(PACKED_PANELS, TILE_BYTES / tile_bytes);
        most += most == 0;
        /* equally many tasks for each thread, of equally many panels */
        const int64_t rounds = fd_divide_up(fd_divide_up(columns, most), p->threads);
        p->panels = fd_divide_up(columns, rounds * p->threads);
    }
}

/* The axes of all groups; returns 0, or -1 without memory. */
static int lay_out(compact_pass *p)
{
    const compact_operands *c = p->c;
    const int64_t lanes = p->kernels->lanes[p->dtype];
    const int64_t vectors = p->groups > 1 ? FD_COMPACT_GROUP_VECTORS : FD_COMPACT_VECTORS;
    const int transposed = c->w.transposed;
    const compact_layout layouts[] = {
        {&c->mask_in, p->row, p->group, p->groups, 1, FD_COMPACT_DEPTH, 1, 1, !transposed, 1,
         p->depth},
        {&c->mask_out, p->row, p->group, p->groups, 1, vectors * lanes, p->threads, lanes,
         transposed, 1, p->columns},
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
    divide_work(p);
    const int64_t octets = p->groups * p->octets, blocks = p->depth[0].blocks;
    p->octet_bytes = unit * (FD_COMPACT_DEPTH + p->kernels->lanes[p->dtype]) * size;
    p->packed = (packed_operand){.pack = pack_octet, .context = p, .parts = octets,
                                 .bytes = (size_t)(blocks * octets * p->octet_bytes + 1)};
    const int packers = fd_threads_for(p->rows * p->c->mask_in.units.length, MINIMUM_PACKED);
    if (fd_pack_operand(&p->packed, p->threads, packers) != 0) {
        return -1;
    }
    fd_parallel(p->threads, fd_divide_up(p->columns[0].blocks, p->panels), multiply_columns,
                p);
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
