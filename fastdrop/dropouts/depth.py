"""Stochastic depth: a whole branch is kept or dropped."""

from typing import Literal

from numpy.typing import ArrayLike

from fastdrop.arguments import is_one_of
from fastdrop.dropouts.given import with_mask
from fastdrop.functional import dropout, float_array
from fastdrop.mask import Mask
from fastdrop.pair import OutputAndMask
from fastdrop.stream import RandomSource
from fastdrop.types import Array, ScaleAt

__all__ = ["MODES", "stochastic_depth"]

MODES = ("row", "batch")


def stochastic_depth(
    x: ArrayLike,
    rate: float | None = None,
    mode: Literal["row", "batch"] = "row",
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    training: bool = True,
    scale_at: ScaleAt = "train",
    out: Array | None = None,
) -> OutputAndMask:
    """Keep or drop the output of a network's branch as a whole, and scale kept outputs.

    ``y[n] = m[n] * x[n] / keep_prob`` [1]_; the residual connection beside the branch is the
    caller's: ``h = h + stochastic_depth(branch(h), 0.1, rng=stream)[0]``.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (N, ...)
    rate, keep_prob : float
        Probability that a branch is dropped, or kept, in [0, 1]; exactly one of the two. In the
        paper the rate grows linearly with the depth of the branch, up to 0.5.
    mode : "row" or "batch", optional
        Whether every example has a bit of its own, or the batch has one.
    rng : optional
        As for `dropout`.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
    training : bool, optional
        False: nothing is drawn; see `dropout`.
    scale_at : "train" or "test", optional
        "train", as torchvision does: kept values are divided by ``keep_prob``. "test", as in the
        paper: all values are multiplied by ``keep_prob`` outside of training.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
        Dropped values are exactly +0.0.
    mask : Mask or None
        For `dropout_backward`.

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If `mode` is another, `x` has no axis of examples, or an argument is out of its range.

    References
    ----------
    .. [1] G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth",
       ECCV 2016, section 3.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, mask = fastdrop.stochastic_depth(numpy.ones((4, 2)), rate=0.5, rng=0)
    >>> y
    array([[2., 2.],
           [2., 2.],
           [0., 0.],
           [0., 0.]])
    """
    if not is_one_of(mode, MODES):
        raise ValueError(f'mode must be "row" or "batch", got {mode!r}')
    given, x = x, float_array(x, "x")
    if x.ndim == 0:
        raise ValueError("x must have an axis of examples, got 0 axes")
    if mask is not None:
        return with_mask(x, mask, rate, keep_prob, rng, training, out)
    return dropout(
        x if training or out is not None else given,
        rate,
        keep_prob=keep_prob,
        rng=rng,
        shared_axes=tuple(range(0 if mode == "batch" else 1, x.ndim)),
        training=training,
        scale_at=scale_at,
        out=out,
    )
