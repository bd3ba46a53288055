/* spmm.c: SpMM, C = the stored elements of A @ B, cut into blocks for caches and threads.
 *
 * For up to MC = FD_BLOCK_ROWS rows of A and MOST_K of k, or several such blocks of rows where k is less: first
 * the index lists of every block (threads share the blocks), then every panel of columns of B (threads share the
 * panels): its sums stay in a tile in the L2 cache while the blocks of KC rows of B pass through the L1 cache; the
 * last block stores C. One thread makes each sum, block after block of k, in the order of its list, so results do
 * not depend on the number of threads. Of a skinny product, which B is not packed for, threads share strips of
 * columns.
 */
#include <stdatomic.h>

#include "matmul/drivers.h"
#include "runtime/cache.h"
#include "runtime/integers.h"

#define MOST_K 4096
/* Blocks of rows whose lists are made together. */
#define MOST_BLOCKS 4
/* What a thread must have to do to be worth waking: elements looked at, multiply-adds. The lists that one
 * thread makes for another one have to travel between their caches: with less, two threads took longer
 * than one. */
#define MINIMUM_LISTS (1 << 16)
#define MINIMUM_PRODUCTS (1 << 21)
/* The same where B comes straight from memory, of multiply-adds if all elements of A were stored. */
#define MINIMUM_STREAMED (1 << 18)
/* Columns of a strip at least, in bytes: the processor sees that B is read in order. */
#define SHORTEST_STRIP 2048

typedef struct {
    const fd_kernels *kernels;
    const fd_product *p;
    int64_t row, rows, row_blocks; /* the block of rows of A, or several of FD_BLOCK_ROWS */
    int64_t first, k, blocks;      /* of the columns of A, cut into blocks of kc */
    int64_t kc, vectors;           /* of a panel, at most */
    int64_t panels, strip;         /* columns of a strip */
    /* columns that the first panel lacks, so that the others' rows are aligned in B */
    int64_t behind;
    spmm_lists *lists;  /* one per block of k, of each block of rows */
    atomic_int *failed; /* a thread had no memory */
    int64_t *stored;
} spmm_pass;

static int64_t lanes_of(const spmm_pass *s) { return s->kernels->lanes[s->p->dtype]; }

static void make_index_lists(const void *context, int64_t number)
{
    const spmm_pass *s = context;
    spmm_lists *l = &s->lists[number];
    const int64_t copied = l->rows * FD_SPMM_KC * fd_element_bytes(s->p->dtype);
    void *copy = fd_workspace(FD_SLOT_PANEL, (size_t)copied);
    if (copy == NULL) {
        *s->failed = 1;
        return;
    }
    s->kernels->index_lists[s->p->dtype](s->p, copy, l);
}

/* Sums travel between registers and the L2 cache once a block of k, which for few stored elements takes longer
 * than multiplying: KC is as deep as the L1 cache has room for a panel and some lists and sums. */
static void choose_blocks(spmm_pass *s)
{
    const int64_t vector = lanes_of(s) * fd_element_bytes(s->p->dtype),
                  most = s->kernels->spmm_vectors;
    const int64_t room = fd_first_level_cache_bytes() * 5 / 6 / vector;
    const int64_t k = fd_larger(s->p->k, 1);
    s->kc = FD_SPMM_KC;
    while (s->kc > FD_SPMM_KC / 2 && room / fd_smaller(s->kc, k) < most - 1) {
        s->kc -= FD_SPMM_KC / 4;
    }
    s->vectors = fd_larger(fd_smaller(room / fd_smaller(s->kc, k), most), most - 1);
}

static void multiply_panel_of_b(const void *context, int64_t number)
{
    const spmm_pass *s = context;
    const fd_product *p = s->p;
    const int64_t lanes = lanes_of(s), size = fd_element_bytes(p->dtype);
    const int64_t vectors = fd_divide_up(p->n + s->behind, lanes),
                  packed = s->kc * s->lists->row_bytes;
    const int64_t from = number * vectors / s->panels,
                  own = (number + 1) * vectors / s->panels - from;
    spmm_panel panel = {.column = fd_larger(from * lanes - s->behind, 0), .vectors = (int)own};
    panel.columns = fd_smaller((from + own) * lanes - s->behind, p->n) - panel.column;
    panel.data =
        fd_workspace(FD_SLOT_PANEL, (size_t)(packed + s->lists->rows * own * lanes * size));
    if (panel.data == NULL) {
        *s->failed = 1;
        return;
    }
    panel.tile = panel.data + packed;
    for (int64_t i = 0; i < s->row_blocks * s->blocks; i++) {
        const int64_t block = i % s->blocks;
        const int last = s->first + s->k == p->k ? FD_TO_C_FINISHED : FD_TO_C;
        panel.from = block > 0 ? FD_FROM_TILE : s->first > 0 ? FD_FROM_C : FD_FROM_ZERO;
        panel.to = block + 1 < s->blocks ? FD_TO_TILE : last;
        if (i == 0 || s->blocks > 1) {
            s->kernels->spmm_pack_b[p->dtype](p, &s->lists[i], &panel);
        }
        s->kernels->spmm_multiply[p->dtype](p, &s->lists[i], &panel);
    }
}

/* Elements by which rows of B are behind a place where vectors are aligned: a vector across two lines takes two
 * loads, and a line of two panels comes from memory for each of them (10 % of 128 x 1024 x 1024 where a tenth is
 * stored). 0 where rows differ. */
static int64_t behind_alignment(const spmm_pass *s)
{
    const int64_t size = fd_element_bytes(s->p->dtype), vector = lanes_of(s) * size;
    const int64_t behind = (int64_t)((uintptr_t)s->p->b.data % (uintptr_t)vector);
    const int all_rows =
        !fd_transposed_b(s->p) && s->p->b.row_stride * size % vector == 0 && behind % size == 0;
    return all_rows && s->p->n >= s->vectors * lanes_of(s) ? behind / size : 0;
}

/* Cuts the columns into panels, equally many for each thread if there are enough, whose widths differ by a vector
 * at most. */
static void multiply_panels(spmm_pass *s, int64_t stored)
{
    const int threads = fd_threads_for((stored + s->rows) * s->p->n, MINIMUM_PRODUCTS);
    s->behind = behind_alignment(s);
    const int64_t vectors = fd_divide_up(s->p->n + s->behind, lanes_of(s));
    const int64_t panels = fd_divide_up(fd_divide_up(vectors, s->vectors), threads) * threads;
    s->panels = fd_smaller(panels, vectors);
    fd_parallel(threads, s->panels, multiply_panel_of_b, s);
}

/* The next `bytes` of a buffer; the first time, where there is none yet, only counts them. */
static void *next_part(char *buffer, int64_t *used, int64_t bytes)
{
    char *part = buffer ? buffer + *used : NULL;
    *used += fd_aligned(bytes);
    return part;
}

/* Lays out the lists of all blocks in one buffer, and returns how long it is. */
static int64_t lay_out_lists(spmm_pass *s, char *buffer)
{
    const int64_t row_bytes = s->vectors * lanes_of(s) * fd_element_bytes(s->p->dtype);
    int64_t used = 0;
    s->lists = next_part(buffer, &used, s->row_blocks * s->blocks * (int64_t)sizeof *s->lists);
    for (int64_t i = 0; i < s->row_blocks * s->blocks; i++) {
        const int64_t row = i / s->blocks * FD_BLOCK_ROWS, first = i % s->blocks * s->kc;
        spmm_lists l = {.row = s->row + row,
                        .rows = fd_smaller(s->rows - row, FD_BLOCK_ROWS),
                        .first = s->first + first,
                        .kc = fd_smaller(s->k - first, s->kc),
                        .row_bytes = (int32_t)row_bytes};
        const int64_t capacity = l.rows * l.kc + FD_MAX_LANES; /* the last vector's rest */
        l.values = next_part(buffer, &used, capacity * fd_element_bytes(s->p->dtype));
        l.indices = next_part(buffer, &used, capacity * (int64_t)sizeof *l.indices);
        l.words = next_part(buffer, &used, l.rows * FD_SPMM_WORDS * (int64_t)sizeof *l.words);
        l.order = next_part(buffer, &used, (l.rows + FD_ROWS_AHEAD) * (int64_t)sizeof *l.order);
        l.counts = next_part(buffer, &used, l.rows);
        l.shared = next_part(buffer, &used, l.rows);
        if (buffer) {
            s->lists[i] = l;
        }
    }
    return used;
}

/* A multiplication of s->rows rows and s->k columns of A. Returns how many elements of A are stored. */
static int64_t multiply_rows_of_a(spmm_pass *s)
{
    s->blocks = fd_larger(fd_divide_up(s->k, s->kc), 1); /* once also where k is 0: C is the bias */
    char *buffer = fd_workspace(FD_SLOT_LISTS, (size_t)lay_out_lists(s, NULL));
    if (buffer == NULL) {
        return -1;
    }
    lay_out_lists(s, buffer);
    const int64_t lists = s->row_blocks * s->blocks;
    fd_parallel(fd_threads_for(s->rows * s->k, MINIMUM_LISTS), lists, make_index_lists, s);
    if (*s->failed) {
        return -1;
    }
    int64_t stored = 0;
    for (int64_t i = 0; i < lists; i++) {
        stored += s->lists[i].total;
    }
    multiply_panels(s, stored);
    return *s->failed ? -1 : stored;
}

static void multiply_strip(const void *context, int64_t number)
{
    const spmm_pass *s = context;
    const int64_t column = number * s->strip, columns = fd_smaller(s->strip, s->p->n - column);
    const int64_t stored = s->kernels->spmm_skinny[s->p->dtype](s->p, column, columns);
    if (number == 0) {
        *s->stored = stored;
    }
}

/* A strip for each thread, not shorter than SHORTEST_STRIP, or more of those that the L1 cache holds. */
static int64_t multiply_skinny(spmm_pass *s)
{
    const fd_product *p = s->p;
    const int64_t size = fd_element_bytes(p->dtype), line = FD_CACHE_LINE / size;
    const int threads = fd_threads_for(p->m * p->k * p->n, MINIMUM_STREAMED);
    const int64_t share = fd_divide_up(fd_divide_up(p->n, threads), line) * line;
    int64_t stored = 0;
    s->stored = &stored;
    s->strip = fd_smaller(fd_larger(share, SHORTEST_STRIP / size), FD_SKINNY_BYTES / size);
    fd_parallel(threads, fd_divide_up(p->n, s->strip), multiply_strip, s);
    return stored * p->n;
}

int64_t fd_spmm(const fd_product *p)
{
    atomic_int failed = 0;
    int64_t total = 0;
    spmm_pass s = {.kernels = fd_active_kernels(), .p = p, .failed = &failed};
    if (fd_skinny_takes(p)) {
        return multiply_skinny(&s);
    }
    choose_blocks(&s);
    /* as many blocks of rows as lists of MOST_K by FD_BLOCK_ROWS elements leave room for */
    const int64_t together = fd_smaller(fd_larger(MOST_K / fd_larger(p->k, 1), 1), MOST_BLOCKS);
    for (s.row = 0; s.row < p->m; s.row += s.rows) {
        s.rows = fd_smaller(p->m - s.row, together * FD_BLOCK_ROWS);
        s.row_blocks = fd_divide_up(s.rows, FD_BLOCK_ROWS);
        s.first = 0;
        do {
            s.k = fd_smaller(p->k - s.first, MOST_K);
            const int64_t stored = multiply_rows_of_a(&s);
            if (stored < 0) {
                return FD_NO_MEMORY;
            }
            total += stored;
            s.first += s.k;
        } while (s.first < p->k);
    }
    return total * p->n;
}
