/* check.h: what the parts of same_bits share. */
#ifndef CHECK_H
#define CHECK_H

#include "fastdrop.h"

/* Prints and ends the program with status 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Exactly that many bytes, all `fill`: valgrind sees a read or write behind them. */
void *filled_bytes(size_t bytes, int fill);

/* arrays.c: elements of arrays of float32 and float64. */
double get(fd_dtype dtype, const void *x, int64_t i);
void set(fd_dtype dtype, void *x, int64_t i, double value);

/* Whole numbers from -8 to 8, half of them 0, the same on every machine; `seed` begins another
 * sequence. */
void *numbers(fd_dtype dtype, int64_t n, uint32_t seed);

/* An array whose bytes are all a5, to be overwritten. */
void *wrong(fd_dtype dtype, int64_t n);

/* A mask of n elements that keeps nine of sixteen. */
uint8_t *draw_bits(int64_t n, uint64_t draw);

/* Fails unless both arrays have the same bytes. */
void compare(fd_dtype dtype, const void *actual, const void *expected, int64_t n, const char *what);

/* golden.c: draws every mask of the file of at most `largest` elements, and applies those that are
 * drawn whole to an array; returns how many there were. */
int check_golden_masks(const char *path, int64_t largest);

/* values.c: gathers, scatters, products and updates of numbers whose results are exact, so that
 * they have one right result whatever the order of sums; returns how many results. */
int check_exact_values(void);

/* active_units.c: the same of products of active units, and of the gradient of their weights. */
int check_compact(fd_dtype dtype, int64_t rows, int64_t depth, int64_t columns);

/* activations.c: the same of activation functions and of sums over the batch. */
int check_activations(fd_dtype dtype, int64_t rows, int64_t columns);

/* noise_runs.c: runs of normal and uniform numbers, bit for bit; returns how many. */
int check_noise(void);

/* many_threads.c: several threads that call the pool and the kernels at the same time, with the
 * masks of the file, and processes forked from them. */
void check_many_threads(const char *masks);

#endif
