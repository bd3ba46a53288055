/* grad_w.c: gradients of weights, C = A' @ B of kept units, a sum over groups of rows.
 *
 * The kept columns of B are packed for all groups, up to FD_BLOCK_ROWS rows; then threads share the rows of C. k is
 * the batch, so that products are short, and writing C, all of it, is what takes time. The sums of whole rows are
 * kept in the L2 cache, and each row of C is written once and in one piece, from what all groups have for it. */
#include <stdatomic.h>
#include <string.h>

#include "matmul/drivers.h"
#include "matmul/kept_units.h"
#include "matmul/packed.h"
#include "runtime/cache.h"

/* What a thread must have to do to be worth waking: elements packed, multiply-adds. */
#define MINIMUM_PACKED (1 << 16)
#define MINIMUM_PRODUCTS (1 << 19)
/* Rows of C of one task of a group alone, and bytes of C of one of several. */
#define MC 64
#define TASK_BYTES (1 << 18)
/* The parts of the L2 cache that sums may take, and that those of one group may. */
#define SUMS_SHARE 2
#define MOST_SHARE 4

typedef struct {
    const fd_kernels *kernels;
    const fd_product *product;
    fd_dtype dtype;
    int64_t row, rows, groups, group; /* groups of rows, all but the last `group` rows long */
    kept_units m[FD_MOST_GROUPS], n[FD_MOST_GROUPS]; /* of each group */
    int64_t blocks;                                  /* of k, a group's rows */
    int64_t tile_stride, tile_bytes;                 /* of a group's sums */
    int64_t together;                                /* groups whose sums are kept at a time */
    int64_t micro_panels, micro_panel_bytes;         /* of B; of the widest group */
    /* B: group after group, of each block after block, of each all micro-panels */
    packed_operand packed;
    atomic_int failed;
} grad_w_pass;

static int64_t rows_of_block(const grad_w_pass *p, int64_t g, int64_t block)
{
    const int64_t rows = fd_smaller(p->rows - g * p->group, p->group);
    return fd_larger(fd_smaller(rows - block * FD_KC, FD_KC), 0);
}

static int64_t kept_columns(const grad_w_pass *p, int64_t g)
{
    return p->n[g].blocks > 0 ? p->n[g].ranks[1] : 0;
}

static int64_t micro_panel_of_b(const grad_w_pass *p, int64_t g, int64_t block, int64_t number)
{
    return ((g * p->blocks + block) * p->micro_panels + number) * p->micro_panel_bytes;
}

/* Task: a block of a group's rows. */
static void pack_rows_of_b(const void *context, int64_t task, char *packed)
{
    const grad_w_pass *p = context;
    const int64_t g = task / p->blocks, block = task % p->blocks,
                  nr = FD_NR * p->kernels->lanes[p->dtype];
    const int64_t first = p->row + g * p->group + block * FD_KC,
                  ends[] = {first, first + rows_of_block(p, g, block)};
    const kept_units k = {.length = p->product->k, .blocks = 1, .cuts = ends, .ranks = ends};
    for (int64_t i = 0; ends[0] < ends[1] && i * nr < kept_columns(p, g); i++) {
        p->kernels->pack_b[p->dtype](p->product, &k, 0, &p->n[g], 0, i,
                                     packed + micro_panel_of_b(p, g, block, i));
    }
}

static int64_t bytes_of_a(const grad_w_pass *p)
{
    return FD_MC_SUM * (FD_KC + p->kernels->lanes[p->dtype]) * fd_element_bytes(p->dtype);
}

/* The rows of C that store_groups writes next; of `count` groups, number s prefetches its share in `turns` turns of
 * FD_PREFETCH_STEPS steps. */
static next_panel rows_of_c(const grad_w_pass *p, int64_t s, int64_t count, int64_t task,
                            int64_t turns)
{
    const fd_product *product = p->product;
    const int64_t size = fd_element_bytes(p->dtype), *cuts = p->m[0].cuts + task,
                  rows = cuts[1] - cuts[0];
    next_panel next = {
        .data = product->c.data,
        .stride = product->c.row_stride * size,
        .row_bytes = product->n * size,
        .first = cuts[0] + rows * s / count,
        .rows = rows * (s + 1) / count - rows * s / count,
    };
    fd_prefetch_in(&next, turns);
    return next;
}

/* Group number s of those from `first` on: the sums of its products of a block of rows of C, whole rows of kept
 * columns. a: room for the block's part of A, packed. */
static void multiply_group(const grad_w_pass *p, int64_t first, int64_t s, int64_t count,
                           int64_t task, const char *packed, char *a, char *tile)
{
    const int64_t g = first + s;
    const int64_t size = fd_element_bytes(p->dtype), lanes = p->kernels->lanes[p->dtype];
    const int64_t kept = fd_kept_in_block(&p->m[g], task),
                  vectors = fd_divide_up(kept_columns(p, g), lanes);
    const int64_t micro_panels = fd_divide_up(kept, p->kernels->mr);
    const int64_t turns =
        fd_divide_up(p->group, FD_PREFETCH_STEPS) * micro_panels * fd_divide_up(vectors, FD_NR);
    next_panel next = rows_of_c(p, s, count, task, turns);
    if (kept == 0) {
        return;
    }
    for (int64_t b = 0; b < p->blocks; b++) {
        p->kernels->pack_a_transposed[p->dtype](p->product, p->row + g * p->group + b * FD_KC,
                                                rows_of_block(p, g, b), &p->m[g], task,
                                                a + b * bytes_of_a(p));
    }
    for (int64_t v = 0; v < vectors; v += FD_NR) {
        for (int64_t b = 0; b < p->blocks; b++) {
            p->kernels->micro_kernel[p->dtype](
                a + b * bytes_of_a(p), micro_panels, rows_of_block(p, g, b),
                packed + micro_panel_of_b(p, g, b, v / FD_NR), fd_smaller(vectors - v, FD_NR),
                tile + v * lanes * size, p->tile_stride, b == 0, &next);
        }
    }
}

static int is_kept(const fd_units *units, int64_t i)
{
    return units->bits == NULL || fd_test_bit(units->bits, units->bit + i);
}

/* Writes the rows of a block of C, or adds to them, what groups [first, first + count) have for them. */
static void store_groups(const grad_w_pass *p, int64_t first, int64_t count, int64_t task,
                         const char *tiles)
{
    const fd_product *product = p->product;
    const int64_t size = fd_element_bytes(p->dtype), *cuts = p->m[0].cuts + task;
    const int accumulate = p->row > 0 || first > 0;
    fd_units units[FD_MOST_GROUPS];
    const char *sums[FD_MOST_GROUPS];
    for (int64_t s = 0; s < count; s++) {
        units[s] = fd_units_of_row(&product->mask_a, product->m, p->row + (first + s) * p->group);
        sums[s] = tiles + s * p->tile_bytes;
    }
    for (int64_t i = cuts[0]; i < cuts[1]; i++) {
        row_of_sums found[FD_MOST_GROUPS];
        int64_t n = 0;
        for (int64_t s = 0; s < count; s++) {
            if (is_kept(&units[s], i)) {
                found[n++] = (row_of_sums){sums[s], p->n[first + s].vectors};
                sums[s] += p->tile_stride * size;
            }
        }
        if (n > 0) {
            p->kernels->store_row[p->dtype](
                found, n, product->n, fd_product_scale(product), accumulate,
                (char *)product->c.data + i * product->c.row_stride * size);
        } else if (!accumulate) {
            fd_clear_rows(product, i, i + 1);
        }
    }
}

/* Task: a block of rows of C. */
static void sum_groups(const void *context, int64_t task)
{
    grad_w_pass *p = (grad_w_pass *)context;
    const int64_t room = fd_aligned(p->blocks * bytes_of_a(p));
    char *a = fd_workspace(FD_SLOT_PANEL, (size_t)(room + p->together * p->tile_bytes));
    const char *packed = fd_packed(&p->packed);
    if (a == NULL || packed == NULL) {
        p->failed = 1;
        return;
    }
    for (int64_t first = 0; first < p->groups; first += p->together) {
        const int64_t count = fd_smaller(p->together, p->groups - first);
        for (int64_t s = 0; s < count; s++) {
            multiply_group(p, first, s, count, task, packed, a, a + room + s * p->tile_bytes);
        }
        store_groups(p, first, count, task, a + room);
    }
}

/* Lists the kept units of all groups; returns 0, or -1 without memory. */
static int list_kept_of_sum(grad_w_pass *p, int threads)
{
    const fd_product *product = p->product;
    const int64_t lanes = p->kernels->lanes[p->dtype], size = fd_element_bytes(p->dtype),
                  mr = p->kernels->mr;
    const int64_t row_bytes = fd_larger(product->n * size, 1), alone = p->groups == 1;
    const int64_t most =
        fd_smaller(fd_second_level_cache_bytes() / MOST_SHARE / row_bytes, alone ? MC : FD_MC_SUM);
    const int64_t parts = alone ? 1 : fd_larger(product->m * product->n * size / TASK_BYTES, 1);
    const kept_request requests[] = {
        {.mask = &product->mask_a,
         .length = product->m,
         .row = p->row,
         .group = p->group,
         .groups = p->groups,
         .common = 1,
         .most = fd_larger(most, mr),
         .parts = fd_divide_up(parts, threads) * threads,
         .unit = mr,
         .phase = fd_phase(product->a.data, size),
         .units = p->m},
        {.mask = &product->mask_b,
         .length = product->n,
         .row = p->row,
         .group = p->group,
         .groups = p->groups,
         .vectors = 1,
         .most = fd_larger(product->n, 1),
         .parts = 1,
         .unit = lanes,
         .phase = fd_phase(product->b.data, size),
         .units = p->n},
    };
    return fd_list_kept(requests, 2, (int)lanes);
}

/* Sizes of what is packed and of sums, once the lists are there. */
static void set_grad_w_sizes(grad_w_pass *p)
{
    const int64_t lanes = p->kernels->lanes[p->dtype], size = fd_element_bytes(p->dtype),
                  nr = FD_NR * lanes;
    const int64_t widest = fd_widest_block(p->n, p->groups), mr = p->kernels->mr;
    const int64_t rows = fd_divide_up(fd_widest_block(p->m, p->groups), mr) * mr;
    p->blocks = fd_divide_up(p->group, FD_KC);
    p->micro_panels = fd_divide_up(widest, nr);
    /* The last row may be followed by a vector's rest: not in what another thread packs. */
    p->micro_panel_bytes = fd_aligned((fd_smaller(p->group, FD_KC) * nr + lanes) * size);
    p->tile_stride = fd_tile_stride(widest, lanes);
    p->tile_bytes = (rows * p->tile_stride + FD_MAX_LANES) * size;
    p->together = fd_second_level_cache_bytes() / SUMS_SHARE / fd_larger(p->tile_bytes, 1);
    p->together = fd_larger(fd_smaller(p->together, p->groups), 1);
}

/* One pass: p->groups groups of rows from p->row on. Returns its multiply-adds, or -1. */
static int64_t sum_pass(grad_w_pass *p)
{
    const fd_product *product = p->product;
    int64_t products = 0;
    for (int64_t g = 0; g < p->groups; g++) {
        const int64_t row = p->row + g * p->group,
                      rows = fd_smaller(p->rows - g * p->group, p->group);
        const fd_units m = fd_units_of_row(&product->mask_a, product->m, row);
        const fd_units n = fd_units_of_row(&product->mask_b, product->n, row);
        products += rows * fd_count_units(&m) * fd_count_units(&n);
    }
    const int threads = fd_threads_for(products, MINIMUM_PRODUCTS);
    if (list_kept_of_sum(p, threads) != 0) {
        return -1;
    }
    if (p->row == 0 && p->m[0].blocks == 0) {
        fd_clear_rows(product, 0, product->m);
    }
    set_grad_w_sizes(p);
    p->packed =
        (packed_operand){.pack = pack_rows_of_b,
                         .context = p,
                         .parts = p->groups * p->blocks,
                         .bytes = (size_t)fd_larger(micro_panel_of_b(p, p->groups, 0, 0), 1)};
    if (fd_pack_operand(&p->packed, threads,
                        fd_threads_for(p->rows * product->n, MINIMUM_PACKED)) != 0) {
        return -1;
    }
    fd_parallel(threads, p->m[0].blocks, sum_groups, p);
    return p->failed ? -1 : products;
}

int64_t fd_grad_w(const fd_product *product, int64_t group)
{
    grad_w_pass p;
    p.kernels = fd_active_kernels();
    p.product = product;
    p.dtype = product->dtype;
    p.failed = 0;
    int64_t total = 0;
    for (p.row = 0; p.row < product->k; p.row += p.rows) {
        const int64_t left = product->k - p.row;
        p.group = fd_smaller(fd_smaller(group - p.row % group, left),
                             FD_BLOCK_ROWS); /* a long group in parts */
        p.groups = 1;
        if (p.group == group) {
            p.groups = fd_smaller(fd_smaller(FD_MOST_GROUPS, FD_BLOCK_ROWS / p.group),
                                  fd_divide_up(left, group));
        }
        p.rows = fd_smaller(p.groups * p.group, left);
        const int64_t products = sum_pass(&p);
        if (products < 0) {
            return -1;
        }
        total += products;
    }
    if (product->k == 0) {
        fd_clear_rows(product, 0, product->m);
    }
    return total;
}
