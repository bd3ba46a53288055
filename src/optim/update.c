/* update.c: weights, and what an optimiser remembers of them, moved by one step where they are
 * active. */
#include <math.h>
#include <string.h>

#include "runtime/bits.h"
#include "kernels.h"

/* Rows of one task, where no norms are bounded: those need whole columns, so that a task is then a
 * strip of columns. */
#define TASK_ROWS 32
/* Rows whose squares are summed together. */
#define ROWS_AT_ONCE 8
/* Weights that a thread must have to move to be worth waking: some 30 microseconds. */
#define MINIMUM_PER_THREAD (1 << 16)

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    const fd_rule *rule;
    const fd_weights *weights;
    int64_t active_rows, active_columns;
    /* Adam's: of the first column; how often active rows and columns were active on average, and single weights
     * of them. */
    fd_corrections corrections;
    double row_share, column_share, weight_share;
} movement;

static int unit_is_active(const fd_units *units, int64_t i)
{
    return units->bits == NULL || fd_test_bit(units->bits, units->bit + i);
}

/* Active units before unit i. */
static int64_t active_units_before(const fd_units *units, int64_t i)
{
    const fd_units before = {units->bits, units->bit, i};
    return fd_count_units(&before);
}

/* The active row after row i, or i if there is none. */
static int64_t next_row(const fd_units *rows, int64_t i)
{
    for (int64_t next = i + 1; next < rows->length; next++) {
        if (unit_is_active(rows, next)) {
            return next;
        }
    }
    return i;
}

static void *shifted(void *array, int64_t elements, size_t size)
{
    return array ? (char *)array + elements * (int64_t)size : NULL;
}

/* The table's line `line`, between two lines in proportion. */
static double correction_at(const double *table, double line, int which)
{
    const int64_t below = (int64_t)line;
    const double from = table[2 * below + which];
    if (line == (double)below) {
        return from;
    }
    const double difference = table[2 * below + 2 + which] - from;
    const double part = (line - (double)below) * difference;
    return from + part;
}

/* The corrections after `updates` updates. */
static fd_correction correction_of(const movement *m, double updates)
{
    const double *table = m->weights->table;
    const double s = sqrt(correction_at(table, updates, 0));
    return (fd_correction){
        .s = s,
        .e = m->rule->epsilon * s,
        .r = m->rule->learning_rate * (s / correction_at(table, updates, 1)),
    };
}

/* The corrections of a unit's weights, which it shares with units that are active in `share` of the
 * steps. After a first update 0 stands for "less than the least there is". */
static fd_correction correct(const movement *m, int64_t count, double share)
{
    return count <= 1 ? (fd_correction){0, 0, 0}
                      : correction_of(m, (double)count * share * m->weight_share);
}

/* Columns [column, column + columns) of row i; `rank` active rows are before it, and
 * `column_rank` active columns before the first. */
static void update_part(const movement *m, int64_t i, int64_t rank, int64_t column, int64_t columns,
                        int64_t column_rank)
{
    const fd_weights *w = m->weights;
    const size_t size = fd_element_bytes(m->dtype);
    const int64_t width = w->columns.length, place = i * width + column;
    const int64_t used = w->compact ? rank * m->active_columns + column_rank : place;
    /* The processor fetches the next row by itself where it follows at once and nothing but memory
     * limits the speed. */
    const int64_t next = next_row(&w->rows, i);
    const int by_hand = next - i > 1 || w->columns.bits != NULL || w->kept != NULL;
    const int64_t total = w->compact ? m->active_rows * m->active_columns : w->rows.length * width;
    fd_update_row row = {
        .value = shifted(w->value, place, size),
        .first = shifted(w->first, place, size),
        .second = shifted(w->second, place, size),
        .top = shifted(w->top, place, size),
        .gradient = (const char *)w->gradient + used * (int64_t)size,
        .room = total - used,
        .compact = w->compact && w->columns.bits,
        .columns = columns,
        .bits = w->kept ? w->kept : w->columns.bits,
        .bit = w->kept ? place : w->columns.bit + column,
        .ahead = by_hand ? (next - i) * width : 0,
        .corrections = m->corrections,
    };
    if (m->rule->kind == FD_ADAM) {
        fd_corrections *c = &row.corrections;
        c->row = correct(m, w->row_counts[i], m->column_share);
        if (c->columns_s) {
            c->columns_s = (const char *)c->columns_s + column * (int64_t)size;
            c->columns_r = (const char *)c->columns_r + column * (int64_t)size;
        } else if (c->row.s < c->first.s) {
            c->row = c->first;
        }
    }
    m->kernels->update_row[m->dtype](m->rule, &row);
}

static void update_rows(const void *context, int64_t first, int64_t rows)
{
    const movement *m = context;
    const fd_weights *w = m->weights;
    int64_t rank = active_units_before(&w->rows, first);
    for (int64_t i = first; i < first + rows; i++) {
        if (unit_is_active(&w->rows, i)) {
            update_part(m, i, rank++, 0, w->columns.length, 0);
        }
    }
}

/* The same for a strip of columns, whose squares are summed, in float64 and from the first row to
 * the last, while they are in the cache. */
static void update_strip(const void *context, int64_t column, int64_t columns)
{
    const movement *m = context;
    const fd_weights *w = m->weights;
    const size_t size = fd_element_bytes(m->dtype);
    const int64_t width = w->columns.length;
    const int64_t column_rank = active_units_before(&w->columns, column);
    double sums[FD_STRIP] = {0};
    fd_projection projection;
    int64_t rank = 0;
    for (int64_t from = 0; from < w->rows.length; from += ROWS_AT_ONCE) {
        const int64_t left = w->rows.length - from;
        const int64_t to = from + (left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE);
        for (int64_t i = from; i < to; i++) {
            if (unit_is_active(&w->rows, i)) {
                update_part(m, i, rank++, column, columns, column_rank);
            }
        }
        m->kernels->add_squares[m->dtype](shifted(w->value, from * width + column, size), width,
                                          to - from, columns, sums);
    }
    if (!m->kernels->bound_norms[m->dtype](sums, columns, w->columns.bits, w->columns.bit + column,
                                           m->rule->max_norm, &projection)) {
        return;
    }
    for (int64_t i = 0; i < w->rows.length; i++) {
        m->kernels->project[m->dtype](shifted(w->value, i * width + column, size), columns,
                                      &projection);
    }
}

/* One more update for each active unit. Returns in which share of the steps they were active. */
static double raise_counts(int64_t *counts, const fd_units *units, int64_t steps)
{
    int64_t total = 0, many = 0;
    for (int64_t i = 0; i < units->length; i++) {
        if (unit_is_active(units, i)) {
            counts[i] += counts[i] < steps;
            total += counts[i];
            many++;
        }
    }
    return many ? (double)total / ((double)many * (double)steps) : 1;
}

static void put(fd_dtype dtype, void *array, int64_t i, double value)
{
    if (dtype == FD_FLOAT32) {
        ((float *)array)[i] = (float)value;
    } else {
        ((double *)array)[i] = value;
    }
}

/* Memory for the corrections of every column, of both kinds; the same at every call. */
static char *corrections_of_columns(const movement *m)
{
    const size_t columns = (size_t)m->weights->columns.length;
    return fd_workspace(FD_SLOT_PANEL, 2 * columns * (size_t)fd_element_bytes(m->dtype) + 1);
}

/* The corrections of every active column, unless all are 1: as multiples of those of weights between
 * units that were active as often as all are on average. */
static void correct_columns(movement *m)
{
    const fd_weights *w = m->weights;
    const int64_t columns = w->columns.length;
    if (m->column_share == 1) {
        return;
    }
    const size_t bytes = (size_t)columns * fd_element_bytes(m->dtype);
    char *columns_s = corrections_of_columns(m);
    char *columns_r = columns_s + bytes;
    memset(columns_s, 0, 2 * bytes);
    const double updates = (double)w->steps * m->row_share * m->column_share * m->weight_share;
    const fd_correction all = correction_of(m, updates);
    const double part_s = 1 / all.s, part_r = 1 / all.r;
    double least = 1;
    for (int64_t j = 0; j < columns; j++) {
        if (unit_is_active(&w->columns, j)) {
            const fd_correction own = correct(m, w->column_counts[j], m->row_share);
            const double s = own.s * part_s;
            least = s < least ? s : least;
            put(m->dtype, columns_s, j, s);
            put(m->dtype, columns_r, j, own.r * part_r);
        }
    }
    m->corrections.columns_s = columns_s;
    m->corrections.columns_r = columns_r;
    m->corrections.least_s = least;
}

int fd_update(fd_dtype dtype, const fd_rule *rule, const fd_weights *weights)
{
    movement m = {
        .kernels = fd_active_kernels(),
        .dtype = dtype,
        .rule = rule,
        .weights = weights,
        .active_rows = fd_count_units(&weights->rows),
        .active_columns = fd_count_units(&weights->columns),
    };
    if (rule->kind == FD_ADAM) {
        if (corrections_of_columns(&m) == NULL) {
            return -1; /* before anything is changed */
        }
        const fd_units all = {weights->kept, 0, weights->rows.length * weights->columns.length};
        m.weight_share =
            all.bits && all.length ? (double)fd_count_units(&all) / (double)all.length : 1;
        m.row_share = raise_counts(weights->row_counts, &weights->rows, weights->steps);
        m.column_share = raise_counts(weights->column_counts, &weights->columns, weights->steps);
        m.corrections.first = correction_of(&m, 1);
        correct_columns(&m);
    }
    if (isfinite(rule->max_norm)) {
        const int64_t work = weights->rows.length * weights->columns.length;
        fd_parallel_parts(fd_threads_for(work, MINIMUM_PER_THREAD), weights->columns.length,
                          FD_STRIP, update_strip, &m);
    } else if (m.active_rows > 0 && m.active_columns > 0) {
        fd_parallel_parts(
            fd_threads_for(m.active_rows * weights->columns.length, MINIMUM_PER_THREAD),
            weights->rows.length, TASK_ROWS, update_rows, &m);
    }
    return 0;
}
