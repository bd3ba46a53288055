/* matmul_body.h: gathering, scattering and products that skip zeros, compiled once per instruction
 * set. */
#include "bits.h"
#include "fastdrop.h"
#include "simd.h"

#define PANEL_VECTORS FD_PANEL_VECTORS
/* Deep enough that loading and storing a row's sums is small beside its multiply-adds; shallow
 * enough that a panel leaves a quarter of a 32 KB L1 cache to lists and sums, and that one word
 * holds the bits of a row: 48 x 8 x 64 bytes = 24 KB, 64 x 8 x 32 bytes = 16 KB. */
#define BLOCK_DEPTH (f32_lanes == 16 ? 48 : 64)
/* Sums of two vectors a row, and the two panel vectors, in the registers there are. */
#define GROUP_ROWS (FD_VECTOR_REGISTERS == 32 ? 8 : 4)

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

static inline void skip_fetch_ahead(skip_prefetch *ahead)
{
    for (int line = 0; line < ahead->lines_per_step; line++) {
        while (ahead->byte == 0 && ahead->row < ahead->rows && ahead->bits &&
               !fd_test_bit(ahead->bits, ahead->bit + ahead->row)) {
            ahead->row++;
        }
        if (ahead->row >= ahead->rows) {
            return;
        }
        __builtin_prefetch(ahead->from + ahead->row * ahead->stride + ahead->byte, 0, 2);
        ahead->byte += 64;
        if (ahead->byte >= ahead->row_bytes) {
            ahead->byte = 0;
            ahead->row++;
        }
    }
}

#define R f32
#include "gather_body.h"
#define R f32
#include "skip_body.h"
#define R f32
#include "compact_body.h"
#define R f64
#include "gather_body.h"
#define R f64
#include "skip_body.h"
#define R f64
#include "compact_body.h"
