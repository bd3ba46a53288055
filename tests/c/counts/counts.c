/* counts.c: what each kernel costs, without a clock: instructions, multiply-adds, memory.
 *
 *     counts LEVEL
 *
 * calls every kernel once on fixed inputs, on one thread and one instruction set, and prints a line for each:
 * name, elements (of a product: multiply-adds), and the bytes that the call allocated beside its arguments.
 * Under callgrind each call's instructions are dumped with the name as trigger. tests/c/count_instructions
 * builds this, runs it, and compares. AVX-512, which valgrind does not run, is left out of the build. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

#include "check.h"
#include "kernels.h"
#include "runtime/cache.h"

#if defined(__x86_64__)
const fd_kernels fd_kernels_avx512 = {.name = "avx512"};
#endif

#define N (1 << 16)
enum { ROWS = 64, DEPTH = 256, COLUMNS = 192, GROUP = 16 };

static const uint64_t half = UINT64_C(1) << 63, four_fifths = UINT64_C(0xcccccccccccccccd);
static const fd_stream stream = {1, 2, 3};

/* Bytes allocated since the last call began; the linker sends the kernels' requests here. */
static int64_t allocated;
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    allocated += (int64_t)bytes;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    allocated += (int64_t)(count * bytes);
    return __real_calloc(count, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    allocated += (int64_t)bytes;
    return __real_aligned_alloc(alignment, bytes);
}

/* The operands of every case; products: x (ROWS, DEPTH), w (DEPTH, COLUMNS), y (ROWS, COLUMNS). */
typedef struct {
    void *x, *out, *w, *y, *second;
    uint8_t *bits, *more_bits, *gate;
    int64_t work; /* elements or multiply-adds of the call */
} operands;

static void dropout(operands *o, fd_dtype dtype, uint64_t threshold)
{
    fd_dropout_forward(&stream, threshold, 0, dtype, o->x, o->out, N, 2.0, o->gate);
}
static void dropout_f16(operands *o) { dropout(o, FD_FLOAT16, half); }
static void dropout_bf16(operands *o) { dropout(o, FD_BFLOAT16, half); }
static void dropout_f32(operands *o) { dropout(o, FD_FLOAT32, half); }
static void dropout_f64(operands *o) { dropout(o, FD_FLOAT64, half); }
static void dropout_any_rate(operands *o) { dropout(o, FD_FLOAT32, four_fifths); }
static void dropout_streamed(operands *o)
{
    fd_assume_cache_of_core(1);
    dropout(o, FD_FLOAT32, half);
    fd_assume_cache_of_core(INT64_MAX);
}

static void bernoulli(operands *o, uint64_t threshold)
{
    fd_active_kernels()->bernoulli_blocks(&stream, 0, N / FD_BLOCK, threshold, o->gate);
}
static void mask_half(operands *o) { bernoulli(o, half); }
static void mask_any_rate(operands *o) { bernoulli(o, four_fifths); }
static void mask_digit(operands *o)
{
    fd_active_kernels()->digit_blocks(&stream, 0, N / FD_BLOCK, 3, o->gate);
}
static void mask_exact_count(operands *o)
{
    const int64_t shape[] = {N / 1024, 1024}, starts[] = {0, 0};
    if (fd_draw_exact_count(&stream, 512, 2, shape, starts, shape, o->gate) != 0) {
        fail("no memory for an exact count");
    }
}

static void noise_normal(operands *o)
{
    fd_active_kernels()->noise_blocks(&stream, FD_NORMAL, 0, N / FD_BLOCK, o->out);
}
static void noise_uniform(operands *o)
{
    fd_active_kernels()->noise_blocks(&stream, FD_UNIFORM, 0, N / FD_BLOCK, o->out);
}
static void noise_applied(operands *o)
{
    fd_apply_noise(&stream, FD_NORMAL, FD_FLOAT32, o->x, o->out, N, 0.5, 0);
}

static void backward(operands *o, fd_dtype dtype, int64_t mask_stride)
{
    const int64_t n = N, stride = fd_element_bytes(dtype);
    fd_apply_mask(dtype, 1, &n, o->x, &stride, o->out, &stride, o->bits, &mask_stride, 1, 2.0);
}
static void backward_f16(operands *o) { backward(o, FD_FLOAT16, 1); }
static void backward_bf16(operands *o) { backward(o, FD_BFLOAT16, 1); }
static void backward_f32(operands *o) { backward(o, FD_FLOAT32, 1); }
static void backward_f64(operands *o) { backward(o, FD_FLOAT64, 1); }
static void scale_kept(operands *o)
{
    o->bits[0] |= 1;
    backward(o, FD_FLOAT32, 0);
}
static void backward_streamed(operands *o)
{
    fd_assume_cache_of_core(1);
    backward(o, FD_FLOAT32, 1);
    fd_assume_cache_of_core(INT64_MAX);
}
static void backward_strided(operands *o)
{
    const int64_t n = N / 2, stride = 8, mask_stride = 1;
    o->work = n;
    fd_apply_mask(FD_FLOAT32, 1, &n, o->x, &stride, o->out, &stride, o->bits, &mask_stride, 1, 2.0);
}
static void unit_mask(operands *o)
{
    const int64_t shape[] = {N / 64, 64}, strides[] = {256, 4}, mask_strides[] = {0, 1};
    fd_apply_mask(FD_FLOAT32, 2, shape, o->x, strides, o->out, strides, o->bits, mask_strides, 1,
                  2.0);
}
static void relu(operands *o) { fd_rectify(FD_FLOAT32, o->out, N, o->bits, 2.0, o->gate); }

static void gather(operands *o)
{
    const fd_units rows = {NULL, 0, N / 1024}, columns = {o->bits, 0, 1024};
    fd_gather(FD_FLOAT32, o->x, 1024, &rows, &columns, o->out);
}
static void scatter(operands *o)
{
    const fd_units rows = {NULL, 0, N / 1024}, columns = {o->bits, 0, 1024};
    fd_scatter(FD_FLOAT32, o->x, &rows, &columns, 2.0, NULL, 0, 0, o->out, 1024);
}
static void all_finite(operands *o) { fd_all_finite(FD_FLOAT32, o->x, N); }
static void masked_sums(operands *o)
{
    const fd_row_mask mask = {o->bits, 8, 0.5, -1};
    fd_masked_sums(FD_FLOAT32, o->x, 1024, N / 1024, 1024, &mask, o->out);
}

/* ROWS by DEPTH by COLUMNS, or what is changed of it; `group` rows share the units of a mask. */
static fd_product product_of(operands *o, fd_method method, int64_t group)
{
    return (fd_product){
        .dtype = FD_FLOAT32,
        .method = method,
        .m = ROWS,
        .n = COLUMNS,
        .k = DEPTH,
        .a = {o->x, DEPTH, 1},
        .b = {o->w, COLUMNS, 1},
        .c = {o->y, COLUMNS, 1},
        .mask_a = {o->bits, group, 1, 0.5},
        .mask_b = {NULL, 1, 1, 1},
        .mask_c = {group > 1 ? o->more_bits : NULL, group, 1, 0.5},
    };
}
static void product_per_sample(operands *o)
{
    fd_product p = product_of(o, FD_SPMM, 1);
    p.flags = FD_SKIP_ZEROS;
    o->work = fd_matmul(&p);
}
static void product_batchwise(operands *o)
{
    const fd_product p = product_of(o, FD_GATHERED, ROWS);
    o->work = fd_matmul(&p);
}
static void product_batchwise_transposed(operands *o)
{
    fd_product p = product_of(o, FD_GATHERED, ROWS);
    p.b = (fd_matrix){o->w, 1, DEPTH};
    o->work = fd_matmul(&p);
}
static void product_grouped(operands *o)
{
    const fd_product p = product_of(o, FD_GATHERED, GROUP);
    o->work = fd_matmul(&p);
}
static void gradient_of_units(operands *o, int64_t group)
{
    fd_product p = product_of(o, FD_GATHERED, group);
    p.flags = FD_SUM_ROWS;
    p.m = DEPTH;
    p.k = ROWS;
    p.a = (fd_matrix){o->x, 1, DEPTH};
    p.b.data = o->second;
    p.c.data = o->out;
    p.mask_b = p.mask_c;
    p.mask_c.bits = NULL;
    o->work = fd_matmul(&p);
}
static void gradient_batchwise(operands *o) { gradient_of_units(o, ROWS); }
static void gradient_grouped(operands *o) { gradient_of_units(o, GROUP); }
static void product_small(operands *o)
{
    fd_product p = product_of(o, FD_SMALL, 1);
    p.m = 8;
    p.mask_a.scale = 2.0;
    o->work = fd_matmul(&p);
}

static void product_masked_weights(operands *o)
{
    fd_product p = product_of(o, FD_PACKED, 1);
    p.mask_a.bits = NULL;
    p.mask_b = (fd_row_mask){o->more_bits, 1, 2.0, 0.5};
    o->work = fd_matmul(&p);
}
static void gradient_masked_weights(operands *o)
{
    fd_product p = product_of(o, FD_PACKED, 1);
    p.mask_a.bits = NULL;
    p.mask_b = (fd_row_mask){o->more_bits, 1, 2.0, 0.5};
    p.flags = FD_MASKED_COLUMNS_OF_B;
    p.b = (fd_matrix){o->w, 1, DEPTH};
    o->work = fd_matmul(&p);
}

/* The kinds of dropout: a matrix of N / 256 rows. */
enum { WIDTH = 256 };

static void alpha(operands *o)
{
    const int64_t n = N, stride = 4, mask_stride = 1;
    const fd_affine affine = {0.8, 0.3, -1.2};
    fd_apply_affine(FD_FLOAT32, 1, &n, o->x, &stride, o->out, &stride, o->bits, &mask_stride, 1,
                    &affine);
}
static fd_residual residual_of(operands *o)
{
    return (fd_residual){.x = o->x,
                         .bias = o->y,
                         .residual = (float *)o->x + N,
                         .out = o->out,
                         .rows = N / WIDTH,
                         .width = WIDTH,
                         .bits = o->bits,
                         .scale = 2.0};
}
static void residual(operands *o)
{
    const fd_residual call = residual_of(o);
    fd_residual_forward(FD_FLOAT32, &call);
}
static void residual_gradient(operands *o)
{
    const fd_residual call = residual_of(o);
    double sums[WIDTH];
    if (fd_residual_backward(FD_FLOAT32, &call, sums) != 0) {
        fail("no memory for sums of gradients");
    }
}
static fd_softmax softmax_of(operands *o)
{
    return (fd_softmax){.x = o->x,
                        .rows = N / WIDTH,
                        .width = WIDTH,
                        .bits = o->bits,
                        .scale = 2.0,
                        .probabilities = (float *)o->x + N,
                        .out = o->out};
}
static void softmax(operands *o)
{
    const fd_softmax call = softmax_of(o);
    fd_softmax_forward(FD_FLOAT32, &call);
}
static void softmax_gradient(operands *o)
{
    const fd_softmax call = softmax_of(o);
    fd_softmax_backward(FD_FLOAT32, &call);
}
static void blocks(operands *o)
{
    const fd_blocks shape = {.maps = N / 4096, .extent = {1, 64, 64}, .block = {1, 7, 7}};
    if (fd_drop_blocks(&shape, o->bits, o->gate) < 0) {
        fail("no memory for blocks");
    }
}

static void update(operands *o, const fd_rule *rule, int masked)
{
    static int64_t row_counts[DEPTH], column_counts[COLUMNS];
    static double table[4][2] = {{0, 0}, {0.1, 0.1}, {0.2, 0.2}, {0.3, 0.3}};
    const fd_weights weights = {
        .value = o->w,
        .first = o->out,
        .second = rule->kind == FD_ADAM ? o->x : NULL,
        .gradient = o->second,
        .rows = {masked ? o->bits : NULL, 0, DEPTH},
        .columns = {masked ? o->more_bits : NULL, 0, COLUMNS},
        .row_counts = row_counts,
        .column_counts = column_counts,
        .steps = 3,
        .table = &table[0][0],
    };
    o->work = DEPTH * COLUMNS;
    if (fd_update(FD_FLOAT32, rule, &weights) != 0) {
        fail("no memory for an update");
    }
}
static const fd_rule sgd = {
    .kind = FD_SGD, .learning_rate = 0.25, .beta1 = 0.5, .max_norm = INFINITY};
static const fd_rule bounded = {.kind = FD_SGD, .learning_rate = 0.25, .beta1 = 0.5, .max_norm = 1};
static const fd_rule adam = {.kind = FD_ADAM,
                             .learning_rate = 0.1,
                             .beta1 = 0.5,
                             .beta2 = 0.5,
                             .epsilon = 1e-3,
                             .max_norm = INFINITY};
static void update_sgd(operands *o) { update(o, &sgd, 0); }
static void update_sgd_units(operands *o) { update(o, &sgd, 1); }
static void update_max_norm(operands *o) { update(o, &bounded, 1); }
static void update_adam(operands *o) { update(o, &adam, 0); }
static void update_adam_units(operands *o) { update(o, &adam, 1); }

#define CASE(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(operands *o);
} cases[] = {
    CASE(mask_half),
    CASE(mask_any_rate),
    CASE(mask_digit),
    CASE(mask_exact_count),
    CASE(noise_normal),
    CASE(noise_uniform),
    CASE(noise_applied),
    CASE(dropout_f16),
    CASE(dropout_bf16),
    CASE(dropout_f32),
    CASE(dropout_f64),
    CASE(dropout_any_rate),
    CASE(dropout_streamed),
    CASE(backward_f16),
    CASE(backward_bf16),
    CASE(backward_f32),
    CASE(backward_f64),
    CASE(backward_streamed),
    CASE(backward_strided),
    CASE(unit_mask),
    CASE(scale_kept),
    CASE(relu),
    CASE(gather),
    CASE(scatter),
    CASE(all_finite),
    CASE(masked_sums),
    CASE(product_per_sample),
    CASE(product_batchwise),
    CASE(product_batchwise_transposed),
    CASE(product_masked_weights),
    CASE(gradient_masked_weights),
    CASE(alpha),
    CASE(residual),
    CASE(residual_gradient),
    CASE(softmax),
    CASE(softmax_gradient),
    CASE(blocks),
    CASE(product_grouped),
    CASE(product_small),
    CASE(gradient_batchwise),
    CASE(gradient_grouped),
    CASE(update_sgd),
    CASE(update_sgd_units),
    CASE(update_max_norm),
    CASE(update_adam),
    CASE(update_adam_units),
};

static void *positive_numbers(int64_t n, uint32_t seed)
{
    float *x = numbers(FD_FLOAT32, n, seed);
    for (int64_t i = 0; i < n; i++) {
        x[i] = fabsf(x[i]);
    }
    return x;
}

/* One case, on a thread of its own: its scratch memory is not there yet, and gone afterwards. */
static void *run_case(void *number)
{
    const size_t i = *(const size_t *)number;
    operands o = {
        .x = positive_numbers(2 * N, 1),
        .out = numbers(FD_FLOAT32, 2 * N, 2),
        .w = numbers(FD_FLOAT32, DEPTH * COLUMNS, 3),
        .y = numbers(FD_FLOAT32, ROWS * COLUMNS, 4),
        .second = numbers(FD_FLOAT32, DEPTH * COLUMNS, 5),
        .bits = draw_bits(N, 6),
        .more_bits = draw_bits(N, 7),
        .gate = filled_bytes(N / 8, 0),
        .work = N,
    };
    allocated = 0;
    cases[i].run(&o);
    const int64_t bytes = allocated;
    CALLGRIND_DUMP_STATS_AT("before");
    cases[i].run(&o); /* scratch memory is there now */
    CALLGRIND_DUMP_STATS_AT(cases[i].name);
    printf("%s %" PRId64 " %" PRId64 "\n", cases[i].name, o.work, bytes);
    free(o.x);
    free(o.out);
    free(o.w);
    free(o.y);
    free(o.second);
    free(o.bits);
    free(o.more_bits);
    free(o.gate);
    return NULL;
}

static void select_level(const char *name)
{
    for (int level = 0; level < fd_level_count(); level++) {
        if (strcmp(fd_level_name(level), name) == 0 && fd_select_level(level) == 0) {
            return;
        }
    }
    fail("%s: not on this machine", name);
}

int main(int count, char **arguments)
{
    if (count != 2) {
        fprintf(stderr, "usage: counts LEVEL\n");
        return 2;
    }
    select_level(arguments[1]);
    fd_set_num_threads(1);
    /* The machine's caches decide how products are cut. */
    fd_assume_first_level_cache(32 << 10);
    fd_assume_cache_of_core(INT64_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, run_case, &i) != 0) {
            fail("no thread");
        }
        pthread_join(thread, NULL);
    }
    return 0;
}
