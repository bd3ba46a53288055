"""The C kernels, bound: check nothing twice, release the GIL, call C.

``fastdrop.reference`` has the same functions, with the same arguments, in NumPy. They are not
public: callers have checked types, shapes, overlaps and alignment.
"""

import contextvars

import numpy

from libc.math cimport rint
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

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
    enum: FD_SLOT_MASKED
    void *fd_workspace(int slot, size_t bytes)
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
    ctypedef struct skip_operand:
        const void *data
        int64_t stride
        int64_t rows
        int64_t depth
        int transposed
        int skip_zeros
        const uint8_t *bits
        int64_t rows_per_mask
    ctypedef struct skip_weights:
        const void *data
        int64_t stride
        int64_t depth
        int64_t columns
        int transposed
        const uint8_t *bits
        int64_t rows_per_mask
    ctypedef struct skip_result:
        void *data
        int64_t stride
        int64_t columns
        double scale
        double bias_scale
        const void *bias
        const uint8_t *bits
        int64_t rows_per_mask
    int64_t fd_skip_matmul(fd_dtype dtype, const skip_operand *x, const skip_weights *w,
                           const skip_result *result)
    ctypedef int fd_flag "atomic_int"
    ctypedef struct compact_mask:
        fd_units units
        int64_t rows_per_mask
    ctypedef struct compact_matrix:
        const void *data
        int64_t stride
        int transposed
    ctypedef struct compact_result:
        void *data
        int64_t stride
        double scale
        double bias_scale
        const void *bias
        fd_flag *infinite
    ctypedef struct masked_rows:
        const void *x
        int64_t stride
        int64_t rows
        int64_t depth
        const uint8_t *bits
        int64_t rows_per_mask
        double scale
    ctypedef struct compact_operands:
        const void *x
        int64_t x_stride
        int64_t rows
        int64_t group
        const masked_rows *masked
        compact_matrix w
        compact_mask mask_in
        compact_mask mask_out
    ctypedef struct compact_batch:
        const void *x
        const void *grad
        int64_t x_stride
        int64_t grad_stride
        int64_t rows
        int64_t group
        compact_mask mask_in
        compact_mask mask_out
    ctypedef struct direct_operands:
        masked_rows x
        const void *w
        int64_t columns
    int fd_direct_matmul(fd_dtype dtype, const direct_operands *c, void *out)
    int64_t fd_compact_matmul(fd_dtype dtype, const compact_operands *c,
                              const compact_result *result)
    int64_t fd_compact_gradient(fd_dtype dtype, const compact_batch *c,
                                const compact_result *result)
    void fd_masked_sums(fd_dtype dtype, const void *x, int64_t stride, int64_t rows,
                        const compact_mask *mask, double scale, void *out)
    int fd_all_finite(fd_dtype dtype, const void *x, int64_t n)
    int64_t fd_count_nonzeros(fd_dtype dtype, const void *x, int64_t row_bytes,
                              int64_t column_bytes, int64_t rows, int64_t columns, int64_t every)
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
    int64_t fd_second_level_cache_bytes()
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


cdef inline fd_units units_of(cnp.ndarray bits, int64_t offset, int64_t length) noexcept:
    cdef fd_units units
    units.bits = bits_of(bits)
    units.bit = offset
    units.length = length
    return units


cdef inline int64_t stride_of(cnp.ndarray x, int axis) noexcept:
    """Stride in elements."""
    return cnp.PyArray_STRIDE(x, axis) // cnp.PyArray_ITEMSIZE(x)


def gather(cnp.ndarray x not None, cnp.ndarray row_bits, int64_t row_offset,
           cnp.ndarray column_bits, int64_t column_offset, cnp.ndarray out not None):
    cdef fd_units rows = units_of(row_bits, row_offset, cnp.PyArray_DIM(x, 0))
    cdef fd_units columns = units_of(column_bits, column_offset, cnp.PyArray_DIM(x, 1))
    cdef fd_dtype dtype = dtype_of(x)
    cdef int64_t stride = stride_of(x, 0)
    cdef const void *source = cnp.PyArray_DATA(x)
    cdef void *target = cnp.PyArray_DATA(out)
    with nogil:
        fd_gather(dtype, source, stride, &rows, &columns, target)


def scatter(cnp.ndarray x not None, cnp.ndarray row_bits, int64_t row_offset,
            cnp.ndarray column_bits, int64_t column_offset, double scale, cnp.ndarray bias,
            double bias_scale, bint accumulate, cnp.ndarray out not None):
    cdef fd_units rows = units_of(row_bits, row_offset, cnp.PyArray_DIM(out, 0))
    cdef fd_units columns = units_of(column_bits, column_offset, cnp.PyArray_DIM(out, 1))
    cdef fd_dtype dtype = dtype_of(x)
    cdef int64_t stride = stride_of(out, 0)
    cdef const void *source = cnp.PyArray_DATA(x)
    cdef const void *added = data_of(bias)
    cdef void *target = cnp.PyArray_DATA(out)
    with nogil:
        fd_scatter(dtype, source, &rows, &columns, scale, added, bias_scale, accumulate, target,
                   stride)


cdef inline bint stands(cnp.ndarray w) noexcept:
    """Whether w is transposed: columns apart. An axis of one element is contiguous in any case."""
    return cnp.PyArray_DIM(w, 1) > 1 and stride_of(w, 1) != 1


def skip_matmul(cnp.ndarray x not None, bint transposed, cnp.ndarray bits, int64_t rows_per_mask,
                bint skip_zeros, cnp.ndarray w not None, double scale, cnp.ndarray bias,
                double bias_scale, cnp.ndarray out_bits, int64_t out_rows_per_mask,
                cnp.ndarray out not None, cnp.ndarray w_bits=None, int64_t w_rows_per_mask=1):
    cdef skip_operand operand
    cdef skip_weights weights
    cdef skip_result result
    cdef fd_dtype dtype = dtype_of(x)
    operand.data = cnp.PyArray_DATA(x)
    operand.stride = stride_of(x, 1 if transposed else 0)
    operand.rows = cnp.PyArray_DIM(x, 0)
    operand.depth = cnp.PyArray_DIM(x, 1)
    operand.transposed = transposed
    operand.skip_zeros = skip_zeros
    operand.bits = bits_of(bits)
    operand.rows_per_mask = rows_per_mask
    weights.data = cnp.PyArray_DATA(w)
    weights.depth = cnp.PyArray_DIM(w, 0)
    weights.columns = cnp.PyArray_DIM(w, 1)
    weights.transposed = stands(w)
    weights.stride = stride_of(w, 1 if weights.transposed else 0)
    weights.bits = bits_of(w_bits)
    weights.rows_per_mask = w_rows_per_mask
    result.data = cnp.PyArray_DATA(out)
    result.stride = stride_of(out, 0)
    result.columns = weights.columns
    result.scale = scale
    result.bias = data_of(bias)
    result.bias_scale = bias_scale
    result.bits = bits_of(out_bits)
    result.rows_per_mask = out_rows_per_mask
    cdef int64_t stored
    with nogil:
        stored = fd_skip_matmul(dtype, &operand, &weights, &result)
    if stored < 0:
        raise MemoryError("no memory for the lists of non-zeros of a matrix product")
    return stored


# Products of active units.


cdef inline compact_mask mask_of(cnp.ndarray bits, int64_t rows_per_mask, int64_t width):
    cdef compact_mask mask
    mask.units = units_of(bits, 0, width)
    mask.rows_per_mask = rows_per_mask
    return mask


def compact_matmul(cnp.ndarray x not None, cnp.ndarray bits, int64_t rows_per_mask, int64_t group,
                   cnp.ndarray w not None, double scale, cnp.ndarray bias, double bias_scale,
                   cnp.ndarray out_bits, int64_t out_rows_per_mask, cnp.ndarray out not None):
    return compact_product(x, bits, rows_per_mask, group, w, scale, bias, bias_scale, out_bits,
                           out_rows_per_mask, out, NULL, NULL)


cdef masked_rows masked_rows_of(cnp.ndarray x, cnp.ndarray bits, int64_t rows_per_mask,
                                double scale):
    cdef masked_rows masked
    masked.x = cnp.PyArray_DATA(x)
    masked.stride = stride_of(x, 0)
    masked.rows = cnp.PyArray_DIM(x, 0)
    masked.depth = cnp.PyArray_DIM(x, 1)
    masked.bits = bits_of(bits)
    masked.rows_per_mask = rows_per_mask
    masked.scale = scale
    return masked


cdef int64_t compact_product(
    cnp.ndarray x, cnp.ndarray bits, int64_t rows_per_mask, int64_t group, cnp.ndarray w,
    double scale, cnp.ndarray bias, double bias_scale, cnp.ndarray out_bits,
    int64_t out_rows_per_mask, cnp.ndarray out, const masked_rows *masked, fd_flag *infinite
) except -1:
    cdef compact_operands c
    cdef compact_result result
    cdef fd_dtype dtype = dtype_of(x)
    c.x = cnp.PyArray_DATA(x)
    c.x_stride = stride_of(x, 0)
    c.rows = cnp.PyArray_DIM(x, 0)
    c.group = group
    c.masked = masked
    c.w.data = cnp.PyArray_DATA(w)
    c.w.transposed = stands(w)
    c.w.stride = stride_of(w, 1 if c.w.transposed else 0)
    c.mask_in = mask_of(bits, rows_per_mask, cnp.PyArray_DIM(x, 1))
    c.mask_out = mask_of(out_bits, out_rows_per_mask, cnp.PyArray_DIM(w, 1))
    result.data = cnp.PyArray_DATA(out)
    result.stride = stride_of(out, 0)
    result.scale = scale
    result.bias = data_of(bias)
    result.bias_scale = bias_scale
    result.infinite = infinite
    cdef int64_t multiplied
    with nogil:
        multiplied = fd_compact_matmul(dtype, &c, &result)
    if multiplied < 0:
        raise MemoryError("no memory for the packed operands of a matrix product")
    return multiplied


def compact_gradient(cnp.ndarray x not None, cnp.ndarray bits, int64_t rows_per_mask,
                     int64_t group, cnp.ndarray grad not None, cnp.ndarray out_bits,
                     int64_t out_rows_per_mask, double scale, cnp.ndarray out not None):
    cdef compact_batch c
    cdef compact_result result
    cdef fd_dtype dtype = dtype_of(x)
    c.x = cnp.PyArray_DATA(x)
    c.x_stride = stride_of(x, 0)
    c.grad = cnp.PyArray_DATA(grad)
    c.grad_stride = stride_of(grad, 0)
    c.rows = cnp.PyArray_DIM(x, 0)
    c.group = group
    c.mask_in = mask_of(bits, rows_per_mask, cnp.PyArray_DIM(x, 1))
    c.mask_out = mask_of(out_bits, out_rows_per_mask, cnp.PyArray_DIM(grad, 1))
    result.data = cnp.PyArray_DATA(out)
    result.stride = stride_of(out, 0)
    result.scale = scale
    result.bias = NULL
    result.bias_scale = 0
    result.infinite = NULL
    cdef int64_t multiplied
    with nogil:
        multiplied = fd_compact_gradient(dtype, &c, &result)
    if multiplied < 0:
        raise MemoryError("no memory for the packed operands of a matrix product")
    return multiplied


def masked_sums(cnp.ndarray x not None, cnp.ndarray bits, int64_t rows_per_mask, double scale,
                cnp.ndarray out not None):
    cdef compact_mask mask = mask_of(bits, rows_per_mask, cnp.PyArray_DIM(x, 1))
    cdef fd_dtype dtype = dtype_of(x)
    cdef const void *source = cnp.PyArray_DATA(x)
    cdef int64_t stride = stride_of(x, 0), rows = cnp.PyArray_DIM(x, 0)
    cdef void *target = cnp.PyArray_DATA(out)
    with nogil:
        fd_masked_sums(dtype, source, stride, rows, &mask, scale, target)


def all_finite(cnp.ndarray x not None):
    if not cnp.PyArray_ISONESEGMENT(x):
        x = x.copy()
    cdef fd_dtype dtype = dtype_of(x)
    cdef const void *data = cnp.PyArray_DATA(x)
    cdef int64_t n = cnp.PyArray_SIZE(x)
    cdef bint finite
    with nogil:
        finite = fd_all_finite(dtype, data, n)
    return finite


cdef double share_found(cnp.ndarray x, int64_t counted, int64_t shares):
    cdef int64_t rows = cnp.PyArray_DIM(x, 0), columns = cnp.PyArray_DIM(x, 1), every, looked_at
    if rows == 0 or columns == 0:
        return 0
    every = min(max(rows * columns // counted, 1), rows)
    looked_at = (rows + every - 1) // every * columns
    cdef int64_t found = fd_count_nonzeros(
        dtype_of(x), cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1), rows,
        columns, every,
    )
    return rint(<double>found / looked_at * shares) / shares


def sampled_share(cnp.ndarray x not None, int64_t counted, int64_t shares):
    return share_found(x if cnp.PyArray_ISALIGNED(x) else x.copy(), counted, shares)


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


def plain_matmul(cnp.ndarray x not None, cnp.ndarray bits, int64_t rows_per_mask,
                 cnp.ndarray w not None, double scale, cnp.ndarray bias, double bias_scale,
                 cnp.ndarray out not None):
    cdef int64_t rows = max(cnp.PyArray_DIM(x, 0), 1)
    cdef masked_rows masked
    cdef fd_flag infinite = 0
    if bits is None:
        compact_matmul(x, None, 1, rows, w, scale, bias, bias_scale, None, 1, out)
        return True
    masked = masked_rows_of(x, bits, rows_per_mask, scale)
    compact_product(x, None, 1, rows, w, 1.0, bias, bias_scale, None, 1, out, &masked, &infinite)
    return infinite == 0


# Products of everything, the zeros of a mask included, and the way around Python's checks.


# A scratch array above this is given back at the end of its call.
cdef int64_t KEPT_BYTES = 1 << 26
# Where no error of arithmetic is told: of dropped numbers nobody wants to hear. To enter a copy of
# it takes a fifth of the time that numpy.errstate does.
cdef object quiet = contextvars.Context()
quiet.run(numpy.seterr, all="ignore")
cdef object blas_product = numpy.matmul


cdef multiply(x, w, out):
    quiet.copy().run(blas_product, x, w, out)


cdef cnp.ndarray scratch_like(cnp.ndarray x):
    """A C-contiguous matrix of the shape of x, in memory that the thread's next request reuses."""
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    cdef int64_t size = cnp.PyArray_NBYTES(x)
    if size > KEPT_BYTES:
        return cnp.PyArray_EMPTY(2, shape, cnp.PyArray_TYPE(x), 0)
    cdef void *memory = fd_workspace(FD_SLOT_MASKED, max(size, 1))
    if memory == NULL:
        raise MemoryError("no memory for the masked operand of a matrix product")
    return cnp.PyArray_SimpleNewFromData(2, shape, cnp.PyArray_TYPE(x), memory)


def dense_matmul(cnp.ndarray x not None, bint transposed, cnp.ndarray bits not None,
                 tuple mask_shape, int64_t rows_per_mask, double scale, cnp.ndarray w not None,
                 cnp.ndarray out not None):
    cdef cnp.ndarray masked = scratch_like(x)
    apply_mask(x, bits, mask_shape, rows_per_mask, scale, masked)
    multiply(masked.T if transposed else masked, w, out)
    # An infinity or NaN that met a dropped element's zero is in both: the smaller one is looked at.
    return all_finite(w if cnp.PyArray_SIZE(w) < cnp.PyArray_SIZE(out) else out)


def second_level_cache():
    return fd_second_level_cache_bytes()


cdef int direct_product(cnp.ndarray x, cnp.ndarray bits, int64_t rows_per_mask, cnp.ndarray w,
                        double scale, cnp.ndarray out) except -1:
    cdef direct_operands c
    cdef fd_dtype dtype = dtype_of(x)
    c.x = masked_rows_of(x, bits, rows_per_mask, scale)
    c.w = cnp.PyArray_DATA(w)
    c.columns = cnp.PyArray_DIM(w, 1)
    cdef void *target = cnp.PyArray_DATA(out)
    cdef int finite
    with nogil:
        finite = fd_direct_matmul(dtype, &c, target)
    if finite < 0:
        raise MemoryError("no memory for the packed operand of a matrix product")
    return finite


def direct_matmul(cnp.ndarray x not None, cnp.ndarray bits not None, int64_t rows_per_mask,
                  cnp.ndarray w not None, double scale, cnp.ndarray out not None):
    return bool(direct_product(x, bits, rows_per_mask, w, scale, out))


def every_bit(cnp.ndarray bits not None, int64_t n):
    cdef const uint8_t *data = bits_of(bits)
    cdef int64_t whole = n >> 3, rest = n & 7
    if whole > 0 and (data[0] != 0xff or memcmp(data, data + 1, whole - 1) != 0):
        return False
    return rest == 0 or data[whole] == (1 << rest) - 1


# The choices that small_matmul has made, in the place that a product's numbers point to.
cdef enum: REMEMBERED = 256
cdef struct chosen:
    int64_t rows
    int64_t depth
    int64_t columns
    double stored
    double kept
    int kind
    int flags
    const fd_kernels *kernels
    int method
cdef chosen choices[REMEMBERED]
cdef enum method_number: UNCHOSEN, SKIP, COMPACT, DENSE, PLAIN, DIRECT
cdef tuple METHODS = ("", "skip", "compact", "dense", "plain", "direct")


cdef int remembered_choice(cnp.ndarray x, cnp.ndarray w, double stored, double kept, bint one_mask,
                           bint skip_zeros, cheapest) except -1:
    """What `cheapest` says of a mask of all rows, or of each, found at once the next time."""
    cdef int64_t rows = cnp.PyArray_DIM(x, 0), depth = cnp.PyArray_DIM(x, 1)
    cdef int64_t columns = cnp.PyArray_DIM(w, 1)
    cdef int kind = cnp.PyArray_TYPE(x)
    cdef int flags = one_mask | skip_zeros << 1
    cdef const fd_kernels *kernels = fd_active_kernels()
    cdef uint64_t place = (<uint64_t>rows * 31 + <uint64_t>depth) * 31 + <uint64_t>columns
    place = ((place * 31 + <uint64_t>(stored * 256)) * 31 + <uint64_t>kind) * 8 + <uint64_t>flags
    cdef chosen *choice = &choices[place * <uint64_t>0x9e3779b97f4a7c15 >> 56]
    if (choice.method == UNCHOSEN or choice.rows != rows or choice.depth != depth
            or choice.columns != columns or choice.stored != stored or choice.kept != kept
            or choice.kind != kind or choice.flags != flags or choice.kernels != kernels):
        method = cheapest(
            isa_used(), (rows, depth, columns), x.dtype, stored,
            one_mask and rows >= 4 and not skip_zeros,
            *((kept, 1.0, rows) if one_mask else (None, None, 0)), False, True,
        )
        choice.rows, choice.depth, choice.columns = rows, depth, columns
        choice.stored, choice.kept = stored, kept
        choice.kind, choice.flags, choice.kernels = kind, flags, kernels
        choice.method = METHODS.index(method)
    return choice.method


def small_matmul(x, w, cnp.ndarray bits not None, tuple mask_shape, rows_per_mask, double scale,
                 keep_prob, bint skip_zeros, int64_t most, int64_t counted, int64_t shares,
                 cheapest, out):
    cdef cnp.npy_intp shape[2]
    if not (cnp.PyArray_CheckExact(x) and cnp.PyArray_CheckExact(w) and len(mask_shape) == 2
            and keep_prob is not None):
        return None
    cdef cnp.ndarray a = x, b = w, result
    cdef int kind = cnp.PyArray_TYPE(a)
    if not (cnp.PyArray_NDIM(a) == 2 and cnp.PyArray_NDIM(b) == 2
            and (kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64)
            and cnp.PyArray_TYPE(b) == kind
            and cnp.PyArray_ISCARRAY_RO(a) and cnp.PyArray_ISCARRAY_RO(b)):
        return None
    cdef int64_t rows = cnp.PyArray_DIM(a, 0), depth = cnp.PyArray_DIM(a, 1)
    cdef int64_t columns = cnp.PyArray_DIM(b, 1), mask_rows = mask_shape[0], share
    if cnp.PyArray_DIM(b, 0) != depth or mask_shape[1] != depth:
        return None
    if not 0 < rows * depth * columns < most:
        return None
    if mask_rows == rows and rows_per_mask == 1:
        share = 1
    elif mask_rows == 1 and (rows_per_mask == 1 or rows_per_mask == "batch"):
        share = rows
    else:
        return None
    if out is None:
        shape[0], shape[1] = rows, columns
        result = cnp.PyArray_EMPTY(2, shape, kind, 0)
    elif cnp.PyArray_CheckExact(out):
        result = out
        if not (cnp.PyArray_NDIM(result) == 2 and cnp.PyArray_TYPE(result) == kind
                and cnp.PyArray_ISCARRAY(result) and cnp.PyArray_DIM(result, 0) == rows
                and cnp.PyArray_DIM(result, 1) == columns
                and apart(result, a) and apart(result, b)):
            return None
    else:
        return None
    cdef double kept = keep_prob
    cdef double stored = kept * share_found(a, counted, shares) if skip_zeros else kept
    cdef int method = remembered_choice(a, b, stored, kept, share == rows, skip_zeros, cheapest)
    if method == COMPACT:
        compact_product(a, bits, share, rows, b, scale, None, 1.0, None, 1, result, NULL, NULL)
        return result
    if method == PLAIN and plain_matmul(a, bits, share, b, scale, None, 1.0, result):
        return result
    if method == DIRECT and direct_product(a, bits, share, b, scale, result):
        return result
    if method == DENSE and kept == 1 and every_bit(bits, mask_rows * depth):
        if scale != 1:
            return None
        multiply(a, b, result)
        return result
    if method == DENSE and dense_matmul(a, False, bits, mask_shape, share, scale, b, result):
        return result
    skip_matmul(a, False, bits, share, skip_zeros, b, scale, None, 1.0, None, 1, result)
    return result


# Masked updates.


cdef int read_weights(fd_weights *weights, cnp.ndarray value, cnp.ndarray gradient, bint compact,
                      cnp.ndarray row_bits, int64_t row_offset, cnp.ndarray column_bits,
                      int64_t column_offset) except -1:
    """What every rule has. Active units are counted here, so the gradient's shape is checked here.
    """
    cdef int64_t rows = cnp.PyArray_DIM(value, 0), columns = cnp.PyArray_DIM(value, 1)
    weights.value = cnp.PyArray_DATA(value)
    weights.gradient = cnp.PyArray_DATA(gradient)
    weights.compact = compact
    weights.rows = units_of(row_bits, row_offset, rows)
    weights.columns = units_of(column_bits, column_offset, columns)
    if compact:
        rows, columns = fd_count_units(&weights.rows), fd_count_units(&weights.columns)
    if cnp.PyArray_DIM(gradient, 0) != rows or cnp.PyArray_DIM(gradient, 1) != columns:
        raise ValueError(
            f"gradient must have shape {(rows, columns)}, got {(<object>gradient).shape}"
        )
    return 0


def update_sgd(cnp.ndarray value not None, cnp.ndarray velocity, cnp.ndarray gradient not None,
               bint compact, cnp.ndarray row_bits, int64_t row_offset, cnp.ndarray column_bits,
               int64_t column_offset, double learning_rate, double momentum, bint nesterov,
               double weight_decay, double max_norm):
    cdef fd_weights weights
    cdef fd_rule rule
    cdef fd_dtype dtype = dtype_of(value)
    read_weights(&weights, value, gradient, compact, row_bits, row_offset, column_bits,
                 column_offset)
    weights.first = <void *>data_of(velocity)
    weights.second = weights.top = NULL
    weights.row_counts = weights.column_counts = NULL
    weights.steps = 0
    weights.table = NULL
    rule.kind = FD_SGD
    rule.learning_rate = learning_rate
    rule.beta1 = momentum
    rule.beta2 = rule.epsilon = 0
    rule.weight_decay = weight_decay
    rule.max_norm = max_norm
    rule.nesterov = nesterov
    rule.decoupled = False
    with nogil:
        fd_update(dtype, &rule, &weights)


def update_adam(cnp.ndarray value not None, cnp.ndarray first not None, cnp.ndarray second not None,
                cnp.ndarray top, cnp.ndarray row_counts not None,
                cnp.ndarray column_counts not None, int64_t steps, cnp.ndarray table not None,
                cnp.ndarray gradient not None, bint compact, cnp.ndarray row_bits,
                int64_t row_offset, cnp.ndarray column_bits, int64_t column_offset,
                double learning_rate, double beta1, double beta2, double epsilon,
                double weight_decay, bint decoupled, double max_norm):
    cdef fd_weights weights
    cdef fd_rule rule
    cdef fd_dtype dtype = dtype_of(value)
    cdef int failed
    read_weights(&weights, value, gradient, compact, row_bits, row_offset, column_bits,
                 column_offset)
    weights.first = cnp.PyArray_DATA(first)
    weights.second = cnp.PyArray_DATA(second)
    weights.top = <void *>data_of(top)
    weights.row_counts = <int64_t *>cnp.PyArray_DATA(row_counts)
    weights.column_counts = <int64_t *>cnp.PyArray_DATA(column_counts)
    weights.steps = steps
    weights.table = <const double *>cnp.PyArray_DATA(table)
    rule.kind = FD_ADAM
    rule.learning_rate = learning_rate
    rule.beta1 = beta1
    rule.beta2 = beta2
    rule.epsilon = epsilon
    rule.weight_decay = weight_decay
    rule.max_norm = max_norm
    rule.nesterov = False
    rule.decoupled = decoupled
    with nogil:
        failed = fd_update(dtype, &rule, &weights)
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
