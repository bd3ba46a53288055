/* update_body.h: one row of weights moves by one step, for one element type R (f32, f64).
 *
 * Every vector with an active lane is read, computed and written back whole; lanes that are not
 * active are written back as they were read. Multiplications and additions are never fused, so that
 * every instruction set, and the reference in NumPy, gets the same bits.
 */
#include <float.h>

#include "optim/update.h"

/* Columns whose sums of squares stay in registers. */
#undef SQUARES
#define SQUARES 16

#include "simd/join.h"

/* The rule's numbers in the element type. */
typedef struct {
    R_(vector) rate, decay, keep, beta1, rest1, beta2, rest2;
    R_(vector) s, e, r, first_s, first_e, first_r; /* Adam's corrections, of the row */
    int decay_gradient, decay_value, nesterov;
} R_(numbers);

static inline R_(numbers) R_(numbers_of)(const fd_rule *rule, const fd_corrections *corrections)
{
    R_(numbers) n;
    n.s = R_(splat)(corrections->row.s);
    n.e = R_(splat)(corrections->row.e);
    n.r = R_(splat)(corrections->row.r);
    n.first_s = R_(splat)(corrections->first.s);
    n.first_e = R_(splat)(corrections->first.e);
    n.first_r = R_(splat)(corrections->first.r);
    n.rate = R_(splat)(rule->learning_rate);
    n.decay = R_(splat)(rule->weight_decay);
    n.keep = R_(splat)(1.0 - rule->learning_rate * rule->weight_decay);
    n.beta1 = R_(splat)(rule->beta1);
    n.rest1 = R_(splat)(1.0 - rule->beta1);
    n.beta2 = R_(splat)(rule->beta2);
    n.rest2 = R_(splat)(1.0 - rule->beta2);
    n.decay_gradient = rule->weight_decay != 0 && !rule->decoupled;
    n.decay_value = rule->weight_decay != 0 && rule->decoupled;
    n.nesterov = rule->nesterov;
    return n;
}

/* Where one vector of a row lies. */
typedef struct {
    R_(element) *value, *first, *second, *top;
    const R_(element) *s, *r; /* corrections of its columns */
} R_(place);

static inline void R_(store_active)(R_(element) *p, R_(vector) old, R_(vector) v, uint64_t active)
{
    R_(store)(p, R_(choose)(old, v, active));
}

/* Stochastic gradient descent; see the reference for the formulas. `plain`: with a velocity, and neither
 * decay nor Nesterov's, which is then known where this is compiled. */
static inline FD_ALWAYS_INLINE void R_(descend)(R_(numbers) n, R_(place) p, R_(vector) gradient,
                                                uint64_t active, const int plain)
{
    const R_(vector) w = R_(load)(p.value);
    R_(vector) step = gradient;
    if (!plain && n.decay_gradient) {
        step = R_(add)(step, R_(multiply)(n.decay, w));
    }
    if (plain || p.first) {
        const R_(vector) old = R_(load)(p.first);
        const R_(vector) u = R_(add)(R_(multiply)(n.beta1, old), step);
        R_(store_active)(p.first, old, u, active);
        step = !plain && n.nesterov ? R_(add)(step, R_(multiply)(n.beta1, u)) : u;
    }
    R_(store_active)(p.value, w, R_(subtract)(w, R_(multiply)(n.rate, step)), active);
}

static inline FD_ALWAYS_INLINE R_(place) R_(place_of)(const fd_update_row *row, int64_t j, int way)
{
    R_(place) p = {.value = (R_(element) *)row->value + j};
    if (way != FD_MOVE_SGD || row->first) {
        p.first = (R_(element) *)row->first + j;
    }
    if (way != FD_MOVE_SGD) {
        p.second = (R_(element) *)row->second + j;
        p.top = row->top ? (R_(element) *)row->top + j : NULL;
    }
    if (way > FD_MOVE_ADAM) {
        p.s = (const R_(element) *)row->corrections.columns_s + j;
        p.r = (const R_(element) *)row->corrections.columns_r + j;
    }
    return p;
}

/* 64 columns of the next active row, into the second cache: in the first, rows of several arrays that
 * begin at the same place of a page would displace one another before they are needed. */
static inline FD_ALWAYS_INLINE void R_(fetch_ahead)(const fd_update_row *row, int64_t j, int way)
{
#pragma GCC unroll 8
    for (int line = 0; line < 64; line += 64 / (int)sizeof(R_(element))) {
        const R_(place) next = R_(place_of)(row, row->ahead + j + line, way);
        __builtin_prefetch(next.value, 0, 2);
        if (way != FD_MOVE_SGD || next.first) {
            __builtin_prefetch(next.first, 0, 2);
        }
        if (way != FD_MOVE_SGD) {
            __builtin_prefetch(next.second, 0, 2);
            if (next.top) {
                __builtin_prefetch(next.top, 0, 2);
            }
        }
    }
}

/* The active ones of 64 columns. */
static inline FD_ALWAYS_INLINE uint64_t R_(active_word)(const fd_update_row *row, int64_t j)
{
    return row->bits ? fd_load_bits(row->bits, row->bit + j) : ~(uint64_t)0;
}

#include "optim/adam_body.h"

/* One whole vector; `way` is a constant wherever this is called. */
static inline FD_ALWAYS_INLINE void R_(move)(R_(numbers) n, R_(place) p, R_(vector) gradient,
                                             uint64_t active, int way)
{
    if (way == FD_MOVE_SGD) {
        R_(descend)(n, p, gradient, active, 0);
    } else {
        R_(adapt)(n, p, gradient, active, way);
    }
}

/* Up to R_lanes elements, read without touching what is behind them; the other lanes are 0. */
static inline R_(vector) R_(load_some)(const R_(element) *p, int64_t n)
{
    R_(element) lanes[R_(lanes)] = {0};
    memcpy(lanes, p, (size_t)n * sizeof *p);
    return R_(load)(lanes);
}

/* The last columns of a row, fewer than a vector has: moved in a copy. */
static inline FD_ALWAYS_INLINE void R_(move_some)(R_(numbers) n, R_(place) p, R_(vector) gradient,
                                                  uint64_t active, int64_t columns, int way)
{
    const R_(element) *const from[] = {p.value, p.first, p.second, p.top, p.s, p.r};
    R_(element) *const to[] = {p.value, p.first, p.second, p.top};
    R_(element) copies[6][R_(lanes)], *copy[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) {
        copy[i] = from[i] ? copies[i] : NULL;
        if (from[i]) {
            R_(store)(copies[i], R_(load_some)(from[i], columns));
        }
    }
    R_(move)(n, (R_(place)){copy[0], copy[1], copy[2], copy[3], copy[4], copy[5]}, gradient, active,
             way);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (to[i]) {
            memcpy(to[i], copies[i], (size_t)columns * sizeof *to[i]);
        }
    }
}

/* The end of a row: what is left is less than 64 columns, or of the gradient hardly more. */
static inline FD_ALWAYS_INLINE void R_(update_end)(R_(numbers) n, const fd_update_row *row,
                                                   int64_t j, int64_t used, int way)
{
    const R_(element) *gradient = row->gradient;
    for (; j < row->columns; j += R_(lanes)) {
        const int64_t left = row->columns - j;
        const int64_t here = left < R_(lanes) ? left : R_(lanes);
        uint64_t active = ((uint64_t)1 << here) - 1;
        if (row->bits) {
            active = fd_load_bits_part(row->bits, row->bit + j, here);
        }
        R_(vector) g;
        if (row->compact) {
            const int64_t room = row->room - used;
            R_(element) lanes[R_(lanes)];
            R_(store)(lanes, R_(load_some)(gradient + used, room < here ? room : here));
            g = R_(expand)(lanes, active);
            used += fd_count_lanes(active);
        } else {
            g = R_(load_some)(gradient + j, here);
        }
        R_(move_some)(n, R_(place_of)(row, j, way), g, active, here, way);
    }
}

/* As many whole words of columns as can be loaded whole; see adapt_words. */
static inline FD_ALWAYS_INLINE int64_t R_(descend_words)(R_(numbers) n, const fd_update_row *row,
                                                         int64_t *taken, const int compact,
                                                         const int plain)
{
    const R_(element) *gradient = row->gradient;
    const int64_t room = row->room - 64 - R_(lanes);
    int64_t j = 0, used = 0;
    for (; j + 64 <= row->columns && (!compact || used <= room); j += 64) {
        const uint64_t word = R_(active_word)(row, j);
        if (row->ahead) {
            R_(fetch_ahead)(row, j, FD_MOVE_SGD);
        }
#pragma GCC unroll 4
        for (int part = 0; part < 64; part += R_(lanes)) {
            const uint64_t active = word >> part & (((uint64_t)1 << R_(lanes))-1);
            R_(vector) g;
            if (compact) {
                g = R_(expand)(gradient + used, active);
                used += fd_count_lanes(active);
            } else {
                g = R_(load)(gradient + j + part);
            }
            R_(descend)(n, R_(place_of)(row, j + part, FD_MOVE_SGD), g, active, plain);
        }
    }
    *taken = used;
    return j;
}

/* `way` and `top`, whether there are largest second moments, are constants wherever this is called: a look
 * at `top` in the loop costs Adam a fifth of its time. */
static inline FD_ALWAYS_INLINE void R_(update_columns)(R_(numbers) n, const fd_update_row *given,
                                                       int way, const int top)
{
    const fd_update_row own = fd_row_with(*given, top), *row = &own; /* which no store can change */
    int64_t used = 0, j; /* used: elements of a compact gradient */
    if (way != FD_MOVE_SGD) {
        j = R_(adapt_words)(n, row, &used, way);
    } else if (!row->first || n.decay_gradient || n.nesterov) {
        j = R_(descend_words)(n, row, &used, row->compact, 0);
    } else if (row->compact) {
        j = R_(descend_words)(n, row, &used, 1, 1);
    } else {
        j = R_(descend_words)(n, row, &used, 0, 1);
    }
    R_(update_end)(n, row, j, used, way);
}

static inline FD_ALWAYS_INLINE void R_(adapt_columns)(R_(numbers) n, const fd_update_row *row,
                                                      int way)
{
    if (row->top) {
        R_(update_columns)(n, row, way, 1);
    } else {
        R_(update_columns)(n, row, way, 0);
    }
}

static void R_(update_row)(const fd_rule *rule, const fd_update_row *row)
{
    const R_(numbers) n = R_(numbers_of)(rule, &row->corrections);
    const fd_corrections *c = &row->corrections;
    if (rule->kind == FD_SGD) {
        R_(update_columns)(n, row, FD_MOVE_SGD, 0);
    } else if (c->columns_s == NULL) {
        R_(adapt_columns)(n, row, FD_MOVE_ADAM);
    } else if ((R_(element))c->row.s * (R_(element))c->least_s < (R_(element))c->first.s) {
        R_(adapt_columns)(n, row, FD_MOVE_ADAM_FIRST);
    } else {
        R_(adapt_columns)(n, row, FD_MOVE_ADAM_COLUMNS);
    }
}

static void R_(add_squares)(const void *from, int64_t stride, int64_t rows, int64_t columns,
                            double *sums)
{
    for (int64_t j = 0; j < columns; j += SQUARES) {
        const R_(element) *x = (const R_(element) *)from + j;
        const int64_t n = columns - j < SQUARES ? columns - j : SQUARES;
        if (n < SQUARES) {
            for (int64_t row = 0; row < rows; row++, x += stride) {
                for (int64_t i = 0; i < n; i++) {
                    const double square = (double)x[i] * (double)x[i];
                    sums[j + i] += square;
                }
            }
            continue;
        }
        double part[SQUARES];
        memcpy(part, sums + j, sizeof part);
        for (int64_t row = 0; row < rows; row++, x += stride) {
            for (int i = 0; i < SQUARES; i++) {
                const double square = (double)x[i] * (double)x[i];
                part[i] += square;
            }
        }
        memcpy(sums + j, part, sizeof part);
    }
}

static int R_(bound_norms)(const double *sums, int64_t columns, const uint8_t *bits, int64_t bit,
                           double max_norm, fd_projection *projection)
{
    R_(element) *factors = (R_(element) *)(void *)projection->factors;
    uint64_t any = 0;
    for (int64_t j = 0; j < FD_STRIP; j += 64) {
        projection->words[j / 64] = 0;
        for (int64_t i = j; i < j + 64; i++) {
            const double norm = i < columns ? __builtin_sqrt(sums[i]) : 0;
            const int far =
                norm > max_norm && norm <= DBL_MAX && (!bits || fd_test_bit(bits, bit + i));
            factors[i] = (R_(element))(far ? max_norm / norm : 1.0);
            projection->words[j / 64] |= (uint64_t)far << (i - j);
        }
        any |= projection->words[j / 64];
    }
    return any != 0;
}

static void R_(project)(void *to, int64_t columns, const fd_projection *projection)
{
    R_(element) *x = to;
    const R_(element) *factors = (const R_(element) *)(const void *)projection->factors;
    for (int64_t j = 0; j < columns; j += R_(lanes)) {
        const uint64_t far = projection->words[j / 64] >> (j % 64);
        const R_(vector) factor = R_(load)(factors + j);
        if (columns - j >= R_(lanes)) {
            const R_(vector) old = R_(load)(x + j);
            R_(store_active)(x + j, old, R_(multiply)(old, factor), far);
        } else {
            R_(element) part[R_(lanes)];
            const R_(vector) old = R_(load_some)(x + j, columns - j);
            R_(store_active)(part, old, R_(multiply)(old, factor), far);
            memcpy(x + j, part, (size_t)(columns - j) * sizeof *x);
        }
    }
}

#include "simd/unjoin.h"
