# Binding of the masked updates; included by _kernels.pyx, whose helpers it uses.

cdef extern from "fastdrop.h" nogil:
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
        const void *gradient
        int compact
        fd_units rows
        fd_units columns
        int64_t *row_counts
        int64_t *column_counts
        int64_t steps
        const double *table
    int fd_update(fd_dtype dtype, const fd_rule *rule, const fd_weights *weights)


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
    weights.second = NULL
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
                cnp.ndarray row_counts not None, cnp.ndarray column_counts not None, int64_t steps,
                cnp.ndarray table not None, cnp.ndarray gradient not None, bint compact,
                cnp.ndarray row_bits, int64_t row_offset, cnp.ndarray column_bits,
                int64_t column_offset, double learning_rate, double beta1, double beta2,
                double epsilon, double weight_decay, bint decoupled, double max_norm):
    cdef fd_weights weights
    cdef fd_rule rule
    cdef fd_dtype dtype = dtype_of(value)
    cdef int failed
    read_weights(&weights, value, gradient, compact, row_bits, row_offset, column_bits,
                 column_offset)
    weights.first = cnp.PyArray_DATA(first)
    weights.second = cnp.PyArray_DATA(second)
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
