"""Updates of weights: what the compiled kernels compute, operation by operation.

Nothing here is summed in another order or fused, so the compiled kernels give the same bits. What
is not active is not touched: neither weights, nor what the rule remembers, nor counts. All numbers
of a rule are computed in float64 and rounded to the dtype of the weights once.

References
----------
.. [2] N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
   JMLR 15 (2014), section 5.1.
.. [4] I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and
   momentum in deep learning", ICML 2013, section 2.
.. [5] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
.. [6] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
.. [7] S. J. Reddi, S. Kale, S. Kumar, "On the convergence of Adam and beyond", ICLR 2018,
   algorithm 2.
"""

from typing import Any

import numpy

from fastdrop.reference.bits import Array, Units, unpacked
from fastdrop.reference.products import active_places

__all__ = ["Update", "correction_table", "update"]


class Update:
    """One step of one array of weights: of Adam [5]_ or AdamW [6]_ with `second`, else of SGD [4]_.

    SGD: with g the gradient plus ``weight_decay * w``: ``u = momentum * u + g``, then
    ``w -= learning_rate * u``, or with Nesterov's look ahead
    ``w -= learning_rate * (g + momentum * u)``.

    Adam: with g the gradient, plus ``weight_decay * w`` unless `decoupled`::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w -= r * m / (sqrt(v) + e)

    which is algorithm 1 of [5]_ where, of a weight that has had k updates, this one counted::

        s(k) = sqrt(1 - beta2**k)
        e = e(k) = epsilon * s(k)
        r = r(k) = learning_rate * s(k) / (1 - beta1**k)

    The weight between a row that was active in n of the steps and a column that was active in m of
    them has had about ``k = n * m / steps``. Let a and b be the shares of the steps in which the
    rows and columns of this update were active on average. Around there, s(k) is a product of what
    depends on the row and what depends on the column, and so are e(k) and r(k)::

        s = s(n * b) * (s(m * a) / s(steps * a * b))

    Where that is less than s(1), and where n or m is 1, they are s(1), e(1) and r(1): a unit's
    first update is every weight's that it moves. Between two lines, the table is interpolated.

    Parameters
    ----------
    value : numpy.ndarray of float32 or float64, C-contiguous, shape (rows, columns)
        The weights (units_in, units_out), changed in place.
    gradient : numpy.ndarray, C-contiguous
        Of the shape of `value`, or (active rows, active columns) where `compact`.
    rows, columns : tuple of (numpy.ndarray of uint8, int), or None
        The active units, as for `fastdrop.reference.gather`.
    kept : numpy.ndarray of uint8 or None
        Packed bits of the single weights that are active, of a full gradient with all columns.
    compact : bool
    learning_rate : float
    first, second : numpy.ndarray of the shape of `value`, or None
        SGD: u, or None where there is no momentum: u is then g; and None. Adam: m and v.
    top : numpy.ndarray of the shape of `value`, or None
        The largest v so far of each weight [7]_, which then stands under the root instead of v.
    row_counts, column_counts : numpy.ndarray of int64, shape (rows,) and (columns,)
        Adam: updates in which each unit was active before this one; raised where it is active now,
        to `steps` at the most.
    steps : int
        Adam: updates, this one counted; at least 1. From the table's last line on, that line's
        number.
    table : numpy.ndarray of float64, shape (more than steps, 2)
        Adam: line k: ``1 - beta2**k`` and ``1 - beta1**k``; see `correction_table`.
    momentum, nesterov
        Of SGD.
    beta1, beta2, epsilon, decoupled
        Of Adam. `decoupled`, learning_rate * weight_decay times the weight is taken from the weight
        itself.
    weight_decay : float
        Times the weight is added to the gradient.
    max_norm : float
        Active columns whose norm over all rows, active or not, exceeds it after the step are scaled
        down to it; infinity: never.

    Raises
    ------
    ValueError
        If the gradient has another shape than the active units say.
    """

    def __init__(
        self,
        value: Array,
        gradient: Array,
        *,
        rows: Units = None,
        columns: Units = None,
        kept: Array | None = None,
        compact: bool = False,
        learning_rate: float,
        first: Array | None = None,
        second: Array | None = None,
        top: Array | None = None,
        row_counts: Array | None = None,
        column_counts: Array | None = None,
        steps: int = 0,
        table: Array | None = None,
        momentum: float = 0.0,
        nesterov: bool = False,
        beta1: float = 0.0,
        beta2: float = 0.0,
        epsilon: float = 0.0,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        max_norm: float = numpy.inf,
    ) -> None:
        # What a rule does without is None, and not looked at.
        self.first: Any
        self.second: Any
        self.top: Any
        self.row_counts: Any
        self.column_counts: Any
        self.table: Any
        self.kept: Any
        self.value, self.first, self.second, self.top = value, first, second, top
        self.row_counts, self.column_counts = row_counts, column_counts
        self.steps, self.table = steps, table
        self.learning_rate, self.momentum, self.nesterov = learning_rate, momentum, nesterov
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.weight_decay, self.decoupled, self.max_norm = weight_decay, decoupled, max_norm
        self.places = active_places(value.shape, rows, columns)
        self.rows, self.columns = (axis.reshape(-1) for axis in self.places)
        expected = (self.rows.size, self.columns.size) if compact else value.shape
        if gradient.shape != expected:
            raise ValueError(f"gradient must have shape {expected}, got {gradient.shape}")
        self.gradient = gradient if compact else gradient[self.places]
        self.kept = None
        if kept is not None:
            if columns is not None or compact:
                raise ValueError("a mask of weights goes with all columns and a full gradient")
            self.kept = unpacked(kept, value.size).reshape(value.shape)


@numpy.errstate(all="ignore")
def update(update: Update) -> None:
    """Move weights, and what their rule remembers, by one `Update`.

    Examples
    --------
    >>> w, u, columns = numpy.ones((1, 3)), numpy.ones((1, 3)), (numpy.array([5], numpy.uint8), 0)
    >>> options = {"columns": columns, "compact": True, "learning_rate": 0.5}
    >>> update(Update(w, numpy.ones((1, 2)), first=u, momentum=0.5, **options))
    >>> w, u
    (array([[0.25, 1.  , 0.25]]), array([[1.5, 1. , 1.5]]))

    Adam's first step has the size of the learning rate, whenever it comes:

    >>> w, m, v = numpy.zeros((3, 1, 2))
    >>> rows, columns, active = numpy.array([99]), numpy.array([99, 0]), numpy.array([2], "u1")
    >>> table, g = correction_table(0.9, 0.999, 101), numpy.array([[0, 7.0]])
    >>> update(Update(
    ...     w, g, columns=(active, 0), first=m, second=v, row_counts=rows, column_counts=columns,
    ...     steps=100, table=table, learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8,
    ... ))
    >>> w.round(6)
    array([[ 0.  , -0.01]])
    """
    arrays = [x for x in (update.value, update.first, update.second, update.top) if x is not None]
    before = [x.copy() for x in arrays] if update.kept is not None else []
    if update.second is None:
        _move_sgd(update)
    else:
        _move_adam(update)
    for array, old in zip(arrays, before, strict=False):
        array[~update.kept] = old[~update.kept]
    _bound_norms(update.value, update.columns, update.max_norm)


def _move_sgd(u: Update) -> None:
    cast, g, w = u.value.dtype.type, u.gradient, u.value[u.places]
    if u.weight_decay != 0:
        g = g + cast(u.weight_decay) * w
    step = g
    if u.first is not None:
        step = cast(u.momentum) * u.first[u.places] + g
        u.first[u.places] = step
        if u.nesterov:
            step = g + cast(u.momentum) * step
    u.value[u.places] = w - cast(u.learning_rate) * step


def _move_adam(u: Update) -> None:
    cast, g, index, steps = u.value.dtype.type, u.gradient, u.places, u.steps
    rows, columns, row_counts, column_counts = u.rows, u.columns, u.row_counts, u.column_counts
    shares = []
    for counts, units in ((row_counts, rows), (column_counts, columns)):
        counts[units] = numpy.minimum(counts[units] + 1, steps)
        shares.append(counts[units].sum() / (units.size * steps) if units.size else 1.0)
    row_share, column_share = shares
    weight_share = 1.0 if u.kept is None or u.kept.size == 0 else u.kept.sum() / u.kept.size

    def corrections(updates: Any) -> Any:
        s, q = _from_line(u.table, updates)
        return s, u.epsilon * s, u.learning_rate * (s / q)

    row = [
        _unless_first(row_counts[rows], part)
        for part in corrections(row_counts[rows] * column_share * weight_share)
    ]
    column_s = column_r = numpy.ones(columns.size)
    if column_share != 1:
        counts = column_counts[columns]
        s, _, r = corrections(counts * row_share * weight_share)
        all_s, _, all_r = corrections(steps * row_share * column_share * weight_share)
        column_s = _unless_first(counts, s) * (1 / all_s)
        column_r = _unless_first(counts, r) * (1 / all_r)
    first_s, first_e, first_r = corrections(1)
    s, e, r = (
        numpy.multiply.outer(of_row.astype(cast), of_column.astype(cast))
        for of_row, of_column in zip(row, (column_s, column_s, column_r), strict=True)
    )
    less = s < cast(first_s)
    e[less], r[less] = cast(first_e), cast(first_r)
    w = kept = u.value[index]
    if u.weight_decay != 0:
        if u.decoupled:
            kept = w * cast(1.0 - u.learning_rate * u.weight_decay)
        else:
            g = g + cast(u.weight_decay) * w
    m = cast(u.beta1) * u.first[index] + cast(1.0 - u.beta1) * g
    v = cast(u.beta2) * u.second[index] + cast(1.0 - u.beta2) * (g * g)
    u.first[index], u.second[index] = m, v
    if u.top is not None:
        u.top[index] = v = numpy.maximum(u.top[index], v)
    u.value[index] = kept - r * m / (numpy.sqrt(v) + e)


def correction_table(beta1: float, beta2: float, lines: int) -> Array:
    """Return Adam's bias corrections of 0, 1, ... updates, at most `lines` of them.

    Returns
    -------
    numpy.ndarray of float64, shape (at most lines, 2)
        ``1 - beta2**k`` and ``1 - beta1**k``. It ends with the first line of ones, if there is one:
        all that would follow equal it.

    Examples
    --------
    >>> correction_table(0.5, 0.75, 3)
    array([[0.    , 0.    ],
           [0.25  , 0.5   ],
           [0.4375, 0.75  ]])
    """
    k = numpy.arange(lines)
    table = numpy.stack([1 - float(beta2) ** k, 1 - float(beta1) ** k], axis=1)
    ones = numpy.flatnonzero((table == 1).all(axis=1))
    return table[: ones[0] + 1].copy() if ones.size else table


def _from_line(table: Array, line: Any) -> Any:
    """sqrt(1 - beta2**k) and 1 - beta1**k, between two lines of the table in proportion."""
    below = numpy.floor(line).astype(numpy.int64)
    above = numpy.minimum(below + 1, len(table) - 1)
    part = line - below
    second, first = (
        table[below, which] + part * (table[above, which] - table[below, which]) for which in (0, 1)
    )
    return numpy.sqrt(second), first


def _unless_first(counts: Array, corrections: Array) -> Array:
    """0, less than the least there is, for units after a first update."""
    return numpy.where(counts <= 1, 0, corrections)


def _bound_norms(value: Array, columns: Array, max_norm: float) -> None:
    """Scale active columns down [2]_; squares are summed in float64 from the first row on."""
    if max_norm == numpy.inf:
        return
    sums = numpy.zeros(value.shape[1])
    for row in value:
        wide = row.astype(numpy.float64)
        sums += wide * wide
    norms = numpy.sqrt(sums[columns])
    far = (norms > max_norm) & (norms <= numpy.finfo(numpy.float64).max)
    value[:, columns[far]] *= (max_norm / norms[far]).astype(value.dtype)
