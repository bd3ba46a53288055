/* compact_gradient.c: gradients of weights between active units, cut into blocks for caches and threads.
 *
 * dw = x' @ dy, added up over groups of rows. The active columns of dy are packed for all groups, up to
 * FD_BLOCK_ROWS rows; then threads share the rows of dw. k is the batch, so that products are short, and writing
 * dw, all of it, is what takes time. The sums of whole rows are kept in the L2 cache, and each row of dw is written
 * once and in one piece, from what all groups have for it. */
#include <stdatomic.h>
#include <string.h>

#include "kernels.h"
#include "matmul/compact_axis.h"
#include "matmul/drivers.h"
#include "matmul/packed.h"
#include "runtime/cache.h"

/* What a thread must have to do to be worth waking: elements packed, multiply-adds. */
#define MINIMUM_PACKED (1 << 16)
#define MINIMUM_PRODUCTS (1 << 19)
/* Bytes of dw of one task. */
#define TASK_BYTES (1 << 18)
/* The parts of the L2 cache that sums may take, and that those of one group may. */
#define SUMS_SHARE 2
#define MOST_SHARE 4

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const compact_batch *c;
    compact_matrix x, grad;
    const compact_result *result;
    int64_t row, rows, groups, group; /* groups of rows, all but the last `group` rows long */
    compact_axis units[FD_COMPACT_GROUPS], columns[FD_COMPACT_GROUPS]; /* of each group */
    int64_t blocks;                   /* of a group's rows */
    int64_t tile_stride, tile_bytes;  /* of a group's sums */
    int64_t together;                 /* groups whose sums are kept at a time */
    int64_t strips, strip_bytes;      /* of dy, packed; of the widest group */
    packed_operand packed;            /* dy: group after group, of each block after block, of each all strips */
    atomic_int failed;
} gradient_pass;

static int64_t rows_of_block(const gradient_pass *p, int64_t g, int64_t block)
{
    const int64_t rows = fd_smaller(p->rows - g * p->group, p->group);
    return fd_larger(fd_smaller(rows - block * FD_COMPACT_DEPTH, FD_COMPACT_DEPTH), 0);
}

static int64_t active_columns(const gradient_pass *p, int64_t g)
{
    const compact_axis *columns = &p->columns[g];
    return columns->blocks > 0 ? columns->ranks[1] : 0;
}

static int64_t gradient_strip_at(const gradient_pass *p, int64_t g, int64_t block, int64_t strip)
{
    return ((g * p->blocks + block) * p->strips + strip) * p->strip_bytes;
}

/* Task: a block of a group's rows. */
static void pack_grad(const void *context, int64_t task, char *packed)
{
    const gradient_pass *p = context;
    const int64_t g = task / p->blocks, block = task % p->blocks;
    const int64_t first = p->row + g * p->group + block * FD_COMPACT_DEPTH;
    const int64_t ends[] = {first, first + rows_of_block(p, g, block)};
    const compact_axis rows = {.length = p->c->rows, .blocks = 1, .cuts = ends, .ranks = ends};
    const int64_t strip_columns = FD_COMPACT_STRIP * p->kernels->lanes[p->dtype];
    for (int64_t strip = 0; ends[0] < ends[1] && strip * strip_columns < active_columns(p, g); strip++) {
        p->kernels->compact_pack_strip[p->dtype](&p->grad, &rows, 0, &p->columns[g], 0, strip,
                                                 packed + gradient_strip_at(p, g, block, strip));
    }
}

static int64_t units_bytes(const gradient_pass *p)
{
    const int64_t row = FD_COMPACT_DEPTH + p->kernels->lanes[p->dtype];
    return FD_COMPACT_UNITS * row * fd_element_bytes(p->dtype);
}

/* The sums of group g's products of a block of units, whole rows of its active columns. x: room for the units,
 * packed. */
static void multiply_group(const gradient_pass *p, int64_t g, int64_t task, const char *grad, char *x, char *tile)
{
    const int64_t size = fd_element_bytes(p->dtype), lanes = p->kernels->lanes[p->dtype];
    const int64_t active = fd_active_in_block(&p->units[g], task);
    const int64_t vectors = fd_divide_up(active_columns(p, g), lanes);
    const int64_t octets = fd_divide_up(active, p->kernels->compact_rows);
    compact_ahead nothing = {.rows = 0};
    if (active == 0) {
        return;
    }
    for (int64_t b = 0; b < p->blocks; b++) {
        const int64_t row = p->row + g * p->group + b * FD_COMPACT_DEPTH;
        p->kernels->compact_pack_units[p->dtype](&p->x, row, rows_of_block(p, g, b), &p->units[g], task,
                                                 x + b * units_bytes(p));
    }
    for (int64_t vector = 0; vector < vectors; vector += FD_COMPACT_STRIP) {
        for (int64_t b = 0; b < p->blocks; b++) {
            const char *packed = grad + gradient_strip_at(p, g, b, vector / FD_COMPACT_STRIP);
            const compact_strips strip = {packed, fd_smaller(vectors - vector, FD_COMPACT_STRIP),
                                          FD_COMPACT_STRIP * lanes, 0};
            p->kernels->compact_multiply[p->dtype](x + b * units_bytes(p), octets, rows_of_block(p, g, b), &strip,
                                                   tile + vector * lanes * size, p->tile_stride, b == 0, &nothing);
        }
    }
}

static int is_active(const fd_units *units, int64_t i)
{
    return units->bits == NULL || fd_test_bit(units->bits, units->bit + i);
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
    for (int64_t first = 0; first < p->groups; first += p->together) {
        const int64_t count = fd_smaller(p->together, p->groups - first);
        for (int64_t s = 0; s < count; s++) {
            multiply_group(p, first + s, task, grad, memory, memory + packed + s * p->tile_bytes);
        }
        put_groups(p, first, count, task, memory + packed);
    }
}

/* The axes of all groups; returns 0, or -1 without memory. */
static int lay_out_gradient(gradient_pass *p, int threads)
{
    const compact_batch *c = p->c;
    const int64_t lanes = p->kernels->lanes[p->dtype], size = fd_element_bytes(p->dtype);
    const int64_t columns = c->mask_out.units.length, bytes = c->mask_in.units.length * columns * size;
    const int64_t unit = p->kernels->compact_rows;
    const int64_t held = fd_second_level_cache_bytes() / MOST_SHARE / fd_larger(columns * size, 1);
    const int64_t parts = fd_divide_up(fd_larger(bytes / TASK_BYTES, 1), threads) * threads;
    const compact_layout layouts[] = {
        {.mask = &c->mask_in, .row = p->row, .group = p->group, .groups = p->groups, .common = 1,
         .most = fd_larger(fd_smaller(held, FD_COMPACT_UNITS), unit), .parts = parts, .unit = unit,
         .phase = fd_phase(c->x, size), .axes = p->units},
        {.mask = &c->mask_out, .row = p->row, .group = p->group, .groups = p->groups, .vectors = 1,
         .most = fd_larger(columns, 1), .parts = 1, .unit = lanes, .phase = fd_phase(c->grad, size),
         .axes = p->columns},
    };
    return fd_lay_out_axes(layouts, 2, (int)lanes);
}

/* Sizes of what is packed and of sums, once the axes are there. */
static void set_gradient_sizes(gradient_pass *p)
{
    const int64_t lanes = p->kernels->lanes[p->dtype], size = fd_element_bytes(p->dtype);
    const int64_t unit = p->kernels->compact_rows, strip_columns = FD_COMPACT_STRIP * lanes;
    const int64_t widest = fd_widest_block(p->columns, p->groups);
    const int64_t rows = fd_divide_up(fd_widest_block(p->units, p->groups), unit) * unit;
    p->blocks = fd_divide_up(p->group, FD_COMPACT_DEPTH);
    p->strips = fd_divide_up(widest, strip_columns);
    /* The last row of a strip may be followed by a vector's rest: not in what another thread packs. */
    p->strip_bytes = fd_aligned((fd_smaller(p->group, FD_COMPACT_DEPTH) * strip_columns + lanes) * size);
    p->tile_stride = fd_panel_stride(widest, lanes);
    p->tile_bytes = (rows * p->tile_stride + FD_MAX_LANES) * size;
    p->together = fd_second_level_cache_bytes() / SUMS_SHARE / fd_larger(p->tile_bytes, 1);
    p->together = fd_larger(fd_smaller(p->together, p->groups), 1);
}

static void clear_gradient(const compact_batch *c, fd_dtype dtype, const compact_result *r)
{
    const int64_t size = fd_element_bytes(dtype);
    for (int64_t i = 0; i < c->mask_in.units.length; i++) {
        memset((char *)r->data + i * r->stride * size, 0, (size_t)(c->mask_out.units.length * size));
    }
}

/* One pass: p->groups groups of rows from p->row on. Returns its multiply-adds, or -1. */
static int64_t add_pass(gradient_pass *p)
{
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
        clear_gradient(p->c, p->dtype, p->result);
    }
    set_gradient_sizes(p);
    const int64_t bytes = fd_larger(gradient_strip_at(p, p->groups, 0, 0), 1);
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
        clear_gradient(c, dtype, result);
    }
    return total;
}
