/* skip_body.h: matrix products that leave out zeros, for one element type R (f32, f64).
 *
 * out (rows, columns) = x (rows, depth) @ w (depth, columns), where only the stored elements of x
 * are multiplied. The depth is cut into blocks. Of every block, each row's stored elements become a
 * list of values and of places in the panel; a panel is a piece of w, one block deep and
 * PANEL_VECTORS vectors wide, packed so that it lies in the L1 cache without conflicts. A row's
 * sums over one panel's columns stay in PANEL_VECTORS registers while its list is walked: per stored
 * element one broadcast and PANEL_VECTORS multiply-adds whose other operand comes straight from the
 * panel. With 8 vectors that is 9 loads for 8 multiply-adds, so that the load ports, one 64-byte or
 * two 32-byte loads a cycle, keep the multipliers about 90 % busy.
 *
 * Rows are walked in the order of their counts: a loop whose length changes from row to row ends in
 * a mispredicted branch each time, which would cost as much as two stored elements.
 *
 * Rows that share one list (a unit mask for a group of rows) are walked GROUP_ROWS at a time: each
 * load of the panel then serves all of them.
 */
#include "join.h"

/* Which of the elements [k, k + depth) of a row are stored. */
static inline uint64_t R_(stored_word)(const R_(element) *x, int64_t depth, int skip_zeros)
{
    uint64_t word = depth < 64 ? ((uint64_t)1 << depth) - 1 : ~(uint64_t)0;
    if (!skip_zeros) {
        return word;
    }
    uint64_t nonzero = 0;
    int64_t k = 0;
    for (; k + R_(lanes) <= depth; k += R_(lanes)) {
        nonzero |= R_(nonzero)(R_(load)(x + k)) << k;
    }
    for (; k < depth; k++) {
        nonzero |= (uint64_t)(x[k] != 0) << k;
    }
    return nonzero;
}

/* The words of 64 rows of x = transpose of a, from `depth` rows of a: bit k of words[i] says
 * whether a[k][i] is stored. `count` <= 64 rows of x. */
static void R_(stored_words_transposed)(const skip_operand *x, int64_t row, int64_t count,
                                        int64_t first, int64_t depth, uint64_t *words)
{
    memset(words, 0, 64 * sizeof *words);
    for (int64_t k = 0; k < depth; k++) {
        const R_(element) *a = (const R_(element) *)x->data + (first + k) * x->stride + row;
        words[k] = R_(stored_word)(a, count, x->skip_zeros);
        if (x->bits) {
            const int64_t bit = (first + k) / x->rows_per_mask * x->rows + row;
            words[k] &= fd_load_bits_part(x->bits, bit, count);
        }
    }
    transpose_bits(words);
}

static void R_(skip_words)(const skip_operand *x, int64_t row, int64_t rows, int64_t first,
                           int64_t depth, uint64_t *words)
{
    if (x->transposed) {
        for (int64_t i = 0; i < rows; i += 64) {
            uint64_t square[64];
            const int64_t count = rows - i < 64 ? rows - i : 64;
            R_(stored_words_transposed)(x, row + i, count, first, depth, square);
            memcpy(words + i, square, (size_t)count * sizeof *square);
        }
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        const R_(element) *a = (const R_(element) *)x->data + (row + i) * x->stride + first;
        words[i] = R_(stored_word)(a, depth, x->skip_zeros);
        if (x->bits) {
            const int64_t bit = (row + i) / x->rows_per_mask * x->depth + first;
            words[i] &= fd_load_bits_part(x->bits, bit, depth);
        }
    }
}

/* One row's list. Whole vectors may be written: room for a vector more than the list. */
static inline void R_(write_list)(const skip_operand *x, int64_t row, int64_t first, uint64_t word,
                                  R_(element) *values, uint32_t *places)
{
    if (x->transposed || first + BLOCK_DEPTH > x->depth) { /* no reading past the row's end */
        const int64_t along = x->transposed ? x->stride : 1;
        const R_(element) *a = (const R_(element) *)x->data +
                               (x->transposed ? first * x->stride + row : row * x->stride + first);
        for (; word; word &= word - 1) {
            const int64_t k = __builtin_ctzll(word);
            *values++ = a[k * along];
            *places++ = (uint32_t)k;
        }
        return;
    }
    const R_(element) *a = (const R_(element) *)x->data + row * x->stride + first;
    for (int part = 0; part < BLOCK_DEPTH; part += R_(lanes)) {
        const uint64_t stored = word >> part & (((uint64_t)1 << R_(lanes)) - 1);
        R_(compress)(values, R_(load)(a + part), stored);
        values += __builtin_popcountll(stored);
    }
    for (; word; word &= word - 1) {
        *places++ = (uint32_t)__builtin_ctzll(word);
    }
}

/* Lists of rows [row, row + rows) over one block of depth, in the order of their lengths. */
static void R_(skip_lists)(const skip_operand *x, int64_t row, int64_t rows, int64_t first,
                           skip_lists *lists)
{
    const int64_t depth = x->depth - first < BLOCK_DEPTH ? x->depth - first : BLOCK_DEPTH;
    R_(element) *values = lists->values;
    uint32_t *places = lists->places;
    uint64_t *words = lists->words;
    R_(skip_words)(x, row, rows, first, depth, words);
    int32_t start[BLOCK_DEPTH + 2] = {0};
    for (int64_t i = 0; i < rows; i++) {
        start[__builtin_popcountll(words[i]) + 1]++;
    }
    for (int count = 0; count <= BLOCK_DEPTH; count++) {
        lists->rows_of_count[count] = start[count + 1];
        start[count + 1] += start[count];
    }
    for (int64_t i = 0; i < rows; i++) {
        lists->order[start[__builtin_popcountll(words[i])]++] = (uint16_t)i;
    }
    int64_t total = 0;
    for (int64_t i = 0; i < rows; i++) {
        const uint64_t word = words[lists->order[i]];
        R_(write_list)(x, row + lists->order[i], first, word, values + total, places + total);
        total += __builtin_popcountll(word);
    }
    lists->total = total;
}

/* Lists of groups of at most GROUP_ROWS rows that share their places; values[t * GROUP_ROWS + r].
 * Groups follow each other in tile order: group g has rows_of_group[g] rows from row_of_group[g]. */
static void R_(group_lists)(const skip_operand *x, int64_t groups, const int64_t *row_of_group,
                            const int32_t *rows_of_group, int64_t first, skip_lists *lists)
{
    const int64_t depth = x->depth - first < BLOCK_DEPTH ? x->depth - first : BLOCK_DEPTH;
    R_(element) *values = lists->values;
    uint32_t *places = lists->places;
    lists->total = 0;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t row = row_of_group[g], rows = rows_of_group[g];
        const R_(element) *a = (const R_(element) *)x->data + row * x->stride + first;
        uint64_t word = fd_load_bits_part(x->bits, row / x->rows_per_mask * x->depth + first, depth);
        const int count = __builtin_popcountll(word);
        lists->count_of_group[g] = count;
        lists->total += count * rows;
        for (; word; word &= word - 1) {
            const int64_t k = __builtin_ctzll(word);
            *places++ = (uint32_t)k;
            for (int64_t r = 0; r < GROUP_ROWS; r++) {
                values[r] = r < rows ? a[r * x->stride + k] : 0;
            }
            values += GROUP_ROWS;
        }
    }
}

/* Packs w[first .. first + depth) x [column .. column + vectors * lanes) into the panel, zeros
 * beyond w's edge. */
static void R_(skip_pack)(const skip_weights *w, int64_t first, int64_t column, int vectors,
                          void *to)
{
    const R_(element) *from = w->data;
    R_(element) *panel = to;
    const int64_t width = vectors * R_(lanes);
    const int64_t depth = w->depth - first < BLOCK_DEPTH ? w->depth - first : BLOCK_DEPTH;
    const int64_t columns = w->columns - column < width ? w->columns - column : width;
    if (columns < width) {
        memset(panel, 0, (size_t)(depth * width) * sizeof *panel);
    }
    if (!w->transposed) {
        for (int64_t k = 0; k < depth; k++) {
            const R_(element) *row = from + (first + k) * w->stride + column;
            if (columns == width) {
                for (int64_t j = 0; j < width; j += R_(lanes)) {
                    R_(store)(panel + k * width + j, R_(load)(row + j));
                }
            } else {
                memcpy(panel + k * width, row, (size_t)columns * sizeof *panel);
            }
        }
        return;
    }
    from += column * w->stride + first; /* w[k][j] is from[j * stride + k] */
    int64_t j = 0;
    for (; j + R_(lanes) <= columns; j += R_(lanes)) {
        int64_t k = 0;
        for (; k + R_(transpose_depth) <= depth; k += R_(transpose_depth)) {
            R_(transpose)(from + j * w->stride + k, w->stride, panel + k * width + j, width);
        }
        for (; k < depth; k++) {
            for (int64_t lane = j; lane < j + R_(lanes); lane++) {
                panel[k * width + lane] = from[lane * w->stride + k];
            }
        }
    }
    for (; j < columns; j++) {
        for (int64_t k = 0; k < depth; k++) {
            panel[k * width + j] = from[j * w->stride + k];
        }
    }
}

/* Adds one block's products to the tile (rows x vectors). The next panel's source is fetched on the
 * way, some lines a row. Inlined with a constant number of vectors, which then are registers. */
static inline __attribute__((always_inline)) void
R_(skip_rows_of)(const skip_lists *lists, const R_(element) *panel, const int vectors,
                 R_(element) *tile, const skip_prefetch *next)
{
    const R_(element) *value = lists->values;
    const uint32_t *place = lists->places;
    const uint16_t *row = lists->order + lists->rows_of_count[0];
    const int64_t width = vectors * R_(lanes);
    skip_prefetch ahead = *next;
    for (int count = 1; count <= BLOCK_DEPTH; count++) {
        for (int32_t rows = lists->rows_of_count[count]; rows > 0; rows--) {
            R_(element) *sum = tile + *row++ * width;
            R_(vector) v[PANEL_VECTORS];
            skip_fetch_ahead(&ahead);
#pragma GCC unroll 8
            for (int q = 0; q < vectors; q++) {
                v[q] = R_(load)(sum + q * R_(lanes));
            }
            for (int t = 0; t < count; t++) {
                const R_(element) *p = panel + *place++ * width;
                const R_(vector) factor = R_(one)(*value++);
#pragma GCC unroll 8
                for (int q = 0; q < vectors; q++) {
                    v[q] = R_(multiply_add)(factor, R_(load)(p + q * R_(lanes)), v[q]);
                }
            }
#pragma GCC unroll 8
            for (int q = 0; q < vectors; q++) {
                R_(store)(sum + q * R_(lanes), v[q]);
            }
        }
    }
}

static void R_(skip_rows)(const skip_lists *lists, const void *panel, int vectors, void *tile,
                          const skip_prefetch *next)
{
    switch (vectors) {
    case 1:
        R_(skip_rows_of)(lists, panel, 1, tile, next);
        break;
    case 2:
        R_(skip_rows_of)(lists, panel, 2, tile, next);
        break;
    case 4:
        R_(skip_rows_of)(lists, panel, 4, tile, next);
        break;
    default:
        R_(skip_rows_of)(lists, panel, PANEL_VECTORS, tile, next);
    }
}

/* The same for groups: GROUP_ROWS rows x 2 vectors at a time. */
static void R_(skip_groups)(const skip_lists *lists, int64_t groups, const void *packed,
                            int vectors, void *sums, const skip_prefetch *next)
{
    const R_(element) *panel = packed, *values = lists->values;
    const uint32_t *places = lists->places;
    const int64_t width = vectors * R_(lanes);
    R_(element) *tile = sums;
    skip_prefetch ahead = *next;
    for (int64_t g = 0; g < groups; g++) {
        const int32_t count = lists->count_of_group[g];
        for (int64_t column = 0; column < width; column += 2 * R_(lanes)) {
            R_(vector) v[GROUP_ROWS][2];
            R_(element) *sum = tile + column;
            skip_fetch_ahead(&ahead);
#pragma GCC unroll 8
            for (int r = 0; r < GROUP_ROWS; r++) {
                v[r][0] = R_(load)(sum + r * width);
                v[r][1] = R_(load)(sum + r * width + R_(lanes));
            }
            const R_(element) *value = values;
            for (int32_t t = 0; t < count; t++) {
                const R_(element) *p = panel + column + places[t] * width;
                const R_(vector) w0 = R_(load)(p), w1 = R_(load)(p + R_(lanes));
#pragma GCC unroll 8
                for (int r = 0; r < GROUP_ROWS; r++) {
                    const R_(vector) factor = R_(one)(value[r]);
                    v[r][0] = R_(multiply_add)(factor, w0, v[r][0]);
                    v[r][1] = R_(multiply_add)(factor, w1, v[r][1]);
                }
                value += GROUP_ROWS;
            }
#pragma GCC unroll 8
            for (int r = 0; r < GROUP_ROWS; r++) {
                R_(store)(sum + r * width, v[r][0]);
                R_(store)(sum + r * width + R_(lanes), v[r][1]);
            }
        }
        tile += GROUP_ROWS * width;
        places += count;
        values += (int64_t)count * GROUP_ROWS;
    }
}

/* One row of the tile to out[row][column ..]: scale, bias, output mask; or as it is (unfinished),
 * to be loaded again. */
static void R_(skip_store)(const skip_result *result, int64_t row, int64_t column, int vectors,
                           const void *from)
{
    const int64_t width = vectors * R_(lanes);
    const int64_t left = result->columns - column;
    const int64_t columns = left < width ? left : width;
    const R_(element) *sum = from, *bias = result->bias;
    R_(element) *out = (R_(element) *)result->data + row * result->stride + column;
    const R_(element) scale = (R_(element))result->scale, t = (R_(element))result->bias_scale;
    if (columns == width && !bias) {
        const R_(vector) s = R_(one)(scale);
        for (int64_t j = 0; j < width; j += R_(lanes)) {
            R_(store)(out + j, R_(multiply)(R_(load)(sum + j), s));
        }
    } else {
        for (int64_t j = 0; j < columns; j++) {
            out[j] = sum[j] * scale + (bias ? bias[column + j] * t : 0);
        }
    }
    if (result->bits) {
        const int64_t bit = row / result->rows_per_mask * result->columns + column;
        R_(apply_bits)(out, out, columns, result->bits, bit, 1.0, 0);
    }
}

#include "unjoin.h"
