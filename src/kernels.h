/* kernels.h: the table of one instruction set, each kernel with its contract. Single-threaded.
 *
 * simd/kernels_body.h fills a table for each instruction set; runtime/dispatch.c chooses one at import. */
#ifndef FD_KERNELS_H
#define FD_KERNELS_H

#include "fastdrop.h"
#include "masks/noise.h"
#include "matmul/gemm.h"
#include "matmul/spmm.h"

/* How a kernel stores what is not used again soon: as usual; past the caches, by non-temporal stores, fenced
 * before it returns; or so, and the input fetched ahead into the second-level cache. */
typedef enum { FD_STORES_CACHED, FD_STORES_STREAMED, FD_STORES_STREAMED_AHEAD } fd_stores;

struct fd_kernels {
    const char *name;
    int lanes[3]; /* elements of a vector, float32 and float64 */

    /* Bits of `blocks` whole blocks from block `first`, each element kept iff its uniform number
     * times 2^64 is below `threshold` (0 < threshold < 2^64). Writes blocks * 16 bytes to `bits`
     * (any alignment).
     * Per block and digit: 16 multiplications 32x32->64; about 8.3 digits are needed on average
     * at a general threshold, exactly one at 2^63. */
    void (*bernoulli_blocks)(const fd_stream *stream, uint64_t first, int64_t blocks,
                             uint64_t threshold, uint8_t *bits);

    /* Digit number `digit` (0..63) of every element of `blocks` blocks from block `first`.
     * Writes blocks * 16 bytes. */
    void (*digit_blocks)(const fd_stream *stream, uint64_t first, int64_t blocks, int digit,
                         uint8_t *bits);

    /* Exact count: of the n elements from element `first` on, marks the `keep` with the smallest
     * (uniform number, index), 0 < keep < n. Element i's bit is bit (first % 128) + i of
     * `scratch`, whose size is fd_exact_scratch_bytes(n): the marks, then two rows of work space.
     * Each digit halves the undecided; blocks without any are not drawn again. */
    void (*exact_count_row)(const fd_stream *stream, uint64_t first, int64_t n, int64_t keep,
                            uint8_t *scratch);

    /* The numbers of `blocks` whole blocks from block `first` on: blocks * 128 floats to `to`, aligned to
     * their element. Per block 66 multiplications 32x32->64 of as many lanes as digits, and for normal ones
     * 64 Box-Muller transforms. */
    void (*noise_blocks)(const fd_stream *stream, fd_noise noise, uint64_t first, int64_t blocks,
                         float *to);

    /* n elements, float16, float32 or float64, with the noise from element `first` (a multiple of 128) on;
     * see fd_apply_noise. */
    void (*apply_noise[3])(const fd_stream *stream, fd_noise noise, uint64_t first, int64_t n,
                           const void *x, void *out, double scale, int additive);

    /* Draws the bits of n elements from element `first` on (a multiple of 128, and no multiple of
     * 2^39 among those that follow) and applies them, chunk by chunk, while the bits are in the L1
     * cache: bernoulli_blocks, then apply_bits. Writes (n + 7) / 8 bytes of bits, the last one's
     * unused bits zero. Threshold, aliasing, alignment, scale and stores as below and above. */
    void (*dropout[FD_DROPOUT_DTYPES])(const fd_stream *stream, uint64_t threshold, uint64_t first,
                                       int64_t n, const void *x, void *out, double scale,
                                       fd_stores stores, uint8_t *bits);

    /* out[i] = kept(i) ? x[i] * scale : +0.0 for i < n, where kept(i) is bit `bit + i` of `bits`.
     * x, out: contiguous, aligned to their element; out may be x, else they do not overlap.
     * Only bytes that hold a bit of the run are read. scale is cast to the element type.
     * Stores are aligned to their vector, but for the first and the last. Streamed only if out is not x. */
    void (*apply_bits[FD_DROPOUT_DTYPES])(const void *x, void *out, int64_t n, const uint8_t *bits,
                                          int64_t bit, double scale, fd_stores stores);

    /* out[i] = x[i] * scale for i < n: a kept run. Aliasing and alignment as above. */
    void (*apply_run[FD_DROPOUT_DTYPES])(const void *x, void *out, int64_t n, double scale,
                                         fd_stores stores);

    /* fd_apply_affine on a run; where `bits` is NULL, kept(i) is whether `bit` is not 0. The rest as above. */
    void (*affine[FD_DROPOUT_DTYPES])(const void *x, void *out, int64_t n, const uint8_t *bits,
                                      int64_t bit, const fd_affine *affine, fd_stores stores);

    /* out[i] = residual[i] + (kept(i) ? (x[i] + bias[i]) * scale : +0.0) for i < n, each step rounded once, in
     * float32 for the half types; bits NULL: all are kept, bias NULL: none. out may be x or residual. */
    void (*residual[FD_DROPOUT_DTYPES])(const void *x, const void *bias, const void *residual,
                                        void *out, int64_t n, const uint8_t *bits, int64_t bit,
                                        double scale, fd_stores stores);
    /* out[i] = kept(i) ? x[i] * scale : +0.0, and sums[i] += it, of float64 or else float32. */
    void (*residual_sums[FD_DROPOUT_DTYPES])(const void *x, void *out, int64_t n,
                                             const uint8_t *bits, int64_t bit, double scale,
                                             void *sums, fd_stores stores);

    /* The kernels from here on have no half precision: entry FD_FLOAT16 is NULL, FD_BFLOAT16 is missing. */

    /* In place, x[i] = passes(i) ? x[i] * scale : +0.0 for i < n, where bit i of `bits` is set (NULL:
     * of all) and x[i] is not <= 0; bit i of `gate` says which do. Writes (n + 7) / 8 bytes of
     * gate, the last one's unused bits zero. Nothing overlaps but gate and bits, which may be one. */
    void (*rectify[3])(void *x, int64_t n, const uint8_t *bits, double scale, uint8_t *gate);

    /* One row of fd_softmax: `attended` columns of n from the first on, those of them that have a bit in
     * `attend` from bit `attend_bit` on. */
    void (*softmax[3])(const void *x, int64_t n, int64_t attended, const uint8_t *attend,
                       int64_t attend_bit, const uint8_t *bits, int64_t bit, double scale,
                       void *probabilities, void *out);
    void (*softmax_gradient[3])(const void *grad, const void *probabilities, int64_t n,
                                const uint8_t *bits, int64_t bit, double scale, void *out);

    /* Writes the elements of x (one row, `columns` long) whose bits, from bit `bit` on, are set,
     * side by side to `out`. May overwrite out[0 .. room). Fetches row `next`, to be gathered soon,
     * into the cache; it is not read. */
    void (*gather[3])(const void *x, const void *next, int64_t columns, const uint8_t *bits,
                      int64_t bit, void *out, int64_t room);

    /* The reverse: out[j] = x[rank of j] * scale + bias[j] * bias_scale where bit j is set, else
     * +0.0; with accumulate: out[j] += x[rank of j] * scale, out[j] otherwise as it was (rewritten).
     * x[0 .. room) may be read. bias may be NULL. */
    void (*scatter[3])(const void *x, int64_t room, int64_t columns, const uint8_t *bits,
                       int64_t bit, double scale, const void *bias, double bias_scale,
                       int accumulate, void *out);

    /* The parts of SpMM; see index_lists_body.h and spmm_body.h. index_lists makes the lists of lists->rows rows
     * of A from lists->row on, of lists->kc <= FD_SPMM_KC columns from lists->first on; `copy` has room for
     * FD_SPMM_KC elements of each. Panels are up to spmm_vectors vectors wide. */
    int64_t spmm_vectors;
    void (*index_lists[3])(const fd_product *p, void *copy, spmm_lists *lists);
    /* Packs the rows of B that the lists are about, masked, lists->row_bytes apart. */
    void (*spmm_pack_b[3])(const fd_product *p, const spmm_lists *lists, const spmm_panel *panel);
    /* Adds the lists' products with a packed panel to its sums, and stores those, in C with scale, bias and mask. */
    void (*spmm_multiply[3])(const fd_product *p, const spmm_lists *lists, const spmm_panel *panel);
    /* `columns` columns of C, FD_SKINNY_BYTES at most, of a product that fd_skinny_takes. Returns how many elements
     * of A are stored. */
    int64_t (*spmm_skinny[3])(const fd_product *p, int64_t column, int64_t columns);

    /* The parts of our GEMM; see pack_body.h, micro_kernel_body.h, store_body.h. Micro-panels of A are mr rows of
     * FD_KC elements, each a vector longer, of B FD_NR vectors by FD_KC rows, and up to a vector more. Strides count
     * elements.
     * pack_a packs rows [row, + rows) of A, at most mr, in one block of k, and zeros up to mr; elements are masked
     * where k keeps everything and A has a mask. pack_a_masked does without lists. pack_a_transposed packs rows of a
     * block of m in columns [first, + kc) of A, which are contiguous. */
    int64_t mr;
    void (*pack_a[3])(const fd_product *p, int64_t row, int64_t rows, const kept_units *k,
                      int64_t block, void *packed);
    void (*pack_a_masked[3])(const fd_product *p, int64_t row, int64_t rows, int64_t first,
                             int64_t kc, void *packed);
    void (*pack_a_transposed[3])(const fd_product *p, int64_t first, int64_t kc,
                                 const kept_units *m, int64_t block, void *packed);
    /* Micro-panel `number` of a panel of columns, in one block of k; a mask of weights is applied. */
    void (*pack_b[3])(const fd_product *p, const kept_units *k, int64_t block, const kept_units *n,
                      int64_t panel, int64_t number, void *packed);
    /* Adds kc steps of `count` micro-panels of A and one of B, of which `vectors` count, to the tile; clear begins
     * it. Prefetches meanwhile. */
    void (*micro_kernel[3])(const void *a, int64_t count, int64_t kc, const void *b,
                            int64_t vectors, void *tile, int64_t ldc, int clear, next_panel *next);
    /* The same of up to mr rows and a B that is not packed; neither B nor C is touched beside its columns. */
    void (*unpacked_kernel[3])(const void *a, int64_t rows, int64_t kc, const void *b, int64_t ldb,
                               int64_t columns, void *c, int64_t ldc, int clear);
    /* Sums of the kept columns of a panel to rows [row, + rows) of C, times scale, plus bias times the scale of
     * mask_c; +0.0 in between. A vector beyond the sums may be read. Returns 0 where all columns are kept and an
     * infinity or NaN was stored. */
    int (*store_c[3])(const void *tile, int64_t stride, const kept_units *n, int64_t panel,
                      const fd_product *p, double scale, int64_t row, int64_t rows);
    /* A row of C, `length` long: the sums of all groups, added in the order of the groups, times scale. With
     * accumulate the row is added to C's. */
    void (*store_row[3])(const row_of_sums *groups, int64_t count, int64_t length, double scale,
                         int accumulate, void *c);

    /* sums[j] += x[j] where bit `bit` + j is set (bits NULL: everywhere). */
    void (*add_kept[3])(const void *x, int64_t columns, const uint8_t *bits, int64_t bit,
                        void *sums);

    /* Whether n contiguous elements are all finite. */
    int (*all_finite[3])(const void *x, int64_t n);

    /* Moves a row of weights, and what the rule remembers of them, by one step; see the reference for
     * the formulas. Every element that is not active is rewritten as it was, bit for bit, or not
     * written. Arrays are aligned to their element and do not overlap. */
    void (*update_row[3])(const fd_rule *rule, const fd_update_row *row);

    /* sums[j] += the squares of column j, in float64, from the first row to the last. */
    void (*add_squares[3])(const void *x, int64_t stride, int64_t rows, int64_t columns,
                           double *sums);

    /* Chooses the active ones of up to FD_STRIP columns whose norm, the root of a sum of squares,
     * is finite and greater than max_norm. Returns whether there are any. */
    int (*bound_norms[3])(const double *sums, int64_t columns, const uint8_t *bits, int64_t bit,
                          double max_norm, fd_projection *projection);

    /* x[j] *= factor of column j where it is chosen; the rest as with update_row. */
    void (*project[3])(void *x, int64_t columns, const fd_projection *projection);
};

/* Bytes of one packed row of n elements that starts anywhere in a block, and of three of them. */
static inline int64_t fd_exact_row_bytes(int64_t n) { return (n / FD_BLOCK + 2) * FD_BLOCK_BYTES; }

static inline int64_t fd_exact_scratch_bytes(int64_t n)
{
    return 3 * fd_exact_row_bytes(n) + FD_BLOCK_BYTES;
}

extern const fd_kernels fd_kernels_baseline;
#if defined(__x86_64__)
extern const fd_kernels fd_kernels_avx2;
extern const fd_kernels fd_kernels_avx512;
#elif defined(__aarch64__)
extern const fd_kernels fd_kernels_neon;
#endif

#endif
