/* kernels_body.h: all families for one instruction set, and their table.
 *
 * The including file names the level (FD_LEVEL) and sets its target first. */
#include "mask_body.h"

#include "dropout_body.h"
#include "exact_body.h"

#define FD_JOIN_(a, b) a##b
#define FD_JOIN(a, b) FD_JOIN_(a, b)
#define FD_TEXT_(a) #a
#define FD_TEXT(a) FD_TEXT_(a)

const fd_kernels FD_JOIN(fd_kernels_, FD_LEVEL) = {
    .name = FD_TEXT(FD_LEVEL),
    .bernoulli_blocks = bernoulli_blocks,
    .digit_blocks = digit_blocks,
    .exact_count_row = exact_count_row,
    .dropout = {f16_dropout, f32_dropout, f64_dropout},
    .apply_bits = {f16_apply_bits, f32_apply_bits, f64_apply_bits},
    .apply_run = {f16_apply_run, f32_apply_run, f64_apply_run},
};
