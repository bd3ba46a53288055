/* dropout_body.h: applying masks, compiled once per instruction set. */
#include "dropout/affine_one.h"
#include "kernels.h"
#include "runtime/bits.h"
#include "simd/simd.h"

/* Elements drawn, then applied while their bits are in the L1 cache; a multiple of 128. */
#define DROPOUT_CHUNK 32768
/* Of a chunk's input, fetched while the multipliers make its bits. */
#define PREFETCH_BYTES 4096
/* How far ahead of streaming stores the input is fetched, where that helps. */
#define AHEAD_BYTES 16384

/* The bits of n elements from block `first` on: whole bytes, the last one's unused bits zero. */
static inline void bernoulli_bits(const philox_draw *p, uint64_t threshold, uint64_t first,
                                  int64_t n, uint8_t *bits)
{
    const int64_t blocks = n / FD_BLOCK, rest = n % FD_BLOCK;
    bernoulli_prepared(p, first, blocks, threshold, bits);
    if (rest) {
        uint8_t buffer[FD_BLOCK_BYTES];
        bernoulli_prepared(p, first + (uint64_t)blocks, 1, threshold, buffer);
        if (rest % 8) {
            buffer[rest / 8] &= (uint8_t)((1 << rest % 8) - 1);
        }
        memcpy(bits + blocks * FD_BLOCK_BYTES, buffer, (size_t)((rest + 7) / 8));
    }
}

#define R f16
#include "dropout/apply_body.h"
#define R bf16
#include "dropout/apply_body.h"
#define R f32
#include "dropout/apply_body.h"
#define R f64
#include "dropout/apply_body.h"

#define R f16
#include "dropout/affine_body.h"
#define R bf16
#include "dropout/affine_body.h"
#define R f32
#include "dropout/affine_body.h"
#define R f64
#include "dropout/affine_body.h"

#define R f16
#include "dropout/residual_body.h"
#define R bf16
#include "dropout/residual_body.h"
#define R f32
#include "dropout/residual_body.h"
#define R f64
#include "dropout/residual_body.h"

#define R f32
#include "dropout/softmax_body.h"
#define R f64
#include "dropout/softmax_body.h"

#define R f32
#include "dropout/relu_body.h"
#define R f64
#include "dropout/relu_body.h"
