/* matmul_body.h: gathering, scattering, SpMM and gathered GEMM, compiled once per instruction
 * set. */
#include "fastdrop.h"
#include "matmul/drivers.h"
#include "matmul/kept_units.h"
#include "runtime/bits.h"
#include "runtime/integers.h"
#include "simd/simd.h"

/* A panel of SpMM, KC rows of B: wide enough that broadcasting a stored element is small beside its
 * multiply-adds. Two rows of A at a time, where there are registers for their sums. */
#define SPMM_VECTORS (f32_lanes == 16 ? 6 : 8)
#define SPMM_ROWS (FD_VECTOR_REGISTERS == 32 ? 2 : 1)
/* Indices that two rows must have in common, as a rule, to share their lists: below, making the lists and
 * the end of one more loop take longer than what loads are saved. */
#define LEAST_SHARED 4
#define FETCHED_AHEAD (FD_ROWS_AHEAD - SPMM_ROWS)

/* Sums of two vectors a row, and the two vectors of B, in the registers there are. */
#define GROUP_ROWS (FD_VECTOR_REGISTERS == 32 ? 8 : 4)
#define MR GROUP_ROWS
/* Elements from row to row of a packed micro-panel of A. */
#define A_STRIDE (FD_KC + R_(lanes))

/* Transposes a square of 64 x 64 bits in place: squares of 32, 16, ... swap their corners. */
static void transpose_bits(uint64_t *words)
{
    uint64_t mask = 0x00000000ffffffffu;
    for (int size = 32; size > 0; size >>= 1, mask ^= mask << size) {
        for (int i = 0; i < 64; i = ((i | size) + 1) & ~size) {
            const uint64_t swap = (words[i] >> size ^ words[i | size]) & mask;
            words[i] ^= swap << size;
            words[i | size] ^= swap;
        }
    }
}

static inline int count_stored(const uint64_t *words)
{
    int count = 0;
    for (int i = 0; i < FD_SPMM_WORDS; i++) {
        count += __builtin_popcountll(words[i]);
    }
    return count;
}

/* The numbers of the set bits, times `unit`. Returns where the next one goes. */
static inline uint16_t *write_indices(const uint64_t *words, int unit, uint16_t *to)
{
    for (int i = 0; i < FD_SPMM_WORDS; i++) {
        write_numbers(to, words[i], 64 * i, unit);
        to += __builtin_popcountll(words[i]);
    }
    return to;
}

/* Puts the rows in the order of how many elements they store. */
static void order_rows(spmm_lists *lists)
{
    int32_t place[FD_SPMM_KC + 2] = {0};
    for (int64_t i = 0; i < lists->rows; i++) {
        place[count_stored(lists->words + i * FD_SPMM_WORDS) + 1]++;
    }
    lists->total = 0;
    for (int count = 0; count <= FD_SPMM_KC; count++) {
        lists->total += (int64_t)count * place[count + 1];
        place[count + 1] += place[count];
    }
    for (int64_t i = 0; i < lists->rows; i++) {
        const int count = count_stored(lists->words + i * FD_SPMM_WORDS), at = place[count]++;
        lists->order[at] = (uint16_t)i;
        lists->counts[at] = (uint8_t)count;
    }
    memset(lists->order + lists->rows, 0, FD_ROWS_AHEAD * sizeof *lists->order);
}

/* How many rows from the i-th in order on are multiplied together. */
static inline int rows_together(const spmm_lists *lists, int64_t i)
{
    return SPMM_ROWS > 1 && i + 1 < lists->rows && lists->counts[i] == lists->counts[i + 1] ? 2 : 1;
}

/* Where the next `steps` steps prefetch from, one after the other, and how far apart: a part of one row of what pack_b
 * reads next. Without any left, from where they are at work anyway. */
static inline const char *prefetched_by(next_panel *next, const void *here, int64_t steps,
                                        int64_t *line_step)
{
    *line_step = 0;
    if (next->row >= next->rows) {
        return here;
    }
    const int64_t number = next->numbers ? next->numbers[next->row] : next->first + next->row;
    const char *line = next->data + number * next->stride + next->byte;
    const int64_t left = next->row_bytes - next->byte;
    const int64_t bytes = fd_smaller(fd_smaller(next->share, left), steps * FD_CACHE_LINE);
    *line_step = (bytes + steps - 1) / steps;
    next->byte += *line_step * steps;
    if (next->byte >= next->row_bytes) {
        next->byte = 0;
        next->row++;
    }
    return line;
}

#define R f32
#include "matmul/gather_body.h"
#define R f32
#include "matmul/index_lists_body.h"
#define R f32
#include "matmul/spmm_body.h"
#define R f32
#include "matmul/pack_body.h"
#define R f32
#include "matmul/micro_kernel_body.h"
#define R f32
#include "matmul/store_body.h"
#define R f64
#include "matmul/gather_body.h"
#define R f64
#include "matmul/index_lists_body.h"
#define R f64
#include "matmul/spmm_body.h"
#define R f64
#include "matmul/pack_body.h"
#define R f64
#include "matmul/micro_kernel_body.h"
#define R f64
#include "matmul/store_body.h"
