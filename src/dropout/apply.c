/* apply.c: masks applied to arrays of any layout, cut into tasks for the threads. */
#include "kernels.h"

#include <string.h>

#include "dropout/affine_one.h"
#include "dropout/stores.h"
#include "runtime/bits.h"
#include "simd/element.h"

/* Rows that are so short that a call for each would take longer than what it does, and so many that their
 * bits are worth repeating; and how many bits of them, 512 bytes. */
#define LONGEST_REPEATED 256
#define FEWEST_REPEATED 8
#define REPEATED_BITS (1 << 12)
/* A layout after merging: axes whose elements follow each other in x, out and mask alike. */
typedef struct {
    int axes;
    int64_t shape[FD_MAX_DIMENSIONS];
    int64_t x[FD_MAX_DIMENSIONS], out[FD_MAX_DIMENSIONS], mask[FD_MAX_DIMENSIONS];
} layout;

static void layout_append(layout *l, int64_t extent, int64_t x, int64_t out, int64_t mask)
{
    if (extent == 1) {
        return;
    }
    const int last = l->axes - 1;
    if (last >= 0 && l->x[last] == x * extent && l->out[last] == out * extent &&
        l->mask[last] == mask * extent) {
        l->shape[last] *= extent;
        l->x[last] = x;
        l->out[last] = out;
        l->mask[last] = mask;
        return;
    }
    l->shape[l->axes] = extent;
    l->x[l->axes] = x;
    l->out[l->axes] = out;
    l->mask[l->axes] = mask;
    l->axes++;
}

/* The innermost axis of a layout and the kernel that fits it. */
typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    int64_t x, out, mask; /* strides */
    const uint8_t *bits;
    double scale;
    const fd_affine *affine; /* NULL: x * scale where kept, else 0 */
    fd_stores stores;
} inner_loop;

#define STRIDED_LOOP(type, result)                                                                 \
    for (int64_t i = 0; i < n; i++) {                                                              \
        const type *value = (const type *)(x + i * loop->x);                                       \
        const int kept = fd_test_bit(loop->bits, bit + i * loop->mask);                            \
        *(type *)(out + i * loop->out) = result;                                                   \
    }
#define STRIDED_LOOPS(R, type)                                                                     \
    if (loop->affine) {                                                                            \
        STRIDED_LOOP(type, R##_affine_one(*value, loop->affine, kept))                             \
    } else {                                                                                       \
        STRIDED_LOOP(type, kept ? R##_product_one(*value, loop->scale) : 0)                        \
    }

static void strided_inner(const inner_loop *loop, const char *x, char *out, int64_t n, int64_t bit)
{
    switch (loop->dtype) {
    case FD_FLOAT16:
        STRIDED_LOOPS(f16, uint16_t)
        break;
    case FD_BFLOAT16:
        STRIDED_LOOPS(bf16, uint16_t)
        break;
    case FD_FLOAT32:
        STRIDED_LOOPS(f32, float)
        break;
    default:
        STRIDED_LOOPS(f64, double)
    }
}

static void run_inner(const inner_loop *loop, const char *x, char *out, int64_t n, int64_t bit)
{
    const int64_t size = fd_element_bytes(loop->dtype);
    if (loop->x != size || loop->out != size || loop->mask > 1) {
        strided_inner(loop, x, out, n, bit);
    } else if (loop->affine) {
        const int shared = loop->mask == 0;
        loop->kernels->affine[loop->dtype](x, out, n, shared ? NULL : loop->bits,
                                           shared ? fd_test_bit(loop->bits, bit) : bit,
                                           loop->affine, loop->stores);
    } else if (loop->mask == 1) {
        loop->kernels->apply_bits[loop->dtype](x, out, n, loop->bits, bit, loop->scale,
                                               loop->stores);
    } else if (fd_test_bit(loop->bits, bit)) {
        loop->kernels->apply_run[loop->dtype](x, out, n, loop->scale, loop->stores);
    } else {
        memset(out, 0, (size_t)(n * size));
    }
}

/* Where a run, along the innermost axis, begins in x, out and mask. */
typedef struct {
    int64_t index[FD_MAX_DIMENSIONS];
    int64_t x, out, bit;
} run_place;

static run_place place_of_run(const layout *l, int64_t run, int64_t bit)
{
    run_place place = {.x = 0, .out = 0, .bit = bit};
    for (int axis = l->axes - 2; axis >= 0; axis--) {
        const int64_t index = run % l->shape[axis];
        run /= l->shape[axis];
        place.index[axis] = index;
        place.x += index * l->x[axis];
        place.out += index * l->out[axis];
        place.bit += index * l->mask[axis];
    }
    return place;
}

static void to_next_run(const layout *l, run_place *place)
{
    for (int axis = l->axes - 2; axis >= 0; axis--) {
        int64_t steps = 1;
        if (++place->index[axis] == l->shape[axis]) {
            place->index[axis] = 0;
            steps = 1 - l->shape[axis];
        }
        place->x += steps * l->x[axis];
        place->out += steps * l->out[axis];
        place->bit += steps * l->mask[axis];
        if (steps == 1) {
            return;
        }
    }
}

typedef struct {
    const layout *l;
    const inner_loop *loop;
    const char *x;
    char *out;
    int64_t bit;
    int64_t length, pieces; /* of a run */
    int64_t runs, together; /* runs of a task; there is one if it has pieces */
} layout_pass;

static void layout_part(const void *context, int64_t task)
{
    const layout_pass *p = context;
    const inner_loop *loop = p->loop;
    const int64_t piece = task % p->pieces, from = piece * FD_DROPOUT_TASK;
    const int64_t length = p->length - from < FD_DROPOUT_TASK ? p->length - from : FD_DROPOUT_TASK;
    const int64_t first = task / p->pieces * p->together, left = p->runs - first;
    run_place place = place_of_run(p->l, first, p->bit);
    for (int64_t run = 0; run < p->together && run < left; run++) {
        run_inner(loop, p->x + place.x + from * loop->x, p->out + place.out + from * loop->out,
                  length, place.bit + from * loop->mask);
        to_next_run(p->l, &place);
    }
}

/* Short rows that share their bits and follow each other in memory, as channels behind the places of a
 * feature map do: as long runs, by bits repeated. */
typedef struct {
    const layout *l; /* rows and their elements are the last two axes */
    const inner_loop *loop;
    const char *x;
    char *out;
    int64_t bit;
    int64_t together;     /* rows of a run */
    int64_t rows, pieces; /* rows of a task; tasks of one mask row */
} repeated_pass;

static void repeated_part(const void *context, int64_t task)
{
    const repeated_pass *p = context;
    const layout *l = p->l;
    const int rows_axis = l->axes - 2;
    const int64_t length = l->shape[l->axes - 1], outer = task / p->pieces;
    const int64_t first = task % p->pieces * p->rows, left = l->shape[rows_axis] - first;
    const int64_t rows = left < p->rows ? left : p->rows;
    const int has_outer = l->axes == 3;
    const int64_t bit = p->bit + (has_outer ? outer * l->mask[0] : 0);
    uint8_t row[LONGEST_REPEATED / 8 + 16],
        bits[REPEATED_BITS / 8 + 16]; /* fd_copy_bits reads on */
    for (int64_t i = 0; i < length; i += 64) {
        const uint64_t word = fd_load_bits_part(p->loop->bits, bit + i, length - i);
        memcpy(row + i / 8, &word, 8);
    }
    const int64_t together = rows < p->together ? rows : p->together;
    for (int64_t r = 0; r < together; r++) {
        fd_copy_bits(row, 0, bits, r * length, length);
    }
    inner_loop loop = *p->loop;
    loop.bits = bits;
    const char *x = p->x + (has_outer ? outer * l->x[0] : 0) + first * l->x[rows_axis];
    char *out = p->out + (has_outer ? outer * l->out[0] : 0) + first * l->out[rows_axis];
    const int64_t run = together * length, total = rows * length;
    for (int64_t from = 0; from < total; from += run) {
        run_inner(&loop, x + from * loop.x, out + from * loop.out,
                  total - from < run ? total - from : run, 0);
    }
}

static int repeats(const layout *l, const inner_loop *loop)
{
    const int64_t size = fd_element_bytes(loop->dtype);
    const int rows = l->axes - 2, last = l->axes - 1;
    return (l->axes == 2 || l->axes == 3) && l->shape[rows] >= FEWEST_REPEATED &&
           l->shape[last] <= LONGEST_REPEATED && l->mask[rows] == 0 && l->mask[last] == 1 &&
           loop->x == size && loop->out == size && l->x[rows] == l->shape[last] * size &&
           l->out[rows] == l->shape[last] * size;
}

static void apply_repeated(const layout *l, const inner_loop *loop, const char *x, char *out,
                           int64_t bit)
{
    const int64_t length = l->shape[l->axes - 1], rows = l->shape[l->axes - 2];
    const int64_t together = REPEATED_BITS / length, runs = FD_DROPOUT_TASK / REPEATED_BITS;
    repeated_pass p = {l, loop, x, out, bit, together, together * runs, 0};
    p.pieces = (rows + p.rows - 1) / p.rows;
    const int64_t outer = l->axes == 3 ? l->shape[0] : 1;
    fd_parallel(fd_threads_for(outer * rows * length, FD_DROPOUT_MINIMUM), outer * p.pieces,
                repeated_part, &p);
}

static void apply_layout(const layout *l, const inner_loop *loop, const char *x, char *out,
                         int64_t bit)
{
    const int64_t length = l->axes ? l->shape[l->axes - 1] : 1;
    int64_t runs = 1;
    for (int axis = 0; axis < l->axes - 1; axis++) {
        runs *= l->shape[axis];
    }
    const int64_t together = length < FD_DROPOUT_TASK ? FD_DROPOUT_TASK / length : 1;
    const layout_pass p = {
        l,    loop,    x, out, bit, length, (length + FD_DROPOUT_TASK - 1) / FD_DROPOUT_TASK,
        runs, together};
    const int64_t tasks = (runs + together - 1) / together * p.pieces;
    fd_parallel(fd_threads_for(runs * length, FD_DROPOUT_MINIMUM), tasks, layout_part, &p);
}

static void apply_parts(fd_dtype dtype, int dimensions, const int64_t *shape, const char *x,
                        const int64_t *x_strides, char *out, const int64_t *out_strides,
                        const uint8_t *bits, const int64_t *mask_strides, int64_t rows_per_mask,
                        double scale, const fd_affine *affine)
{
    int64_t total = 1;
    for (int axis = 0; axis < dimensions; axis++) {
        total *= shape[axis];
    }
    if (total == 0) {
        return;
    }
    /* Full groups of rows, then the short last group, each a regular layout of its own. */
    const int64_t rows = dimensions ? shape[0] : 1;
    const int64_t full = rows / rows_per_mask, short_rows = rows % rows_per_mask;
    for (int part = 0; part < 2; part++) {
        const int64_t groups = part == 0 ? full : 1;
        const int64_t group_rows = part == 0 ? rows_per_mask : short_rows;
        if (groups == 0 || group_rows == 0) {
            continue;
        }
        layout l = {.axes = 0};
        int64_t first_row = 0, bit = 0;
        if (dimensions) {
            first_row = part == 0 ? 0 : full * rows_per_mask;
            bit = part == 0 ? 0 : full * mask_strides[0];
            layout_append(&l, groups, x_strides[0] * rows_per_mask, out_strides[0] * rows_per_mask,
                          mask_strides[0]);
            layout_append(&l, group_rows, x_strides[0], out_strides[0], 0);
        }
        for (int axis = 1; axis < dimensions; axis++) {
            layout_append(&l, shape[axis], x_strides[axis], out_strides[axis], mask_strides[axis]);
        }
        const int inner = l.axes - 1;
        const int64_t size = fd_element_bytes(dtype);
        const inner_loop loop = {
            .kernels = fd_active_kernels(),
            .dtype = dtype,
            .x = inner >= 0 ? l.x[inner] : size,
            .out = inner >= 0 ? l.out[inner] : size,
            .mask = inner >= 0 ? l.mask[inner] : 0,
            .bits = bits,
            .scale = scale,
            .affine = affine,
            .stores = fd_best_stores(x, out, total * size),
        };
        const char *from = x + (dimensions ? first_row * x_strides[0] : 0);
        char *to = out + (dimensions ? first_row * out_strides[0] : 0);
        if (repeats(&l, &loop)) {
            apply_repeated(&l, &loop, from, to, bit);
        } else {
            apply_layout(&l, &loop, from, to, bit);
        }
    }
}

void fd_apply_mask(fd_dtype dtype, int dimensions, const int64_t *shape, const char *x,
                   const int64_t *x_strides, char *out, const int64_t *out_strides,
                   const uint8_t *bits, const int64_t *mask_strides, int64_t rows_per_mask,
                   double scale)
{
    apply_parts(dtype, dimensions, shape, x, x_strides, out, out_strides, bits, mask_strides,
                rows_per_mask, scale, NULL);
}

void fd_apply_affine(fd_dtype dtype, int dimensions, const int64_t *shape, const char *x,
                     const int64_t *x_strides, char *out, const int64_t *out_strides,
                     const uint8_t *bits, const int64_t *mask_strides, int64_t rows_per_mask,
                     const fd_affine *affine)
{
    apply_parts(dtype, dimensions, shape, x, x_strides, out, out_strides, bits, mask_strides,
                rows_per_mask, affine->scale, affine);
}
