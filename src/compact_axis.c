/* compact_axis.c: packed bits of an axis as lists that a kernel can walk without looking at bits. They
 * are made once for a product, and used once for every row of a matrix. */
#include "compact_axis.h"

#include <string.h>

/* a / b, rounded up; a + b may be out of range. */
static int64_t divide_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

void fd_cut_axis(const fd_units *units, int64_t most, int64_t parts, int64_t unit,
                 compact_axis *axis)
{
    memset(axis, 0, sizeof *axis);
    axis->length = units->length;
    axis->active = fd_count_units(units);
    const int64_t fewest = divide_up(axis->active, most);
    const int64_t wanted = divide_up(fewest, parts) * parts;
    axis->step = wanted ? divide_up(divide_up(axis->active, wanted), unit) * unit : unit;
    axis->blocks = divide_up(axis->active, axis->step);
}

static void number_units(const fd_units *units, int64_t *numbers)
{
    for (int64_t i = 0; i < units->length; i += 64) {
        uint64_t word = fd_load_bits_part(units->bits, units->bit + i, units->length - i);
        for (; word; word &= word - 1) {
            *numbers++ = i + __builtin_ctzll(word);
        }
    }
}

/* The lowest `count` of the set bits. */
static uint64_t lowest_bits(uint64_t bits, int64_t count)
{
    uint64_t rest = bits;
    for (; count > 0; count--) {
        rest &= rest - 1;
    }
    return bits ^ rest;
}

/* Where the last vector would reach beyond the axis it begins earlier. */
static compact_piece piece_of(int64_t source, uint64_t bits, int64_t place, int64_t length, int lanes)
{
    const int64_t beyond = source + lanes - length;
    const int64_t shift = beyond > 0 && length >= lanes ? beyond : 0;
    const compact_piece piece = {.source = source - shift, .place = (int32_t)place,
                                 .lanes = (uint32_t)(bits << shift)};
    return piece;
}

static void cut_pieces(const fd_units *units, const compact_axis *axis, int lanes,
                       compact_piece *pieces, int64_t *starts)
{
    const uint64_t vector = ((uint64_t)1 << lanes) - 1;
    int64_t n = 0, rank = 0, block = 0;
    starts[0] = 0;
    for (int64_t i = 0; i < units->length; i += 64) {
        const uint64_t word = fd_load_bits_part(units->bits, units->bit + i, units->length - i);
        for (int part = 0; part < 64; part += lanes) {
            for (uint64_t bits = word >> part & vector; bits;) {
                const int64_t room = (block + 1) * axis->step - rank;
                if (room == 0) {
                    starts[++block] = n;
                    continue;
                }
                const int64_t count = __builtin_popcountll(bits);
                const uint64_t taken = count <= room ? bits : lowest_bits(bits, room);
                pieces[n++] = piece_of(i + part, taken, rank - block * axis->step, units->length,
                                       lanes);
                rank += __builtin_popcountll(taken);
                bits ^= taken;
            }
        }
    }
    starts[axis->blocks] = n;
}

static size_t starts_bytes(const compact_axis *axis)
{
    return (size_t)(axis->blocks + 1) * sizeof(int64_t);
}

/* One more piece a block than vectors: a cut may divide one. */
static size_t pieces_bytes(const compact_axis *axis, int lanes)
{
    return (size_t)(axis->length / lanes + 1 + axis->blocks) * sizeof(compact_piece);
}

int fd_lay_out_axes(const compact_layout *layouts, int count, int lanes)
{
    size_t bytes = 1;
    for (int i = 0; i < count; i++) {
        const compact_axis *axis = layouts[i].axis;
        bytes += (size_t)axis->active * sizeof(int64_t) + starts_bytes(axis) +
                 pieces_bytes(axis, lanes);
    }
    char *memory = fd_workspace(FD_SLOT_CUTS, bytes);
    if (memory == NULL) {
        return -1;
    }
    for (int i = 0; i < count; i++) {
        const compact_layout *l = &layouts[i];
        if (l->units->bits == NULL) {
            continue;
        }
        if (l->numbers) {
            number_units(l->units, (int64_t *)memory);
            l->axis->numbers = (int64_t *)memory;
            memory += (size_t)l->axis->active * sizeof(int64_t);
        }
        if (l->pieces) {
            int64_t *starts = (int64_t *)memory;
            compact_piece *pieces = (compact_piece *)(memory + starts_bytes(l->axis));
            cut_pieces(l->units, l->axis, lanes, pieces, starts);
            l->axis->starts = starts;
            l->axis->pieces = pieces;
            memory += starts_bytes(l->axis) + pieces_bytes(l->axis, lanes);
        }
    }
    return 0;
}

int64_t fd_cut_of(const compact_axis *axis, int64_t block)
{
    if (block == 0) {
        return 0;
    }
    if (block >= axis->blocks) {
        return axis->length;
    }
    if (axis->numbers) {
        return axis->numbers[block * axis->step];
    }
    if (axis->pieces) {
        const compact_piece *first = axis->pieces + axis->starts[block];
        return first->source + __builtin_ctz(first->lanes);
    }
    return block * axis->step;
}
