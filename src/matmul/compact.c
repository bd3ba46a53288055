/* compact.c: products of active units, cut into blocks for caches and threads.
 *
 * Groups of rows that have units of their own are multiplied together, up to FD_BLOCK_ROWS rows: x
 * is packed, and threads share the columns. Sums stay in a tile in the L2 cache; where there are
 * several groups, each takes its part of a block of w while it is there. Every sum is made by one
 * thread in the order of the depth. */
#include <stdatomic.h>
#include <string.h>

#include "kernels.h"
#include "matmul/compact_axis.h"
#include "matmul/drivers.h"
#include "matmul/packed.h"

/* What a thread must have to do to be worth waking: elements packed, multiply-adds. */
#define MINIMUM_PACKED (1 << 16)
#define MINIMUM_PRODUCTS (1 << 19)

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const compact_operands *c;
    const compact_result *result;
    int64_t row, groups, group; /* groups of rows, all but the last `group` rows long */
    int64_t rows;
    int threads;
    compact_axis depth[FD_COMPACT_GROUPS], columns[FD_COMPACT_GROUPS]; /* of each group */
    packed_operand packed; /* x */
    int64_t widest; /* active columns of the widest panel */
    atomic_int failed;
} compact_pass;

static int64_t rows_of_group(const compact_pass *p, int64_t g)
{
    const int64_t left = p->rows - g * p->group;
    return left < p->group ? left : p->group;
}

/* What one thread works with: room for packed parts of w, and the sums of each group over a panel. */
typedef struct {
    int64_t panel, block;
    int64_t scratch_bytes, tile_bytes, tile_stride; /* whole cache lines; bytes; elements */
    const char *packed;
    char *scratch, *tiles;
} compact_work;

static char *tile_of(const compact_work *work, int64_t g)
{
    return work->tiles + g * work->tile_bytes;
}

/* Whether panels that lie side by side are one thread's, which they are where all threads have as many: two that
 * write to one line of the cache wait for each other in every row. */
static int in_a_row(const compact_pass *p)
{
    return p->columns[0].blocks % p->threads == 0;
}

/* The part of w that is packed after block `block` of panel `panel`: of the next block, or of the next panel, as
 * far as can be told: where all threads are equally fast. It is fetched in `turns` turns of FD_AHEAD_STEPS steps.
 * Of several groups, which together need nearly all rows, each fetches its share. */
static compact_ahead packed_next(const compact_pass *p, int64_t g, int64_t block, int64_t panel, int64_t turns)
{
    const compact_matrix *w = &p->c->w;
    const int64_t size = fd_element_bytes(p->dtype), last = block + 1 == p->depth[g].blocks;
    /* rows in memory are units of this axis, and run along the other */
    const compact_axis *rows = w->transposed ? &p->columns[g] : &p->depth[g];
    const compact_axis *along = w->transposed ? &p->depth[g] : &p->columns[g];
    panel += last ? (in_a_row(p) ? 1 : p->threads) : 0;
    block = last ? 0 : block + 1;
    const int64_t row = w->transposed ? panel : block, part = w->transposed ? block : panel;
    compact_ahead ahead = {.rows = 0};
    if (panel >= p->columns[g].blocks) {
        return ahead;
    }
    ahead.data = (const char *)w->data + along->cuts[part] * size;
    ahead.stride = w->stride * size;
    ahead.row_bytes = (along->cuts[part + 1] - along->cuts[part]) * size;
    if (p->groups > 1) {
        const int64_t all = rows->cuts[row + 1] - rows->cuts[row];
        ahead.first = rows->cuts[row] + all * g / p->groups;
        ahead.rows = rows->cuts[row] + all * (g + 1) / p->groups - ahead.first;
    } else {
        ahead.first = rows->ranks[row];
        ahead.numbers = rows->numbers ? rows->numbers + ahead.first : NULL;
        ahead.rows = fd_active_in_block(rows, row);
    }
    ahead.lines = fd_divide_up(ahead.rows * fd_divide_up(ahead.row_bytes, FD_CACHE_LINE), fd_larger(turns, 1));
    return ahead;
}

/* --- Rows of x by strips of w ------------------------------------------------------------------- */

static int64_t octets_of(const compact_pass *p)
{
    return fd_divide_up(p->group, p->kernels->compact_rows);
}

static int64_t octet_bytes(const compact_pass *p)
{
    return p->kernels->compact_rows * (FD_COMPACT_DEPTH + p->kernels->lanes[p->dtype]) *
           fd_element_bytes(p->dtype);
}

/* Block of depth after block, of each the octets of all groups. */
static int64_t octet_at(const compact_pass *p, int64_t block, int64_t octet)
{
    return (block * p->groups * octets_of(p) + octet) * octet_bytes(p);
}

static void pack_octet(const void *context, int64_t task, char *packed)
{
    const compact_pass *p = context;
    const int64_t octets = octets_of(p), unit = p->kernels->compact_rows;
    const int64_t g = task / octets, first = task % octets * unit;
    const int64_t row = p->row + g * p->group + first;
    const int64_t rows = fd_smaller(rows_of_group(p, g) - first, unit);
    const compact_matrix x = {p->c->x, p->c->x_stride, 0, p->c->masked};
    for (int64_t block = 0; rows > 0 && block < p->depth[g].blocks; block++) {
        p->kernels->compact_pack_rows[p->dtype](&x, NULL, row, rows, &p->depth[g], block,
                                                packed + octet_at(p, block, task));
    }
}

static packed_operand operand(const compact_pass *p)
{
    const int64_t octets = p->groups * octets_of(p);
    return (packed_operand){.pack = pack_octet, .context = p, .parts = octets,
                            .bytes = (size_t)(octet_at(p, p->depth[0].blocks, 0) + 1)};
}

static void set_sizes(const compact_pass *p, compact_work *work)
{
    const int64_t size = fd_element_bytes(p->dtype), lanes = p->kernels->lanes[p->dtype];
    const int64_t depth = fd_divide_up(FD_COMPACT_DEPTH, lanes) * lanes;
    work->scratch_bytes = fd_aligned((depth * FD_COMPACT_STRIP * lanes + FD_MAX_LANES) * size);
    work->tile_stride = fd_panel_stride(p->widest, lanes);
    work->tile_bytes = octets_of(p) * p->kernels->compact_rows * work->tile_stride * size;
}

/* Multiplies one block of w, strip by strip: each stays in the L1 cache until all rows of the group have
 * taken it. */
static void multiply_block(const compact_pass *p, const compact_work *work, int64_t g)
{
    const compact_axis *depth = &p->depth[g], *columns = &p->columns[g];
    const int64_t size = fd_element_bytes(p->dtype), lanes = p->kernels->lanes[p->dtype];
    const int64_t octets = fd_divide_up(rows_of_group(p, g), p->kernels->compact_rows);
    const int64_t vectors = fd_vectors_in_block(columns, work->panel, lanes);
    const int64_t turns = fd_divide_up(fd_active_in_block(depth, work->block), FD_AHEAD_STEPS) *
                          octets * fd_divide_up(vectors, FD_COMPACT_STRIP);
    compact_ahead ahead = packed_next(p, g, work->block, work->panel, turns);
    for (int64_t vector = 0; vector < vectors; vector += FD_COMPACT_STRIP) {
        const compact_strips strip = {work->scratch, fd_smaller(vectors - vector, FD_COMPACT_STRIP),
                                      FD_COMPACT_STRIP * lanes, 0};
        p->kernels->compact_pack_strip[p->dtype](&p->c->w, depth, work->block, columns, work->panel,
                                                 vector / FD_COMPACT_STRIP, work->scratch);
        p->kernels->compact_multiply[p->dtype](
            work->packed + octet_at(p, work->block, g * octets_of(p)), octets,
            fd_active_in_block(depth, work->block), &strip,
            tile_of(work, g) + vector * lanes * size, work->tile_stride, work->block == 0, &ahead);
    }
}

static void put_tile(const compact_pass *p, const compact_work *work, int64_t g)
{
    p->kernels->compact_put[p->dtype](tile_of(work, g), work->tile_stride, &p->columns[g], work->panel,
                                      p->result, p->row + g * p->group, rows_of_group(p, g));
}

/* --- The whole product -------------------------------------------------------------------------- */

/* Tasks number t, t + threads, ... are for the same thread. */
static int64_t panel_of(const compact_pass *p, int64_t task)
{
    const int64_t share = p->columns[0].blocks / p->threads;
    return in_a_row(p) ? task % p->threads * share + task / p->threads : task;
}

/* Task: a panel of w. */
static void multiply_panel(const void *context, int64_t task)
{
    compact_pass *p = (compact_pass *)context;
    const int64_t blocks = p->depth[0].blocks, slack = FD_MAX_LANES * fd_element_bytes(p->dtype);
    compact_work work = {.panel = panel_of(p, task)};
    set_sizes(p, &work);
    const int64_t tiles = p->groups * work.tile_bytes;
    work.scratch = fd_workspace(FD_SLOT_PANEL, (size_t)(work.scratch_bytes + tiles + slack));
    work.packed = fd_packed(&p->packed);
    if (work.scratch == NULL || work.packed == NULL) {
        p->failed = 1;
        return;
    }
    work.tiles = work.scratch + work.scratch_bytes;
    if (blocks == 0) {
        memset(work.tiles, 0, (size_t)tiles);
    }
    for (; work.block < blocks; work.block++) {
        for (int64_t g = 0; g < p->groups; g++) {
            multiply_block(p, &work, g);
        }
    }
    for (int64_t g = 0; g < p->groups; g++) {
        put_tile(p, &work, g);
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
        {.mask = &c->mask_in, .row = p->row, .group = p->group, .groups = p->groups, .common = 1,
         .most = FD_COMPACT_DEPTH, .parts = 1, .unit = 1, .phase = phase, .axes = p->depth},
        {.mask = &c->mask_out, .row = p->row, .group = p->group, .groups = p->groups, .common = 1,
         .vectors = c->mask_out.units.bits != NULL, .most = vectors * lanes, .parts = p->threads, .unit = lanes,
         .phase = phase, .axes = p->columns},
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

/* One pass: p->groups groups of rows from p->row on, by up to `threads` threads. Returns its multiply-adds, or
 * -1. */
static int64_t multiply_groups(compact_pass *p, int threads)
{
    int64_t products = 0;
    for (int64_t g = 0; g < p->groups; g++) {
        const int64_t row = p->row + g * p->group;
        const fd_units in = fd_units_of_row(&p->c->mask_in, row);
        const fd_units out = fd_units_of_row(&p->c->mask_out, row);
        products += rows_of_group(p, g) * fd_count_units(&in) * fd_count_units(&out);
    }
    p->threads = threads > 1 ? fd_threads_for(products, MINIMUM_PRODUCTS) : 1;
    if (lay_out(p) != 0) {
        return -1;
    }
    if (p->columns[0].blocks == 0) {
        clear_rows(p);
        return 0;
    }
    p->widest = fd_widest_block(p->columns, p->groups);
    p->packed = operand(p);
    const int packers =
        threads > 1 ? fd_threads_for(p->rows * p->c->mask_in.units.length, MINIMUM_PACKED) : 1;
    if (fd_pack_operand(&p->packed, p->threads, packers) != 0) {
        return -1;
    }
    fd_parallel(p->threads, p->columns[0].blocks, multiply_panel, p);
    return p->failed ? -1 : products;
}

/* Rows [row, end) of a product, by up to `threads` threads. Returns the multiply-adds, or -1. */
static int64_t multiply_rows(fd_dtype dtype, const compact_operands *c, const compact_result *result,
                             int64_t row, int64_t end, int threads)
{
    compact_pass p;
    p.kernels = fd_active_kernels();
    p.dtype = dtype;
    p.c = c;
    p.result = result;
    p.failed = 0;
    int64_t total = 0;
    for (p.row = row; p.row < end; p.row += p.rows) {
        const int64_t left = end - p.row;
        const int64_t of_group = fd_smaller(c->group - p.row % c->group, left);
        p.group = fd_smaller(of_group, FD_BLOCK_ROWS); /* a long group in parts */
        p.groups = 1;
        if (p.group == c->group) {
            const int64_t octets = FD_BLOCK_ROWS / p.kernels->compact_rows;
            p.groups = fd_smaller(FD_COMPACT_GROUPS, octets / octets_of(&p));
            p.groups = fd_smaller(p.groups, fd_divide_up(left, c->group));
        }
        p.rows = fd_smaller(p.groups * p.group, left);
        const int64_t products = multiply_groups(&p, threads);
        if (products < 0) {
            return -1;
        }
        total += products;
    }
    return total;
}

/* Rows shared among threads, each of which has its own product. */
typedef struct {
    fd_dtype dtype;
    const compact_operands *c;
    const compact_result *result;
    int64_t rows; /* of a task */
    atomic_int_fast64_t products;
    atomic_int failed;
} compact_shares;

static void multiply_share(const void *context, int64_t task)
{
    compact_shares *s = (compact_shares *)context;
    const int64_t row = task * s->rows, end = fd_smaller(row + s->rows, s->c->rows);
    const int64_t products = multiply_rows(s->dtype, s->c, s->result, row, end, 1);
    if (products < 0) {
        s->failed = 1;
    } else {
        s->products += products;
    }
}

int64_t fd_compact_matmul(fd_dtype dtype, const compact_operands *c, const compact_result *result)
{
    const int64_t columns = c->mask_out.units.length, unit = fd_active_kernels()->compact_rows;
    int threads = 1;
    if (c->group >= c->rows && columns * fd_element_bytes(dtype) <= FD_SHORT_ROW) {
        const fd_units in = fd_units_of_row(&c->mask_in, 0), out = fd_units_of_row(&c->mask_out, 0);
        const int64_t products = c->rows * fd_count_units(&in) * fd_count_units(&out);
        threads = fd_threads_for(products, MINIMUM_PRODUCTS);
    }
    if (threads == 1) {
        return multiply_rows(dtype, c, result, 0, c->rows, fd_get_num_threads());
    }
    compact_shares s = {.dtype = dtype, .c = c, .result = result};
    s.rows = fd_divide_up(fd_divide_up(c->rows, threads), unit) * unit;
    fd_parallel(threads, fd_divide_up(c->rows, s.rows), multiply_share, &s);
    return s.failed ? -1 : s.products;
}
