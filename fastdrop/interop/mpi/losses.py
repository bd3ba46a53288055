"""A user's loss, checked where it is computed: the other ranks get its errors, not its NaN."""

import functools
import math

import numpy

from fastdrop.arguments import as_array, real_number

__all__ = ["checked"]


def checked(loss):
    """Return a loss that raises an error where another one returns what no step can use.

    Parameters
    ----------
    loss : callable
        ``loss(prediction, target[, sample_weight]) -> (value, grad)``.

    Returns
    -------
    callable
        The same, but for a TypeError where it returns no pair of a real number and an array of real
        numbers, a ValueError where that has another shape than the prediction, and a
        FloatingPointError where the value or an element of the gradient is not finite.
    """
    return functools.partial(_evaluated, loss)


def _evaluated(loss, prediction, *target):
    returned = loss(prediction, *target)
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise TypeError(f"loss must return a pair (value, grad), got {_kind(returned)}")
    value = real_number(returned[0], "the value of loss")
    grad = as_array(returned[1], "the gradient of loss")
    if not math.isfinite(value):
        raise FloatingPointError(f"the value of loss must be finite, got {value}")
    if grad.dtype.kind not in "biuf":
        raise TypeError(f"the gradient of loss must hold real numbers, got dtype {grad.dtype}")
    if grad.shape != prediction.shape:
        raise ValueError(
            "the gradient of loss must have the shape of the prediction, expected "
            f"{prediction.shape}, got {grad.shape}"
        )
    finite = numpy.isfinite(grad)
    if not finite.all():
        place = tuple(int(axis[0]) for axis in numpy.nonzero(~finite))
        raise FloatingPointError(
            f"the gradient of loss must be finite, got {grad[place]} at {place}"
        )
    return value, grad


def _kind(returned):
    if isinstance(returned, tuple | list):
        return f"{type(returned).__name__} of {len(returned)}"
    return type(returned).__name__
