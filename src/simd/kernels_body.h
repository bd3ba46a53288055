/* kernels_body.h: all families for one instruction set, and their table.
 *
 * The including file names the level (FD_LEVEL) and sets its target first. */
#include "masks/mask_body.h"
#include "masks/noise_body.h"

#include "dropout/dropout_body.h"
#include "dropout/noisy_body.h"
#include "masks/exact_body.h"
#include "matmul/matmul_body.h"

#define R f32
#include "optim/update_body.h"
#define R f64
#include "optim/update_body.h"

#define FD_JOIN_(a, b) a##b
#define FD_JOIN(a, b) FD_JOIN_(a, b)
#define FD_TEXT_(a) #a
#define FD_TEXT(a) FD_TEXT_(a)

const fd_kernels FD_JOIN(fd_kernels_, FD_LEVEL) = {
    .name = FD_TEXT(FD_LEVEL),
    .lanes = {0, f32_lanes, f64_lanes},
    .bernoulli_blocks = bernoulli_blocks,
    .digit_blocks = digit_blocks,
    .exact_count_row = exact_count_row,
    .noise_blocks = noise_blocks,
    .apply_noise = {f16_apply_noise, f32_apply_noise, f64_apply_noise},
    .dropout = {f16_dropout, f32_dropout, f64_dropout, bf16_dropout},
    .apply_bits = {f16_apply_bits, f32_apply_bits, f64_apply_bits, bf16_apply_bits},
    .apply_run = {f16_apply_run, f32_apply_run, f64_apply_run, bf16_apply_run},
    .affine = {f16_affine, f32_affine, f64_affine, bf16_affine},
    .residual = {f16_residual, f32_residual, f64_residual, bf16_residual},
    .residual_sums = {f16_residual_sums, f32_residual_sums, f64_residual_sums, bf16_residual_sums},
    .softmax = {NULL, f32_softmax, f64_softmax},
    .softmax_gradient = {NULL, f32_softmax_gradient, f64_softmax_gradient},
    .rectify = {NULL, f32_rectify, f64_rectify},
    .gather = {NULL, f32_gather, f64_gather},
    .scatter = {NULL, f32_scatter, f64_scatter},
    .spmm_vectors = SPMM_VECTORS,
    .index_lists = {NULL, f32_index_lists, f64_index_lists},
    .spmm_pack_b = {NULL, f32_spmm_pack_b, f64_spmm_pack_b},
    .spmm_multiply = {NULL, f32_spmm_multiply, f64_spmm_multiply},
    .spmm_skinny = {NULL, f32_spmm_skinny, f64_spmm_skinny},
    .mr = MR,
    .pack_a = {NULL, f32_pack_a, f64_pack_a},
    .pack_a_masked = {NULL, f32_pack_a_masked, f64_pack_a_masked},
    .pack_a_transposed = {NULL, f32_pack_a_transposed, f64_pack_a_transposed},
    .pack_b = {NULL, f32_pack_b, f64_pack_b},
    .micro_kernel = {NULL, f32_micro_kernel, f64_micro_kernel},
    .unpacked_kernel = {NULL, f32_unpacked_kernel, f64_unpacked_kernel},
    .store_c = {NULL, f32_store_c, f64_store_c},
    .store_row = {NULL, f32_store_row, f64_store_row},
    .add_kept = {NULL, f32_add_kept, f64_add_kept},
    .all_finite = {NULL, f32_all_finite, f64_all_finite},
    .update_row = {NULL, f32_update_row, f64_update_row},
    .add_squares = {NULL, f32_add_squares, f64_add_squares},
    .bound_norms = {NULL, f32_bound_norms, f64_bound_norms},
    .project = {NULL, f32_project, f64_project},
};
