/* compact_axis.c: packed bits of an axis as lists that a kernel can walk without looking at bits.
 * They are made once for a product, and used once for every row of a matrix. */
#include "matmul/compact_axis.h"

#include <string.h>

fd_units fd_units_of_row(const compact_mask *mask, int64_t row)
{
    fd_units units = mask->units;
    units.bit += row / mask->rows_per_mask * units.length;
    return units;
}

int64_t fd_widest_block(const compact_axis *axes, int64_t groups)
{
    int64_t widest = 0;
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t b = 0; b < axes[g].blocks; b++) {
            const int64_t active = fd_active_in_block(&axes[g], b);
            widest = active > widest ? active : widest;
        }
    }
    return widest;
}

static uint64_t load_mask_word(const fd_units *units, int64_t i, int64_t end)
{
    if (units->bits == NULL) {
        return end - i < 64 ? ((uint64_t)1 << (end - i)) - 1 : ~(uint64_t)0;
    }
    return fd_load_bits_part(units->bits, units->bit + i, end - i);
}

/* Memory that a layout's lists are taken from, front to back. */
typedef struct {
    char *next;
} memory;

static void *take(memory *m, int64_t bytes)
{
    void *taken = m->next;
    m->next += fd_aligned(bytes);
    return taken;
}

static int64_t most_blocks(const compact_layout *l, int lanes)
{
    const int64_t length = l->mask->units.length;
    return l->common && l->groups > 1 ? fd_divide_up(length, lanes) + 1
                                      : fd_divide_up(length, l->most) + l->parts + 1;
}

static int64_t strips_of(const compact_layout *l, int lanes)
{
    return fd_divide_up(l->most, FD_COMPACT_STRIP * lanes);
}

/* A window fills a vector, or it is the last one of its strip, or the next one begins at least a vector
 * further on. */
static int64_t bytes_of_windows(int64_t length, int64_t strips, int lanes)
{
    const int64_t most = 2 * (length / lanes) + strips + 2;
    return most * (int64_t)sizeof(compact_window);
}

static int64_t bytes_of_vectors(int64_t length, int lanes)
{
    return (length / lanes + 1) * (int64_t)sizeof(compact_vector);
}

static int64_t bytes_of(const compact_layout *l, int lanes)
{
    const int64_t length = l->mask->units.length, blocks = most_blocks(l, lanes);
    const int64_t word = (int64_t)sizeof(int64_t);
    const int64_t strips = blocks * strips_of(l, lanes);
    const int64_t group = fd_aligned((blocks + 1) * word) * 2 + fd_aligned((strips + 1) * word) +
                          fd_aligned(length * word) +
                          fd_aligned(bytes_of_windows(length, strips, lanes)) +
                          fd_aligned(bytes_of_vectors(length, lanes));
    return l->groups * group + fd_aligned((length / lanes + 1) * word);
}

/* Cuts one group's axis after every step active units; returns the number of blocks. */
static int64_t cut_alone(const compact_layout *l, const fd_units *units, int64_t *cuts)
{
    const int64_t active = fd_count_units(units);
    const int64_t wanted = fd_divide_up(fd_divide_up(active, l->most), l->parts) * l->parts;
    if (active == 0) {
        cuts[0] = 0;
        return 0;
    }
    const int64_t step = fd_divide_up(fd_divide_up(active, wanted), l->unit) * l->unit;
    int64_t blocks = 0, rank = 0;
    cuts[blocks++] = 0;
    for (int64_t i = 0; i < units->length && blocks * step < active; i += 64) {
        uint64_t word = load_mask_word(units, i, units->length);
        int64_t count = __builtin_popcountll(word);
        for (; blocks * step < active && rank + count > blocks * step; blocks++) {
            for (; rank < blocks * step; rank++, count--) {
                word &= word - 1;
            }
            cuts[blocks] = i + __builtin_ctzll(word);
        }
        rank += count;
    }
    cuts[blocks] = units->length;
    return blocks;
}

static int fits(const compact_layout *l, const int64_t *cuts, int64_t blocks)
{
    for (int64_t g = 0; g < l->groups; g++) {
        fd_units units = fd_units_of_row(l->mask, l->row + g * l->group);
        for (int64_t b = 0; b < blocks; b++) {
            fd_units part = units;
            part.bit += cuts[b];
            part.length = cuts[b + 1] - cuts[b];
            if (part.length > l->most && fd_count_units(&part) > l->most) {
                return 0;
            }
        }
    }
    return 1;
}

/* Cuts all groups' axes at the same units, by how many are active in all of them together. */
static int64_t cut_together(const compact_layout *l, int lanes, memory *m, int64_t *cuts)
{
    const int64_t length = l->mask->units.length, vectors = fd_divide_up(length, lanes);
    int64_t *counts = take(m, vectors * (int64_t)sizeof *counts);
    int64_t total = 0, most = 0;
    memset(counts, 0, (size_t)vectors * sizeof *counts);
    for (int64_t g = 0; g < l->groups; g++) {
        const fd_units units = fd_units_of_row(l->mask, l->row + g * l->group);
        int64_t own = 0;
        for (int64_t i = 0; i < length; i += 64) {
            const uint64_t word = load_mask_word(&units, i, length);
            for (int part = 0; part < 64 && i + part < length; part += lanes) {
                const uint64_t bits = word >> part & (((uint64_t)1 << lanes) - 1);
                counts[(i + part) / lanes] += __builtin_popcountll(bits);
                own += __builtin_popcountll(bits);
            }
        }
        total += own;
        most = own > most ? own : most;
    }
    cuts[0] = 0;
    if (total == 0) {
        return 0;
    }
    int64_t wanted = fd_divide_up(fd_divide_up(most, l->most), l->parts) * l->parts, blocks = 0;
    for (; wanted < vectors; wanted = fd_divide_up(wanted + wanted / 8 + 1, l->parts) * l->parts) {
        int64_t sum = 0;
        blocks = 0;
        for (int64_t v = 0; v < vectors; v++) {
            /* where a vector's middle is beyond the next share of the total */
            if (sum * 2 * wanted + counts[v] * wanted > (blocks + 1) * 2 * total &&
                v * lanes > cuts[blocks]) {
                cuts[++blocks] = v * lanes;
            }
            sum += counts[v];
        }
        cuts[++blocks] = length;
        if (fits(l, cuts, blocks)) {
            return blocks;
        }
    }
    for (blocks = 0; cuts[blocks] < length; blocks++) { /* as many as could be active */
        const int64_t next = cuts[blocks] + l->most / lanes * lanes;
        cuts[blocks + 1] = next < length ? next : length;
    }
    return blocks;
}

/* Ranks of the cuts, and numbers. */
static void list_units(const fd_units *units, const compact_axis *axis, int64_t *ranks, int64_t *numbers)
{
    int64_t rank = 0;
    for (int64_t b = 0; b < axis->blocks; b++) {
        const int64_t end = axis->cuts[b + 1];
        ranks[b] = rank;
        for (int64_t i = axis->cuts[b]; i < end; i += 64) {
            uint64_t word = load_mask_word(units, i, end);
            for (; word; word &= word - 1) {
                numbers[rank++] = i + __builtin_ctzll(word);
            }
        }
    }
    ranks[axis->blocks] = rank;
}

/* Where a window begins that holds a unit: with its vector's cache line, if that is on the axis. */
static int64_t source_of(int64_t unit, int64_t phase, int64_t length, int lanes)
{
    const int64_t line = (unit + phase) / lanes * lanes - phase, last = length - 2 * lanes;
    return line < 0 ? 0 : line < last ? line : last;
}

/* The active units number `rank` to `end`, `place` of them in the block before. Each window holds as many
 * of those that are left as it can. Returns what is behind the last one. */
static compact_window *list_strip(const compact_axis *axis, int lanes, int64_t phase, int64_t place,
                                  int64_t rank, int64_t end, compact_window *w)
{
    const int64_t *unit = axis->numbers;
    for (; rank < end; w++) {
        const int64_t begin = rank;
        w->source = source_of(unit[rank], phase, axis->length, lanes);
        w->place = place;
        memset(w->order, 0, sizeof w->order);
        while (rank < end && rank < begin + lanes && unit[rank] - w->source < 2 * lanes) {
            w->order[rank - begin] = (uint8_t)(unit[rank] - w->source);
            rank++;
        }
        place += rank - begin;
    }
    return w;
}

static void list_windows(const compact_axis *axis, int lanes, int64_t phase, int64_t *starts,
                         compact_window *windows)
{
    const int64_t most = FD_COMPACT_STRIP * lanes;
    compact_window *next = windows;
    for (int64_t b = 0; b < axis->blocks; b++) {
        const int64_t active = fd_active_in_block(axis, b);
        for (int64_t place = 0; place < axis->strips * most; place += most) {
            const int64_t begin = place < active ? place : active;
            const int64_t end = place + most < active ? place + most : active;
            *starts++ = next - windows;
            next = list_strip(axis, lanes, phase, begin, axis->ranks[b] + begin, axis->ranks[b] + end, next);
        }
    }
    *starts = next - windows;
}

static void list_vectors(const fd_units *units, int lanes, compact_vector *vectors)
{
    int32_t place = 0;
    for (int64_t i = 0; i < units->length; i += 64) {
        const uint64_t word = load_mask_word(units, i, units->length);
        for (int part = 0; part < 64 && i + part < units->length; part += lanes) {
            const uint32_t bits = (uint32_t)(word >> part & (((uint64_t)1 << lanes) - 1));
            *vectors++ = (compact_vector){place, bits};
            place += __builtin_popcount(bits);
        }
    }
}

static void lay_out_axis(const compact_layout *l, int lanes, memory *m)
{
    const int64_t length = l->mask->units.length, word = (int64_t)sizeof(int64_t);
    const int64_t cuts_bytes = (most_blocks(l, lanes) + 1) * word;
    int64_t *cuts = NULL, blocks = 0;
    for (int64_t g = 0; g < l->groups; g++) {
        const fd_units units = fd_units_of_row(l->mask, l->row + g * l->group);
        compact_axis *axis = &l->axes[g];
        memset(axis, 0, sizeof *axis);
        if (cuts == NULL || !l->common) {
            const int alone = !l->common || l->groups == 1;
            cuts = take(m, cuts_bytes);
            blocks = alone ? cut_alone(l, &units, cuts) : cut_together(l, lanes, m, cuts);
        }
        axis->length = length;
        axis->blocks = blocks;
        axis->strips = strips_of(l, lanes);
        axis->cuts = axis->ranks = cuts;
        if (l->vectors) {
            compact_vector *vectors = take(m, bytes_of_vectors(length, lanes));
            list_vectors(&units, lanes, vectors);
            axis->vectors = vectors;
        }
        if (units.bits == NULL) {
            continue;
        }
        int64_t *ranks = take(m, cuts_bytes), *numbers = take(m, length * word);
        list_units(&units, axis, ranks, numbers);
        axis->ranks = ranks;
        axis->numbers = numbers;
        if (length >= 2 * lanes) {
            const int64_t strips = blocks * axis->strips;
            int64_t *strip_starts = take(m, (strips + 1) * word);
            compact_window *windows = take(m, bytes_of_windows(length, strips, lanes));
            list_windows(axis, lanes, l->phase, strip_starts, windows);
            axis->strip_starts = strip_starts;
            axis->windows = windows;
        }
    }
}

int fd_lay_out_axes(const compact_layout *layouts, int count, int lanes)
{
    int64_t bytes = 1;
    for (int i = 0; i < count; i++) {
        bytes += bytes_of(&layouts[i], lanes);
    }
    memory m = {fd_workspace(FD_SLOT_CUTS, (size_t)bytes)};
    if (m.next == NULL) {
        return -1;
    }
    for (int i = 0; i < count; i++) {
        lay_out_axis(&layouts[i], lanes, &m);
    }
    return 0;
}
