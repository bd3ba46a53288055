/* plan.c: which driver a product takes.
 *
 * Each driver's time is a sum of terms: what a call takes, multiply-adds, elements of B that are packed,
 * elements of A that are looked at, elements of C that are stored, and what lies behind the L2 cache. A row of
 * numbers for each instruction set says what an element of each term takes. They depend on shapes, masks and
 * densities alone: the same call takes the same driver, and gives the same bits, in every run. tools/fit_costs.py
 * measures products on a machine and writes the rows. */
#include <math.h>
#include <string.h>

#include "matmul/drivers.h"
#include "runtime/cache.h"
#include "runtime/integers.h"

/* Nanoseconds of one thread, float32; float64 moves twice the bytes and counts twice. */
typedef struct {
    const char *name;
    double gemm;  /* a multiply-add of our GEMM */
    double spmm;  /* a multiply-add of SpMM */
    double pack;  /* an element of B packed */
    double scan;  /* an element of A looked at for SpMM's lists */
    double store; /* an element of C */
    double blas;  /* multiply-adds from which a BLAS is faster than our GEMM of everything */
} costs;

/* Fitted to products measured on an Intel Xeon (Emerald Rapids, AVX-512); NEON's are scaled. Of 1,655 products
 * that tools/fit_costs.py measured there on one thread, what the plan chooses takes 3 % longer than the fastest
 * method in the geometric mean, sums over rows 13 %. */
static const costs COSTS[] = {
    {"avx512", 0.0121, 0.0138, 0.14, 0.44, 0.19, 1e5},
    {"avx2", 0.0275, 0.0268, 0.17, 0.64, 0.22, 1e5},
    {"baseline", 0.0405, 0.0720, 0.20, 0.90, 0.36, 1e5},
    {"neon", 0.0390, 0.0430, 0.20, 0.90, 0.36, 1e5},
};

/* What a call takes, ours and a BLAS's with its masked copy; a group of rows with units of its own. */
#define CALL 400.0
#define CALL_BLAS 1600.0
#define GROUP 70.0
/* A row of A: its list begun and ended in every panel; or packed. */
#define SPMM_ROW 23.0
#define SPMM_PANEL 12.0
#define GEMM_ROW 6.0
/* Parts of `scan`: an element of A packed, and masked while it is packed. */
#define PACKED_A 0.22
#define MASKED_A 0.13
/* Times `pack`: an element that is looked at where columns are gathered. */
#define GATHERED_B 1.8
/* The small GEMM: parts of `gemm` that a row takes, and the loads of B that a group of rows shares; and of
 * `store`, an element of C in every block of depth. */
#define SMALL_ROW 0.54
#define SMALL_LOADS 3.7
#define SMALL_STORE 0.5
/* Times `spmm`: of a skinny product, which B is not packed for. */
#define SKINNY 3.6
/* Parts of `store`: an element of a sum of groups that is cleared or read, and one group's part of it. */
#define SUM_ELEMENT 0.2
#define SUM_PART 0.7
/* What sums over rows take longer: they are short, and travel between registers and tiles. */
#define SUM_ROWS_TIMES 1.5
/* An element of B or C from behind the L2 cache, and the part of the cache that is for others. */
#define FAR 0.12
#define OTHERS_SHARE 0.35
/* A BLAS's time, as a part of what our GEMM of everything takes; and what it has to be faster by where kernels
 * on several threads follow: its threads go on looking for work (OpenBLAS's for 2^26 ticks of the clock), so
 * that the kernels have the caller's core only. */
#define BLAS_PART 0.94
#define BLAS_SPINS 2.0

#define COLUMNS 16       /* a vector of the widest */
#define ROWS 8           /* of a micro-panel of A */
#define PANEL_COLUMNS 80 /* of SpMM */
#define SMALLEST_GROUP 4
/* Elements of A that are looked at for its zeros: of a large A, rows at equal distances. */
#define SAMPLE (1 << 13)

static double rounded_up(double n, double unit) { return ceil(n / unit) * unit; }

/* Elements of a matrix that lie behind the L2 cache. */
static double far_elements(const fd_product *p, double elements)
{
    const double full =
        elements * (double)fd_element_bytes(p->dtype) / (double)fd_second_level_cache_bytes();
    return elements * fmin(fmax(full / (1 - OTHERS_SHARE) - 1, 0), 1);
}

/* The share of elements that a mask keeps. */
static double kept_share(const fd_row_mask *mask, int64_t rows, int64_t width)
{
    if (mask->bits == NULL || rows == 0 || width == 0 || mask->keep >= 0) {
        return mask->bits && mask->keep >= 0 ? mask->keep : 1;
    }
    const int64_t bits = fd_divide_up(rows, mask->rows_per_mask) * width;
    const fd_units all = {mask->bits, 0, bits};
    return (double)fd_count_units(&all) / (double)bits;
}

/* The share of the elements of A that are not 0, of a sample. */
static double nonzero_share(const fd_product *p)
{
    const int sum_rows = (p->flags & FD_SUM_ROWS) != 0;
    const int64_t rows = fd_masked_rows_of(p), columns = sum_rows ? p->m : p->k;
    const int64_t stride = sum_rows ? p->a.column_stride : p->a.row_stride;
    if (p->nonzeros >= 0 || rows == 0 || columns == 0) {
        return fmax(p->nonzeros, 0);
    }
    const int64_t every = fd_smaller(fd_larger(rows * columns / SAMPLE, 1), rows);
    const int64_t found = fd_count_nonzeros(p->dtype, p->a.data, stride, rows, columns, every);
    return (double)found / ((double)fd_divide_up(rows, every) * (double)columns);
}

/* What a product is, as far as costs depend on it. */
typedef struct {
    const fd_product *p;
    double m, n, k, rows;  /* rows that masks are about */
    double kept_a, kept_c; /* shares; of B where rows are summed */
    double stored;         /* share of the elements of A that SpMM multiplies */
    double group, groups;  /* rows that share units; 0 where there are none */
    double far_b, far_c;   /* elements behind the L2 cache */
} shape;

static shape shape_of(const fd_product *p)
{
    const int64_t rows = fd_masked_rows_of(p), group = fd_group_rows(p);
    const double nonzeros = p->flags & FD_SKIP_ZEROS ? nonzero_share(p) : 1;
    shape s = {
        .p = p, .m = (double)p->m, .n = (double)p->n, .k = (double)p->k, .rows = (double)rows};
    s.kept_a = kept_share(&p->mask_a, rows, p->flags & FD_SUM_ROWS ? p->m : p->k);
    s.kept_c = kept_share(fd_second_mask(p), rows, p->n);
    s.stored = p->flags & FD_FUSED ? nonzeros : nonzeros * s.kept_a;
    s.group = group >= SMALLEST_GROUP || group == rows ? (double)group : 0;
    s.groups = s.group > 0 ? ceil(s.rows / s.group) : 0;
    s.far_b = far_elements(p, s.k * s.n);
    s.far_c = far_elements(p, s.m * s.n);
    return s;
}

/* A sum of terms: times the row of an instruction set it is nanoseconds. */
typedef struct {
    double calls, gemm, spmm, pack, scan, store, far;
} terms;

static terms gathered_terms(const shape *s, double kept_a, double kept_c, double group, int masked)
{
    const double groups = ceil(s->rows / group), passes = groups * ceil(group / FD_BLOCK_ROWS);
    if (s->p->flags & FD_SUM_ROWS) {
        return (terms){
            .calls = CALL + groups * GROUP,
            .gemm = SUM_ROWS_TIMES * s->m * kept_a * rounded_up(s->n * kept_c, COLUMNS) * s->rows,
            .pack = SUM_ROWS_TIMES * s->rows * (2 * s->m * kept_a + s->n),
            .store = SUM_ROWS_TIMES * s->m * s->n * (SUM_ELEMENT + SUM_PART * groups * kept_a),
        };
    }
    const double whole = floor(s->m / group),
                 filled = whole * rounded_up(group, ROWS) + rounded_up(s->m - whole * group, ROWS);
    return (terms){
        .calls = CALL + groups * GROUP + s->m * GEMM_ROW,
        .gemm = filled * s->k * kept_a * rounded_up(s->n * kept_c, COLUMNS),
        .pack = passes * s->k * kept_a * s->n * (kept_c < 1 ? GATHERED_B : 1),
        .scan = s->m * s->k * (PACKED_A + (masked ? MASKED_A : 0)),
        .store = s->m * (s->n + (s->p->n % COLUMNS ? COLUMNS : 0)),
        .far = passes * kept_a * s->far_b + s->far_c,
    };
}

static terms small_terms(const shape *s)
{
    const double columns = rounded_up(s->n, COLUMNS), groups = ceil(s->m / ROWS);
    const double blocks = ceil(s->k / FD_KC);
    return (terms){
        .calls = CALL / 2 + s->m * GEMM_ROW / 2,
        .gemm = s->k * columns * (s->m * SMALL_ROW + groups * SMALL_LOADS),
        .scan = s->m * s->k * PACKED_A / 2,
        .store = s->m * columns * blocks * SMALL_STORE,
        .far = ceil(s->m / FD_BLOCK_ROWS) * s->far_b + blocks * s->far_c,
    };
}

static terms spmm_terms(const shape *s)
{
    const double columns = rounded_up(s->n, COLUMNS), products = s->m * s->k * columns * s->stored;
    if (fd_skinny_takes(s->p)) {
        return (terms){.calls = CALL,
                       .spmm = SKINNY * products,
                       .scan = s->m * s->k,
                       .store = 2 * s->m * columns,
                       .far = s->stored * s->far_b};
    }
    const double panels = ceil(s->k / FD_SPMM_KC) * ceil(s->n / PANEL_COLUMNS);
    const double passes = ceil(s->m / FD_BLOCK_ROWS);
    return (terms){
        .calls = CALL + s->m * (SPMM_ROW + panels * SPMM_PANEL),
        .spmm = products,
        .pack = passes * s->k * s->n,
        .scan = s->m * s->k,
        .far = passes * s->far_b + s->far_c / 2,
    };
}

/* The terms of a method; returns whether it can compute the product. */
static int terms_of(const shape *s, fd_method method, terms *t)
{
    const fd_product *p = s->p;
    const int masked = p->mask_a.bits && !(p->flags & FD_FUSED);
    const double rows = fmax(s->rows, 1);
    switch (method) {
    case FD_GATHERED:
        *t = gathered_terms(s, s->kept_a, s->kept_c, fmax(s->group, 1), 0);
        return s->group > 1 && (p->mask_a.bits || fd_second_mask(p)->bits);
    case FD_SPMM:
        *t = spmm_terms(s);
        return p->mask_a.bits || p->flags & FD_SKIP_ZEROS;
    case FD_SMALL:
        *t = small_terms(s);
        return fd_small_takes(p);
    case FD_PACKED:
        *t = gathered_terms(s, 1, 1, rows, masked);
        return 1;
    default: /* a BLAS takes as long as our GEMM, but for a part, from some size on */
        *t = gathered_terms(s, 1, 1, rows, masked);
        t->calls += CALL_BLAS;
        return p->blas != NULL;
    }
}

static const costs *costs_of_level(void)
{
    const costs *c = COSTS;
    while (c < COSTS + sizeof COSTS / sizeof *COSTS - 1 &&
           strcmp(c->name, fd_active_kernels()->name) != 0) {
        c++;
    }
    return c;
}

static double planned_time(const shape *s, fd_method method, const terms *t)
{
    const costs *c = costs_of_level();
    const double elements = t->gemm * c->gemm + t->spmm * c->spmm + t->pack * c->pack +
                            t->scan * c->scan + t->store * c->store + t->far * FAR;
    const double time = t->calls + elements * (double)fd_element_bytes(s->p->dtype) / 4;
    if (method != FD_DENSE) {
        return time;
    }
    const int spins = s->p->flags & FD_FUSED && fd_get_num_threads() > 1;
    const double part = BLAS_PART / (s->p->flags & FD_SUM_ROWS ? SUM_ROWS_TIMES : 1);
    return s->m * s->n * s->k < c->blas ? INFINITY : time * part * (spins ? BLAS_SPINS : 1);
}

fd_method fd_plan(const fd_product *p)
{
    const int plain = !p->mask_a.bits && !p->mask_b.bits && !fd_second_mask(p)->bits &&
                      !(p->flags & (FD_SKIP_ZEROS | FD_FUSED));
    if (plain && p->blas) {
        return FD_DENSE;
    }
    if (p->m == 0 || p->n == 0 || p->k == 0) {
        return FD_SPMM; /* of nothing: sums are zero */
    }
    if (fd_masked_weights(p)) {
        return FD_PACKED;
    }
    const shape s = shape_of(p);
    double least = INFINITY;
    fd_method best = FD_PACKED;
    for (fd_method method = FD_GATHERED; method < FD_METHODS; method++) {
        terms t;
        const double time = terms_of(&s, method, &t) ? planned_time(&s, method, &t) : INFINITY;
        if (time < least) {
            least = time;
            best = method;
        }
    }
    return best;
}

int fd_plan_terms(const fd_product *p, fd_method method, double *found)
{
    const shape s = shape_of(p);
    terms t;
    const int possible = terms_of(&s, method, &t);
    memcpy(found, &t, sizeof t);
    return possible;
}
