/* check.h: what the parts of same_bits share. */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>

/* Prints and ends the program with status 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Exactly that many bytes, all `fill`: valgrind sees a read or write behind them. */
void *filled_bytes(size_t bytes, int fill);

/* golden.c: draws every mask of the file of at most `largest` elements, and applies those that are
 * drawn whole to an array; returns how many there were. */
int check_golden_masks(const char *path, int64_t largest);

/* values.c: gathers, scatters, products and updates of numbers whose results are exact, so that
 * they have one right result whatever the order of sums; returns how many results. */
int check_exact_values(void);

#endif
