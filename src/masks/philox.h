/* philox.h: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC'11) for one draw of a mask stream.
 *
 * Every word sits in the low half of its own 64-bit lane. A 32x32->64 multiplication ignores what
 * stands in the upper halves, so a product serves as its own low word without being cleaned, and a
 * round is 2 multiplications, 2 shifts and 2 three-way exclusive ors per lane.
 *
 * Within one draw only two counter words move: c0 (the block) and the low bits of c3 (the digit).
 * Round 1 of one multiplier and rounds 2 and 3 of the other do not depend on the digit, or on
 * neither: they are computed once per draw or once per block. A digit of a block then costs 16
 * multiplications instead of 20.
 */
#ifndef FASTDROP_PHILOX_H
#define FASTDROP_PHILOX_H

#include "fastdrop.h"
#include "simd/simd.h"

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u
/* Ten by the definition of the mask stream. Fewer (at least three) make a generator that tests of
 * randomness have to catch: bench/studies/randomness, FASTDROP_BUILD=weak. */
#if !defined(PHILOX_ROUNDS)
#define PHILOX_ROUNDS 10
#endif

/* What is the same for all blocks whose numbers share their upper 32 bits. Suffixes: the round
 * after which the value stands. */
typedef struct {
    fd_words m0, m1;
    fd_words key0[PHILOX_ROUNDS], key1[PHILOX_ROUNDS];
    fd_words c2_xor_1; /* c3 without the digit, and key 1 of round 1 */
    fd_words c0_xor_2; /* c1 after round 1, and key 0 of round 2 */
    fd_words c2_xor_2; /* high word of M0 * c0 after round 1, and key 1 of round 2 */
    fd_words c2_xor_3; /* c3 after round 2, and key 1 of round 3 */
} philox_draw;

/* What is the same for all digits of a group of blocks. */
typedef struct {
    fd_words c2_1;     /* c2 after round 1, for digit 0 */
    fd_words c0_xor_3; /* high word of M1 * c2 after round 2, and key 0 of round 3 */
    fd_words c1_3;     /* c1 after round 3 */
} philox_group;

static inline void philox_start_draw(philox_draw *p, const fd_stream *stream, uint32_t block_high)
{
    uint32_t key0[PHILOX_ROUNDS], key1[PHILOX_ROUNDS];
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        key0[round] = stream->key0 + (uint32_t)round * PHILOX_W0;
        key1[round] = stream->key1 + (uint32_t)round * PHILOX_W1;
        p->key0[round] = words_set(key0[round]);
        p->key1[round] = words_set(key1[round]);
    }
    p->m0 = words_set(PHILOX_M0);
    p->m1 = words_set(PHILOX_M1);
    const uint32_t c3 = (uint32_t)(stream->draw >> 32) << 8;
    const uint64_t product1 = (uint64_t)PHILOX_M1 * (uint32_t)stream->draw;
    const uint32_t c0_1 = (uint32_t)(product1 >> 32) ^ block_high ^ key0[0];
    const uint64_t product0 = (uint64_t)PHILOX_M0 * c0_1;
    p->c2_xor_1 = words_set(c3 ^ key1[0]);
    p->c0_xor_2 = words_set((uint32_t)product1 ^ key0[1]);
    p->c2_xor_2 = words_set((uint32_t)(product0 >> 32) ^ key1[1]);
    p->c2_xor_3 = words_set((uint32_t)product0 ^ key1[2]);
}

/* Lanes of `blocks`: block numbers (their low words count). */
static inline philox_group philox_start_group(const philox_draw *p, fd_words blocks)
{
    philox_group g;
    const fd_words product0 = words_multiply(p->m0, blocks);
    g.c2_1 = words_xor(words_high(product0), p->c2_xor_1);
    const fd_words product1 = words_multiply(p->m1, words_xor(p->c2_xor_2, product0));
    g.c0_xor_3 = words_xor(words_high(product1), p->key0[2]);
    g.c1_3 = product1;
    return g;
}

/* The same words, of which the compiler no longer knows that their upper halves are zero. Clang
 * makes of their product one of 64-bit numbers, three times as long, since it loses what it knew
 * on the way out of a loop: masks at rate 0.2 then take 7 % longer (AVX-512). */
static inline fd_words philox_hide_halves(fd_words words)
{
#if defined(__clang__) && defined(__x86_64__)
    __asm__("" : "+x"(words));
#endif
    return words;
}

/* Digit `digits` (a number per lane) of the group's blocks: output words 0 and 1 packed in *a,
 * words 2 and 3 in *b. */
static inline void philox_digit(const philox_draw *p, const philox_group *g, fd_words digits,
                                fd_words *a, fd_words *b)
{
    const fd_words c2_1 = philox_hide_halves(words_xor(g->c2_1, digits));
    fd_words product1 = words_multiply(p->m1, c2_1);
    fd_words product0 = words_multiply(p->m0, words_xor(words_high(product1), p->c0_xor_2));
    fd_words c0 = words_xor(product1, g->c0_xor_3);
    fd_words c1 = g->c1_3;
    fd_words c2 = words_xor(words_high(product0), p->c2_xor_3);
    fd_words c3 = product0;
    for (int round = 3; round < PHILOX_ROUNDS; round++) {
        product0 = words_multiply(p->m0, c0);
        product1 = words_multiply(p->m1, c2);
        c0 = words_xor3(words_high(product1), c1, p->key0[round]);
        c2 = words_xor3(words_high(product0), c3, p->key1[round]);
        c1 = product1;
        c3 = product0;
    }
    *a = words_pack(c0, c1);
    *b = words_pack(c2, c3);
}

#endif
