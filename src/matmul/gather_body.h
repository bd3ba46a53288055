/* gather_body.h: packed bits pick columns of a row, for one element type R (f32, f64).
 *
 * A vector of columns is compressed in a register and stored whole, the next one over its tail: one
 * load, one permutation, one store a vector, whatever the share of active columns. A row's last
 * elements go one by one where a whole vector would run over the end. The processor's own prefetching
 * stops at every row that is left out, so the rows to come are fetched by hand.
 */
#include "simd/join.h"

static void R_(gather)(const void *from, const void *next, int64_t columns, const uint8_t *bits,
                       int64_t bit, void *to, int64_t room)
{
    const R_(element) *x = from, *ahead = next;
    R_(element) *out = to;
    int64_t n = 0, j = 0;
    for (; j + 64 <= columns && n + 64 + R_(lanes) <= room; j += 64) {
        const uint64_t word = fd_load_bits(bits, bit + j);
        for (int line = 0; line < 64; line += 64 / (int)sizeof *x) {
            __builtin_prefetch(ahead + j + line, 0, 2);
        }
        for (int part = 0; part < 64; part += R_(lanes)) {
            const uint64_t active = word >> part & (((uint64_t)1 << R_(lanes))-1);
            R_(compress)(out + n, R_(load)(x + j + part), active);
            n += fd_count_lanes(active);
        }
    }
    for (; j < columns; j += 64) {
        uint64_t word = fd_load_bits_part(bits, bit + j, columns - j);
        for (; word; word &= word - 1) {
            out[n++] = x[j + __builtin_ctzll(word)];
        }
    }
}

/* The reverse; see kernels.h. Whole vectors are read from x while at least one vector of room
 * elements follows. */
static void R_(scatter)(const void *from, int64_t room, int64_t columns, const uint8_t *bits,
                        int64_t bit, double scale, const void *bias_from, double bias_scale,
                        int accumulate, void *to)
{
    const R_(element) *x = from, *bias = bias_from;
    R_(element) *out = to;
    const R_(element) s = (R_(element))scale, t = (R_(element))bias_scale;
    const R_(vector) scales = R_(one)(s), bias_scales = R_(one)(t);
    int64_t n = 0, j = 0;
    for (; j + 64 <= columns && n + 64 + R_(lanes) <= room; j += 64) {
        uint64_t word = fd_load_bits(bits, bit + j);
        for (int part = 0; part < 64; part += R_(lanes)) {
            const uint64_t active = word >> part & (((uint64_t)1 << R_(lanes))-1);
            R_(element) *place = out + j + part;
            R_(vector) v = R_(expand)(x + n, active);
            n += fd_count_lanes(active);
            if (accumulate) {
                v = R_(multiply_add)(v, scales, R_(load)(place));
            } else {
                v = R_(multiply)(v, scales);
                if (bias) {
                    v = R_(multiply_add)(R_(load)(bias + j + part), bias_scales, v);
                }
                v = R_(keep)(v, active);
            }
            R_(store)(place, v);
        }
    }
    for (; j < columns; j += 64) {
        const uint64_t word = fd_load_bits_part(bits, bit + j, columns - j);
        const int64_t end = columns - j < 64 ? columns - j : 64;
        for (int64_t lane = 0; lane < end; lane++) {
            R_(element) *place = out + j + lane;
            if (word >> lane & 1) {
                const R_(element) product = x[n++] * s;
                *place = accumulate ? *place + product
                         : bias     ? bias[j + lane] * t + product
                                    : product;
            } else if (!accumulate) {
                *place = 0;
            }
        }
    }
}

/* Adds the kept elements of a row to sums of columns. */
static void R_(add_kept)(const void *from, int64_t columns, const uint8_t *bits, int64_t bit,
                         void *to)
{
    const R_(element) *x = from;
    R_(element) *sums = to;
    int64_t j = 0;
    for (; j + 64 <= columns; j += 64) {
        const uint64_t word = bits ? fd_load_bits(bits, bit + j) : ~(uint64_t)0;
        for (int part = 0; part < 64; part += R_(lanes)) {
            const R_(vector) v = R_(keep)(R_(load)(x + j + part), word >> part);
            R_(store)(sums + j + part, R_(add)(R_(load)(sums + j + part), v));
        }
    }
    for (; j < columns; j++) {
        if (bits == NULL || fd_test_bit(bits, bit + j)) {
            sums[j] += x[j];
        }
    }
}

/* Whether all elements are finite: only of such ones is zero times their sum zero. Four sums, that loads are
 * the limit and not the latency of a sum. */
static int R_(all_finite)(const void *from, int64_t n)
{
    const R_(element) *x = from;
    const R_(vector) zero = R_(one)(0);
    R_(vector) sums[4] = {zero, zero, zero, zero};
    R_(element) rest = 0;
    int64_t j = 0;
    for (; j + 4 * R_(lanes) <= n; j += 4 * R_(lanes)) {
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            sums[q] = R_(multiply_add)(R_(load)(x + j + q * R_(lanes)), zero, sums[q]);
        }
    }
    for (; j + R_(lanes) <= n; j += R_(lanes)) {
        sums[0] = R_(multiply_add)(R_(load)(x + j), zero, sums[0]);
    }
    for (; j < n; j++) {
        rest += x[j] * 0;
    }
    const R_(vector) sum = R_(add)(R_(add)(sums[0], sums[1]), R_(add)(sums[2], sums[3]));
    return R_(nonzero)(sum) == 0 && rest == 0; /* NaN is not zero */
}

#include "simd/unjoin.h"
