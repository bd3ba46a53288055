/* matmul_body.h: gathering, scattering and products that skip zeros, compiled once per instruction
 * set. */
#include "runtime/bits.h"
#include "fastdrop.h"
#include "matmul/drivers.h"
#include "matmul/kept_units.h"
#include "runtime/integers.h"
#include "simd/simd.h"

/* A panel of the zero-skipping product, FD_SKIP_DEPTH / 2 deep or more: wide enough that broadcasting a
 * stored element is small beside its multiply-adds; 24 KB or less, to leave a quarter of a 32 KB L1 cache
 * to lists and sums. Two rows at a time, where there are registers for their sums. */
#define SKIP_VECTORS (f32_lanes == 16 ? 6 : 8)
#define SKIP_ROWS (FD_VECTOR_REGISTERS == 32 ? 2 : 1)
/* Places that two rows must have in common, as a rule, to be walked together: below, making the lists and
 * the end of one more loop take longer than what loads are saved. */
#define LEAST_SHARED 4
/* Rows of x between the one that is multiplied and the one whose place in the result is fetched. */
#define FETCHED_AHEAD (FD_ROWS_AHEAD - SKIP_ROWS)

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

/* Fetches what is due after `rows` more rows of x. */
static inline void skip_fetch_ahead(skip_prefetch *next, int rows)
{
    next->due += (uint32_t)rows * next->per_row;
    for (; next->due >= 1 << 16 && next->rows > 0; next->due -= 1 << 16) {
        for (int64_t byte = 0; byte < next->row_bytes; byte += FD_CACHE_LINE) {
            __builtin_prefetch(next->row + byte, 0, 2);
        }
        next->row += next->stride;
        next->rows--;
    }
}

/* Where the next `steps` steps prefetch from, one after the other, and how far apart: a part of one row of what pack_b
 * reads next. Without any left, from where they are at work anyway. */
static inline const char *prefetched_by(next_panel *next, const void *here, int64_t steps, int64_t *line_step)
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
#include "matmul/skip_lists_body.h"
#define R f32
#include "matmul/skip_body.h"
#define R f32
#include "matmul/few_rows_body.h"
#define R f32
#include "matmul/pack_body.h"
#define R f32
#include "matmul/micro_kernel_body.h"
#define R f32
#include "matmul/store_body.h"
#define R f64
#include "matmul/gather_body.h"
#define R f64
#include "matmul/skip_lists_body.h"
#define R f64
#include "matmul/skip_body.h"
#define R f64
#include "matmul/few_rows_body.h"
#define R f64
#include "matmul/pack_body.h"
#define R f64
#include "matmul/micro_kernel_body.h"
#define R f64
#include "matmul/store_body.h"
