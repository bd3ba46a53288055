/* compact_gradient.c: gradients of weights between active units, cut into blocks for caches and
 * threads.
 *
 * dw = x' @ dy, added up over groups of rows. The active columns of dy are packed for all groups,
 * up to FD_BLOCK_ROWS rows; then threads share the rows of dw. The depth is the batch, so that products
 * are short and dw, which has to be written whole, is what takes time. The sums of whole rows are kept in
 * the L2 cache, and each row of dw is written once and in one piece, from what all groups have for it. One
 * group of whose sums the cache would not hold enough, or that makes them in several blocks of depth,
 * writes a panel's columns as soon as it has them. */
#include <stdatomic.h>
#include <string.h>

#include "matmul/compact_axis.h"
#include "kernels.h"
#include "matmul/drivers.h"
#include "matmul/packed.h"
#include "runtime/cache.h"

/* What a thread must have to do to be worth waking: elements packed, multiply-adds. */
#define MINIMUM_PACKED (1 << 16)
#define MINIMUM_PRODUCTS (1 << 19)
/* Units of x of one task of a group alone, and bytes of dw of one task of several. */
#define TASK_UNITS 64
#define TASK_BYTES (1 << 18)

/* The part of the L2 cache that the sums of several groups may take, and of one that need not. */
#define SUMS_SHARE 2
#define WHOLE_SHARE 6

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const compact_batch *c;
    compact_matrix x, grad;
    const compact_result *result;
    int64_t row, rows, groups, group; /* groups of rows, all but the last `group` rows long */
    compact_axis units[FD_COMPACT_GROUPS], columns[FD_COMPACT_GROUPS]; /* of each group */
    int64_t blocks, depth; /* of a group's rows; of the longest */
    int whole; /* rows are written whole, of several panels */
    int64_t most_panels, tile_stride;
    int64_t tile_bytes, together; /* of a group's sums; groups whose sums are kept at a time */
    int64_t strip_bytes, panel_bytes; /* of dy, packed */
    packed_operand packed; /* dy: group after group, of each block after block of all panels */
    atomic_int failed;
} gradient_pass;

static int64_t rows_of_block(const gradient_pass *p, int64_t g, int64_t block)
{
    const int64_t rows = fd_smaller(p->rows - g * p->group, p->group);
    return fd_larger(fd_smaller(rows - block * FD_COMPACT_DEPTH, FD_COMPACT_DEPTH), 0);
}

static int64_t gradient_panel_at(const gradient_pass *p, int64_t g, int64_t block, int64_t panel)
{
    return ((g * p->blocks + block) * p->most_panels + panel) * p->panel_bytes;
}

/* Task: a block of a group's rows. */
static void pack_grad(const void *context, int64_t task, char *packed)
{
    const gradient_pass *p = context;
    const int64_t g = task / p->blocks, block = task % p->blocks;
    const int64_t first = p->row + g * p->group + block * FD_COMPACT_DEPTH;
    const int64_t ends[] = {first, first + rows_of_block(p, g, block)};
    const compact_axis rows = {.length = p->c->rows, .blocks = 1, .cuts = ends, .ranks = ends};
    const compact_axis *columns = &p->columns[g];
    const int64_t lanes = p->kernels->lanes[p->dtype];
    for (int64_t panel = 0; ends[0] < ends[1] && panel < columns->blocks; panel++) {
        const int64_t vectors = fd_vectors_in_block(columns, panel, lanes);
        for (int64_t strip = 0; strip * FD_COMPACT_STRIP < vectors; strip++) {
            p->kernels->compact_pack_strip[p->dtype](
                &p->grad, &rows, 0, columns, panel, strip,
                packed + gradient_panel_at(p, g, block, panel) + strip * p->strip_bytes);
        }
    }
}

/* The part of dw that the sums of a panel of the only group go to. */
static compact_ahead rows_to_write(const gradient_pass *p, int64_t task, int64_t panel)
{
    const compact_axis *units = &p->units[0], *columns = &p->columns[0];
    const int64_t size = fd_element_bytes(p->dtype), lanes = p->kernels->lanes[p->dtype];
    const int64_t vectors = fd_vectors_in_block(columns, panel, lanes);
    const int64_t active = fd_active_in_block(units, task), unit = p->kernels->compact_rows;
    compact_ahead ahead = {
        .data = (const char *)p->result->data + columns->cuts[panel] * size,
        .stride = p->result->stride * size,
        .row_bytes = (columns->cuts[panel + 1] - columns->cuts[panel]) * size,
        .first = units->ranks[task],
        .rows = active,
        .numbers = units->numbers ? units->numbers + units->ranks[task] : NULL,
    };
    const int64_t calls = fd_divide_up(active, unit) * fd_divide_up(vectors, FD_COMPACT_STRIP);
    fd_share_ahead(&ahead, calls * ((p->group + FD_AHEAD_STEPS - 1) / FD_AHEAD_STEPS));
    return ahead;
}

static int is_active(const fd_units *units, int64_t i)
{
    return units->bits == NULL || fd_test_bit(units->bits, units->bit + i);
}

/* Rows of dw, [first, end), that the only group does not write: it writes rows of its units, and none
 * where it has no columns. */
static void clear_gradient_rows(const gradient_pass *p, int64_t first, int64_t end)
{
    const fd_units units = fd_units_of_row(&p->c->mask_in, 0);
    const int64_t size = fd_element_bytes(p->dtype);
    const compact_result *r = p->result;
    for (int64_t i = first; i < end; i++) {
        if (p->columns[0].blocks == 0 || !is_active(&units, i)) {
            memset((char *)r->data + i * r->stride * size, 0,
                   (size_t)(p->c->mask_out.units.length * size));
        }
    }
}

static int64_t active_columns(const gradient_pass *p, int64_t g)
{
    const compact_axis *columns = &p->columns[g];
    return columns->blocks > 0 ? columns->ranks[columns->blocks] : 0;
}

static int64_t gradient_octets_of(const gradient_pass *p, int64_t g, int64_t task)
{
    return fd_divide_up(fd_active_in_block(&p->units[g], task), p->kernels->compact_rows);
}

static int64_t units_bytes(const gradient_pass *p)
{
    const int64_t row = FD_COMPACT_DEPTH + p->kernels->lanes[p->dtype];
    return FD_COMPACT_UNITS * row * fd_element_bytes(p->dtype);
}

/* A block of a group's units, of all its blocks of rows. */
static void pack_units(const gradient_pass *p, int64_t g, int64_t task, char *x)
{
    for (int64_t b = 0; b < p->blocks; b++) {
        const int64_t row = p->row + g * p->group + b * FD_COMPACT_DEPTH;
        p->kernels->compact_pack_units[p->dtype](&p->x, row, rows_of_block(p, g, b), &p->units[g], task,
                                                 x + b * units_bytes(p));
    }
}

/* Sums of one group's products, of a block of its units and a panel. */
static void multiply_gradient_panel(const gradient_pass *p, int64_t g, int64_t task, int64_t panel, const char *grad,
                           const char *x, char *tile, compact_ahead *ahead)
{
    const int64_t lanes = p->kernels->lanes[p->dtype];
    for (int64_t b = 0; b < p->blocks; b++) {
        const compact_strips strips = {grad + gradient_panel_at(p, g, b, panel),
                                       fd_vectors_in_block(&p->columns[g], panel, lanes),
                                       FD_COMPACT_STRIP * lanes,
                                       p->strip_bytes / fd_element_bytes(p->dtype)};
        p->kernels->compact_multiply[p->dtype](x + b * units_bytes(p), gradient_octets_of(p, g, task),
                                               rows_of_block(p, g, b), &strips, tile, p->tile_stride,
                                               b == 0, ahead);
    }
}

/* The only group: sums of a panel go to dw, or are added to it, before those of the next one are made. */
static void add_group(const gradient_pass *p, int64_t task, const char *grad, char *x, char *tile)
{
    const compact_axis *units = &p->units[0], *columns = &p->columns[0];
    const int64_t active = fd_active_in_block(units, task), first = units->ranks[task];
    const int64_t begin = units->cuts[task], rows = units->cuts[task + 1] - begin;
    const int accumulate = p->row > 0;
    if (active == 0 || columns->blocks == 0) {
        if (!accumulate) {
            clear_gradient_rows(p, begin, begin + rows);
        }
        return;
    }
    pack_units(p, 0, task, x);
    for (int64_t panel = 0; panel < columns->blocks; panel++) {
        compact_ahead ahead = rows_to_write(p, task, panel);
        multiply_gradient_panel(p, 0, task, panel, grad, x, tile, &ahead);
        p->kernels->compact_put[p->dtype](tile, p->tile_stride, columns, panel, accumulate, p->result,
                                          units->numbers ? units->numbers + first : NULL, first, active);
        if (!accumulate) { /* a few at a time: they go to memory while the next panel is multiplied */
            clear_gradient_rows(p, begin + rows * panel / columns->blocks,
                       begin + rows * (panel + 1) / columns->blocks);
        }
    }
}

/* The share of group number g of `count` in fetching the rows of dw that they write. */
static compact_ahead share_of_rows(const gradient_pass *p, int64_t g, int64_t count, int64_t task,
                                   int64_t turns)
{
    const int64_t size = fd_element_bytes(p->dtype), *cuts = p->units[0].cuts + task;
    const int64_t rows = cuts[1] - cuts[0], first = rows * g / count;
    compact_ahead ahead = {
        .data = (const char *)p->result->data,
        .stride = p->result->stride * size,
        .row_bytes = p->c->mask_out.units.length * size,
        .first = cuts[0] + first,
        .rows = rows * (g + 1) / count - first,
    };
    fd_share_ahead(&ahead, turns);
    return ahead;
}

/* The sums of a block of units of groups [first, first + count), whole rows of their active columns. */
static void multiply_gradient_groups(const gradient_pass *p, int64_t first, int64_t count, int64_t task,
                            const char *grad, char *x, char *tiles)
{
    const int64_t size = fd_element_bytes(p->dtype), lanes = p->kernels->lanes[p->dtype];
    for (int64_t g = first; g < first + count; g++) {
        const compact_axis *columns = &p->columns[g];
        char *tile = tiles + (g - first) * p->tile_bytes;
        const int64_t strips = fd_divide_up(active_columns(p, g), FD_COMPACT_STRIP * lanes);
        const int64_t turns = gradient_octets_of(p, g, task) * strips * fd_divide_up(p->group, FD_AHEAD_STEPS);
        compact_ahead ahead = share_of_rows(p, g - first, count, task, turns);
        if (fd_active_in_block(&p->units[g], task) == 0) {
            continue;
        }
        pack_units(p, g, task, x);
        for (int64_t panel = 0; panel < columns->blocks; panel++) {
            multiply_gradient_panel(p, g, task, panel, grad, x, tile + columns->ranks[panel] * size, &ahead);
        }
    }
}

/* Writes the rows of a block of units, or adds to them, what groups [first, first + count) have for them. */
static void put_groups(const gradient_pass *p, int64_t first, int64_t count, int64_t task, const char *tiles)
{
    const int64_t size = fd_element_bytes(p->dtype), *cuts = p->units[0].cuts + task;
    const int64_t row_bytes = p->tile_stride * size, length = p->c->mask_out.units.length;
    const int accumulate = p->row > 0 || first > 0;
    const compact_result *r = p->result;
    fd_units units[FD_COMPACT_GROUPS];
    const char *sums[FD_COMPACT_GROUPS];
    for (int64_t s = 0; s < count; s++) {
        units[s] = fd_units_of_row(&p->c->mask_in, p->row + (first + s) * p->group);
        sums[s] = tiles + s * p->tile_bytes;
    }
    for (int64_t i = cuts[0]; i < cuts[1]; i++) {
        compact_share shares[FD_COMPACT_GROUPS];
        int64_t found = 0;
        for (int64_t s = 0; s < count; s++) {
            if (is_active(&units[s], i)) {
                shares[found++] = (compact_share){sums[s], p->columns[first + s].vectors};
                sums[s] += row_bytes;
            }
        }
        char *out = (char *)r->data + i * r->stride * size;
        if (found > 0) {
            p->kernels->compact_put_row[p->dtype](shares, found, length, r->scale, accumulate, out);
        } else if (!accumulate) {
            memset(out, 0, (size_t)(length * size));
        }
    }
}

/* Task: a block of units of x, rows of dw. */
static void add_groups(const void *context, int64_t task)
{
    gradient_pass *p = (gradient_pass *)context;
    const int64_t packed = fd_aligned(p->blocks * units_bytes(p));
    char *memory = fd_workspace(FD_SLOT_PANEL, (size_t)(packed + p->together * p->tile_bytes));
    const char *grad = fd_packed(&p->packed);
    if (memory == NULL || grad == NULL) {
        p->failed = 1;
        return;
    }
    if (!p->whole) {
        add_group(p, task, grad, memory, memory + packed);
        return;
    }
    for (int64_t g = 0; g < p->groups; g += p->together) {
        const int64_t count = fd_smaller(p->together, p->groups - g);
        multiply_gradient_groups(p, g, count, task, grad, memory, memory + packed);
        put_groups(p, g, count, task, memory + packed);
    }
}

/* The axes of all groups; returns 0, or -1 without memory. */
static int lay_out_gradient(gradient_pass *p, int threads)
{
    const compact_batch *c = p->c;
    const int64_t lanes = p->kernels->lanes[p->dtype], size = fd_element_bytes(p->dtype);
    const int64_t bytes = c->mask_in.units.length * c->mask_out.units.length * size;
    const int alone = p->groups == 1;
    const int64_t parts = alone ? 1 : fd_larger(bytes / TASK_BYTES, 1);
    const compact_layout layouts[] = {
        {.mask = &c->mask_in, .row = p->row, .group = p->group, .groups = p->groups, .common = 1,
         .most = alone ? TASK_UNITS : FD_COMPACT_UNITS, .parts = fd_divide_up(parts, threads) * threads,
         .unit = p->kernels->compact_rows, .phase = fd_phase(c->x, size), .axes = p->units},
        {.mask = &c->mask_out, .row = p->row, .group = p->group, .groups = p->groups, .vectors = 1,
         .most = FD_COMPACT_VECTORS * lanes, .parts = 1, .unit = lanes,
         .phase = fd_phase(c->grad, size), .axes = p->columns},
    };
    return fd_lay_out_axes(layouts, 2, (int)lanes);
}

/* Sizes of what is packed and of sums, once the axes are there. */
static void set_gradient_sizes(gradient_pass *p)
{
    const int64_t lanes = p->kernels->lanes[p->dtype], size = fd_element_bytes(p->dtype);
    const int64_t unit = p->kernels->compact_rows;
    const int64_t widest = fd_widest_block(p->columns, p->groups);
    int64_t columns = 0;
    p->depth = fd_smaller(p->group, FD_COMPACT_DEPTH);
    p->blocks = fd_divide_up(p->group, FD_COMPACT_DEPTH);
    p->most_panels = 0;
    for (int64_t g = 0; g < p->groups; g++) {
        p->most_panels = fd_larger(p->most_panels, p->columns[g].blocks);
        columns = fd_larger(columns, active_columns(p, g));
    }
    p->strip_bytes = p->depth * FD_COMPACT_STRIP * lanes * size;
    /* The last row of a strip may be followed by a vector's rest: not in what another thread packs. */
    const int64_t rest = fd_aligned(lanes * size);
    p->panel_bytes = fd_divide_up(widest, FD_COMPACT_STRIP * lanes) * p->strip_bytes + rest;
    const int64_t rows = fd_divide_up(fd_widest_block(p->units, p->groups), unit) * unit;
    const int64_t cache = fd_second_level_cache_bytes(), row = fd_panel_stride(columns, lanes);
    /* not by `rows`, which may depend on the number of threads */
    const int kept = TASK_UNITS * row * size <= cache / WHOLE_SHARE;
    p->whole = p->groups > 1 || (p->blocks == 1 && p->most_panels > 1 && kept);
    p->tile_stride = p->whole ? row : fd_panel_stride(widest, lanes);
    p->tile_bytes = (rows * p->tile_stride + FD_MAX_LANES) * size;
    p->together = cache / SUMS_SHARE / fd_larger(p->tile_bytes, 1);
    p->together = fd_larger(fd_smaller(p->together, p->groups), 1);
}

/* One pass: p->groups groups of rows from p->row on. Returns its multiply-adds, or -1. */
static int64_t add_pass(gradient_pass *p)
{
    const int64_t size = fd_element_bytes(p->dtype);
    int64_t products = 0;
    for (int64_t g = 0; g < p->groups; g++) {
        const int64_t row = p->row + g * p->group;
        const fd_units in = fd_units_of_row(&p->c->mask_in, row);
        const fd_units out = fd_units_of_row(&p->c->mask_out, row);
        const int64_t rows = fd_smaller(p->rows - g * p->group, p->group);
        products += rows * fd_count_units(&in) * fd_count_units(&out);
    }
    const int threads = fd_threads_for(products, MINIMUM_PRODUCTS);
    if (lay_out_gradient(p, threads) != 0) {
        return -1;
    }
    if (p->row == 0 && p->units[0].blocks == 0) {
        clear_gradient_rows(p, 0, p->c->mask_in.units.length);
    }
    set_gradient_sizes(p);
    const int64_t bytes = gradient_panel_at(p, p->groups, 0, 0) + FD_MAX_LANES * size;
    p->packed = (packed_operand){.pack = pack_grad, .context = p,
                                 .parts = p->groups * p->blocks, .bytes = (size_t)bytes};
    const int packers = fd_threads_for(p->rows * p->c->mask_out.units.length, MINIMUM_PACKED);
    if (fd_pack_operand(&p->packed, threads, packers) != 0) {
        return -1;
    }
    fd_parallel(threads, p->units[0].blocks, add_groups, p);
    return p->failed ? -1 : products;
}

int64_t fd_compact_gradient(fd_dtype dtype, const compact_batch *c, const compact_result *result)
{
    gradient_pass p;
    p.kernels = fd_active_kernels();
    p.dtype = dtype;
    p.c = c;
    p.x = (compact_matrix){c->x, c->x_stride, 0, NULL};
    p.grad = (compact_matrix){c->grad, c->grad_stride, 0, NULL};
    p.result = result;
    p.failed = 0;
    int64_t total = 0;
    for (p.row = 0; p.row < c->rows; p.row += p.rows) {
        const int64_t left = c->rows - p.row;
        const int64_t of_group = fd_smaller(c->group - p.row % c->group, left);
        p.group = fd_smaller(of_group, FD_BLOCK_ROWS); /* a long group in parts */
        p.groups = 1;
        if (p.group == c->group) {
            p.groups = fd_smaller(fd_smaller(FD_COMPACT_GROUPS, FD_BLOCK_ROWS / p.group),
                                  fd_divide_up(left, c->group));
        }
        p.rows = fd_smaller(p.groups * p.group, left);
        const int64_t products = add_pass(&p);
        if (products < 0) {
            return -1;
        }
        total += products;
    }
    if (c->rows == 0) {
        const int64_t size = fd_element_bytes(dtype);
        for (int64_t i = 0; i < c->mask_in.units.length; i++) {
            memset((char *)result->data + i * result->stride * size, 0,
                   (size_t)(c->mask_out.units.length * size));
        }
    }
    return total;
}
