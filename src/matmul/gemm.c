/* gemm.c: the five loops, of kept units or of everything.
 *
 * Groups of rows that have units of their own go through the loops together, up to FD_BLOCK_ROWS rows: A is packed,
 * and threads share the columns of B. Sums stay in a tile in the L2 cache; where there are several groups, each
 * packs its part of a block of B while it is there. Every sum is made by one thread in the order of k. */
#include <stdatomic.h>
#include <string.h>

#include "matmul/drivers.h"
#include "matmul/kept_units.h"
#include "matmul/packed.h"

/* What a thread must have to do to be worth waking: elements packed, multiply-adds. */
#define MINIMUM_PACKED (1 << 16)
#define MINIMUM_PRODUCTS (1 << 19)

typedef struct {
    const fd_product *product;
    const fd_kernels *kernels;
    fd_row_mask mask_a, mask_c; /* whose dropped units are left out */
    int64_t group;              /* rows that share units */
    double scale;               /* of C */
    atomic_int infinite;        /* with all units kept: C holds an infinity or NaN */
} gemm;

typedef struct {
    gemm *whole;
    const fd_product *product;
    const fd_kernels *kernels;
    int64_t row, rows, groups, group; /* groups of rows, all but the last `group` rows long */
    int threads;
    kept_units k[FD_MOST_GROUPS], n[FD_MOST_GROUPS]; /* of each group */
    packed_operand packed;                           /* A */
    int64_t widest;                                  /* kept columns of the widest panel */
    atomic_int failed;
} gemm_pass;

/* What one thread works with: a panel and a block of k, room for a micro-panel of B, and the sums of each group
 * over a panel. */
typedef struct {
    int64_t panel, block;
    int64_t micro_panel_bytes, tile_bytes, tile_stride; /* whole cache lines; bytes; elements */
    const char *packed;
    char *micro_panel, *tiles;
} gemm_work;

static int64_t rows_of_group(const gemm_pass *p, int64_t g)
{
    return fd_smaller(p->rows - g * p->group, p->group);
}

/* Whether panels that lie side by side are one thread's, which they are where all threads have as many: two that
 * write to one line of the cache wait for each other in every row. */
static int in_a_row(const gemm_pass *p) { return p->n[0].blocks % p->threads == 0; }

/* The part of B that pack_b reads after block `block` of panel `panel`: the next block, or the next panel, as far
 * as can be told: where all threads are equally fast. It is prefetched in `turns` turns of FD_PREFETCH_STEPS
 * steps. Of several groups, which together need nearly all rows, each prefetches its share. */
static next_panel packed_next(const gemm_pass *p, int64_t g, int64_t block, int64_t panel,
                              int64_t turns)
{
    const fd_product *product = p->product;
    const int transposed = fd_transposed_b(product);
    const int64_t size = fd_element_bytes(product->dtype), last = block + 1 == p->k[g].blocks;
    /* rows in memory are units of this axis, and run along the other */
    const kept_units *rows = transposed ? &p->n[g] : &p->k[g],
                     *along = transposed ? &p->k[g] : &p->n[g];
    panel += last ? (in_a_row(p) ? 1 : p->threads) : 0;
    block = last ? 0 : block + 1;
    const int64_t row = transposed ? panel : block, part = transposed ? block : panel;
    next_panel next = {.rows = 0};
    if (panel >= p->n[g].blocks) {
        return next;
    }
    next.data = (const char *)product->b.data + along->cuts[part] * size;
    next.stride = fd_stride_of_b(product) * size;
    next.row_bytes = (along->cuts[part + 1] - along->cuts[part]) * size;
    if (p->groups > 1) {
        const int64_t all = rows->cuts[row + 1] - rows->cuts[row];
        next.first = rows->cuts[row] + all * g / p->groups;
        next.rows = rows->cuts[row] + all * (g + 1) / p->groups - next.first;
    } else {
        next.first = rows->ranks[row];
        next.numbers = rows->numbers ? rows->numbers + next.first : NULL;
        next.rows = fd_kept_in_block(rows, row);
    }
    fd_prefetch_in(&next, turns);
    return next;
}

/* Micro-panels of A of a group. */
static int64_t micro_panels_of_a(const gemm_pass *p)
{
    return fd_divide_up(p->group, p->kernels->mr);
}

static int64_t micro_panel_bytes_of_a(const gemm_pass *p)
{
    const fd_dtype dtype = p->product->dtype;
    return p->kernels->mr * (FD_KC + p->kernels->lanes[dtype]) * fd_element_bytes(dtype);
}

/* Block of k after block, of each the micro-panels of all groups. */
static int64_t micro_panel_of_a(const gemm_pass *p, int64_t block, int64_t number)
{
    return (block * p->groups * micro_panels_of_a(p) + number) * micro_panel_bytes_of_a(p);
}

/* Task: one micro-panel, in all blocks of k. */
static void pack_rows_of_a(const void *context, int64_t task, char *packed)
{
    const gemm_pass *p = context;
    const int64_t g = task / micro_panels_of_a(p),
                  first = task % micro_panels_of_a(p) * p->kernels->mr;
    const int64_t rows = fd_smaller(rows_of_group(p, g) - first, p->kernels->mr);
    for (int64_t block = 0; rows > 0 && block < p->k[g].blocks; block++) {
        p->kernels->pack_a[p->product->dtype](p->product, p->row + g * p->group + first, rows,
                                              &p->k[g], block,
                                              packed + micro_panel_of_a(p, block, task));
    }
}

static void set_gemm_sizes(const gemm_pass *p, gemm_work *work)
{
    const fd_dtype dtype = p->product->dtype;
    const int64_t size = fd_element_bytes(dtype), lanes = p->kernels->lanes[dtype];
    const int64_t kc = fd_divide_up(FD_KC, lanes) * lanes;
    work->micro_panel_bytes = fd_aligned((kc * FD_NR * lanes + FD_MAX_LANES) * size);
    work->tile_stride = fd_tile_stride(p->widest, lanes);
    work->tile_bytes = micro_panels_of_a(p) * p->kernels->mr * work->tile_stride * size;
}

/* One block of B: each micro-panel stays in the L1 cache until all rows of the group have taken it. */
static void multiply_block(const gemm_pass *p, const gemm_work *work, int64_t g)
{
    const fd_dtype dtype = p->product->dtype;
    const kept_units *k = &p->k[g], *n = &p->n[g];
    const int64_t size = fd_element_bytes(dtype), lanes = p->kernels->lanes[dtype];
    const int64_t count = fd_divide_up(rows_of_group(p, g), p->kernels->mr),
                  kc = fd_kept_in_block(k, work->block);
    const int64_t vectors = fd_divide_up(fd_kept_in_block(n, work->panel), lanes);
    const int64_t turns =
        fd_divide_up(kc, FD_PREFETCH_STEPS) * count * fd_divide_up(vectors, FD_NR);
    const char *a = work->packed + micro_panel_of_a(p, work->block, g * micro_panels_of_a(p));
    char *tile = work->tiles + g * work->tile_bytes;
    next_panel next = packed_next(p, g, work->block, work->panel, turns);
    for (int64_t v = 0; v < vectors; v += FD_NR) {
        p->kernels->pack_b[dtype](p->product, k, work->block, n, work->panel, v / FD_NR,
                                  work->micro_panel);
        p->kernels->micro_kernel[dtype](a, count, kc, work->micro_panel,
                                        fd_smaller(vectors - v, FD_NR), tile + v * lanes * size,
                                        work->tile_stride, work->block == 0, &next);
    }
}

/* Tasks number t, t + threads, ... are for the same thread. */
static int64_t panel_of(const gemm_pass *p, int64_t task)
{
    const int64_t share = p->n[0].blocks / p->threads;
    return in_a_row(p) ? task % p->threads * share + task / p->threads : task;
}

/* Task: a panel of B. */
static void multiply_panel(const void *context, int64_t task)
{
    gemm_pass *p = (gemm_pass *)context;
    const fd_dtype dtype = p->product->dtype;
    const int64_t blocks = p->k[0].blocks, slack = FD_MAX_LANES * fd_element_bytes(dtype);
    gemm_work work = {.panel = panel_of(p, task)};
    set_gemm_sizes(p, &work);
    const int64_t tiles = p->groups * work.tile_bytes;
    work.micro_panel =
        fd_workspace(FD_SLOT_PANEL, (size_t)(work.micro_panel_bytes + tiles + slack));
    work.packed = fd_packed(&p->packed);
    if (work.micro_panel == NULL || work.packed == NULL) {
        p->failed = 1;
        return;
    }
    work.tiles = work.micro_panel + work.micro_panel_bytes;
    if (blocks == 0) {
        memset(work.tiles, 0, (size_t)tiles);
    }
    for (; work.block < blocks; work.block++) {
        for (int64_t g = 0; g < p->groups; g++) {
            multiply_block(p, &work, g);
        }
    }
    for (int64_t g = 0; g < p->groups; g++) {
        if (!p->kernels->store_c[dtype](work.tiles + g * work.tile_bytes, work.tile_stride,
                                        &p->n[g], work.panel, p->product, p->whole->scale,
                                        p->row + g * p->group, rows_of_group(p, g))) {
            atomic_store_explicit(&p->whole->infinite, 1, memory_order_relaxed);
        }
    }
}

/* Lists the kept units of all groups; returns 0, or -1 without memory. */
static int list_kept(gemm_pass *p)
{
    const fd_product *product = p->product;
    const int64_t lanes = p->kernels->lanes[product->dtype];
    const int64_t phase = fd_phase(product->b.data, fd_element_bytes(product->dtype));
    const int64_t vectors = p->groups > 1 ? FD_NC_GROUPS : FD_NC;
    const kept_request requests[] = {
        {.mask = &p->whole->mask_a,
         .length = product->k,
         .row = p->row,
         .group = p->group,
         .groups = p->groups,
         .common = 1,
         .most = FD_KC,
         .parts = 1,
         .unit = 1,
         .phase = phase,
         .units = p->k},
        {.mask = &p->whole->mask_c,
         .length = product->n,
         .row = p->row,
         .group = p->group,
         .groups = p->groups,
         .common = 1,
         .vectors = p->whole->mask_c.bits != NULL,
         .most = vectors * lanes,
         .parts = p->threads,
         .unit = lanes,
         .phase = phase,
         .units = p->n},
    };
    return fd_list_kept(requests, 2, (int)lanes);
}

static int64_t kept_products(const gemm *s, int64_t row, int64_t rows)
{
    const fd_units k = fd_units_of_row(&s->mask_a, s->product->k, row);
    const fd_units n = fd_units_of_row(&s->mask_c, s->product->n, row);
    return rows * fd_count_units(&k) * fd_count_units(&n);
}

/* One pass: p->groups groups of rows from p->row on, by up to `threads` threads. Returns its multiply-adds, or
 * -1. */
static int64_t multiply_groups(gemm_pass *p, int threads)
{
    const fd_product *product = p->product;
    int64_t products = 0;
    for (int64_t g = 0; g < p->groups; g++) {
        products += kept_products(p->whole, p->row + g * p->group, rows_of_group(p, g));
    }
    p->threads = threads > 1 ? fd_threads_for(products, MINIMUM_PRODUCTS) : 1;
    if (list_kept(p) != 0) {
        return -1;
    }
    if (p->n[0].blocks == 0) { /* no group has any column */
        fd_clear_rows(product, p->row, p->row + p->rows);
        return 0;
    }
    p->widest = fd_widest_block(p->n, p->groups);
    const int64_t bytes = micro_panel_of_a(p, p->k[0].blocks, 0) + 1;
    p->packed = (packed_operand){.pack = pack_rows_of_a,
                                 .context = p,
                                 .parts = p->groups * micro_panels_of_a(p),
                                 .bytes = (size_t)bytes};
    const int packers = threads > 1 ? fd_threads_for(p->rows * product->k, MINIMUM_PACKED) : 1;
    if (fd_pack_operand(&p->packed, p->threads, packers) != 0) {
        return -1;
    }
    fd_parallel(p->threads, p->n[0].blocks, multiply_panel, p);
    return p->failed ? -1 : products;
}

/* Rows [row, end) of a product, by up to `threads` threads. Returns the multiply-adds, or -1. */
static int64_t multiply_rows(gemm *s, int64_t row, int64_t end, int threads)
{
    gemm_pass p;
    p.whole = s;
    p.product = s->product;
    p.kernels = s->kernels;
    p.failed = 0;
    int64_t total = 0;
    for (p.row = row; p.row < end; p.row += p.rows) {
        const int64_t left = end - p.row;
        /* a long group in parts */
        p.group = fd_smaller(fd_smaller(s->group - p.row % s->group, left), FD_BLOCK_ROWS);
        p.groups = 1;
        if (p.group == s->group) {
            p.groups =
                fd_smaller(FD_MOST_GROUPS, FD_BLOCK_ROWS / s->kernels->mr / micro_panels_of_a(&p));
            p.groups = fd_smaller(p.groups, fd_divide_up(left, s->group));
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
    gemm *whole;
    int64_t rows; /* of a task */
    atomic_int_fast64_t products;
    atomic_int failed;
} shared_rows;

static void multiply_share(const void *context, int64_t task)
{
    shared_rows *s = (shared_rows *)context;
    const int64_t row = task * s->rows, end = fd_smaller(row + s->rows, s->whole->product->m);
    const int64_t products = multiply_rows(s->whole, row, end, 1);
    if (products < 0) {
        s->failed = 1;
    } else {
        s->products += products;
    }
}

int64_t fd_gemm(const fd_product *p, int64_t group, int *finite)
{
    const fd_kernels *kernels = fd_active_kernels();
    const fd_row_mask all = {NULL, 1, 1.0, 1.0};
    gemm s = {.product = p,
              .kernels = kernels,
              .mask_a = group ? p->mask_a : all,
              .mask_c = group ? p->mask_c : all,
              .group = group ? group : fd_larger(p->m, 1),
              .scale = !group && fd_masks_elements_of_a(p) ? 1 : fd_product_scale(p)};
    shared_rows shared = {.whole = &s};
    int threads = 1;
    if (s.group >= p->m && p->n * fd_element_bytes(p->dtype) <= FD_SHORT_ROW) {
        threads = fd_threads_for(kept_products(&s, 0, p->m), MINIMUM_PRODUCTS);
    }
    if (threads == 1) {
        shared.products = multiply_rows(&s, 0, p->m, fd_get_num_threads());
    } else {
        shared.rows = fd_divide_up(fd_divide_up(p->m, threads), kernels->mr) * kernels->mr;
        fd_parallel(threads, fd_divide_up(p->m, shared.rows), multiply_share, &shared);
    }
    *finite = !s.infinite;
    return shared.failed ? -1 : shared.products;
}
