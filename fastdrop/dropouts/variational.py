"""Dropout over time with one mask for all steps: `variational_dropout`."""

from numpy.typing import ArrayLike

from fastdrop.arguments import as_array, integer
from fastdrop.dropouts.given import with_mask
from fastdrop.functional import dropout
from fastdrop.mask import Mask
from fastdrop.pair import OutputAndMask
from fastdrop.stream import RandomSource
from fastdrop.types import Array, ScaleAt

__all__ = ["variational_dropout"]


def variational_dropout(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    time_axis: int = 1,
    exact_count: bool = False,
    training: bool = True,
    scale_at: ScaleAt = "train",
    out: Array | None = None,
) -> OutputAndMask:
    """Drop units of sequences, the same ones at all steps of a sequence [1]_.

    ``y[n, t, i] = m[n, i] * x[n, t, i] / keep_prob``, with one bit ``m[n, i]`` for each unit of
    each sequence. Masks that change from step to step would erase the memory of a recurrent
    network.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (batch, time, units) or another
    rate, keep_prob : float
        Probability that a unit is dropped, or kept, in [0, 1]; exactly one of the two.
    rng : optional
        As for `dropout`: where the mask comes from.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
    time_axis : int, optional
        The axis of the steps.
    exact_count : bool, optional
        Keep the same number of units of every sequence.
    training : bool, optional
        False: nothing is drawn; see `dropout`.
    scale_at : "train" or "test", optional
        As for `dropout`.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    mask : Mask or None
        For `dropout_backward`; of length 1 along `time_axis`.

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If `x` has no such axis, or an argument is out of its range.

    Notes
    -----
    In a recurrent layer of your own, where a step's input is the state that the step before it
    made, draw a mask once for a batch, ``stream.draw((batch, units), rate=rate)``, and use it in
    every step, by `apply_mask` or as `mask_in` of `masked_matmul`: `examples/recurrent.py`.

    References
    ----------
    .. [1] Y. Gal, Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
       neural networks", NIPS 2016, section 4.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, mask = fastdrop.variational_dropout(numpy.ones((1, 3, 4)), rate=0.5, rng=0)
    >>> y[0]
    array([[2., 2., 0., 0.],
           [2., 2., 0., 0.],
           [2., 2., 0., 0.]])
    """
    x = x if hasattr(x, "ndim") else as_array(x, "x")
    axis = integer(time_axis, "time_axis")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"time_axis must be an axis of x, which has {x.ndim}, got {time_axis}")
    if mask is not None:
        return with_mask(x, mask, rate, keep_prob, rng, training, out)
    return dropout(
        x,
        rate,
        keep_prob=keep_prob,
        rng=rng,
        shared_axes=axis,
        exact_count=exact_count,
        training=training,
        scale_at=scale_at,
        out=out,
    )
