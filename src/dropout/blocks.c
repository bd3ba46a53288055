/* blocks.c: blocks of dropped places around their first ones, on packed bits.
 *
 * A row of a map is a few 64-bit words. A block extends from its seed to higher places along every axis: a row
 * of seeds is widened by shifts that double, and what it covers of other rows and planes is a union. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "runtime/bits.h"

/* Maps of a task: their bits begin at a byte, whatever the size of a map. */
#define MAPS_TOGETHER 8
#define MINIMUM_BLOCKS (1 << 16)
#define PADDING 2 /* words behind a row that fd_copy_bits may read */

typedef struct {
    const fd_blocks *shape;
    const uint8_t *seeds;
    uint8_t *bits;
    uint64_t *scratch;
    int64_t words, scratch_words, seed_extent[3];
} blocks_pass;

/* row |= row moved by `shift` < 64 * words places towards its end. */
static void or_moved(uint64_t *row, int64_t words, int64_t shift)
{
    const int64_t whole = shift / 64, part = shift % 64;
    for (int64_t i = words - 1; i >= whole; i--) {
        uint64_t moved = row[i - whole] << part;
        if (part && i > whole) {
            moved |= row[i - whole - 1] >> (64 - part);
        }
        row[i] |= moved;
    }
}

/* Each set bit becomes `block` of them. */
static void widen_row(uint64_t *row, int64_t words, int64_t block)
{
    for (int64_t done = 1; done < block;) {
        const int64_t step = done < block - done ? done : block - done;
        if (words == 1) {
            row[0] |= row[0] << step;
        } else {
            or_moved(row, words, step);
        }
        done += step;
    }
}

static void load_row(const uint8_t *seeds, int64_t bit, int64_t length, uint64_t *row)
{
    for (int64_t i = 0; i < length; i += 64) {
        row[i / 64] = fd_load_bits_part(seeds, bit + i, length - i < 64 ? length - i : 64);
    }
}

/* to = from, and what lies `step` words before it; both n words long. */
static void or_before(const uint64_t *restrict from, int64_t n, int64_t step, uint64_t *restrict to)
{
    memcpy(to, from, (size_t)step * sizeof *to);
    for (int64_t i = step; i < n; i++) {
        to[i] = from[i] | from[i - step];
    }
}

/* Lines of `line` words, `extent` of them, of which the first ones may have seeds: each of these spreads over
 * `block` lines. Works in `lines` and in `spare`, as long, and returns the one that holds the result. */
static uint64_t *spread_lines(uint64_t *lines, uint64_t *spare, int64_t extent, int64_t line,
                              int64_t block)
{
    for (int64_t done = 1; done < block;) {
        const int64_t step = done < block - done ? done : block - done;
        or_before(lines, extent * line, step * line, spare);
        uint64_t *other = lines;
        lines = spare;
        spare = other;
        done += step;
    }
    return lines;
}

static void one_map(const blocks_pass *p, int64_t map, uint64_t *scratch)
{
    const int64_t *extent = p->shape->extent, *block = p->shape->block, *seeds = p->seed_extent;
    const int64_t words = p->words, plane = extent[1] * words, volume = extent[0] * plane;
    uint64_t *lines = scratch, *spare = scratch + volume;
    int64_t bit = map * seeds[0] * seeds[1] * seeds[2];
    memset(lines, 0, (size_t)volume * sizeof *lines);
    for (int64_t d = 0; d < seeds[0]; d++) {
        for (int64_t h = 0; h < seeds[1]; h++, bit += seeds[2]) {
            uint64_t *row = lines + d * plane + h * words;
            load_row(p->seeds, bit, seeds[2], row);
            widen_row(row, words, block[2]);
        }
    }
    /* along the axes of lines; what a plane's last lines begin would spread into the next one, but there are
     * no seeds where a block does not fit */
    uint64_t *spread = spread_lines(lines, spare, volume / words, words, block[1]);
    spread = spread_lines(spread, spread == lines ? spare : lines, extent[0], plane, block[0]);
    for (int64_t word = 0; word < volume; word++) {
        spread[word] = ~spread[word];
    }
    int64_t to = map * extent[0] * extent[1] * extent[2];
    if (extent[2] % 64 == 0) {
        memcpy(p->bits + to / 8, spread, (size_t)volume * sizeof *spread);
        return;
    }
    for (int64_t row = 0; row < extent[0] * extent[1]; row++, to += extent[2]) {
        fd_copy_bits((const uint8_t *)(spread + row * words), 0, p->bits, to, extent[2]);
    }
}

static void blocks_part(const void *context, int64_t first, int64_t maps)
{
    const blocks_pass *p = context;
    uint64_t *scratch = p->scratch + first / MAPS_TOGETHER * p->scratch_words;
    for (int64_t map = first; map < first + maps; map++) {
        one_map(p, map, scratch);
    }
}

int64_t fd_drop_blocks(const fd_blocks *shape, const uint8_t *seeds, uint8_t *bits)
{
    const int64_t *extent = shape->extent;
    const int64_t places = extent[0] * extent[1] * extent[2], n = shape->maps * places;
    if (n == 0) {
        return 0;
    }
    blocks_pass p = {.shape = shape, .seeds = seeds, .bits = bits, .words = (extent[2] + 63) / 64};
    for (int axis = 0; axis < 3; axis++) {
        p.seed_extent[axis] = extent[axis] - shape->block[axis] + 1;
    }
    p.scratch_words = 2 * extent[0] * extent[1] * p.words + PADDING;
    const int64_t tasks = (shape->maps + MAPS_TOGETHER - 1) / MAPS_TOGETHER;
    p.scratch = malloc((size_t)(tasks * p.scratch_words) * sizeof *p.scratch);
    if (p.scratch == NULL) {
        return -1;
    }
    fd_parallel_parts(fd_threads_for(n, MINIMUM_BLOCKS), shape->maps, MAPS_TOGETHER, blocks_part,
                      &p);
    free(p.scratch);
    const fd_units kept = {bits, 0, n};
    return fd_count_units(&kept);
}
