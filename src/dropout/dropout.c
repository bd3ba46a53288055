/* dropout.c: masks applied to arrays of any layout, cut into tasks for the threads. */
#include "kernels.h"

#include <string.h>

#include "runtime/bits.h"
#include "runtime/cache.h"
#include "simd/element.h"

/* Elements of one task along the innermost axis: a multiple of 128, and enough that the fence
 * behind streaming stores does not matter. */
#define TASK (1 << 16)
/* The same for activations, which are as small as a batch: they come from a cache. */
#define SMALL_TASK (1 << 14)
#define MINIMUM_RECTIFIED (1 << 16)
/* Rows that are so short that a call for each would take longer than what it does, and so many that their
 * bits are worth repeating; and how many bits of them, 512 bytes. */
#define LONGEST_REPEATED 256
#define FEWEST_REPEATED 8
#define REPEATED_BITS (1 << 12)
/* What a thread must have to do to be worth waking: about 10 microseconds of work. */
#define MINIMUM_PER_THREAD (1 << 17)

/* Streaming stores save reading what is overwritten, but put the result into memory: worth it only
 * where it would not have stayed in the cache, and not in place: there the lines are read anyway. */
static fd_stores best_stores(const void *x, const void *out, int64_t bytes)
{
    if (x == out || bytes <= fd_cache_of_core_bytes()) {
        return FD_STORES_CACHED;
    }
    return fd_cache_of_core_bytes() < fd_last_level_cache_bytes() ? FD_STORES_STREAMED_AHEAD
                                                                  : FD_STORES_STREAMED;
}

typedef struct {
    const fd_kernels *kernels;
    const fd_stream *stream;
    uint64_t threshold;
    fd_dtype dtype;
    const char *x;
    char *out;
    int64_t n;
    double scale;
    fd_stores stores;
    uint8_t *bits;
} forward_pass;

static void forward_part(const void *context, int64_t task)
{
    const forward_pass *f = context;
    const int64_t from = task * TASK, bytes = from * fd_element_bytes(f->dtype);
    f->kernels->dropout[f->dtype](f->stream, f->threshold, (uint64_t)from,
                                  f->n - from < TASK ? f->n - from : TASK, f->x + bytes,
                                  f->out + bytes, f->scale, f->stores, f->bits + from / 8);
}

void fd_dropout_forward(const fd_stream *stream, uint64_t threshold, int keep_all, fd_dtype dtype,
                        const void *x, void *out, int64_t n, double scale, uint8_t *bits)
{
    const int64_t size = fd_element_bytes(dtype);
    if (keep_all || threshold == 0) {
        const int64_t shape = n, start = 0, stride = size, mask_stride = 1;
        fd_draw_bernoulli(stream, threshold, keep_all, 1, &shape, &start, &shape, bits);
        fd_apply_mask(dtype, 1, &shape, x, &stride, out, &stride, bits, &mask_stride, 1, scale);
        return;
    }
    const forward_pass f = {fd_active_kernels(), stream, threshold, dtype, x, out, n, scale,
                            best_stores(x, out, n * size), bits};
    fd_parallel(fd_threads_for(n, MINIMUM_PER_THREAD), (n + TASK - 1) / TASK, forward_part, &f);
}

typedef struct {
    const fd_kernels *kernels;
    fd_dtype dtype;
    char *x;
    int64_t n;
    const uint8_t *bits;
    double scale;
    uint8_t *gate;
} rectification;

static void rectify_part(const void *context, int64_t task)
{
    const rectification *r = context;
    const int64_t from = task * SMALL_TASK, left = r->n - from;
    r->kernels->rectify[r->dtype](r->x + from * fd_element_bytes(r->dtype),
                                  left < SMALL_TASK ? left : SMALL_TASK,
                                  r->bits ? r->bits + from / 8 : NULL, r->scale,
                                  r->gate + from / 8);
}

int64_t fd_rectify(fd_dtype dtype, void *x, int64_t n, const uint8_t *bits, double scale,
                   uint8_t *gate)
{
    const rectification r = {fd_active_kernels(), dtype, x, n, bits, scale, gate};
    fd_parallel(fd_threads_for(n, MINIMUM_RECTIFIED), (n + SMALL_TASK - 1) / SMALL_TASK,
                rectify_part, &r);
    const fd_units passing = {gate, 0, n};
    return fd_count_units(&passing);
}

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
    fd_stores stores;
} inner_loop;

#define STRIDED_LOOP(type, product)                                                  \
    for (int64_t i = 0; i < n; i++) {                                                \
        type value = 0;                                                              \
        if (fd_test_bit(loop->bits, bit + i * loop->mask)) {                         \
            value = product(*(const type *)(x + i * loop->x), loop->scale);          \
        }                                                                            \
        *(type *)(out + i * loop->out) = value;                                      \
    }

static void strided_inner(const inner_loop *loop, const char *x, char *out, int64_t n, int64_t bit)
{
    switch (loop->dtype) {
    case FD_FLOAT16:
        STRIDED_LOOP(uint16_t, f16_product_one)
        break;
    case FD_BFLOAT16:
        STRIDED_LOOP(uint16_t, bf16_product_one)
        break;
    case FD_FLOAT32:
        STRIDED_LOOP(float, f32_product_one)
        break;
    default:
        STRIDED_LOOP(double, f64_product_one)
    }
}

static void run_inner(const inner_loop *loop, const char *x, char *out, int64_t n, int64_t bit)
{
    const int64_t size = fd_element_bytes(loop->dtype);
    if (loop->x != size || loop->out != size || loop->mask > 1) {
        strided_inner(loop, x, out, n, bit);
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
    const int64_t piece = task % p->pieces, from = piece * TASK;
    const int64_t length = p->length - from < TASK ? p->length - from : TASK;
    const int64_t first = task / p->pieces * p->together, left = p->runs - first;
    run_place place = place_of_run(p->l, first, p->bit);
    for (int64_t run = 0; run < p->together && run < left; run++) {
        run_inner(loop, p->x + place.x + from * loop->x, p->out + place.out + from * loop->out, length,
                  place.bit + from * loop->mask);
        to_next_run(p->l, &place);
    }
}

/* Short rows that share their bits and follow each other in memory: as long runs, by bits repeated. */
typedef struct {
    inner_loop loop; /* its bits are the repeated ones */
    const char *x;
    char *out;
    int64_t total, length; /* elements of all, and of a run */
} repeated_pass;

static void repeated_part(const void *context, int64_t task)
{
    const repeated_pass *p = context;
    const int64_t from = task * p->length, left = p->total - from;
    run_inner(&p->loop, p->x + from * p->loop.x, p->out + from * p->loop.out,
              left < p->length ? left : p->length, 0);
}

static int repeats(const layout *l, const inner_loop *loop)
{
    const int64_t size = fd_element_bytes(loop->dtype);
    return l->axes == 2 && l->shape[0] >= FEWEST_REPEATED && l->shape[1] <= LONGEST_REPEATED &&
           l->mask[0] == 0 && l->mask[1] == 1 && loop->x == size && loop->out == size &&
           l->x[0] == l->shape[1] * size && l->out[0] == l->shape[1] * size;
}

static void apply_repeated(const layout *l, const inner_loop *loop, const char *x, char *out, int64_t bit)
{
    const int64_t length = l->shape[1], most = REPEATED_BITS / length;
    const int64_t together = l->shape[0] < most ? l->shape[0] : most;
    uint8_t row[LONGEST_REPEATED / 8 + 16], bits[REPEATED_BITS / 8 + 16]; /* fd_copy_bits reads on */
    for (int64_t i = 0; i < length; i += 64) {
        const uint64_t word = fd_load_bits_part(loop->bits, bit + i, length - i);
        memcpy(row + i / 8, &word, 8);
    }
    for (int64_t r = 0; r < together; r++) {
        fd_copy_bits(row, 0, bits, r * length, length);
    }
    repeated_pass p = {*loop, x, out, l->shape[0] * length, together * length};
    p.loop.bits = bits;
    fd_parallel(fd_threads_for(p.total, MINIMUM_PER_THREAD), (p.total + p.length - 1) / p.length,
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
    const int64_t together = length < TASK ? TASK / length : 1;
    const layout_pass p = {l,    loop, x,       out, bit, length, (length + TASK - 1) / TASK,
                           runs, together};
    const int64_t tasks = (runs + together - 1) / together * p.pieces;
    fd_parallel(fd_threads_for(runs * length, MINIMUM_PER_THREAD), tasks, layout_part, &p);
}

void fd_apply_mask(fd_dtype dtype, int dimensions, const int64_t *shape, const char *x,
                   const int64_t *x_strides, char *out, const int64_t *out_strides,
                   const uint8_t *bits, const int64_t *mask_strides, int64_t rows_per_mask,
                   double scale)
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
            .stores = best_stores(x, out, total * size),
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
