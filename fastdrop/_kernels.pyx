"""The C kernels, bound: check nothing twice, release the GIL, call C.

The functions are the twins of those in ``fastdrop.reference`` and take the same arguments. They
are not public: callers have checked types, shapes, overlaps and alignment.
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
    ctypedef struct fd_stream:
        uint32_t key0
        uint32_t key1
        uint64_t draw
    int fd_level_count()
    const char *fd_level_name(int level)
    int fd_level_available(int level)
    int fd_select_level(int level)
    int fd_upper_halves_in_use()
    void fd_assume_first_level_cache(int64_t bytes)
    ctypedef struct fd_kernels:
        const char *name
    const fd_kernels *fd_active_kernels()
    enum: FD_SLOT_MASKED
    void *fd_workspace(int slot, size_t bytes)
    int fd_has_threads()
    int fd_get_num_threads()
    void fd_set_num_threads(int threads)
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


cdef int draw_and_apply(cnp.ndarray x, fd_stream stream, threshold, double scale,
                        cnp.ndarray bits, cnp.ndarray out) except -1:
    cdef uint64_t low
    cdef int keep_all = split_threshold(threshold, &low)
    cdef fd_dtype dtype = dtype_of(x)
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


def dropout_fresh(cnp.ndarray x not None, uint32_t key0, uint32_t key1, uint64_t draw, threshold,
                  double scale, cnp.ndarray out):
    cdef cnp.npy_intp bytes_of_bits = (cnp.PyArray_SIZE(x) + 7) >> 3
    cdef cnp.ndarray bits = cnp.PyArray_EMPTY(1, &bytes_of_bits, cnp.NPY_UINT8, 0)
    if out is None:
        out = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    draw_and_apply(x, stream_of(key0, key1, draw), threshold, scale, bits, out)
    return out, bits


def apply_mask(cnp.ndarray x not None, cnp.ndarray bits not None, tuple mask_shape,
               int64_t rows_per_mask, double scale, cnp.ndarray out not None):
    cdef int64_t shape[FD_MAX_DIMENSIONS]
    cdef int64_t x_strides[FD_MAX_DIMENSIONS]
    cdef int64_t out_strides[FD_MAX_DIMENSIONS]
    cdef int64_t mask_strides[FD_MAX_DIMENSIONS]
    cdef int dimensions = cnp.PyArray_NDIM(x)
    cdef fd_dtype dtype = dtype_of(x)
    cdef int64_t stride = 1, extent
    cdef int axis
    for axis in range(dimensions - 1, -1, -1):
        shape[axis] = cnp.PyArray_DIM(x, axis)
        x_strides[axis] = cnp.PyArray_STRIDE(x, axis)
        out_strides[axis] = cnp.PyArray_STRIDE(out, axis)
        extent = mask_shape[axis]
        mask_strides[axis] = 0 if extent == 1 else stride
        stride *= extent
    cdef const char *source = <const char *>cnp.PyArray_DATA(x)
    cdef char *target = <char *>cnp.PyArray_DATA(out)
    cdef const uint8_t *data = <const uint8_t *>cnp.PyArray_DATA(bits)
    with nogil:
        fd_apply_mask(dtype, dimensions, shape, source, x_strides, target, out_strides, data,
                      mask_strides, rows_per_mask, scale)


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


def get_num_threads():
    return fd_get_num_threads()


def set_num_threads(n):
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an int, got {type(n).__name__}")
    if not 1 <= n <= 4096:
        raise ValueError(f"n must be between 1 and 4096, got {n}")
    fd_set_num_threads(n)


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


include "_compact.pxi"
include "_everything.pxi"
include "_update.pxi"
