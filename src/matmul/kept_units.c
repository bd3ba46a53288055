/* kept_units.c: the kept units of an axis as lists, so that kernels need not look at bits.
 * They are made once for a product, and used once for every row of a matrix. */
#include "matmul/kept_units.h"

#include <string.h>

int64_t fd_widest_block(const kept_units *units, int64_t groups)
{
    int64_t widest = 0;
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t b = 0; b < units[g].blocks; b++) {
            const int64_t kept = fd_kept_in_block(&units[g], b);
            widest = kept > widest ? kept : widest;
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

/* Memory that lists are taken from, front to back. */
typedef struct {
    char *next;
} memory;

static void *take(memory *m, int64_t bytes)
{
    void *taken = m->next;
    m->next += fd_aligned(bytes);
    return taken;
}

static int64_t most_blocks(const kept_request *r, int lanes)
{
    const int64_t length = r->length;
    return r->common && r->groups > 1 ? fd_divide_up(length, lanes) + 1
                                      : fd_divide_up(length, r->most) + r->parts + 1;
}

static int64_t micro_panels_of(const kept_request *r, int lanes)
{
    return fd_divide_up(r->most, FD_NR * lanes);
}

/* A window fills a vector, or it is the last one of its micro-panel, or the next one begins at least a vector
 * further on. */
static int64_t bytes_of_windows(int64_t length, int64_t micro_panels, int lanes)
{
    const int64_t most = 2 * (length / lanes) + micro_panels + 2;
    return most * (int64_t)sizeof(kept_window);
}

static int64_t bytes_of_vectors(int64_t length, int lanes)
{
    return (length / lanes + 1) * (int64_t)sizeof(kept_vector);
}

static int64_t bytes_of(const kept_request *r, int lanes)
{
    const int64_t length = r->length, blocks = most_blocks(r, lanes);
    const int64_t word = (int64_t)sizeof(int64_t);
    const int64_t micro_panels = blocks * micro_panels_of(r, lanes);
    const int64_t group = fd_aligned((blocks + 1) * word) * 2 +
                          fd_aligned((micro_panels + 1) * word) + fd_aligned(length * word) +
                          fd_aligned(bytes_of_windows(length, micro_panels, lanes)) +
                          fd_aligned(bytes_of_vectors(length, lanes));
    return r->groups * group + fd_aligned((length / lanes + 1) * word);
}

/* Cuts one group's axis after every step kept units; returns the number of blocks. */
static int64_t cut_alone(const kept_request *r, const fd_units *units, int64_t *cuts)
{
    const int64_t kept = fd_count_units(units);
    const int64_t wanted = fd_divide_up(fd_divide_up(kept, r->most), r->parts) * r->parts;
    if (kept == 0) {
        cuts[0] = 0;
        return 0;
    }
    const int64_t step = fd_divide_up(fd_divide_up(kept, wanted), r->unit) * r->unit;
    int64_t blocks = 0, rank = 0;
    cuts[blocks++] = 0;
    for (int64_t i = 0; i < units->length && blocks * step < kept; i += 64) {
        uint64_t word = load_mask_word(units, i, units->length);
        int64_t count = __builtin_popcountll(word);
        for (; blocks * step < kept && rank + count > blocks * step; blocks++) {
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

static int fits(const kept_request *r, const int64_t *cuts, int64_t blocks)
{
    for (int64_t g = 0; g < r->groups; g++) {
        fd_units units = fd_units_of_row(r->mask, r->length, r->row + g * r->group);
        for (int64_t b = 0; b < blocks; b++) {
            fd_units part = units;
            part.bit += cuts[b];
            part.length = cuts[b + 1] - cuts[b];
            if (part.length > r->most && fd_count_units(&part) > r->most) {
                return 0;
            }
        }
    }
    return 1;
}

/* Cuts all groups' units at the same units, by how many are kept in all of them together. */
static int64_t cut_together(const kept_request *r, int lanes, memory *m, int64_t *cuts)
{
    const int64_t length = r->length, vectors = fd_divide_up(length, lanes);
    int64_t *counts = take(m, vectors * (int64_t)sizeof *counts);
    int64_t total = 0, most = 0;
    memset(counts, 0, (size_t)vectors * sizeof *counts);
    for (int64_t g = 0; g < r->groups; g++) {
        const fd_units units = fd_units_of_row(r->mask, r->length, r->row + g * r->group);
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
    int64_t wanted = fd_divide_up(fd_divide_up(most, r->most), r->parts) * r->parts, blocks = 0;
    for (; wanted < vectors; wanted = fd_divide_up(wanted + wanted / 8 + 1, r->parts) * r->parts) {
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
        if (fits(r, cuts, blocks)) {
            return blocks;
        }
    }
    for (blocks = 0; cuts[blocks] < length; blocks++) { /* as many as could be kept */
        const int64_t next = cuts[blocks] + r->most / lanes * lanes;
        cuts[blocks + 1] = next < length ? next : length;
    }
    return blocks;
}

/* Ranks of the cuts, and numbers. */
static void list_units(const fd_units *units, const kept_units *axis, int64_t *ranks,
                       int64_t *numbers)
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

/* The kept units number `rank` to `end`, `place` of them in the block before. Each window holds as many
 * of those that are left as it can. Returns what is behind the last one. */
static kept_window *list_micro_panel(const kept_units *axis, int lanes, int64_t phase,
                                     int64_t place, int64_t rank, int64_t end, kept_window *w)
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

static void list_windows(const kept_units *axis, int lanes, int64_t phase, int64_t *starts,
                         kept_window *windows)
{
    const int64_t most = FD_NR * lanes;
    kept_window *next = windows;
    for (int64_t b = 0; b < axis->blocks; b++) {
        const int64_t kept = fd_kept_in_block(axis, b);
        for (int64_t place = 0; place < axis->micro_panels * most; place += most) {
            const int64_t begin = place < kept ? place : kept;
            const int64_t end = place + most < kept ? place + most : kept;
            *starts++ = next - windows;
            next = list_micro_panel(axis, lanes, phase, begin, axis->ranks[b] + begin,
                                    axis->ranks[b] + end, next);
        }
    }
    *starts = next - windows;
}

static void list_vectors(const fd_units *units, int lanes, kept_vector *vectors)
{
    int32_t place = 0;
    for (int64_t i = 0; i < units->length; i += 64) {
        const uint64_t word = load_mask_word(units, i, units->length);
        for (int part = 0; part < 64 && i + part < units->length; part += lanes) {
            const uint32_t bits = (uint32_t)(word >> part & (((uint64_t)1 << lanes) - 1));
            *vectors++ = (kept_vector){place, bits};
            place += __builtin_popcount(bits);
        }
    }
}

static void list_axis(const kept_request *r, int lanes, memory *m)
{
    const int64_t length = r->length, word = (int64_t)sizeof(int64_t);
    const int64_t cuts_bytes = (most_blocks(r, lanes) + 1) * word;
    int64_t *cuts = NULL, blocks = 0;
    for (int64_t g = 0; g < r->groups; g++) {
        const fd_units units = fd_units_of_row(r->mask, r->length, r->row + g * r->group);
        kept_units *axis = &r->units[g];
        memset(axis, 0, sizeof *axis);
        if (cuts == NULL || !r->common) {
            const int alone = !r->common || r->groups == 1;
            cuts = take(m, cuts_bytes);
            blocks = alone ? cut_alone(r, &units, cuts) : cut_together(r, lanes, m, cuts);
        }
        axis->length = length;
        axis->blocks = blocks;
        axis->micro_panels = micro_panels_of(r, lanes);
        axis->cuts = axis->ranks = cuts;
        if (r->vectors) {
            kept_vector *vectors = take(m, bytes_of_vectors(length, lanes));
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
            const int64_t micro_panels = blocks * axis->micro_panels;
            int64_t *window_starts = take(m, (micro_panels + 1) * word);
            kept_window *windows = take(m, bytes_of_windows(length, micro_panels, lanes));
            list_windows(axis, lanes, r->phase, window_starts, windows);
            axis->window_starts = window_starts;
            axis->windows = windows;
        }
    }
}

int fd_list_kept(const kept_request *requests, int count, int lanes)
{
    int64_t bytes = 1;
    for (int i = 0; i < count; i++) {
        bytes += bytes_of(&requests[i], lanes);
    }
    memory m = {fd_workspace(FD_SLOT_CUTS, (size_t)bytes)};
    if (m.next == NULL) {
        return -1;
    }
    for (int i = 0; i < count; i++) {
        list_axis(&requests[i], lanes, &m);
    }
    return 0;
}
