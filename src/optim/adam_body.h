/* adam_body.h: Adam, for one element type R (f32, f64); part of update_body.h.
 *
 * Root and quotient keep one unit of the processor busy for most of the time, which is the bound
 * where the arrays come from a cache. So that it always has something to do, several vectors go
 * through each stage together. The gradient of the next ones is spread to its columns before their
 * roots are taken: on some processors both are the work of the same unit, and whoever waits for a
 * quotient there keeps all that follows waiting, too. */

/* Vectors in a stage: as many as there are registers for. */
#undef STAGED
#define STAGED (FD_VECTOR_REGISTERS == 32 && 64 / R_(lanes) >= 4 ? 4 : 2)

/* The gradient of STAGED vectors from column j on, where the bits `active` are set; returns how
 * many elements of a compact one are used up then. */
static inline FD_ALWAYS_INLINE int64_t R_(spread)(const fd_update_row *row, int64_t j, int64_t used,
                                                  uint64_t active, R_(vector) *g)
{
    const R_(element) *gradient = row->gradient;
#pragma GCC unroll 4
    for (int i = 0; i < STAGED; i++) {
        if (row->compact) {
            const uint64_t lanes = active >> i * R_(lanes) &(((uint64_t)1 << R_(lanes))-1);
            g[i] = R_(expand)(gradient + used, lanes);
            used += fd_count_lanes(lanes);
        } else {
            g[i] = R_(load)(gradient + j + i * R_(lanes));
        }
    }
    return used;
}

/* Moves the moments of a vector; they are stored where it is active. With the largest second moments
 * so far, `square` is these. */
static inline FD_ALWAYS_INLINE void R_(adapt_moments)(R_(numbers) n, R_(place) p, R_(vector) g,
                                                      uint64_t active, R_(vector) *mean,
                                                      R_(vector) *square)
{
    const R_(vector) m = R_(load)(p.first), v = R_(load)(p.second);
    if (n.decay_gradient) {
        g = R_(add)(g, R_(multiply)(n.decay, R_(load)(p.value)));
    }
    *mean = R_(add)(R_(multiply)(n.beta1, m), R_(multiply)(n.rest1, g));
    *square = R_(add)(R_(multiply)(n.beta2, v), R_(multiply)(n.rest2, R_(multiply)(g, g)));
    R_(store_active)(p.first, m, *mean, active);
    R_(store_active)(p.second, v, *square, active);
    if (p.top) {
        const R_(vector) old = R_(load)(p.top);
        *square = R_(larger)(old, *square);
        R_(store_active)(p.top, old, *square, active);
    }
}

/* The step of a vector from its new moments, the second as its root. */
static inline FD_ALWAYS_INLINE R_(vector)
    R_(adam_step)(R_(numbers) n, R_(place) p, R_(vector) mean, R_(vector) root, int way)
{
    R_(vector) e = n.e, r = n.r;
    if (way != FD_MOVE_ADAM) {
        const R_(vector) s = R_(load)(p.s);
        e = R_(multiply)(e, s);
        r = R_(multiply)(r, R_(load)(p.r));
        if (way == FD_MOVE_ADAM_FIRST) {
            const R_(vector) own = R_(multiply)(n.s, s);
            const uint64_t less = R_(nonzero)(R_(subtract)(R_(larger)(own, n.first_s), own));
            e = R_(choose)(e, n.first_e, less);
            r = R_(choose)(r, n.first_r, less);
        }
    }
    return R_(divide)(R_(multiply)(r, mean), R_(add)(root, e));
}

static inline FD_ALWAYS_INLINE void R_(take_step)(R_(numbers) n, R_(place) p, R_(vector) step,
                                                  uint64_t active)
{
    const R_(vector) w = R_(load)(p.value);
    const R_(vector) kept = n.decay_value ? R_(multiply)(w, n.keep) : w;
    R_(store_active)(p.value, w, R_(subtract)(kept, step), active);
}

/* One vector, all stages. */
static inline FD_ALWAYS_INLINE void R_(adapt)(R_(numbers) n, R_(place) p, R_(vector) gradient,
                                              uint64_t active, int way)
{
    R_(vector) mean, square;
    R_(adapt_moments)(n, p, gradient, active, &mean, &square);
    R_(take_step)(n, p, R_(adam_step)(n, p, mean, R_(root)(square), way), active);
}

/* Whether 64 columns from j on can be loaded whole, and what a compact gradient has for them. */
static inline FD_ALWAYS_INLINE int R_(whole_word)(const fd_update_row *row, int64_t j, int64_t used)
{
    return j + 64 <= row->columns && (!row->compact || used + 64 <= row->room);
}

/* As many whole words of columns as can be loaded whole. Returns the first column that is left; the
 * elements of a compact gradient that are used up go to `used`. */
static inline FD_ALWAYS_INLINE int64_t R_(adapt_words)(R_(numbers) n, const fd_update_row *row,
                                                       int64_t *used, int way)
{
    enum { TOGETHER = STAGED * R_(lanes) };
    R_(vector) g[STAGED], mean[STAGED], square[STAGED];
    int64_t j = 0;
    int more = R_(whole_word)(row, 0, 0);
    uint64_t word = more ? R_(active_word)(row, 0) : 0;
    if (more) {
        *used = R_(spread)(row, 0, 0, word, g);
    }
    while (more) {
        more = R_(whole_word)(row, j + 64, *used + 64 - TOGETHER);
        const uint64_t next = more ? R_(active_word)(row, j + 64) : 0;
        if (row->ahead) {
            R_(fetch_ahead)(row, j, way);
        }
#pragma GCC unroll 8
        for (int part = 0; part < 64; part += TOGETHER) {
            const uint64_t active = word >> part;
#pragma GCC unroll 4
            for (int i = 0; i < STAGED; i++) {
                R_(adapt_moments)(n, R_(place_of)(row, j + part + i * R_(lanes), way), g[i],
                                  active >> i * R_(lanes), &mean[i], &square[i]);
            }
            const int after = part + TOGETHER;
            if (after < 64) {
                *used = R_(spread)(row, j + after, *used, word >> (after & 63), g);
            } else if (more) {
                *used = R_(spread)(row, j + 64, *used, next, g);
            }
            __asm__ volatile("" ::: "memory"); /* in this order, please */
#pragma GCC unroll 4
            for (int i = 0; i < STAGED; i++) {
                square[i] = R_(root)(square[i]);
            }
#pragma GCC unroll 4
            for (int i = 0; i < STAGED; i++) {
                const R_(place) p = R_(place_of)(row, j + part + i * R_(lanes), way);
                mean[i] = R_(adam_step)(n, p, mean[i], square[i], way);
            }
#pragma GCC unroll 4
            for (int i = 0; i < STAGED; i++) {
                R_(take_step)(n, R_(place_of)(row, j + part + i * R_(lanes), way), mean[i],
                              active >> i * R_(lanes));
            }
        }
        j += 64;
        word = next;
    }
    return j;
}
