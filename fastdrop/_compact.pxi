# Binding of the products of active units; included by _kernels.pyx, whose helpers it uses.

cdef extern from "fastdrop.h" nogil:
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
    int64_t fd_second_level_cache_bytes()
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
