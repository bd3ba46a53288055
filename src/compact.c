/* compact.c: products of active units, cut into blocks for caches and threads.
 *
 * As in skip.c: up to FD_BLOCK_ROWS rows of x at a time are packed, block of depth by block of depth;
 * then threads share the panels of columns, whose sums stay in a tile in the L2 cache. Every sum
 * is made by one thread in the order of the depth.
 */
#include <stdatomic.h>
#include <string.h>

#include "bits.h"
#include "fastdrop.h"

/* What a thread must have to do to be worth waking: elements packed, multiply-adds. */
#define MINIMUM_PACKED (1 << 18)
#define MINIMUM_PRODUCTS (1 << 21)

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    compact_operands c;
    const skip_result *result;
    int64_t row, rows, groups; /* the block of rows */
    int64_t depth, blocks;     /* active; of block_depth */
    int64_t columns, panels;   /* active; of panel_columns */
    char *packed;
    int64_t packed_bytes; /* of one block of depth: all groups of rows */
    atomic_int *failed;
} compact_pass;

/* The source index of every step-th active unit, then the length. */
static void cut_units(const fd_units *units, int64_t step, int64_t count, int64_t *cuts)
{
    if (units->bits == NULL) {
        for (int64_t i = 0; i < count; i++) {
            cuts[i] = i * step;
        }
    } else {
        int64_t rank = 0, cut = 0;
        for (int64_t i = 0; i < units->length && cut < count; i += 64) {
            uint64_t word = fd_load_bits_part(units->bits, units->bit + i, units->length - i);
            const int64_t end = rank + __builtin_popcountll(word);
            while (cut < count && cut * step < end) {
                for (; rank < cut * step; rank++) {
                    word &= word - 1;
                }
                cuts[cut++] = i + __builtin_ctzll(word);
            }
            rank = end;
        }
    }
    cuts[count] = units->length;
}

static void pack_block(const void *context, int64_t block)
{
    const compact_pass *p = context;
    const int64_t group_rows = p->kernels->group_rows;
    const int64_t group_bytes =
        group_rows * p->kernels->block_depth * fd_element_bytes(p->dtype);
    for (int64_t g = 0; g < p->groups; g++) {
        const int64_t left = p->rows - g * group_rows;
        p->kernels->compact_pack_x[p->dtype](&p->c, p->row + g * group_rows,
                                             left < group_rows ? left : group_rows, block,
                                             p->packed + block * p->packed_bytes + g * group_bytes);
    }
}

static void store_tile(const compact_pass *p, int64_t panel_number, const char *tile)
{
    const fd_kernels *k = p->kernels;
    const int64_t width = k->panel_columns[p->dtype], size = fd_element_bytes(p->dtype);
    const int64_t column = p->c.column_cuts[panel_number];
    const int64_t span = p->c.column_cuts[panel_number + 1] - column;
    const skip_result *r = p->result;
    for (int64_t i = 0; i < p->rows; i++, tile += width * size) {
        const int64_t row = p->c.row_numbers ? p->c.row_numbers[p->row + i] : p->row + i;
        if (p->c.columns.bits == NULL) {
            k->skip_store[p->dtype](r, row, column, FD_PANEL_VECTORS, tile);
            continue;
        }
        const char *bias = r->bias ? (const char *)r->bias + column * size : NULL;
        k->scatter[p->dtype](tile, width + COMPACT_SLACK, span, p->c.columns.bits,
                             p->c.columns.bit + column, r->scale, bias, r->bias_scale, 0,
                             (char *)r->data + (row * r->stride + column) * size);
    }
}

/* Where block number `block` of this panel's columns lies in w, for fetching ahead. */
static skip_prefetch prefetch_of(const compact_pass *p, int64_t block, int64_t panel_number,
                                 int64_t vectors)
{
    skip_prefetch next = {.rows = 0};
    if (block >= p->blocks) {
        return next;
    }
    const compact_operands *c = &p->c;
    const int64_t size = fd_element_bytes(p->dtype);
    const int64_t first = c->depth_cuts[block], depth = c->depth_cuts[block + 1] - first;
    const int64_t column = c->column_cuts[panel_number];
    const int64_t columns = c->column_cuts[panel_number + 1] - column;
    const fd_units *units = c->w_transposed ? &c->columns : &c->depth;
    const int64_t row = c->w_transposed ? column : first;
    next.from = (const char *)c->w + (row * c->w_stride + (c->w_transposed ? first : column)) * size;
    next.stride = c->w_stride * size;
    next.rows = c->w_transposed ? columns : depth;
    next.row_bytes = (c->w_transposed ? depth : columns) * size;
    next.bits = units->bits;
    next.bit = units->bit + row;
    const int64_t active_rows = c->w_transposed ? p->kernels->panel_columns[p->dtype]
                                                : p->kernels->block_depth;
    const int64_t lines = active_rows * (next.row_bytes / 64 + 1);
    next.lines_per_step = (int)(lines / (p->groups * vectors / 2) + 1);
    return next;
}

static void multiply_panel(const void *context, int64_t panel_number)
{
    const compact_pass *p = context;
    const fd_kernels *k = p->kernels;
    const int64_t width = k->panel_columns[p->dtype], size = fd_element_bytes(p->dtype);
    const int64_t lanes = width / FD_PANEL_VECTORS;
    const int64_t panel_bytes = fd_aligned((k->block_depth * width + COMPACT_SLACK) * size);
    const int64_t tile_bytes = p->groups * k->group_rows * width * size;
    char *panel = fd_workspace(FD_SLOT_PANEL,
                               (size_t)(panel_bytes + tile_bytes + COMPACT_SLACK * size));
    if (panel == NULL) {
        *p->failed = 1;
        return;
    }
    char *tile = panel + panel_bytes;
    memset(tile, 0, (size_t)(tile_bytes + COMPACT_SLACK * size));
    const int64_t left = p->columns - panel_number * width;
    const int64_t columns = left < width ? left : width;
    if (columns < width) { /* the lanes beyond are multiplied too, with something harmless */
        memset(panel, 0, (size_t)panel_bytes);
    }
    const int64_t vectors = ((columns + lanes - 1) / lanes + 1) / 2 * 2;
    for (int64_t block = 0; block < p->blocks; block++) {
        const int64_t rest = p->depth - block * k->block_depth;
        const skip_prefetch next = prefetch_of(p, block + 1, panel_number, vectors);
        k->compact_pack_w[p->dtype](&p->c, block, panel_number, panel);
        k->compact_multiply[p->dtype](p->packed + block * p->packed_bytes,
                                      k->group_rows * k->block_depth, p->groups,
                                      rest < k->block_depth ? rest : k->block_depth, panel,
                                      vectors, tile, &next);
    }
    store_tile(p, panel_number, tile);
}

static void clear_row(const compact_pass *p, int64_t row)
{
    const int64_t size = fd_element_bytes(p->dtype);
    memset((char *)p->result->data + row * p->result->stride * size, 0,
           (size_t)(p->result->columns * size));
}

/* The numbers of the active rows; the other rows of the result are cleared. */
static void number_rows(const compact_pass *p, int64_t *numbers)
{
    const fd_units *units = &p->c.rows;
    for (int64_t i = 0; i < units->length; i++) {
        if (units->bits == NULL || fd_test_bit(units->bits, units->bit + i)) {
            *numbers++ = i;
        } else {
            clear_row(p, i);
        }
    }
}

/* Cuts, and row numbers where x is transposed, in one buffer; returns 0, or -1 without memory. */
static int place_units(compact_pass *p, int64_t rows)
{
    const fd_kernels *k = p->kernels;
    const int64_t numbers = p->c.x_transposed ? rows : 0;
    int64_t *cuts = fd_workspace(FD_SLOT_CUTS,
                                 (size_t)(p->blocks + p->panels + 2 + numbers) * sizeof *cuts);
    if (cuts == NULL) {
        return -1;
    }
    cut_units(&p->c.depth, k->block_depth, p->blocks, cuts);
    p->c.depth_cuts = cuts;
    cuts += p->blocks + 1;
    cut_units(&p->c.columns, k->panel_columns[p->dtype], p->panels, cuts);
    cuts[0] = 0; /* the first panel's store also clears what is dropped before it */
    p->c.column_cuts = cuts;
    cuts += p->panels + 1;
    if (p->c.x_transposed) {
        number_rows(p, cuts);
        p->c.row_numbers = cuts;
    }
    return 0;
}

int64_t fd_compact_matmul(fd_dtype dtype, const compact_operands *c, const skip_result *result)
{
    atomic_int failed = 0;
    compact_pass p = {.kernels = fd_active_kernels(), .dtype = dtype, .c = *c, .result = result,
                      .failed = &failed};
    const fd_kernels *k = p.kernels;
    const int64_t rows = c->x_transposed ? fd_count_units(&c->rows) : c->rows.length;
    const int64_t size = fd_element_bytes(dtype), width = k->panel_columns[dtype];
    p.depth = fd_count_units(&c->depth);
    p.columns = fd_count_units(&c->columns);
    p.blocks = (p.depth + k->block_depth - 1) / k->block_depth;
    p.panels = (p.columns + width - 1) / width;
    p.c.row_numbers = NULL;
    if (p.columns == 0) {
        for (int64_t i = 0; i < c->rows.length; i++) {
            clear_row(&p, i);
        }
        return 0;
    }
    if (place_units(&p, rows) != 0) {
        return -1;
    }
    for (p.row = 0; p.row < rows; p.row += p.rows) {
        p.rows = rows - p.row < FD_BLOCK_ROWS ? rows - p.row : FD_BLOCK_ROWS;
        p.groups = (p.rows + k->group_rows - 1) / k->group_rows;
        p.packed_bytes =
            fd_aligned((p.groups * k->group_rows * k->block_depth + COMPACT_SLACK) * size);
        p.packed = fd_workspace(FD_SLOT_LISTS, (size_t)(p.blocks * p.packed_bytes + FD_CACHE_LINE));
        if (p.packed == NULL) {
            return -1;
        }
        fd_parallel(fd_threads_for(p.rows * c->depth.length, MINIMUM_PACKED), p.blocks, pack_block,
                    &p);
        fd_parallel(fd_threads_for(p.rows * (p.depth + 1) * p.columns, MINIMUM_PRODUCTS), p.panels,
                    multiply_panel, &p);
    }
    return failed ? -1 : rows * p.depth;
}
