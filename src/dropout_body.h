/* dropout_body.h: applying masks, compiled once per instruction set. */
#include "bits.h"
#include "fastdrop.h"
#include "simd.h"

/* Elements drawn, then applied while their bits are in the L1 cache; a multiple of 128. */
#ifndef DROPOUT_CHUNK
#define DROPOUT_CHUNK 8192
#endif
#ifndef PREFETCH_BYTES
#define PREFETCH_BYTES 4096
#endif

/* The bits of n elements from element `first` on, a multiple of 128: whole bytes, the last one's
 * unused bits zero. */
static inline void bernoulli_bits(const fd_stream *stream, uint64_t threshold, uint64_t first,
                                  int64_t n, uint8_t *bits)
{
    const int64_t blocks = n / FD_BLOCK, rest = n % FD_BLOCK;
    bernoulli_blocks(stream, first / FD_BLOCK, blocks, threshold, bits);
    if (rest) {
        uint8_t buffer[FD_BLOCK_BYTES];
        bernoulli_blocks(stream, first / FD_BLOCK + (uint64_t)blocks, 1, threshold, buffer);
        if (rest % 8) {
            buffer[rest / 8] &= (uint8_t)((1 << rest % 8) - 1);
        }
        memcpy(bits + blocks * FD_BLOCK_BYTES, buffer, (size_t)((rest + 7) / 8));
    }
}

#define R f16
#include "apply_body.h"
#define R f32
#include "apply_body.h"
#define R f64
#include "apply_body.h"
