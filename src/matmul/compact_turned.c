/* compact_turned.c: products of active units by w transposed, without turning it.
 *
 * Rows of w transposed run along the depth, as rows of x do, and every sum is that of a row of the one and
 * a row of the other. So the two change places: rows of w are packed as rows, eight at a time, and used
 * at once; x, which is smaller, is packed in strips, whose columns are rows of x. What comes out is the
 * result's transpose, turned when it is done. Sums are the same, bit for bit. */
#include "matmul/compact_pass.h"

static int64_t transposed_strip_columns(const compact_pass *p)
{
    return FD_COMPACT_STRIP * p->kernels->lanes[p->dtype];
}

static int64_t transposed_strips_of(const compact_pass *p)
{
    return fd_divide_up(p->group, transposed_strip_columns(p));
}

static int64_t strip_bytes(const compact_pass *p)
{
    const int64_t lanes = p->kernels->lanes[p->dtype];
    return fd_divide_up(FD_COMPACT_DEPTH, lanes) * lanes * transposed_strip_columns(p) * fd_element_bytes(p->dtype);
}

/* Block of depth after block, of each the strips of all groups. */
static int64_t strip_at(const compact_pass *p, int64_t block, int64_t strip)
{
    return (block * p->groups * transposed_strips_of(p) + strip) * strip_bytes(p);
}

static void pack_strip(const void *context, int64_t task, char *packed)
{
    const compact_pass *p = context;
    const int64_t g = task / transposed_strips_of(p), strip = task % transposed_strips_of(p);
    const int64_t first = p->row + g * p->group;
    const int64_t ends[] = {first, first + fd_rows_of_group(p, g)};
    const compact_axis rows = {.length = p->c->rows, .blocks = 1, .cuts = ends, .ranks = ends};
    const compact_matrix x = {p->c->x, p->c->x_stride, 1, NULL};
    for (int64_t block = 0; block < p->depth[g].blocks; block++) {
        p->kernels->compact_pack_strip[p->dtype](&x, &p->depth[g], block, &rows, 0, strip,
                                                 packed + strip_at(p, block, task));
    }
}

static packed_operand transposed_operand(const compact_pass *p)
{
    return (packed_operand){.pack = pack_strip, .context = p, .parts = p->groups * transposed_strips_of(p),
                            .bytes = (size_t)(strip_at(p, p->depth[0].blocks, 0) + 1)};
}

/* Packed rows of w, then the turned tile; tiles have a row for each column of the result. Whole vectors of
 * rows are turned, whole octets are multiplied. */
static void set_transposed_sizes(const compact_pass *p, compact_work *work)
{
    const int64_t size = fd_element_bytes(p->dtype), lanes = p->kernels->lanes[p->dtype];
    const int64_t widest = fd_divide_up(p->widest, FD_MAX_LANES) * FD_MAX_LANES + p->kernels->compact_rows;
    const int64_t turned = p->group * fd_panel_stride(p->widest, lanes);
    const int64_t packed = widest * (FD_COMPACT_DEPTH + lanes);
    work->scratch_bytes = fd_aligned(fd_larger(packed, turned) * size);
    work->tile_stride = fd_panel_stride(p->group, lanes);
    work->tile_bytes = widest * work->tile_stride * size;
}

/* Multiplies one block of w: eight rows are packed, and multiplied by the first strip of x; then all of them
 * by each of the others. */
static void multiply_transposed_block(const compact_pass *p, const compact_work *work, int64_t g)
{
    const fd_kernels *k = p->kernels;
    const compact_axis *depth = &p->depth[g], *columns = &p->columns[g];
    const compact_matrix w = {p->c->w.data, p->c->w.stride, 0, p->c->w.masked};
    const int64_t size = fd_element_bytes(p->dtype), lanes = k->lanes[p->dtype], unit = k->compact_rows;
    const int64_t active = fd_active_in_block(columns, work->panel), first = columns->ranks[work->panel];
    const int64_t vectors = fd_divide_up(fd_rows_of_group(p, g), lanes);
    const int64_t steps = fd_active_in_block(depth, work->block);
    const int64_t octet_bytes = unit * (FD_COMPACT_DEPTH + lanes) * size;
    const int64_t turns = fd_divide_up(steps, FD_AHEAD_STEPS) * fd_divide_up(active, unit) *
                          fd_divide_up(vectors, FD_COMPACT_STRIP);
    compact_ahead next, ahead = fd_fetched_by(p, g, work->block, work->panel, turns, &next);
    char *tile = fd_tile_of(work, g);
    for (int64_t vector = 0; vector < vectors; vector += FD_COMPACT_STRIP) {
        const int64_t number = g * transposed_strips_of(p) + vector / FD_COMPACT_STRIP;
        const compact_strips strip = {work->packed + strip_at(p, work->block, number),
                                      fd_smaller(vectors - vector, FD_COMPACT_STRIP), transposed_strip_columns(p), 0};
        for (int64_t u = 0; u < active; u += unit) {
            char *octet = work->scratch + (vectors > FD_COMPACT_STRIP ? u / unit * octet_bytes : 0);
            if (vector == 0) {
                k->compact_pack_rows[p->dtype](&w, columns->numbers, first + u,
                                               fd_smaller(active - u, unit), depth, work->block, octet);
            }
            k->compact_multiply[p->dtype](octet, 1, steps, &strip,
                                          tile + (u * work->tile_stride + vector * lanes) * size,
                                          work->tile_stride, work->block == 0, &ahead);
        }
    }
}

/* Sums of group g over a panel, to the result. */
static void store_transposed_tile(const compact_pass *p, const compact_work *work, int64_t g)
{
    const int64_t lanes = p->kernels->lanes[p->dtype];
    const int64_t stride = fd_panel_stride(p->widest, lanes), rows = fd_rows_of_group(p, g);
    const int64_t vectors = fd_vectors_in_block(&p->columns[g], work->panel, lanes);
    p->kernels->transpose[p->dtype](fd_tile_of(work, g), work->tile_stride,
                                    vectors * lanes, rows, work->scratch, stride);
    p->kernels->compact_put[p->dtype](work->scratch, stride, &p->columns[g], work->panel, 0, p->result,
                                      NULL, p->row + g * p->group, rows);
}

const compact_walk fd_walk_rows_of_w = {transposed_operand, set_transposed_sizes,
                                         multiply_transposed_block, store_transposed_tile};
