/* small.c: GEMM of a B that is not packed, which pays where B is small, or k, or the number of rows of A.
 *
 * Only A is packed, and masked, a micro-panel just before it is multiplied. Threads share the rows of A, or the
 * columns, of which there are more, unless their rows are short. */
#include <stdatomic.h>

#include "matmul/drivers.h"
#include "runtime/integers.h"

/* What a thread must have to do to be worth waking. */
#define MINIMUM_PRODUCTS (1 << 19)
/* Vectors of columns that all micro-panels of A are multiplied by before the next ones, KC steps of k: 120 KB, which
 * stay in the L2 cache. */
#define WINDOW_VECTORS 12
/* Vectors of columns that threads share: what the kernel of few rows takes at once. */
#define SHARED_VECTORS 4

typedef struct {
    const fd_product *product;
    const fd_kernels *kernels;
    int64_t rows, columns; /* of a task */
    int64_t parts;         /* that the columns are shared in */
    atomic_int failed, infinite;
} small_pass;

/* Rows [row, + rows) and columns [first, + columns) of C. The last two micro-panels share their rows: one row loads
 * as much of B as MR. Returns 0, or -1 without memory. */
static int multiply_unpacked(const small_pass *s, int64_t row, int64_t rows, int64_t first,
                             int64_t columns)
{
    const fd_product *p = s->product;
    const int64_t size = fd_element_bytes(p->dtype), lanes = s->kernels->lanes[p->dtype],
                  mr = s->kernels->mr;
    const int64_t window = rows > mr ? WINDOW_VECTORS * lanes : columns, held = columns > window;
    const int64_t micro_panel = mr * (FD_KC + lanes) * size;
    char *memory =
        fd_workspace(FD_SLOT_PANEL, (size_t)((held ? fd_divide_up(rows, mr) : 1) * micro_panel));
    if (memory == NULL) {
        return -1;
    }
    for (int64_t k = 0; k < p->k; k += FD_KC) {
        const int64_t kc = fd_smaller(p->k - k, FD_KC);
        for (int64_t j = 0; j < columns; j += window) {
            const char *b = (const char *)p->b.data + (k * p->b.row_stride + first + j) * size;
            char *c = (char *)p->c.data + (row * p->c.row_stride + first + j) * size,
                 *packed = memory;
            for (int64_t i = 0, count; i < rows; i += count, packed += held * micro_panel) {
                const int64_t left = rows - i;
                count = left > mr && left < 2 * mr ? (left + 1) / 2 : fd_smaller(left, mr);
                if (j == 0) {
                    s->kernels->pack_a_masked[p->dtype](p, row + i, count, k, kc, packed);
                }
                s->kernels->unpacked_kernel[p->dtype](
                    packed, count, kc, b, p->b.row_stride, fd_smaller(columns - j, window),
                    c + i * p->c.row_stride * size, p->c.row_stride, k == 0);
            }
        }
    }
    return 0;
}

static void multiply_part(const void *context, int64_t task)
{
    small_pass *s = (small_pass *)context;
    const fd_product *p = s->product;
    const int64_t row = task / s->parts * s->rows, first = task % s->parts * s->columns;
    const int64_t rows = fd_smaller(p->m - row, s->rows),
                  columns = fd_smaller(p->n - first, s->columns);
    if (multiply_unpacked(s, row, rows, first, columns) != 0) {
        s->failed = 1;
    } else if (p->k >= p->m) { /* else B is looked at, which is smaller */
        const int64_t start = (row * p->c.row_stride + first) * fd_element_bytes(p->dtype);
        const fd_matrix c = {(char *)p->c.data + start, p->c.row_stride, 1};
        if (!fd_matrix_is_finite(p->dtype, &c, rows, columns)) {
            s->infinite = 1;
        }
    }
}

int64_t fd_small_gemm(const fd_product *p, int *finite)
{
    const fd_kernels *kernels = fd_active_kernels();
    const int64_t mr = kernels->mr, shared = SHARED_VECTORS * kernels->lanes[p->dtype];
    const int threads = fd_threads_for(p->m * p->k * p->n, MINIMUM_PRODUCTS);
    const int short_rows = p->n * fd_element_bytes(p->dtype) <= FD_SHORT_ROW;
    const int by_columns = p->n > p->m && !(short_rows && p->m >= 2 * mr * threads);
    const int64_t share = fd_divide_up(fd_divide_up(p->m, mr), by_columns ? 1 : threads) * mr;
    small_pass s = {.product = p, .kernels = kernels, .rows = fd_smaller(share, FD_BLOCK_ROWS)};
    s.columns = by_columns ? fd_divide_up(fd_divide_up(p->n, shared), threads) * shared : p->n;
    s.parts = fd_divide_up(p->n, s.columns);
    fd_parallel(threads, fd_divide_up(p->m, s.rows) * s.parts, multiply_part, &s);
    if (p->k < p->m) {
        s.infinite = !fd_matrix_is_finite(p->dtype, &p->b, p->k, p->n);
    }
    *finite = !s.infinite;
    return s.failed ? -1 : p->m * p->n * p->k;
}
