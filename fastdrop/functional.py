"""Dropout as functions on arrays: forward, backward, and any mask applied to any array."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy
from numpy.typing import ArrayLike

from fastdrop._backend import kernels
from fastdrop.arguments import (
    TWO_64,
    as_array,
    check_unmasked,
    inverse,
    is_one_of,
    keep_probability,
    mask_plan,
    noise_axes,
    real_number,
)
from fastdrop.mask import Mask, mask_operand, new_mask
from fastdrop.pair import OutputAndMask
from fastdrop.stream import MaskStream, RandomSource, as_stream, draw_with
from fastdrop.types import Array, Axes, RowsPerMask, Shape

__all__ = ["apply_mask", "dropout", "dropout_backward"]

_FLOATS = frozenset(map(numpy.dtype, (numpy.float16, numpy.float32, numpy.float64)))
_SCALE_AT = ("train", "test")
# What shares_memory may spend on two odd layouts; beyond it they count as overlapping.
_OVERLAP_WORK = 10_000


def dropout(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    shared_axes: Axes = (),
    noise_shape: Sequence[int | None] | None = None,
    rows_per_mask: RowsPerMask = 1,
    exact_count: bool = False,
    training: bool = True,
    scale_at: Literal["train", "test"] = "train",
    out: Array | None = None,
) -> OutputAndMask:
    """Drop elements of an array at random and scale the kept ones.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any shape and layout
    rate : float
        Probability that an element is dropped, in [0, 1]. Give `rate` or `keep_prob`, not both.
    keep_prob : float
        Probability that an element is kept, ``1 - rate``.
    rng : None, int, sequence of int, MaskStream, or of numpy.random, optional
        An int (or seeds, or a SeedSequence) seeds a fresh stream: the same int gives the same mask
        every time, so in a loop pass a `MaskStream`, which is advanced by one draw. A Generator, a
        BitGenerator or a RandomState seeds a fresh stream with its next four words. None is one
        stream per process, seeded by the operating system.
    shared_axes : int or tuple of int, optional
        Axes along which one mask is shared (Flax: broadcast_dims).
    noise_shape : tuple of int or None, optional
        As in Keras, instead of `shared_axes`: the shape of the mask, 1 for an axis along which it
        is shared, None or the length of the axis otherwise.
    rows_per_mask : int or "batch", optional
        How many consecutive rows (axis 0) share one mask row; "batch": one set of units for all.
    exact_count : bool, optional
        Keep exactly ``floor(keep_prob * n + 0.5 + 1e-6)`` of each row's n elements.
    training : bool, optional
        False: nothing is drawn, and `x` itself is returned (with ``scale_at="test"`` a scaled
        copy), with None for the mask.
    scale_at : "train" or "test", optional
        "train": kept values are multiplied by ``1 / keep_prob`` in training (inverted dropout).
        "test": they stay as they are, and test-time values are multiplied by ``keep_prob`` [1]_.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`, in the machine's byte order
        Dropped elements are exactly +0.0, whatever they were (NaN and infinity too).
    mask : Mask or None
        The mask for `dropout_backward`, one bit per element. A pair that is not unpacked
        (``h = dropout(...)``) is a tuple whose arithmetic is a TypeError.

    Raises
    ------
    TypeError
        If `x` or `out` is of another dtype, not exactly one of `rate` and `keep_prob` is given, or
        both of `shared_axes` and `noise_shape`.
    ValueError
        If an argument is out of its range, or `out` overlaps `x` in part.

    References
    ----------
    .. [1] N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a
       simple way to prevent neural networks from overfitting", JMLR 15 (2014), section 4.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> stream = fastdrop.MaskStream(0)
    >>> x = numpy.arange(8, dtype=numpy.float32)
    >>> y, mask = fastdrop.dropout(x, rate=0.5, rng=stream)
    >>> y
    array([0., 2., 0., 0., 8., 0., 0., 0.], dtype=float32)
    >>> fastdrop.dropout_backward(numpy.ones(8, numpy.float32), mask)
    array([2., 2., 0., 0., 2., 0., 0., 0.], dtype=float32)
    """
    array: Any = x
    if (
        array.__class__ is not numpy.ndarray
        or array.dtype not in _FLOATS
        or not array.flags.aligned
    ):
        array = float_array(array, "x")
    if keep_prob is None and rate.__class__ is float and 0.0 <= rate <= 1.0:
        keep = 1.0 - rate
    else:
        keep = keep_probability(rate, keep_prob)
    if noise_shape is not None:
        if shared_axes != ():
            raise TypeError("give at most one of shared_axes and noise_shape, got both")
        shared_axes = noise_axes(noise_shape, array.shape)
    if (
        shared_axes.__class__ is tuple
        and not shared_axes
        and rows_per_mask.__class__ is int
        and rows_per_mask == 1
        and not exact_count
        and training
        and scale_at.__class__ is str
        and scale_at in _SCALE_AT
        and array.flags.c_contiguous
        and (out is None or (output_for(out, array).flags.carray and out.dtype.isnative))
    ):
        stream = rng if rng.__class__ is MaskStream else as_stream(rng)
        return _plain_dropout(array, keep, stream, scale_at, out)
    if not is_one_of(scale_at, _SCALE_AT):
        raise ValueError(f'scale_at must be "train" or "test", got {scale_at!r}')
    plan = mask_plan(array.shape, shared_axes, rows_per_mask)
    if exact_count:
        _, kept, inverse_keep = plan.exact_count(keep)
        test_scale = 1 / inverse_keep if kept else 0.0
    else:
        inverse_keep, test_scale = inverse(keep), keep
    if not training:
        if scale_at == "test":
            return OutputAndMask((_scaled(array, test_scale, out), None))
        if out is None:
            return OutputAndMask((x, None))  # type: ignore[arg-type]  # as it was given
        out = output_for(out, array)
        numpy.copyto(out, array)
        return OutputAndMask((out, None))
    y = numpy.empty_like(array) if out is None else output_for(out, array)
    direct = _direct(y, array)
    stream = as_stream(rng)  # all memory is there: a draw that cannot be used is not made
    scale = inverse_keep if scale_at == "train" else 1.0 if inverse_keep else 0.0
    mask = stream.draw(
        array.shape,
        keep_prob=keep,
        shared_axes=shared_axes,
        rows_per_mask=rows_per_mask,
        exact_count=exact_count,
    )
    mask = mask.with_scale(scale)
    return OutputAndMask((_applied(array, mask, scale, y, direct), mask))


def _plain_dropout(
    x: Array, keep: float, stream: MaskStream, scale_at: str, out: Array | None
) -> OutputAndMask:
    """The usual call, short: every element for itself, all contiguous."""
    limit = round(keep * TWO_64)
    scale = (1.0 / keep if scale_at == "train" else 1.0) if limit else 0.0
    y, bits = draw_with(stream, kernels.dropout_fresh, x, limit, scale, out)
    return OutputAndMask((y, new_mask(bits, x.shape, 1, keep, scale)))


def dropout_backward(
    grad_y: ArrayLike,
    mask: Mask | None,
    *,
    scale: float | None = None,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `dropout` with respect to its input.

    Parameters
    ----------
    grad_y : array_like of float16, float32 or float64
        Gradient with respect to the output.
    mask : Mask or None
        The forward pass's mask. None (nothing was dropped) only multiplies by `scale`.
    scale : float, optional
        The factor on kept values; ``mask.scale`` unless given, 1 without a mask.
    out : numpy.ndarray, optional
        Where the result goes; `grad_y` itself, or an array that does not overlap it.

    Returns
    -------
    numpy.ndarray, shape and dtype of `grad_y`

    Raises
    ------
    TypeError
        If `grad_y` or `out` is of another dtype, or `mask` is neither a Mask nor None.
    ValueError
        If `mask` does not fit `grad_y`, or `out` overlaps `grad_y` in part.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> mask = fastdrop.Mask.from_array([True, False, True], keep_prob=0.5)
    >>> fastdrop.dropout_backward(numpy.ones(3), mask)
    array([2., 0., 2.])
    """
    grad = float_array(grad_y, "grad_y")
    if mask is None:
        return _scaled(grad, 1.0 if scale is None else real_number(scale, "scale"), out, "grad_y")
    return _apply(grad, mask, scale, out, "grad_y")


def apply_mask(
    x: ArrayLike, mask: Mask, *, scale: float | None = None, out: Array | None = None
) -> Array:
    """Apply a mask: kept elements times its scale, dropped ones +0.0.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any layout
    mask : Mask
        Of the shape of `x`, or one that broadcasts to it, or with rows per mask.
    scale : float, optional
        The factor on kept values; ``mask.scale`` unless given.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    numpy.ndarray, shape and dtype of `x`

    Raises
    ------
    TypeError
        If `x` or `out` is of another dtype, or `mask` is no Mask.
    ValueError
        If `mask` does not fit `x`, or `out` overlaps `x` in part.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> mask = fastdrop.MaskStream(0).draw((2, 4), rate=0.5, rows_per_mask="batch")
    >>> fastdrop.apply_mask(numpy.ones((2, 4)), mask)
    array([[2., 2., 0., 0.],
           [2., 2., 0., 0.]])
    """
    return _apply(float_array(x, "x"), mask, scale, out, "x")


def _apply(x: Array, mask: Mask, scale: float | None, out: Array | None, name: str) -> Array:
    if not isinstance(mask, Mask):
        raise TypeError(f"mask must be a fastdrop.Mask, got {type(mask).__name__}")
    scale = mask.scale if scale is None else real_number(scale, "scale")
    mask_operand(mask, x.shape, name)
    y = numpy.empty_like(x) if out is None else output_for(out, x, name)
    return _applied(x, mask, scale, y, _direct(y, x))


def _direct(y: Array, x: Array) -> Array:
    """The array that a kernel writes to: y, or where a kernel cannot, one like x."""
    return y if y.flags.aligned and y.dtype.isnative else numpy.empty_like(x)


def _applied(x: Array, mask: Mask, scale: float, y: Array, direct: Array) -> Array:
    """Apply a mask that fits, by way of another array where the kernel cannot write to y."""
    kernels.apply_mask(x, *mask_operand(mask, x.shape), scale, direct)
    if direct is not y:
        numpy.copyto(y, direct)
    return y


def _scaled(x: Array, scale: float, out: Array | None, name: str = "x") -> Array:
    """x times scale, in a new array or in `out`; no mask."""
    y = numpy.empty_like(x) if out is None else output_for(out, x, name)
    with numpy.errstate(all="ignore"):  # as silent as the kernels
        numpy.multiply(x, x.dtype.type(scale), out=y)
    return y


def float_array(x: Any, name: str) -> Array:
    """An argument as an aligned array of a dtype the kernels know."""
    array = as_array(x, name)
    if array.dtype not in _FLOATS:
        raise TypeError(f"{name} must be float16, float32 or float64, got dtype {array.dtype}")
    return array if array.flags.aligned else array.copy()


def check_output(out: Any, shape: Shape, dtype: Any) -> None:
    """Check that `out` can take a result of a shape and dtype, in either byte order.

    Raises
    ------
    TypeError
        If it is no array, or of another dtype.
    ValueError
        If it has another shape, cannot be written, or overlaps itself.
    """
    if type(out) is not numpy.ndarray:
        if not isinstance(out, numpy.ndarray):
            raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
        check_unmasked(out, "out")
    if out.dtype != dtype and out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out must have dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    flags = out.flags
    if not flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if not flags.forc and _overlaps_itself(out):
        raise ValueError("out must not overlap itself")


def output_for(out: Array, x: Array, name: str = "x") -> Array:
    """Check that `out` can take a result of the shape and dtype of `x` while `x` is read."""
    check_output(out, x.shape, x.dtype)
    if out is not x and overlap(x, out) and not _same_place(x, out):
        raise ValueError(f"out must be {name} itself or not overlap it, it overlaps in part")
    return out


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share an element, as far as can be told in little time; else True."""
    if not numpy.may_share_memory(a, b):
        return False
    try:
        return numpy.shares_memory(a, b, max_work=_OVERLAP_WORK)  # type: ignore[arg-type]
    except numpy.exceptions.TooHardError:
        return True


def _same_place(x: Array, out: Array) -> bool:
    steps = [(a, b) for a, b, n in zip(x.strides, out.strides, x.shape, strict=True) if n > 1]
    return all(a == b for a, b in steps) and x.ctypes.data == out.ctypes.data


def _overlaps_itself(array: Array) -> bool:
    """Whether two elements may lie in one place: a layout not made by slicing and transposing."""
    reach = array.itemsize
    for stride, extent in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if extent > 1:
            if stride < reach:
                return True
            reach = stride * (extent - 1) + reach
    return False
