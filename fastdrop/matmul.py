"""Matrix products in which a dropped unit is never multiplied."""

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy
from numpy.typing import ArrayLike

from fastdrop._backend import kernels
from fastdrop.arguments import as_array, contiguous, is_one_of
from fastdrop.functional import check_output, overlap
from fastdrop.mask import Mask
from fastdrop.operands import RowMask, as_rows, as_weights, row_mask, rows_contiguous
from fastdrop.types import Array, Method, Shape

__all__ = [
    "bias_gradient",
    "masked_matmul",
    "masked_matmul_backward",
    "parameter_gradients",
    "weight_gradient",
]

METHODS = ("auto", "compact", "skip", "dense")
# Of the two operands and of the result.
Masks: TypeAlias = tuple[RowMask | None, RowMask | None, RowMask | None]


def masked_matmul(
    x: ArrayLike,
    w: ArrayLike,
    *,
    mask_in: Mask | None = None,
    mask_out: Mask | None = None,
    mask_weight: Mask | None = None,
    bias: ArrayLike | None = None,
    skip_zeros: bool = False,
    method: Method = "auto",
    out: Array | None = None,
) -> Array:
    """Multiply by weights, leaving out what masks drop on either side, or of the weights.

    Computes ``s_out * m_out ∘ ((s_in * m_in ∘ x) @ (s_w * m_w ∘ w) + bias)``, where m and s are the
    masks' bits and scales. What `mask_in` drops is not read, what `mask_out` drops is exactly +0.0.

    Parameters
    ----------
    x : array_like of float32 or float64, shape (..., units_in)
    w : array_like, dtype of `x`, shape (units_in, units_out)
        C- or Fortran-ordered; other layouts are copied.
    mask_in : Mask, optional
        Of x: of its full shape, broadcasting, or with rows per mask.
    mask_out : Mask, optional
        Of the result, likewise.
    mask_weight : Mask, optional
        Of w [2]_, which is masked while it is packed for the caches: no masked copy is made of a
        C-ordered w.
    bias : array_like, dtype of `x`, shape (units_out,), optional
    skip_zeros : bool, optional
        Leave out zeros of x that no mask made, too (behind a ReLU, half of them), where that is
        faster. A zero of x times an infinity or NaN of w gives 0 where it is left out, as by
        ``method="skip"``, and NaN where it is multiplied.
    method : {"auto", "compact", "skip", "dense"}, optional
        "compact" multiplies the active rows and columns of w, gathered while they are packed for
        the caches (masks shared by the same groups of rows); "skip" multiplies the stored elements
        of x only; "dense" multiplies everything. "auto" takes the one that a cost model, which
        knows shapes, masks and densities, prefers: the same call takes the same method in every
        run. With `mask_weight` it is "auto" or "dense", which multiplies a masked copy of w.
    out : numpy.ndarray, dtype of `x`, shape (..., units_out), optional
        Where the result goes; must not overlap the other arguments.

    Returns
    -------
    numpy.ndarray, shape (..., units_out)

    Raises
    ------
    TypeError
        For dtypes other than float32 and float64, or different ones; masks that are no `Mask`.
    ValueError
        For shapes or masks that do not fit, an unknown method, an `out` that overlaps an operand,
        or "compact" forced on masks that are not shared by the same groups of rows.

    See Also
    --------
    masked_matmul_backward : its gradients.

    Notes
    -----
    The method and its arithmetic are explained in ``docs/guide/masked-matmul.md``; the idea of
    multiplying submatrices is that of Graham, Reizenstein, Robinson (2015) [1]_.

    References
    ----------
    .. [1] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
       submatrices", arXiv 1502.02478 (2015), section 2.
    .. [2] L. Wan, M. Zeiler, S. Zhang, Y. LeCun, R. Fergus, "Regularization of neural networks
       using DropConnect", ICML 2013, section 3.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> stream = fastdrop.MaskStream(0)
    >>> mask = stream.draw((2, 4), rate=0.5, rows_per_mask="batch")
    >>> x, w = numpy.ones((2, 3)), numpy.ones((3, 4))
    >>> fastdrop.masked_matmul(x, w, mask_out=mask.with_scale(1))
    array([[3., 3., 0., 0.],
           [3., 3., 0., 0.]])
    """
    if bias is None and kernels.plain_operands(x, w, out):  # nothing to convert, or to name
        a: Any = x
        b: Any = w
        result = numpy.empty((a.shape[0], b.shape[1]), a.dtype) if out is None else out
        masks = (
            row_mask(mask_in, a.shape, "mask_in", "x"),
            row_mask(mask_weight, b.shape, "mask_weight", "w"),
            row_mask(mask_out, result.shape, "mask_out", "y"),
        )
        _multiply(a, b, result, masks, None, skip_zeros, method)
        return result
    given = as_array(x, "x"), as_array(w, "w"), None if bias is None else as_array(bias, "bias")
    x = as_rows(given[0], "x")
    w = as_weights(given[1], x)
    shape = (*x.shape[:-1], w.shape[1])
    bias = None if given[2] is None else _fitting_bias(given[2], w)
    masks = (
        row_mask(mask_in, x.shape, "mask_in", "x"),
        row_mask(mask_weight, w.shape, "mask_weight", "w"),
        row_mask(mask_out, shape, "mask_out", "y"),
    )
    result = numpy.empty(shape, x.dtype) if out is None else _result(out, shape, x.dtype, *given)
    flat = _matrix(result)
    flat = rows_contiguous(flat) if flat.dtype.isnative else numpy.empty(flat.shape, x.dtype)
    _multiply(_matrix(x), w, flat, masks, bias, skip_zeros, method)
    if not numpy.may_share_memory(flat, result):
        result[...] = flat.reshape(shape)
    return result


def _multiply(
    x: Array,
    w: Array,
    out: Array,
    masks: Masks,
    bias: Array | None,
    skip_zeros: bool,
    method: Method,
    transposed: bool = False,
) -> None:
    """``out = mask_c ∘ ((mask_a ∘ x) @ (mask_b ∘ w) + bias)`` of matrices and masks of their rows.

    With `transposed` the mask of w is one of its transpose's rows.
    """
    mask_a, mask_b, mask_c = masks
    product = kernels.Product(
        x, w, out, mask_a=mask_a, mask_b=mask_b, mask_c=mask_c, bias=bias,
        skip_zeros=bool(skip_zeros), columns_of_b=transposed and mask_b is not None,
        method=_method(method, mask_b),
    )  # fmt: skip
    kernels.matmul(product)


def _method(method: Method, mask_weight: RowMask | None = None) -> Method:
    if not is_one_of(method, METHODS):
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if mask_weight is not None and method not in ("auto", "dense"):
        raise ValueError(f"method must be auto or dense with mask_weight, got {method!r}")
    return method


def masked_matmul_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    mask_in: Mask | None = None,
    mask_out: Mask | None = None,
    mask_weight: Mask | None = None,
    skip_zeros: bool = False,
    method: Method = "auto",
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `masked_matmul`.

    Parameters
    ----------
    grad_y : array_like, dtype of `x`, shape (..., units_out)
        Gradient with respect to the result.
    x, w, mask_in, mask_out, mask_weight, skip_zeros, method
        As in the forward call. With `skip_zeros`, zeros of `grad_y` may be left out in grad_x, too.
    out : tuple of three numpy.ndarray or None, optional
        Where the gradients go; C-contiguous, none may overlap an operand. Arrays of the size of the
        weights that are new in every step cost the system as much as a small product.

    Returns
    -------
    grad_x : numpy.ndarray, shape of `x`
        Exactly +0.0 where `mask_in` drops.
    grad_w : numpy.ndarray, shape of `w`
        Exactly +0.0 where `mask_weight` drops.
    grad_bias : numpy.ndarray, shape (units_out,)

    Raises
    ------
    TypeError, ValueError
        As `masked_matmul`.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> mask = fastdrop.Mask.from_array([[True, False]])
    >>> x, w, grad_y = numpy.ones((2, 2)), numpy.ones((2, 3)), numpy.ones((2, 3))
    >>> grad_x, grad_w, grad_bias = fastdrop.masked_matmul_backward(grad_y, x, w, mask_in=mask)
    >>> grad_x
    array([[3., 0.],
           [3., 0.]])
    >>> grad_w
    array([[2., 2., 2.],
           [0., 0., 0.]])
    """
    given = as_array(x, "x"), as_array(w, "w"), as_array(grad_y, "grad_y")
    x = as_rows(given[0], "x")
    w = as_weights(given[1], x)
    of_w = row_mask(mask_weight, w.shape, "mask_weight", "w")
    method = _method(method, of_w)
    grad_y = as_rows(given[2], "grad_y", w.shape[1])
    if grad_y.dtype != x.dtype:
        raise TypeError(f"grad_y must have dtype {x.dtype}, that of x, got {grad_y.dtype}")
    if grad_y.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"grad_y must have shape {(*x.shape[:-1], w.shape[1])}, got {grad_y.shape}"
        )
    of_x = row_mask(mask_in, x.shape, "mask_in", "x")
    of_y = row_mask(mask_out, grad_y.shape, "mask_out", "grad_y")
    rows, grad = _matrix(x), _matrix(grad_y)
    shapes = (x.shape, w.shape, (w.shape[1],))
    grad_x, grad_w, grad_bias = _gradients(out, shapes, x.dtype, given)
    # First: the product that follows finds grad in the cache.
    kernels.masked_sums(grad, of_y, grad_bias)
    masks = of_y, of_w, of_x
    _multiply(grad, w.T, _matrix(grad_x), masks, None, skip_zeros, method, transposed=True)
    _sum_of_rows(rows, grad, grad_w, (of_x, of_y, of_w), skip_zeros, method)
    return grad_x, grad_w, grad_bias


def _sum_of_rows(
    x: Array, grad: Array, out: Array, masks: Masks, skip_zeros: bool, method: Method
) -> None:
    """``out = mask_c ∘ ((mask_a ∘ x).T @ (mask_b ∘ grad))`` of matrices and masks of their rows."""
    mask_a, mask_b, mask_c = masks
    product = kernels.Product(
        x.T, grad, out, mask_a=mask_a, mask_b=mask_b, mask_c=mask_c, skip_zeros=bool(skip_zeros),
        sum_rows=True, method=method,
    )  # fmt: skip
    kernels.matmul(product)


def weight_gradient(
    x: Array, grad_y: Array, mask_in: Mask | None, mask_out: Mask | None, out: Array
) -> None:
    """The gradient of the weights alone, of arguments that need no check.

    With `x` and `grad_y`, and their masks, exchanged, it is the gradient of weights that are stored
    as (units_out, units_in).

    Parameters
    ----------
    x : numpy.ndarray, shape (rows, units_in)
    grad_y : numpy.ndarray, dtype of `x`, shape (rows, units_out)
    mask_in, mask_out : Mask or None
        Of `x` and of `grad_y`.
    out : numpy.ndarray, C-contiguous, shape (units_in, units_out)
        Where it goes.
    """
    of_x = row_mask(mask_in, x.shape, "mask_in", "x")
    of_y = row_mask(mask_out, grad_y.shape, "mask_out", "grad_y")
    _sum_of_rows(x, grad_y, out, (of_x, of_y, None), False, "auto")


def bias_gradient(grad_y: Array, mask_out: Mask | None, out: Array) -> None:
    """The gradient of the bias alone; arguments as for `weight_gradient`, `out` (units_out,)."""
    kernels.masked_sums(grad_y, row_mask(mask_out, grad_y.shape, "mask_out", "grad_y"), out)


def parameter_gradients(
    grad_y: Array, x: Array, w: Array, mask_weight: Mask | None
) -> tuple[Array, Array]:
    """The gradients of masked weights and of the bias, of arguments that need no check."""
    rows, grad = _matrix(x), _matrix(grad_y)
    grad_w, grad_bias = numpy.empty(w.shape, w.dtype), numpy.empty(w.shape[1], w.dtype)
    mask = row_mask(mask_weight, w.shape, "mask_weight", "w")
    kernels.masked_sums(grad, None, grad_bias)
    _sum_of_rows(rows, grad, grad_w, (None, None, mask), False, "auto")
    return grad_w, grad_bias


def _gradients(
    out: Iterable[Array | None] | None,
    shapes: Iterable[Shape],
    dtype: numpy.dtype[Any],
    operands: tuple[Array, ...],
) -> list[Array]:
    """The three arrays that the gradients go to, checked or new; operands as they were given."""
    if out is None:
        return [numpy.empty(shape, dtype) for shape in shapes]
    if not isinstance(out, tuple | list) or len(out) != 3:
        raise TypeError(f"out must be a tuple of three arrays or None, got {out!r:.100}")
    arrays: list[Array] = []
    for array, shape in zip(out, shapes, strict=True):
        if array is None:
            array = numpy.empty(shape, dtype)
        check_output(array, shape, dtype)
        if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
            raise ValueError(
                "out must hold C-contiguous, aligned arrays of the machine's byte order"
            )
        arrays.append(array)
    if kernels.surely_apart(tuple(arrays), operands):
        return arrays
    for number, array in enumerate(arrays):
        if any(overlap(array, other) for other in (*operands, *arrays[:number])):
            raise ValueError("out must hold arrays that overlap neither operands nor each other")
    return arrays


def _matrix(x: Array) -> Array:
    """x with its leading axes joined."""
    if x.ndim == 2:
        return x
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _fitting_bias(bias: Array, w: Array) -> Array:
    if bias.dtype != w.dtype:
        raise TypeError(f"bias must have dtype {w.dtype}, that of x, got {bias.dtype}")
    if bias.shape != (w.shape[1],):
        raise ValueError(f"bias must have shape ({w.shape[1]},), got {bias.shape}")
    return contiguous(bias, bias.dtype)


def _result(
    out: Array, shape: Shape, dtype: numpy.dtype[Any], x: Array, w: Array, bias: Array | None
) -> Array:
    """`out`, checked; the operands are those that were given, of which copies may be used."""
    check_output(out, shape, dtype)
    if kernels.surely_apart((out,), (x, w) if bias is None else (x, w, bias)):
        return out
    for name, operand in (("x", x), ("w", w), ("bias", bias)):
        if operand is not None and overlap(out, operand):
            raise ValueError(f"out must not overlap {name}")
    return out
