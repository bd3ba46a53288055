"""The C kernels, bound: check nothing twice, release the GIL, call C.

``fastdrop.reference`` has the same functions, with the same arguments, in NumPy. They are not
public: callers have checked types, shapes, overlaps and alignment.
"""

import contextvars

import numpy

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cimport numpy as cnp

cnp.import_array()

cdef extern from "kernels.h" nogil:
    enum: FD_MAX_DIMENSIONS
    ctypedef enum fd_dtype:
        FD_FLOAT16
        FD_FLOAT32
        FD_FLOAT64
        FD_BFLOAT16
    ctypedef struct fd_stream:
        uint32_t key0
        uint32_t key1
        uint64_t draw
    int fd_level_count()
    const char *fd_level_name(int level)
    int fd_level_available(int level)
    int fd_select_level(int level)
    int fd_upper_halves_in_use()
    ctypedef struct fd_kernels:
        const char *name
    const fd_kernels *fd_active_kernels()
    int fd_has_threads()
    int fd_get_num_threads()
    void fd_set_num_threads(int threads)
    void fd_stop_threads()
    void fd_draw_bernoulli(const fd_stream *stream, uint64_t threshold, int keep_all,
                           int dimensions, const int64_t *shape, const int64_t *starts,
                           const int64_t *stops, uint8_t *bits)
    int fd_draw_exact_count(const fd_stream *stream, int64_t keep, int dimensions,
                            const int64_t *shape, const int64_t *starts, const int64_t *stops,
                            uint8_t *bits)
    void fd_dropout_forward(const fd_stream *stream, uint64_t threshold, int keep_all,
                            fd_dtype dtype, const void *x, void *out, int64_t n, double scale,
                            uint8_t *bits)
    void fd_apply_mask(fd_dtype dtype, int dimensions, const int64_t *shape, const char *x,
                       const int64_t *x_strides, char *out, const int64_t *out_strides,
                       const uint8_t *bits, const int64_t *mask_strides, int64_t rows_per_mask,
                       double scale)
    int64_t fd_rectify(fd_dtype dtype, void *x, int64_t n, const uint8_t *bits, double scale,
                       uint8_t *gate)
    ctypedef struct fd_affine:
        double scale
        double shift
        double dropped
    void fd_apply_affine(fd_dtype dtype, int dimensions, const int64_t *shape, const char *x,
                         const int64_t *x_strides, char *out, const int64_t *out_strides,
                         const uint8_t *bits, const int64_t *mask_strides, int64_t rows_per_mask,
                         const fd_affine *affine)
    ctypedef struct fd_residual:
        const void *x
        const void *bias
        const void *residual
        void *out
        int64_t rows
        int64_t width
        const uint8_t *bits
        double scale
    void fd_residual_forward(fd_dtype dtype, const fd_residual *call)
    int fd_residual_backward(fd_dtype dtype, const fd_residual *call, double *sums)
    ctypedef struct fd_softmax:
        const void *x
        int64_t rows
        int64_t width
        const uint8_t *attend
        const int64_t *attend_starts
        int64_t causal
        const uint8_t *bits
        double scale
        void *probabilities
        void *out
    void fd_softmax_forward(fd_dtype dtype, const fd_softmax *call)
    void fd_softmax_backward(fd_dtype dtype, const fd_softmax *call)
    ctypedef struct fd_blocks:
        int64_t maps
        int64_t extent[3]
        int64_t block[3]
    int64_t fd_drop_blocks(const fd_blocks *shape, const uint8_t *seeds, uint8_t *bits)
    ctypedef struct fd_units:
        const uint8_t *bits
        int64_t bit
        int64_t length
    int64_t fd_count_units(const fd_units *units)
    void fd_gather(fd_dtype dtype, const void *x, int64_t stride, const fd_units *rows,
                   const fd_units *columns, void *out)
    void fd_scatter(fd_dtype dtype, const void *x, const fd_units *rows, const fd_units *columns,
                    double scale, const void *bias, double bias_scale, int accumulate, void *out,
                    int64_t stride)
    ctypedef struct fd_matrix:
        void *data
        int64_t row_stride
        int64_t column_stride
    ctypedef struct fd_row_mask:
        const uint8_t *bits
        int64_t rows_per_mask
        double scale
        double keep
    ctypedef enum fd_method:
        FD_AUTO
    enum:
        FD_SKIP_ZEROS
        FD_SUM_ROWS
        FD_FUSED
        FD_MASKED_COLUMNS_OF_B
        FD_BLAS_FAILED
        FD_NO_GROUPS
        FD_TERMS
    ctypedef struct fd_product:
        fd_dtype dtype
        int flags
        fd_method method
        int64_t m
        int64_t n
        int64_t k
        fd_matrix a
        fd_matrix b
        fd_matrix c
        fd_row_mask mask_a
        fd_row_mask mask_b
        fd_row_mask mask_c
        const void *bias
        double nonzeros
        int (*blas)(void *context, const fd_product *product) noexcept
        void *context
    int64_t fd_matmul(const fd_product *product)
    fd_method fd_plan(const fd_product *product)
    int fd_plan_terms(const fd_product *product, fd_method method, double *terms)
    void fd_masked_sums(fd_dtype dtype, const void *x, int64_t stride, int64_t rows,
                        int64_t columns, const fd_row_mask *mask, void *out)
    ctypedef enum fd_rule_kind:
        FD_SGD
        FD_ADAM
    ctypedef struct fd_rule:
        fd_rule_kind kind
        double learning_rate
        double beta1
        double beta2
        double epsilon
        double weight_decay
        double max_norm
        int nesterov
        int decoupled
    ctypedef struct fd_weights:
        void *value
        void *first
        void *second
        void *top
        const void *gradient
        int compact
        fd_units rows
        fd_units columns
        const uint8_t *kept
        int64_t *row_counts
        int64_t *column_counts
        int64_t steps
        const double *table
    int fd_update(fd_dtype dtype, const fd_rule *rule, const fd_weights *weights)

cdef extern from "masks/noise.h" nogil:
    ctypedef enum fd_noise:
        FD_NORMAL
        FD_UNIFORM
    void fd_draw_noise(const fd_stream *stream, fd_noise noise, int dimensions,
                       const int64_t *shape, const int64_t *starts, const int64_t *stops,
                       float *out)
    void fd_apply_noise(const fd_stream *stream, fd_noise noise, fd_dtype dtype, const void *x,
                        void *out, int64_t n, double scale, int additive)

cdef extern from "runtime/cache.h" nogil:
    void fd_assume_first_level_cache(int64_t bytes)
    void fd_assume_cache_of_core(int64_t bytes)

cdef extern from *:
    """
    #if defined(__clang__)
    #define FD_COMPILER "Clang " __clang_version__
    #else
    #define FD_COMPILER "GCC " __VERSION__
    #endif
    """
    const char *FD_COMPILER


cdef struct window_t:
    int dimensions
    int64_t shape[FD_MAX_DIMENSIONS]
    int64_t starts[FD_MAX_DIMENSIONS]
    int64_t stops[FD_MAX_DIMENSIONS]


cdef int read_window(window_t *window, tuple shape, tuple starts, tuple stops) except -1:
    cdef Py_ssize_t axis
    window.dimensions = <int>len(shape)
    for axis in range(window.dimensions):
        window.shape[axis] = shape[axis]
        window.starts[axis] = starts[axis]
        window.stops[axis] = stops[axis]
    return 0


cdef inline fd_stream stream_of(uint32_t key0, uint32_t key1, uint64_t draw) noexcept:
    cdef fd_stream stream
    stream.key0 = key0
    stream.key1 = key1
    stream.draw = draw
    return stream


cdef inline fd_dtype dtype_of(cnp.ndarray x) except *:
    cdef int number = cnp.PyArray_TYPE(x)
    if number == cnp.NPY_FLOAT32:
        return FD_FLOAT32
    if number == cnp.NPY_FLOAT64:
        return FD_FLOAT64
    if number == cnp.NPY_FLOAT16:
        return FD_FLOAT16
    raise TypeError(f"x must be float16, float32 or float64, got {x.dtype}")


cdef inline fd_dtype dropout_dtype_of(cnp.ndarray x) except *:
    """The same for dropout, which knows bfloat16 as well: NumPy holds it as uint16."""
    if cnp.PyArray_TYPE(x) == cnp.NPY_UINT16:
        return FD_BFLOAT16
    return dtype_of(x)


cdef inline int split_threshold(object threshold, uint64_t *low) except -1:
    """The lower 64 bits of T; returns whether T is 2^64."""
    if threshold > 0xFFFFFFFFFFFFFFFF:
        low[0] = 0
        return 1
    low[0] = threshold
    return 0


def draw_bernoulli(uint32_t key0, uint32_t key1, uint64_t draw, threshold, tuple shape,
                   tuple starts, tuple stops, cnp.ndarray bits not None):
    cdef window_t window
    cdef uint64_t low
    cdef int keep_all = split_threshold(threshold, &low)
    cdef fd_stream stream = stream_of(key0, key1, draw)
    cdef uint8_t *data = <uint8_t *>cnp.PyArray_DATA(bits)
    read_window(&window, shape, starts, stops)
    with nogil:
        fd_draw_bernoulli(&stream, low, keep_all, window.dimensions, window.shape, window.starts,
                          window.stops, data)


def draw_bernoulli_rows(uint32_t key0, uint32_t key1, uint64_t draw, threshold, int64_t width,
                        cnp.ndarray bits not None):
    cdef uint64_t low
    cdef int keep_all = split_threshold(threshold, &low)
    cdef fd_stream stream = stream_of(key0, key1, draw)
    cdef int64_t start = 0
    cdef int64_t row, rows = cnp.PyArray_DIM(bits, 0), nbytes = cnp.PyArray_DIM(bits, 1)
    cdef uint8_t *data = <uint8_t *>cnp.PyArray_DATA(bits)
    with nogil:
        for row in range(rows):
            stream.draw = draw + row
            fd_draw_bernoulli(&stream, low, keep_all, 1, &width, &start, &width,
                              data + row * nbytes)


def draw_exact_count(uint32_t key0, uint32_t key1, uint64_t draw, int64_t keep, tuple shape,
                     tuple starts, tuple stops, cnp.ndarray bits not None):
    cdef window_t window
    cdef fd_stream stream = stream_of(key0, key1, draw)
    cdef uint8_t *data = <uint8_t *>cnp.PyArray_DATA(bits)
    cdef int failed
    read_window(&window, shape, starts, stops)
    with nogil:
        failed = fd_draw_exact_count(&stream, keep, window.dimensions, window.shape,
                                     window.starts, window.stops, data)
    if failed:
        raise MemoryError("no memory for the scratch rows of an exact-count mask")


def draw_noise(uint32_t key0, uint32_t key1, uint64_t draw, int noise, tuple shape, tuple starts,
               tuple stops, cnp.ndarray out not None):
    cdef window_t window
    cdef fd_stream stream = stream_of(key0, key1, draw)
    cdef float *data = <float *>cnp.PyArray_DATA(out)
    read_window(&window, shape, starts, stops)
    with nogil:
        fd_draw_noise(&stream, <fd_noise>noise, window.dimensions, window.shape, window.starts,
                      window.stops, data)


def apply_noise(cnp.ndarray x not None, uint32_t key0, uint32_t key1, uint64_t draw, int noise,
                double scale, bint additive, cnp.ndarray out not None):
    cdef fd_stream stream = stream_of(key0, key1, draw)
    cdef fd_dtype dtype = dtype_of(x)
    cdef const void *source = cnp.PyArray_DATA(x)
    cdef void *target = cnp.PyArray_DATA(out)
    cdef int64_t n = cnp.PyArray_SIZE(x)
    with nogil:
        fd_apply_noise(&stream, <fd_noise>noise, dtype, source, target, n, scale, additive)


cdef int draw_and_apply(cnp.ndarray x, fd_stream stream, threshold, double scale,
                        cnp.ndarray bits, cnp.ndarray out) except -1:
    cdef uint64_t low
    cdef int keep_all = split_threshold(threshold, &low)
    cdef fd_dtype dtype = dropout_dtype_of(x)
    cdef const void *source = cnp.PyArray_DATA(x)
    cdef void *target = cnp.PyArray_DATA(out)
    cdef uint8_t *data = <uint8_t *>cnp.PyArray_DATA(bits)
    cdef int64_t n = cnp.PyArray_SIZE(x)
    with nogil:
        fd_dropout_forward(&stream, low, keep_all, dtype, source, target, n, scale, data)
    return 0


def dropout_forward(cnp.ndarray x not None, uint32_t key0, uint32_t key1, uint64_t draw, threshold,
                    double scale, cnp.ndarray bits not None, cnp.ndarray out not None):
    draw_and_apply(x, stream_of(key0, key1, draw), threshold, scale, bits, out)


def dropout_fresh(uint32_t key0, uint32_t key1, uint64_t draw, cnp.ndarray x not None, threshold,
                  double scale, cnp.ndarray out):
    cdef cnp.npy_intp bytes_of_bits = (cnp.PyArray_SIZE(x) + 7) >> 3
    cdef cnp.ndarray bits = cnp.PyArray_EMPTY(1, &bytes_of_bits, cnp.NPY_UINT8, 0)
    if out is None:
        out = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    draw_and_apply(x, stream_of(key0, key1, draw), threshold, scale, bits, out)
    return out, bits


cdef struct layout_t:
    int dimensions
    int64_t shape[FD_MAX_DIMENSIONS]
    int64_t x_strides[FD_MAX_DIMENSIONS]
    int64_t out_strides[FD_MAX_DIMENSIONS]
    int64_t mask_strides[FD_MAX_DIMENSIONS]


cdef int read_layout(layout_t *layout, cnp.ndarray x, cnp.ndarray out, tuple mask_shape) except -1:
    cdef int64_t stride = 1, extent
    cdef int axis
    layout.dimensions = cnp.PyArray_NDIM(x)
    for axis in range(layout.dimensions - 1, -1, -1):
        layout.shape[axis] = cnp.PyArray_DIM(x, axis)
        layout.x_strides[axis] = cnp.PyArray_STRIDE(x, axis)
        layout.out_strides[axis] = cnp.PyArray_STRIDE(out, axis)
        extent = mask_shape[axis]
        layout.mask_strides[axis] = 0 if extent == 1 else stride
        stride *= extent
    return 0


def apply_mask(cnp.ndarray x not None, cnp.ndarray bits not None, tuple mask_shape,
               int64_t rows_per_mask, double scale, cnp.ndarray out not None):
    cdef layout_t layout
    cdef fd_dtype dtype = dropout_dtype_of(x)
    read_layout(&layout, x, out, mask_shape)
    cdef const char *source = <const char *>cnp.PyArray_DATA(x)
    cdef char *target = <char *>cnp.PyArray_DATA(out)
    cdef const uint8_t *data = <const uint8_t *>cnp.PyArray_DATA(bits)
    with nogil:
        fd_apply_mask(dtype, layout.dimensions, layout.shape, source, layout.x_strides, target,
                      layout.out_strides, data, layout.mask_strides, rows_per_mask, scale)


def apply_affine(cnp.ndarray x not None, cnp.ndarray bits not None, tuple mask_shape,
                 int64_t rows_per_mask, double scale, double shift, double dropped,
                 cnp.ndarray out not None):
    cdef layout_t layout
    cdef fd_affine affine
    cdef fd_dtype dtype = dropout_dtype_of(x)
    read_layout(&layout, x, out, mask_shape)
    affine.scale = scale
    affine.shift = shift
    affine.dropped = dropped
    cdef const char *source = <const char *>cnp.PyArray_DATA(x)
    cdef char *target = <char *>cnp.PyArray_DATA(out)
    cdef const uint8_t *data = <const uint8_t *>cnp.PyArray_DATA(bits)
    with nogil:
        fd_apply_affine(dtype, layout.dimensions, layout.shape, source, layout.x_strides, target,
                        layout.out_strides, data, layout.mask_strides, rows_per_mask, &affine)


def dropout_at(size_t x, int dtype, int64_t n, uint32_t key0, uint32_t key1, uint64_t draw,
               threshold, double scale, size_t bits, size_t out):
    cdef uint64_t low
    cdef int keep_all = split_threshold(threshold, &low)
    cdef fd_stream stream = stream_of(key0, key1, draw)
    with nogil:
        fd_dropout_forward(&stream, low, keep_all, <fd_dtype>dtype, <const void *>x, <void *>out, n,
                           scale, <uint8_t *>bits)


def apply_mask_at(size_t x, int dtype, int64_t n, size_t bits, double scale, size_t out):
    cdef int64_t stride = 2 if dtype == FD_BFLOAT16 else 2 << dtype, mask_stride = 1
    with nogil:
        fd_apply_mask(<fd_dtype>dtype, 1, &n, <const char *>x, &stride, <char *>out, &stride,
                      <const uint8_t *>bits, &mask_stride, 1, scale)


cdef inline const uint8_t *bits_of(cnp.ndarray bits) noexcept:
    if bits is None:
        return NULL
    return <const uint8_t *>cnp.PyArray_DATA(bits)


def rectify(cnp.ndarray x not None, cnp.ndarray bits, double scale, cnp.ndarray gate not None):
    cdef fd_dtype dtype = dtype_of(x)
    cdef void *data = cnp.PyArray_DATA(x)
    cdef int64_t n = cnp.PyArray_SIZE(x), passing
    cdef const uint8_t *kept = bits_of(bits)
    cdef uint8_t *passed = <uint8_t *>cnp.PyArray_DATA(gate)
    with nogil:
        passing = fd_rectify(dtype, data, n, kept, scale, passed)
    return passing


cdef inline const void *data_of(cnp.ndarray array) noexcept:
    if array is None:
        return NULL
    return cnp.PyArray_DATA(array)


cdef int64_t width_of(cnp.ndarray x) noexcept:
    """Length of the last axis."""
    return cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1) if cnp.PyArray_NDIM(x) else 1


cdef fd_residual residual_call(cnp.ndarray x, cnp.ndarray bits, double scale,
                               cnp.ndarray out) noexcept:
    cdef fd_residual call
    call.x = cnp.PyArray_DATA(x)
    call.bias = NULL
    call.residual = NULL
    call.out = cnp.PyArray_DATA(out)
    call.width = width_of(x)
    call.rows = cnp.PyArray_SIZE(x) // call.width if call.width else 0
    call.bits = bits_of(bits)
    call.scale = scale
    return call


def residual_forward(cnp.ndarray x not None, cnp.ndarray bias, cnp.ndarray residual not None,
                     cnp.ndarray bits, double scale, cnp.ndarray out not None):
    cdef fd_dtype dtype = dropout_dtype_of(x)
    cdef fd_residual call = residual_call(x, bits, scale, out)
    call.bias = data_of(bias)
    call.residual = cnp.PyArray_DATA(residual)
    with nogil:
        fd_residual_forward(dtype, &call)


def residual_backward(cnp.ndarray grad not None, cnp.ndarray bits, double scale,
                      cnp.ndarray out not None, cnp.ndarray sums not None):
    cdef fd_dtype dtype = dropout_dtype_of(grad)
    cdef fd_residual call = residual_call(grad, bits, scale, out)
    cdef double *totals = <double *>cnp.PyArray_DATA(sums)
    cdef int failed
    with nogil:
        failed = fd_residual_backward(dtype, &call, totals)
    if failed:
        raise MemoryError("no memory for the sums of the gradient's columns")


def softmax_forward(cnp.ndarray x not None, cnp.ndarray attend, cnp.ndarray attend_starts,
                    int64_t causal, cnp.ndarray bits, double scale,
                    cnp.ndarray probabilities not None, cnp.ndarray out not None):
    cdef fd_softmax call
    cdef fd_dtype dtype = dtype_of(x)
    call.x = cnp.PyArray_DATA(x)
    call.width = width_of(x)
    call.rows = cnp.PyArray_SIZE(x) // call.width if call.width else 0
    call.attend = bits_of(attend)
    call.attend_starts = <const int64_t *>data_of(attend_starts)
    call.causal = causal
    call.bits = bits_of(bits)
    call.scale = scale
    call.probabilities = cnp.PyArray_DATA(probabilities)
    call.out = cnp.PyArray_DATA(out)
    with nogil:
        fd_softmax_forward(dtype, &call)


def softmax_backward(cnp.ndarray grad not None, cnp.ndarray probabilities not None,
                     cnp.ndarray bits, double scale, cnp.ndarray out not None):
    cdef fd_softmax call
    cdef fd_dtype dtype = dtype_of(grad)
    call.x = cnp.PyArray_DATA(grad)
    call.width = width_of(grad)
    call.rows = cnp.PyArray_SIZE(grad) // call.width if call.width else 0
    call.attend = NULL
    call.attend_starts = NULL
    call.causal = 0
    call.bits = bits_of(bits)
    call.scale = scale
    call.probabilities = cnp.PyArray_DATA(probabilities)
    call.out = cnp.PyArray_DATA(out)
    with nogil:
        fd_softmax_backward(dtype, &call)


def drop_blocks(cnp.ndarray seeds not None, int64_t maps, tuple extent, tuple block,
                cnp.ndarray bits not None):
    cdef fd_blocks shape
    cdef const uint8_t *source = <const uint8_t *>cnp.PyArray_DATA(seeds)
    cdef uint8_t *target = <uint8_t *>cnp.PyArray_DATA(bits)
    cdef int64_t kept
    cdef int axis
    shape.maps = maps
    for axis in range(3):
        shape.extent[axis] = extent[axis]
        shape.block[axis] = block[axis]
    with nogil:
        kept = fd_drop_blocks(&shape, source, target)
    if kept < 0:
        raise MemoryError("no memory for the rows of blocks")
    return kept


cdef inline fd_units units_of(object units, int64_t length) except *:
    """Packed bits of an axis and the number of the first one, or None: all."""
    cdef fd_units found
    found.bits = NULL
    found.bit = 0
    found.length = length
    if units is not None:
        bits, found.bit = units
        found.bits = bits_of(bits)
    return found


cdef inline int64_t stride_of(cnp.ndarray x, int axis) noexcept:
    """Stride in elements."""
    return cnp.PyArray_STRIDE(x, axis) // cnp.PyArray_ITEMSIZE(x)


def gather(cnp.ndarray x not None, rows, columns, cnp.ndarray out not None):
    cdef fd_units row_units = units_of(rows, cnp.PyArray_DIM(x, 0))
    cdef fd_units column_units = units_of(columns, cnp.PyArray_DIM(x, 1))
    cdef fd_dtype dtype = dtype_of(x)
    cdef int64_t stride = stride_of(x, 0)
    cdef const void *source = cnp.PyArray_DATA(x)
    cdef void *target = cnp.PyArray_DATA(out)
    with nogil:
        fd_gather(dtype, source, stride, &row_units, &column_units, target)


def scatter(cnp.ndarray x not None, rows, columns, cnp.ndarray out not None, *,
            double scale=1.0, cnp.ndarray bias=None, double bias_scale=1.0, bint accumulate=False):
    cdef fd_units row_units = units_of(rows, cnp.PyArray_DIM(out, 0))
    cdef fd_units column_units = units_of(columns, cnp.PyArray_DIM(out, 1))
    cdef fd_dtype dtype = dtype_of(x)
    cdef int64_t stride = stride_of(out, 0)
    cdef const void *source = cnp.PyArray_DATA(x)
    cdef const void *added = data_of(bias)
    cdef void *target = cnp.PyArray_DATA(out)
    with nogil:
        fd_scatter(dtype, source, &row_units, &column_units, scale, added, bias_scale, accumulate,
                   target, stride)


# Matrix products.


# Where no error of arithmetic is told: of dropped numbers nobody wants to hear. To enter a copy of
# it takes a fifth of the time that numpy.errstate does.
cdef object quiet = contextvars.Context()
quiet.run(numpy.seterr, all="ignore")
cdef object blas_product = numpy.matmul
# In the order of fd_method.
cdef tuple METHODS = ("auto", "compact", "skip", "dense", "packed", "small")


cdef fd_method method_of(str name) except *:
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    return <fd_method>METHODS.index(name)


cdef inline bint has_rows(cnp.ndarray x) noexcept:
    """Whether rows are contiguous and apart; a single element is contiguous in any case."""
    cdef int64_t size = cnp.PyArray_ITEMSIZE(x), row = cnp.PyArray_STRIDE(x, 0)
    cdef int64_t rows = cnp.PyArray_DIM(x, 0), columns = cnp.PyArray_DIM(x, 1)
    return cnp.PyArray_SIZE(x) == 0 or (
        (columns <= 1 or cnp.PyArray_STRIDE(x, 1) == size)
        and (rows <= 1 or (row >= columns * size and row % size == 0)))


cdef inline bint has_columns(cnp.ndarray x) noexcept:
    cdef int64_t size = cnp.PyArray_ITEMSIZE(x), column = cnp.PyArray_STRIDE(x, 1)
    cdef int64_t rows = cnp.PyArray_DIM(x, 0), columns = cnp.PyArray_DIM(x, 1)
    return cnp.PyArray_SIZE(x) == 0 or (
        (rows <= 1 or cnp.PyArray_STRIDE(x, 0) == size)
        and (columns <= 1 or (column >= rows * size and column % size == 0)))


cdef inline fd_matrix matrix_of(cnp.ndarray x) noexcept:
    cdef fd_matrix matrix
    matrix.data = cnp.PyArray_DATA(x)
    matrix.row_stride, matrix.column_stride = stride_of(x, 0), stride_of(x, 1)
    # Where an axis has one element or none, strides may be anything.
    if cnp.PyArray_DIM(x, 1) <= 1 or cnp.PyArray_SIZE(x) == 0:
        matrix.column_stride = 1
    return matrix


cdef fd_row_mask mask_of(object mask, bint fused=False) except *:
    cdef fd_row_mask found
    found.bits = NULL
    found.rows_per_mask = 1
    found.scale = 1.0
    found.keep = 1.0
    if mask is not None:
        found.bits = bits_of(mask.bits)
        found.rows_per_mask = mask.rows_per_mask
        found.scale = 1.0 if fused else mask.scale
        found.keep = -1.0 if mask.keep_prob is None else mask.keep_prob
    return found


@cython.auto_pickle(False)  # they hold addresses
@cython.final
cdef class Product:
    cdef fd_product product
    cdef object masks, error
    cdef readonly cnp.ndarray a, b, c, bias

    def __cinit__(self, cnp.ndarray a not None, cnp.ndarray b not None, cnp.ndarray c not None, *,
                  mask_a=None, mask_b=None, mask_c=None, cnp.ndarray bias=None,
                  bint skip_zeros=False, bint sum_rows=False, bint fused=False,
                  bint columns_of_b=False, double nonzeros=-1.0, str method="auto"):
        cdef fd_product *p = &self.product
        cdef cnp.ndarray x
        cdef bint of_weights = (mask_c if sum_rows else mask_b) is not None
        p.dtype = dtype_of(a)
        for x in (a, b, c):
            if cnp.PyArray_NDIM(x) != 2 or cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(a):
                raise TypeError(f"a, b and c must be matrices of one dtype, got {x.dtype}")
            if not cnp.PyArray_ISNOTSWAPPED(x):
                raise TypeError("a, b and c must be of the machine's byte order")
        p.m, p.k, p.n = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), cnp.PyArray_DIM(b, 1)
        if (cnp.PyArray_DIM(b, 0) != p.k or cnp.PyArray_DIM(c, 0) != p.m
                or cnp.PyArray_DIM(c, 1) != p.n):
            shapes = [(<object>x).shape for x in (a, b, c)]
            raise ValueError(f"a, b and c must have shapes (m, k), (k, n), (m, n), got {shapes}")
        if not (has_rows(c) and cnp.PyArray_ISALIGNED(c)):
            raise ValueError("c must be aligned and have contiguous rows")
        if not cnp.PyArray_ISALIGNED(a) or not (has_columns(a) if sum_rows else has_rows(a)):
            a = a.T.copy().T if sum_rows else a.copy()
        if of_weights and fused:
            raise ValueError("a fused product has no mask of weights")
        if mask_b is not None and not sum_rows and method not in ("auto", "dense", "packed"):
            raise ValueError(f"method {method!r} takes no mask of weights; use 'auto' or 'dense'")
        if not cnp.PyArray_ISALIGNED(b) or not (
                has_columns(b) if columns_of_b else
                has_rows(b) or (has_columns(b) and not sum_rows and mask_b is None)):
            b = b.T.copy().T if columns_of_b else b.copy()
        self.a, self.b, self.c, self.bias = a, b, c, bias
        self.masks = (mask_a, mask_b, mask_c)  # whose bits stay where they are
        p.a, p.b, p.c = matrix_of(a), matrix_of(b), matrix_of(c)
        p.mask_a, p.mask_b = mask_of(mask_a, fused), mask_of(mask_b, fused)
        p.mask_c = mask_of(mask_c, fused)
        p.bias = data_of(bias)
        p.flags = (FD_SKIP_ZEROS * skip_zeros) | (FD_SUM_ROWS * sum_rows) | (FD_FUSED * fused)
        p.flags |= FD_MASKED_COLUMNS_OF_B * columns_of_b
        p.nonzeros = nonzeros
        p.method = method_of(method)
        p.blas = multiply_by_blas
        p.context = <void *>self


cdef cnp.ndarray as_given(cnp.ndarray given, const fd_matrix *matrix):
    """The array of a matrix that is the one given, or a masked copy of it."""
    cdef cnp.npy_intp shape[2]
    cdef int transposed = matrix.column_stride != 1 and cnp.PyArray_DIM(given, 1) > 1
    if matrix.data == cnp.PyArray_DATA(given):
        return given
    shape[transposed], shape[1 - transposed] = cnp.PyArray_DIM(given, 0), cnp.PyArray_DIM(given, 1)
    copy = cnp.PyArray_SimpleNewFromData(2, shape, cnp.PyArray_TYPE(given), matrix.data)
    return copy.T if transposed else copy


cdef int multiply_by_blas(void *context, const fd_product *plain) noexcept with gil:
    cdef Product product = <Product>context
    try:
        a, b = as_given(product.a, &plain.a), as_given(product.b, &plain.b)
        quiet.copy().run(blas_product, a, b, product.c)
    except BaseException as error:
        product.error = error
        return -1
    return 0


def matmul(Product product not None):
    cdef int64_t products
    with nogil:
        products = fd_matmul(&product.product)
    if products >= 0:
        return products
    if products == FD_BLAS_FAILED:
        raise product.error
    if products == FD_NO_GROUPS:
        raise ValueError(
            "method 'compact' needs masks shared by the same groups of rows; use 'auto' or 'skip'"
        )
    raise MemoryError("no memory for the operands of a matrix product")


def plan(Product product not None):
    return METHODS[fd_plan(&product.product)]


def plan_terms(Product product not None, str method):
    """What a method's time is made of, as `fd_plan_terms` says it; None if it is not possible."""
    cdef double terms[FD_TERMS]
    if not fd_plan_terms(&product.product, method_of(method), terms):
        return None
    return tuple(terms[i] for i in range(FD_TERMS))


def masked_sums(cnp.ndarray x not None, mask, cnp.ndarray out not None):
    if not (has_rows(x) and cnp.PyArray_ISALIGNED(x)):
        x = x.copy()
    cdef fd_row_mask rows_mask = mask_of(mask)
    cdef fd_dtype dtype = dtype_of(x)
    cdef const void *source = cnp.PyArray_DATA(x)
    cdef int64_t stride = stride_of(x, 0)
    cdef int64_t rows = cnp.PyArray_DIM(x, 0), columns = cnp.PyArray_DIM(x, 1)
    cdef void *target = cnp.PyArray_DATA(out)
    with nogil:
        fd_masked_sums(dtype, source, stride, rows, columns, &rows_mask, target)


cdef inline bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two contiguous arrays do not overlap."""
    cdef const char *first = cnp.PyArray_BYTES(a)
    cdef const char *second = cnp.PyArray_BYTES(b)
    return first + cnp.PyArray_NBYTES(a) <= second or second + cnp.PyArray_NBYTES(b) <= first


def surely_apart(tuple results, tuple operands):
    cdef Py_ssize_t i, j
    cdef cnp.ndarray result
    for i in range(len(results)):
        if not (cnp.PyArray_CheckExact(results[i]) and cnp.PyArray_ISONESEGMENT(results[i])):
            return False
        result = results[i]
        for j in range(len(operands)):
            if not (cnp.PyArray_CheckExact(operands[j])
                    and cnp.PyArray_ISONESEGMENT(operands[j])
                    and apart(result, operands[j])):
                return False
        for j in range(i):
            if not apart(result, results[j]):
                return False
    return True


cdef inline bint is_plain_matrix(object x) noexcept:
    return cnp.PyArray_CheckExact(x) and cnp.PyArray_NDIM(x) == 2 and cnp.PyArray_ISCARRAY_RO(x)


def plain_operands(x, w, out):
    """Whether nothing has to be checked or converted: C-contiguous matrices of one dtype that fit.

    `out` is one of them, writeable and apart from the others, or None.
    """
    cdef int kind
    if not (is_plain_matrix(x) and is_plain_matrix(w)):
        return False
    kind = cnp.PyArray_TYPE(x)
    if not ((kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64) and cnp.PyArray_TYPE(w) == kind
            and cnp.PyArray_DIM(x, 1) == cnp.PyArray_DIM(w, 0)):
        return False
    return out is None or (
        is_plain_matrix(out) and cnp.PyArray_ISWRITEABLE(out) and cnp.PyArray_TYPE(out) == kind
        and cnp.PyArray_DIM(out, 0) == cnp.PyArray_DIM(x, 0)
        and cnp.PyArray_DIM(out, 1) == cnp.PyArray_DIM(w, 1) and apart(out, x) and apart(out, w))


# Masked updates.


@cython.auto_pickle(False)
@cython.final
cdef class Update:
    cdef fd_weights weights
    cdef fd_rule rule
    cdef fd_dtype dtype
    cdef object arrays

    def __cinit__(self, cnp.ndarray value not None, cnp.ndarray gradient not None, *,
                  rows=None, columns=None, kept=None, bint compact=False, double learning_rate,
                  cnp.ndarray first=None, cnp.ndarray second=None, cnp.ndarray top=None,
                  cnp.ndarray row_counts=None, cnp.ndarray column_counts=None, int64_t steps=0,
                  cnp.ndarray table=None, double momentum=0.0, bint nesterov=False,
                  double beta1=0.0, double beta2=0.0, double epsilon=0.0,
                  double weight_decay=0.0, bint decoupled=False, double max_norm=INFINITY):
        cdef fd_weights *w = &self.weights
        cdef int64_t n_rows = cnp.PyArray_DIM(value, 0), n_columns = cnp.PyArray_DIM(value, 1)
        self.dtype = dtype_of(value)
        self.arrays = (value, gradient, rows, columns, kept, first, second, top, row_counts,
                       column_counts, table)
        w.value = cnp.PyArray_DATA(value)
        w.gradient = cnp.PyArray_DATA(gradient)
        w.compact = compact
        w.rows = units_of(rows, n_rows)
        w.columns = units_of(columns, n_columns)
        w.kept = NULL
        if kept is not None:
            if columns is not None or compact:
                raise ValueError("a mask of weights goes with all columns and a full gradient")
            w.kept = units_of((kept, 0), n_rows * n_columns).bits
        if compact:
            n_rows, n_columns = fd_count_units(&w.rows), fd_count_units(&w.columns)
        if cnp.PyArray_DIM(gradient, 0) != n_rows or cnp.PyArray_DIM(gradient, 1) != n_columns:
            raise ValueError(
                f"gradient must have shape {(n_rows, n_columns)}, got {(<object>gradient).shape}"
            )
        w.first = <void *>data_of(first)
        w.second = <void *>data_of(second)
        w.top = <void *>data_of(top)
        w.row_counts = <int64_t *>data_of(row_counts)
        w.column_counts = <int64_t *>data_of(column_counts)
        w.steps = steps
        w.table = <const double *>data_of(table)
        self.rule.kind = FD_SGD if second is None else FD_ADAM
        self.rule.learning_rate = learning_rate
        self.rule.beta1 = momentum if second is None else beta1
        self.rule.beta2 = beta2
        self.rule.epsilon = epsilon
        self.rule.weight_decay = weight_decay
        self.rule.max_norm = max_norm
        self.rule.nesterov = nesterov
        self.rule.decoupled = decoupled


def update(Update update not None):
    cdef int failed
    with nogil:
        failed = fd_update(update.dtype, &update.rule, &update.weights)
    if failed:
        raise MemoryError("no memory for the bias corrections of an update")


# Threads, instruction sets and what was built.


def get_num_threads():
    return fd_get_num_threads()


def set_num_threads(n):
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an int, got {type(n).__name__}")
    if not 1 <= n <= 4096:
        raise ValueError(f"n must be between 1 and 4096, got {n}")
    fd_set_num_threads(n)


def stop_threads():
    with nogil:
        fd_stop_threads()


def select_isa(name):
    cdef int level
    names = [fd_level_name(level).decode() for level in range(fd_level_count())]
    if name not in names:
        raise ValueError(f"name must be one of {', '.join(names)}, got {name!r}")
    if fd_select_level(names.index(name)) != 0:
        raise ValueError(f"this machine does not have the instruction set {name!r}")


def upper_halves_in_use():
    """Whether vector code left its registers as SSE code should not find them; for tests.

    None where that cannot be told.
    """
    cdef int in_use = fd_upper_halves_in_use()
    return None if in_use < 0 else bool(in_use)


def assume_first_level_cache(int64_t size):
    """Cut products for a first-level data cache of so many bytes; 0: the real one. For tests."""
    fd_assume_first_level_cache(size)


def assume_cache_of_core(int64_t size):
    """Stream results of more bytes past the caches; 0: of more than a core can keep. For tests."""
    fd_assume_cache_of_core(size)


def isa_used():
    """The instruction set in use; cheap, unlike `build_info`, which asks the processor."""
    return fd_active_kernels().name.decode()


def build_info():
    cdef int level
    return {
        "isa_available": tuple(
            fd_level_name(level).decode()
            for level in range(fd_level_count())
            if fd_level_available(level)
        ),
        "isa_used": isa_used(),
        "threads": bool(fd_has_threads()),
        "compiler": FD_COMPILER.decode(),
        "backend": "c",
    }
