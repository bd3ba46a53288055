/* skip.c: a product that skips zeros, cut into blocks for caches and threads.
 *
 * Of a few rows of x, which w is not packed for, threads share strips of columns. Of more:
 *
 * For up to FD_BLOCK_ROWS rows of x and CHUNK_DEPTH of depth, or several such blocks of rows where the depth is
 * less: first the lists of every block (threads share the blocks), then every panel of columns (threads share
 * the panels): its sums stay in a tile in the L2 cache while the blocks of depth pass through the L1 cache; the
 * last block writes the result. Every sum is made by one thread, block after block of the depth, in the order
 * of its list, so results do not depend on the number of threads.
 */
#include <stdatomic.h>
#include <string.h>

#include "kernels.h"
#include "matmul/drivers.h"
#include "runtime/cache.h"
#include "runtime/integers.h"

#define CHUNK_DEPTH 4096
/* What a thread must have to do to be worth waking: elements looked at, multiply-adds. The lists that one
 * thread makes for another one have to travel between their caches: with less, two threads took longer
 * than one. */
#define MINIMUM_LISTS (1 << 16)
#define MINIMUM_PRODUCTS (1 << 21)
/* The same where w comes straight from memory. */
#define MINIMUM_STREAMED (1 << 17)
/* Vectors of a panel below which broadcasting a stored element takes longer than multiplying. */
#define LEAST_VECTORS 4
/* Bytes of a strip of few rows. Four rows of w that are added and the four to come stay in the L1 cache; with
 * several rows of x, those that a block of depth meets in the L2 cache. */
#define SHORTEST_STRIP 2048
#define LONGEST_STRIP 4096

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const skip_operand *x;
    const skip_weights *w;
    const skip_result *result;
    int shared;                /* groups of rows share their lists */
    int64_t row, rows;         /* the block of rows, or several of FD_BLOCK_ROWS */
    int64_t row_blocks;        /* how many; one, where rows share lists */
    int64_t first, depth;      /* the chunk of depth */
    int64_t blocks, tile_rows; /* of depth; rows of the tile */
    int64_t block_depth;
    int wide; /* vectors of the widest panels */
    int64_t groups;
    int64_t wide_panels; /* behind them there are narrow ones */
    int narrow;          /* their vectors */
    int64_t lead;        /* columns that the first panel lacks, for the others to begin lines of w */
    int in_strips;       /* few rows: w is not packed */
    int64_t strip;       /* columns of a strip */
    int64_t row_of_group[FD_BLOCK_ROWS];
    int32_t rows_of_group[FD_BLOCK_ROWS];
    skip_lists *lists; /* one per block of depth, of each block of rows */
    atomic_int *failed; /* a thread had no memory */
} skip_pass;

/* Rows of a block of rows. */
static int64_t rows_of(const skip_pass *p, int64_t row_block)
{
    return fd_smaller(p->rows - row_block * FD_BLOCK_ROWS, FD_BLOCK_ROWS);
}

static void make_lists(const void *context, int64_t number)
{
    const skip_pass *p = context;
    const int64_t row_block = number / p->blocks;
    const int64_t first = p->first + number % p->blocks * p->block_depth;
    if (p->shared) {
        p->kernels->group_lists[p->dtype](p->x, p->groups, p->row_of_group, p->rows_of_group,
                                          first, &p->lists[number]);
    } else {
        const int64_t row = p->row + row_block * FD_BLOCK_ROWS, rows = rows_of(p, row_block);
        const int64_t copied = rows * FD_SKIP_DEPTH * fd_element_bytes(p->dtype);
        void *copy = fd_workspace(FD_SLOT_PANEL, (size_t)copied);
        if (copy == NULL) {
            *p->failed = 1;
            return;
        }
        p->kernels->skip_lists[p->dtype](p->x, row, rows, first, copy, &p->lists[number]);
    }
}

static int64_t lanes_of(const skip_pass *p)
{
    return p->kernels->lanes[p->dtype];
}

/* From row to row of a panel: also of the narrow ones, as lists say where rows begin. */
static int64_t row_bytes(const skip_pass *p)
{
    return p->wide * lanes_of(p) * fd_element_bytes(p->dtype);
}

/* Sums travel between registers and the L2 cache once a block of depth, which for few stored elements
 * takes longer than multiplying: blocks are as deep as the L1 cache has room for a panel and some lists
 * and sums. Panels of LEAST_VECTORS may be deepest where the sums stay in registers from begin to end, or
 * where a load serves several rows; else they must have nearly the most. */
static void choose_blocks(skip_pass *p)
{
    const int64_t vector = lanes_of(p) * fd_element_bytes(p->dtype), depth = p->x->depth;
    const int64_t room = fd_first_level_cache_bytes() * 5 / 6 / vector, vectors = room / FD_SKIP_DEPTH;
    const int64_t most = p->kernels->skip_vectors;
    const int64_t least = p->shared || depth <= FD_SKIP_DEPTH ? LEAST_VECTORS : most - 1;
    p->block_depth = FD_SKIP_DEPTH / 2;
    p->wide = (int)most;
    if (depth <= p->block_depth) {
        return;
    }
    if (vectors >= least) {
        p->block_depth = FD_SKIP_DEPTH;
        if (vectors < most) {
            p->wide = p->shared ? LEAST_VECTORS : (int)fd_smaller(vectors, FD_NARROW_VECTORS);
        }
    } else if (room >= FD_SKIP_DEPTH * 3 / 4 * most) {
        p->block_depth = FD_SKIP_DEPTH * 3 / 4;
    }
}

/* The narrowest panel, in vectors, that holds `vectors` of them, or the widest one there is. */
static int panel_vectors(const skip_pass *p, int64_t vectors)
{
    if (vectors > FD_NARROW_VECTORS) {
        return p->wide;
    }
    const int64_t enough = fd_larger(p->shared ? (vectors + 1) / 2 * 2 : vectors, 1);
    return (int)fd_smaller(enough, p->wide);
}

/* Columns by which rows of w are behind the begin of a cache line: a vector across two lines takes two
 * loads, and a line of two panels comes from memory for each of them. 0 where rows differ. */
static int64_t columns_before_line(const skip_pass *p)
{
    const skip_weights *w = p->w;
    const int64_t size = fd_element_bytes(p->dtype);
    const int64_t behind = (int64_t)((uintptr_t)w->data % FD_CACHE_LINE);
    return w->transposed || w->stride * size % FD_CACHE_LINE || behind % size ? 0 : behind / size;
}

/* Cuts the columns into panels, equally many wide ones for each thread and an equal share of what is
 * left. Returns how many there are. */
static int64_t cut_panels(skip_pass *p, int threads)
{
    const int64_t lanes = lanes_of(p), wide = p->wide;
    p->lead = p->w->columns >= wide * threads * lanes ? columns_before_line(p) : 0;
    const int64_t vectors = fd_divide_up(p->lead + p->w->columns, lanes);
    p->wide_panels = vectors / (wide * threads) * threads;
    const int64_t left = vectors - p->wide_panels * wide;
    p->narrow = panel_vectors(p, fd_divide_up(left, threads));
    return p->wide_panels + (left + p->narrow - 1) / p->narrow;
}

/* The columns of a panel. */
static skip_panel sparse_panel_at(const skip_pass *p, int64_t number)
{
    const int64_t lanes = lanes_of(p), wide = fd_smaller(number, p->wide_panels);
    const int64_t before = (wide * p->wide + (number - wide) * p->narrow) * lanes - p->lead;
    const int64_t left = p->w->columns - before;
    skip_panel panel = {.row_bytes = row_bytes(p), .column = fd_larger(before, 0)};
    panel.vectors = number < p->wide_panels
                        ? p->wide
                        : (int)fd_smaller(p->narrow, panel_vectors(p, fd_divide_up(left, lanes)));
    panel.columns = fd_smaller(left, panel.vectors * lanes) - (panel.column - before);
    return panel;
}

/* Where block number `block` of this panel's columns lies in w, for fetching ahead. */
static skip_prefetch prefetch_of(const skip_pass *p, int64_t block, const skip_panel *panel)
{
    skip_prefetch next = {.rows = 0};
    const skip_weights *w = p->w;
    const int64_t size = fd_element_bytes(p->dtype), first = p->first + block * p->block_depth;
    if (block >= p->blocks) {
        return next;
    }
    const int64_t depth = fd_smaller(w->depth - first, p->block_depth);
    const int64_t column = panel->column, columns = panel->columns;
    next.row = (const char *)w->data +
               (w->transposed ? column * w->stride + first : first * w->stride + column) * size;
    next.stride = w->stride * size;
    next.rows = w->transposed ? columns : depth;
    next.row_bytes = (w->transposed ? depth : columns) * size;
    next.per_row = (uint32_t)((next.rows << 16) / p->groups + 1);
    return next;
}

/* What the sums of a block of depth begin with, and where they go. */
static void set_ends(const skip_pass *p, int64_t block, skip_sums *sums)
{
    const int last_chunk = p->first + p->depth >= p->x->depth;
    sums->from = block > 0 ? FD_FROM_TILE : p->first > 0 ? FD_FROM_RESULT : FD_FROM_ZERO;
    sums->to = block + 1 < p->blocks ? FD_TO_TILE : FD_TO_RESULT;
    sums->result = *p->result;
    if (!last_chunk) { /* plain sums, to go on from */
        sums->result.scale = 1;
        sums->result.bias = NULL;
        sums->result.bits = NULL;
    }
}

static void multiply_sparse_panel(const void *context, int64_t panel_number)
{
    const skip_pass *p = context;
    skip_panel panel = sparse_panel_at(p, panel_number);
    const int64_t tile_bytes = p->tile_rows * panel.vectors * lanes_of(p) * fd_element_bytes(p->dtype);
    const int64_t panel_bytes = p->block_depth * panel.row_bytes;
    panel.data = fd_workspace(FD_SLOT_PANEL, (size_t)(panel_bytes + tile_bytes));
    if (panel.data == NULL) {
        *p->failed = 1;
        return;
    }
    skip_sums sums = {.tile = (char *)panel.data + panel_bytes, .vectors = panel.vectors, .row = p->row,
                      .column = panel.column, .columns = panel.columns};
    for (int64_t number = 0; number < p->row_blocks * p->blocks; number++) {
        const int64_t block = number % p->blocks;
        const skip_lists *lists = &p->lists[number];
        const skip_prefetch next = prefetch_of(p, block + 1, &panel);
        set_ends(p, block, &sums);
        sums.row = p->row + number / p->blocks * FD_BLOCK_ROWS;
        if (number == 0 || p->blocks > 1) {
            panel.first = p->first + block * p->block_depth;
            panel.depth = lists->depth;
            p->kernels->skip_pack[p->dtype](p->w, &panel);
        }
        if (p->shared) {
            p->kernels->skip_groups[p->dtype](lists, p->groups, p->row_of_group,
                                              p->rows_of_group, panel.data, &sums, &next);
        } else {
            p->kernels->skip_rows[p->dtype](lists, panel.data, &sums, &next);
        }
    }
}

/* A strip of columns of a product of few rows. */
static void multiply_strip(const void *context, int64_t strip)
{
    const skip_pass *p = context;
    const int64_t column = strip * p->strip;
    const int64_t bytes = p->rows * p->strip * fd_element_bytes(p->dtype);
    void *tile = fd_workspace(FD_SLOT_PANEL, (size_t)bytes);
    if (tile == NULL) {
        *p->failed = 1;
        return;
    }
    const int64_t columns = fd_smaller(p->strip, p->w->columns - column);
    skip_sums sums = {.tile = tile, .row = p->row, .column = column, .columns = columns};
    set_ends(p, p->blocks - 1, &sums);
    sums.from = p->first > 0 ? FD_FROM_RESULT : FD_FROM_ZERO;
    p->kernels->few_rows[p->dtype](p->lists, p->blocks, p->first, p->rows, p->w, &sums);
}

/* Columns of a strip: one for each thread, if that makes them long enough for the processor to see that
 * w is read in order, but not more than the caches hold. */
static int64_t sparse_strip_columns(const skip_pass *p, int threads)
{
    const int64_t size = fd_element_bytes(p->dtype), line = FD_CACHE_LINE / size;
    const int64_t most = LONGEST_STRIP / size, least = SHORTEST_STRIP / size;
    const int64_t share = fd_divide_up(p->w->columns, threads);
    const int64_t columns = (share + line - 1) / line * line;
    return columns < least ? least : fd_smaller(columns, most);
}

/* The products of the pass, once its lists are there. */
static void multiply(skip_pass *p, int64_t stored)
{
    const int64_t work = (stored + p->rows) * p->w->columns;
    if (p->in_strips) {
        const int threads = fd_threads_for(work, MINIMUM_STREAMED);
        p->strip = sparse_strip_columns(p, threads);
        fd_parallel(threads, (p->w->columns + p->strip - 1) / p->strip, multiply_strip, p);
        return;
    }
    const int threads = fd_threads_for(work, MINIMUM_PRODUCTS);
    fd_parallel(threads, cut_panels(p, threads), multiply_sparse_panel, p);
}

/* Lays out the lists of all blocks in one buffer; returns 0, or -1 without memory. */
static int place_lists(skip_pass *p)
{
    const int64_t capacity = p->tile_rows * p->block_depth + FD_MAX_LANES; /* the last vector's rest */
    const int64_t values = fd_aligned(capacity * fd_element_bytes(p->dtype));
    const int64_t places = fd_aligned(capacity * (int64_t)sizeof(uint16_t));
    const int64_t rows = rows_of(p, 0), number = p->row_blocks * p->blocks;
    const int64_t words = fd_aligned(rows * FD_SKIP_WORDS * (int64_t)sizeof(uint64_t));
    const int64_t order = fd_aligned((rows + FD_ROWS_AHEAD) * (int64_t)sizeof(uint16_t));
    const int64_t walks = fd_aligned(rows); /* a byte each */
    const int64_t counts = fd_aligned(p->groups * (int64_t)sizeof(int32_t));
    const int64_t heads = fd_aligned(number * (int64_t)sizeof(skip_lists));
    const int64_t one = values + places + words + order + 2 * walks + counts;
    char *memory = fd_workspace(FD_SLOT_LISTS, (size_t)(heads + number * one));
    if (memory == NULL) {
        return -1;
    }
    p->lists = (skip_lists *)memory;
    memory += heads;
    for (int64_t i = 0; i < number; i++, memory += one) {
        skip_lists *l = &p->lists[i];
        l->values = memory;
        l->places = (uint16_t *)(memory + values);
        l->words = (uint64_t *)(memory + values + places);
        l->order = (uint16_t *)(memory + values + places + words);
        l->counts = (uint8_t *)(memory + values + places + words + order);
        l->shared = l->counts + walks;
        l->count_of_group = (int32_t *)(l->shared + walks);
        l->unit = p->in_strips ? 1 : (int32_t)row_bytes(p);
        l->sharing = !p->in_strips;
        l->total = 0;
        l->depth = fd_smaller(p->depth - i % p->blocks * p->block_depth, p->block_depth);
    }
    return 0;
}

/* Takes rows of x from p->row on: as many blocks as lists of CHUNK_DEPTH by FD_BLOCK_ROWS elements leave
 * room for. */
static void take_rows(skip_pass *p)
{
    const int64_t chunk = fd_larger(fd_smaller(p->x->depth, CHUNK_DEPTH), 1);
    const int64_t blocks = fd_smaller(CHUNK_DEPTH / chunk, FD_MOST_BLOCKS);
    p->rows = fd_smaller(p->x->rows - p->row, blocks * FD_BLOCK_ROWS);
    p->row_blocks = fd_divide_up(p->rows, FD_BLOCK_ROWS);
    p->groups = p->tile_rows = rows_of(p, 0);
}

/* Cuts the rows from p->row on into groups that share a list. Takes at most FD_BLOCK_ROWS rows of the
 * tile. */
static void group_rows(skip_pass *p)
{
    const skip_operand *x = p->x;
    const int64_t most = p->kernels->group_rows;
    p->groups = 0;
    p->rows = 0;
    p->row_blocks = 1;
    while (p->row + p->rows < x->rows && (p->groups + 1) * most <= FD_BLOCK_ROWS) {
        const int64_t row = p->row + p->rows, left = x->rows - row;
        const int64_t same = x->rows_per_mask - row % x->rows_per_mask;
        const int64_t rows = fd_smaller(fd_smaller(left, same), most);
        p->row_of_group[p->groups] = row;
        p->rows_of_group[p->groups] = (int32_t)rows;
        p->groups++;
        p->rows += rows;
    }
    p->tile_rows = p->groups * most;
}

int64_t fd_skip_matmul(fd_dtype dtype, const skip_operand *x, const skip_weights *w,
                       const skip_result *result)
{
    atomic_int failed = 0;
    skip_pass p = {.kernels = fd_active_kernels(), .dtype = dtype, .x = x, .w = w,
                   .result = result, .failed = &failed};
    /* Shared lists multiply zeros too, at the multipliers' full speed. */
    p.shared = x->bits && !x->transposed && !x->skip_zeros && x->rows_per_mask >= 4;
    p.in_strips = x->rows <= FD_FEW_ROWS && !p.shared && !w->transposed && !w->bits;
    choose_blocks(&p);
    int64_t total = 0;
    for (p.row = 0; p.row < x->rows; p.row += p.rows) {
        if (p.shared) {
            group_rows(&p);
        } else {
            take_rows(&p);
        }
        p.first = 0;
        do { /* once also where the depth is 0: the result is the bias */
            p.depth = x->depth - p.first < CHUNK_DEPTH ? x->depth - p.first : CHUNK_DEPTH;
            p.blocks = p.depth > 0 ? (p.depth + p.block_depth - 1) / p.block_depth : 1;
            if (place_lists(&p) != 0) {
                return -1;
            }
            const int64_t lists = p.row_blocks * p.blocks;
            fd_parallel(fd_threads_for(p.rows * p.depth, MINIMUM_LISTS), lists, make_lists, &p);
            if (failed) {
                return -1;
            }
            int64_t stored = 0;
            for (int64_t i = 0; i < lists; i++) {
                stored += p.lists[i].total;
            }
            multiply(&p, stored);
            total += stored;
            p.first += p.depth;
        } while (p.first < x->depth);
    }
    return failed ? -1 : total;
}
