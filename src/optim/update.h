/* update.h: what an update of weights is: its rule, its arrays, and one row of it. */
#ifndef FASTDROP_UPDATE_H
#define FASTDROP_UPDATE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/bits.h"

typedef enum { FD_SGD, FD_ADAM } fd_rule_kind;

/* The numbers of a rule, each rounded to the element type before it is used. For SGD, beta1 is the
 * momentum. Which steps are left out follows from them: a decay of 0, a max_norm of infinity. */
typedef struct {
    fd_rule_kind kind;
    double learning_rate, beta1, beta2, epsilon, weight_decay, max_norm;
    int nesterov;  /* SGD */
    int decoupled; /* Adam: decay the weights (AdamW), not the gradient */
} fd_rule;

/* Adam's bias corrections after k updates: s(k) = sqrt(1 - beta2^k), and with it e = epsilon * s and
 * r = learning_rate * s / (1 - beta1^k). A step is r * m / (sqrt(v) + e). */
typedef struct {
    double s, e, r;
} fd_correction;

/* Those of a row: the weight in column j has s = row.s * columns_s[j], e = row.e * columns_s[j], and
 * r = row.r * columns_r[j], or where s is less than first.s, those of `first`. Where the arrays are
 * NULL, all have those of the row. least_s is the least columns_s of an active column. */
typedef struct {
    fd_correction row, first;
    const void *columns_s, *columns_r;
    double least_s;
} fd_corrections;

/* The ways to move a row, one inner loop each. Adam: all columns alike; each with its own
 * corrections; the same where some columns may have those of a first update. */
enum { FD_MOVE_SGD, FD_MOVE_ADAM, FD_MOVE_ADAM_COLUMNS, FD_MOVE_ADAM_FIRST };

/* A row, or a part of one. */
typedef struct {
    void *value, *first, *second; /* first: velocity (NULL: none) or first moment */
    void *top;                    /* the largest second moments, or NULL */
    const void *gradient;         /* of the first column, or of the first active one */
    int64_t room;                 /* elements from there on that may be read */
    int compact;                  /* the gradient has active columns only */
    int64_t columns;
    const uint8_t *bits; /* active columns, from bit `bit` on; NULL: all */
    int64_t bit;
    int64_t ahead; /* elements from this row to one to be fetched into the cache, 0: none */
    fd_corrections corrections;
} fd_update_row;

/* The row as an inner loop sees it that does not know of the largest second moments, or does. */
static inline FD_ALWAYS_INLINE fd_update_row fd_row_with(fd_update_row row, const int top)
{
    if (!top) {
        row.top = NULL;
    }
    return row;
}

/* Columns whose norms are bounded together: a multiple of 64. */
#define FD_STRIP 256

/* Which columns of a strip are scaled down, and by what. */
typedef struct {
    uint64_t words[FD_STRIP / 64];
    double factors[FD_STRIP]; /* in the element type, side by side */
} fd_projection;

#endif
