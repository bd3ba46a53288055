# Products of everything, the zeros of a mask included, and the way around Python's checks; included
# by _kernels.pyx, whose helpers it uses.

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


def direct_matmul(cnp.ndarray x not None, cnp.ndarray bits not None, int64_t rows_per_mask,
                  cnp.ndarray w not None, double scale, cnp.ndarray out not None):
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
    return bool(finite)


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
cdef tuple METHODS = ("", "skip", "compact", "dense", "plain", "direct")


cdef str remembered_choice(cnp.ndarray x, cnp.ndarray w, double stored, double kept, bint one_mask,
                           bint skip_zeros, cheapest):
    """What `cheapest` says of a mask of all rows, or of each, found at once the next time."""
    cdef int64_t rows = cnp.PyArray_DIM(x, 0), depth = cnp.PyArray_DIM(x, 1)
    cdef int64_t columns = cnp.PyArray_DIM(w, 1)
    cdef int kind = cnp.PyArray_TYPE(x)
    cdef int flags = one_mask | skip_zeros << 1
    cdef const fd_kernels *kernels = fd_active_kernels()
    cdef uint64_t place = (<uint64_t>rows * 31 + <uint64_t>depth) * 31 + <uint64_t>columns
    place = ((place * 31 + <uint64_t>(stored * 256)) * 31 + <uint64_t>kind) * 8 + <uint64_t>flags
    cdef chosen *choice = &choices[place * <uint64_t>0x9e3779b97f4a7c15 >> 56]
    if (choice.method == 0 or choice.rows != rows or choice.depth != depth
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
    return METHODS[choice.method]


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
    cdef str method = remembered_choice(a, b, stored, kept, share == rows, skip_zeros, cheapest)
    if method == "compact":
        compact_matmul(a, bits, share, rows, b, scale, None, 1.0, None, 1, result)
        return result
    if method == "plain" and plain_matmul(a, bits, share, b, scale, None, 1.0, result):
        return result
    if method == "direct" and direct_matmul(a, bits, share, b, scale, result):
        return result
    if method == "dense" and kept == 1 and every_bit(bits, mask_rows * depth):
        if scale != 1:
            return None
        multiply(a, b, result)
        return result
    if method == "dense" and dense_matmul(a, False, bits, mask_shape, share, scale, b, result):
        return result
    skip_matmul(a, False, bits, share, skip_zeros, b, scale, None, 1.0, None, 1, result)
    return result
