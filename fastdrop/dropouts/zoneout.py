"""Units of a recurrent network that keep their state for a step: `zoneout`."""

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import keep_probability
from fastdrop.dropouts.given import check_given
from fastdrop.functional import apply_mask, float_array, output_for, overlap
from fastdrop.mask import Mask, mask_operand
from fastdrop.pair import OutputAndMask
from fastdrop.stream import RandomSource, as_stream
from fastdrop.types import Array, Axes

__all__ = ["zoneout", "zoneout_backward"]


def zoneout(
    new: ArrayLike,
    previous: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    shared_axes: Axes = (),
    training: bool = True,
    out: Array | None = None,
) -> OutputAndMask:
    """Let units of a recurrent network keep their previous state at random [1]_.

    ``h = m * new + (1 - m) * previous``, each m 0 with probability `rate`; outside of training
    ``h = keep_prob * new + rate * previous``, the expectation. Unlike dropped units, zoned out
    units pass on their state, and gradients.

    Parameters
    ----------
    new : array_like of float16, float32 or float64, any shape and layout
        The state that the step has computed.
    previous : array_like, shape and dtype of `new`
        The state before it.
    rate, keep_prob : float
        Probability that a unit keeps its previous state, or takes the new one, in [0, 1]; exactly
        one of the two.
    rng : optional
        As for `dropout`: where the mask comes from. Each step takes a mask of its own.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
    shared_axes : int or tuple of int, optional
        Axes along which one mask is shared.
    training : bool, optional
        False: nothing is drawn.
    out : numpy.ndarray, optional
        Where the result goes; `new` or `previous` itself, or an array that overlaps neither.

    Returns
    -------
    h : numpy.ndarray, shape and dtype of `new`
    mask : Mask or None
        For `zoneout_backward`: 1 where the new state was taken; its scale is 1.

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If `previous` has another shape, an argument is out of its range, or `out` overlaps `new` or
        `previous` in part.

    References
    ----------
    .. [1] D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden
       activations", ICLR 2017, section 3.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> h, mask = fastdrop.zoneout(numpy.ones(6), numpy.full(6, -1.0), rate=0.5, rng=0)
    >>> h
    array([ 1.,  1., -1., -1.,  1., -1.])
    """
    new, previous = float_array(new, "new"), float_array(previous, "previous")
    if previous.shape != new.shape or previous.dtype != new.dtype:
        raise ValueError(
            f"previous must have the shape and dtype of new, expected {new.shape} and {new.dtype}, "
            f"got {previous.shape} and {previous.dtype}"
        )
    if mask is not None:
        check_given(mask, rate, keep_prob, rng, training)
        mask_operand(mask, new.shape, "new")
        mask = mask.with_scale(1.0)
        return OutputAndMask((_mixed(new, previous, mask, _result(out, new, previous)), mask))
    keep = keep_probability(rate, keep_prob)
    y = _result(out, new, previous)
    if not training:
        return OutputAndMask((_expected(new, previous, keep, y), None))
    stream = as_stream(rng)
    mask = stream.draw(new.shape, keep_prob=keep, shared_axes=shared_axes).with_scale(1.0)
    return OutputAndMask((_mixed(new, previous, mask, y), mask))


def zoneout_backward(grad_h: ArrayLike, mask: Mask) -> tuple[Array, Array]:
    """Return the gradients of `zoneout` with respect to the new and the previous state.

    Parameters
    ----------
    grad_h : array_like of float16, float32 or float64
        Gradient with respect to the output.
    mask : Mask
        The forward pass's.

    Returns
    -------
    grad_new, grad_previous : numpy.ndarray, shape and dtype of `grad_h`
        Each element is in one of the two, the other one has +0.0 there.

    Raises
    ------
    TypeError
        If `grad_h` is of another dtype, or `mask` is no Mask.
    ValueError
        If `mask` does not fit `grad_h`.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> mask = fastdrop.Mask.from_array([True, False, True])
    >>> fastdrop.zoneout_backward(numpy.ones(3), mask)
    (array([1., 0., 1.]), array([0., 1., 0.]))
    """
    grad_h = float_array(grad_h, "grad_h")
    return apply_mask(grad_h, mask, scale=1.0), apply_mask(grad_h, ~mask, scale=1.0)


def _result(out: Array | None, new: Array, previous: Array) -> Array:
    """`out`, checked against both states that are read, or a new array."""
    if out is None:
        return numpy.empty_like(new)
    return output_for(output_for(out, new, "new"), previous, "previous")


def _mixed(new: Array, previous: Array, mask: Mask, y: Array) -> Array:
    taken = mask.to_array()
    if overlap(y, previous):  # the previous state itself: it stays where it is
        numpy.copyto(y, new, where=taken)
        return y
    if y is not new:
        numpy.copyto(y, new)
    numpy.copyto(y, previous, where=~taken)
    return y


def _expected(new: Array, previous: Array, keep: float, y: Array) -> Array:
    working = numpy.promote_types(new.dtype, numpy.float32).type
    with numpy.errstate(all="ignore"):
        y[...] = new * working(keep) + previous * working(1.0 - keep)
    return y
