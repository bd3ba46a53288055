/* fastdrop.h: the contract of every C kernel.
 *
 * Plain C11, no Python.h. Everything here works on raw memory that the caller has checked; nothing
 * allocates unless it says so, nothing raises, and nothing depends on the number of threads.
 *
 * Words: an *element* is one entry of a mask in the mask's own C order; a *block* is 128
 * consecutive elements, one Philox counter; a *digit* is one binary digit of an element's uniform
 * number, most significant first. Masks are packed, bit `e & 7` of byte `e >> 3`.
 */
#ifndef FASTDROP_H
#define FASTDROP_H

#include <stddef.h>
#include <stdint.h>

#include "optim/update.h"

#if !defined(__GNUC__) && !defined(__clang__)
#error "fastdrop needs GCC or Clang: it uses their target pragmas and builtins"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error                                                                                             \
    "fastdrop's kernels read packed bits as little-endian words: big-endian machines are not supported"
#endif

#define FD_BLOCK 128         /* elements of one Philox counter */
#define FD_BLOCK_BYTES 16    /* the same, packed */
#define FD_MAX_DIMENSIONS 66 /* NumPy's 64, one for rows_per_mask, one to spare */

typedef enum { FD_FLOAT16, FD_FLOAT32, FD_FLOAT64, FD_BFLOAT16, FD_DROPOUT_DTYPES } fd_dtype;

static inline int64_t fd_element_bytes(fd_dtype dtype)
{
    return dtype == FD_BFLOAT16 ? 2 : (int64_t)2 << dtype;
}

/* One draw of one stream: the Philox key and the draw number, below 2^56. */
typedef struct {
    uint32_t key0, key1;
    uint64_t draw;
} fd_stream;

/* ------------------------------------------------------------------------------------------
 * Dispatch (runtime/dispatch.c). The table of kernels is in kernels.h.
 */
typedef struct fd_kernels fd_kernels;
const fd_kernels *fd_active_kernels(void);
int fd_level_count(void); /* levels this build knows, worst first */
const char *fd_level_name(int level);
int fd_level_available(int level); /* can this machine run it? */
int fd_select_level(int level);    /* 0, or -1 if it cannot */
/* Whether the last vector code of this thread left something in the upper halves of its registers, which
 * makes every SSE instruction slow on some cores. No kernel may. Clears them. -1 where the processor, or
 * the way this was built, does not allow to say. */
int fd_upper_halves_in_use(void);

/* ------------------------------------------------------------------------------------------
 * Threads (runtime/threads.c). The number is a ceiling: work below a measured minimum stays on one
 * thread. Safe to call from many threads, and in a process forked from one that used threads.
 */
int fd_has_threads(void); /* 0 in a build with FASTDROP_NO_THREADS */
int fd_get_num_threads(void);
void fd_set_num_threads(int threads);
/* Ends the pool's threads and returns when they are gone, after a call that is using them; the next call
 * that wants some makes new ones. */
void fd_stop_threads(void);
/* Bytes of a row of a result that threads had better not share: the processor fetches what lies behind a
 * thread's part of a row, which another one is writing to. */
#define FD_SHORT_ROW 2048

/* Threads for `work` units of which each thread should get at least `minimum`. */
int fd_threads_for(int64_t work, int64_t minimum);
/* Runs tasks 0 .. tasks - 1, each once, in any order, on up to `threads` threads, and returns when
 * all are done. Tasks must not call fd_parallel. */
typedef void (*fd_task)(const void *context, int64_t task);
void fd_parallel(int threads, int64_t tasks, fd_task run, const void *context);
/* The same of n elements: tasks are parts of `part` elements from `first` on, the last one of what is left. */
typedef void (*fd_part)(const void *context, int64_t first, int64_t count);
void fd_parallel_parts(int threads, int64_t n, int64_t part, fd_part run, const void *context);

/* ------------------------------------------------------------------------------------------
 * Masks (masks/mask.c), multi-threaded. Windows are [starts, stops) on every axis of the mask's own
 * shape; `bits` gets ceil(elements / 8) bytes, the last byte's unused bits zero.
 * Return 0, or -1 when memory for scratch rows could not be had (exact counts only).
 */

/* `threshold` is the design's T below 2^64; keep_all != 0 stands for T = 2^64. */
void fd_draw_bernoulli(const fd_stream *stream, uint64_t threshold, int keep_all, int dimensions,
                       const int64_t *shape, const int64_t *starts, const int64_t *stops,
                       uint8_t *bits);

/* Rows run along the last axis; each keeps its `keep` smallest (uniform, index). Scratch: three
 * packed rows per thread. */
int fd_draw_exact_count(const fd_stream *stream, int64_t keep, int dimensions, const int64_t *shape,
                        const int64_t *starts, const int64_t *stops, uint8_t *bits);

#include "dropout/dropouts.h"

/* ------------------------------------------------------------------------------------------
 * Matrix products (matmul/product.c), multi-threaded; float32 and float64. Strides count elements. Sums do
 * not depend on the number of threads.
 */

#include "matmul/product.h"

/* Returns the number of multiply-adds, or what failed, and then C holds nothing of use. FD_NO_GROUPS:
 * FD_GATHERED was asked for, and the masks do not repeat along the same groups of rows. */
int64_t fd_matmul(const fd_product *product);

/* The method that FD_AUTO stands for, from shapes, masks and densities alone. (matmul/plan.c) */
fd_method fd_plan(const fd_product *product);

/* What a method's time is made of, in the order of plan.c's terms; returns whether it is possible. */
#define FD_TERMS 7
int fd_plan_terms(const fd_product *product, fd_method method, double *terms);

/* The units of a mask: `length` bits from bit `bit` on; bits NULL: all are active. */
typedef struct {
    const uint8_t *bits;
    int64_t bit, length;
} fd_units;

int64_t fd_count_units(const fd_units *units);

/* out (active rows, active columns), contiguous, = the active part of x (rows, columns), whose rows are
 * contiguous. (matmul/gather.c) */
void fd_gather(fd_dtype dtype, const void *x, int64_t stride, const fd_units *rows,
               const fd_units *columns, void *out);

/* The reverse, of contiguous x: see the kernel; rows that are not active become +0.0, with
 * accumulate they are not touched. */
void fd_scatter(fd_dtype dtype, const void *x, const fd_units *rows, const fd_units *columns,
                double scale, const void *bias, double bias_scale, int accumulate, void *out,
                int64_t stride);

/* out[j] = the sum of the kept elements of column j of x (rows, columns), times the mask's scale; rows
 * of x are contiguous. (sums.c) */
void fd_masked_sums(fd_dtype dtype, const void *x, int64_t stride, int64_t rows, int64_t columns,
                    const fd_row_mask *mask, void *out);

/* Whether n contiguous elements, float32 or float64, are all finite. (sums.c) */
int fd_all_finite(fd_dtype dtype, const void *x, int64_t n);

/* ------------------------------------------------------------------------------------------
 * Updates (optim/update.c), multi-threaded; float32 and float64. All arrays are C-contiguous and do not
 * overlap. What is not active is not changed: value, first and second, and counts.
 */

/* The weights (rows, columns) and all that belongs to them. The gradient has the same shape, or
 * where it is compact (active rows, active columns). first, second: velocity (or NULL) and NULL
 * for SGD, the moments for Adam. top: NULL, or for AMSGrad the largest second moments so far, which
 * stand in the root instead.
 * kept, if not NULL, is a mask of single weights, rows * columns bits: those that it drops are not active, either.
 * Then all columns are, and the gradient is not compact.
 * Adam: row_counts and column_counts say in how many updates a row or column was active, this one
 * not counted, which raises them; steps is the number of updates, this one counted. None of them
 * exceeds the last line of the table, whose line k is 1 - beta2^k, 1 - beta1^k; there they
 * stay. */
typedef struct {
    void *value, *first, *second, *top;
    const void *gradient;
    int compact;
    fd_units rows, columns;
    const uint8_t *kept;
    int64_t *row_counts, *column_counts, steps;
    const double *table;
} fd_weights;

/* Where max_norm is finite, columns that are active and whose norm over all rows exceeds it after
 * the step are scaled down to it. Returns 0, or -1 when there was no memory (then the weights have
 * not changed). */
int fd_update(fd_dtype dtype, const fd_rule *rule, const fd_weights *weights);

/* Scratch memory of the calling thread, kept until the thread ends; NULL when there is none. Each
 * slot is one buffer, overwritten by the next request for it. */
enum { FD_SLOT_LISTS, FD_SLOT_PANEL, FD_SLOT_CUTS, FD_SLOT_MASKED, FD_SLOTS };
void *fd_workspace(int slot, size_t bytes);

#endif
