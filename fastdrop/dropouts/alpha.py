"""Alpha dropout, for SELU networks: it preserves mean and variance."""

import math

from numpy.typing import ArrayLike

from fastdrop._backend import kernels
from fastdrop.arguments import keep_probability, threshold
from fastdrop.dropouts.given import check_given, result_array, written
from fastdrop.functional import dropout, float_array
from fastdrop.mask import Mask, mask_operand
from fastdrop.pair import OutputAndMask
from fastdrop.stream import RandomSource, as_stream
from fastdrop.types import Array, Axes

__all__ = ["alpha_constants", "alpha_dropout", "feature_alpha_dropout"]

# SELU's scale and alpha, which make 0 and 1 the fixed point of mean and variance: Klambauer et al.
# 2017, equation 14, solved to the last place of float64.
SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717
# What SELU tends to at -infinity: the value of dropped units.
SATURATION = -SELU_SCALE * SELU_ALPHA


def alpha_constants(keep: float) -> tuple[float, float, float]:
    """Factor, shift and dropped value of alpha dropout: ``(a, b, a * saturation + b)``.

    ``a = (keep + saturation**2 * keep * (1 - keep)) ** -0.5``, ``b = -a * (1 - keep) * saturation``
    [1]_; all 0 where nothing can be kept.

    References
    ----------
    .. [1] G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural
       networks", NeurIPS 2017, section 4 ("New dropout technique").

    Examples
    --------
    >>> from fastdrop.dropouts.alpha import alpha_constants
    >>> alpha_constants(1.0)[:2]
    (1.0, 0.0)
    """
    if not threshold(keep):
        return 0.0, 0.0, 0.0
    dropped = 1.0 - keep
    scale = 1.0 / math.sqrt(keep + SATURATION**2 * keep * dropped)
    shift = -scale * dropped * SATURATION if dropped else 0.0
    return scale, shift, scale * SATURATION + shift


def alpha_dropout(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    shared_axes: Axes = (),
    training: bool = True,
    out: Array | None = None,
) -> OutputAndMask:
    """Set elements to SELU's negative saturation at random, and keep mean and variance.

    ``y = a * (m * x + (1 - m) * s) + b`` with ``s = -1.7580993408473766``, and ``a`` and ``b`` such
    that inputs of mean 0 and variance 1 have outputs of mean 0 and variance 1 [1]_. One pass over
    `x`; the constants are computed in float64.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any shape and layout
    rate, keep_prob : float
        Probability that an element is dropped, or kept, in [0, 1]; exactly one of the two.
    rng : optional
        As for `dropout`.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
        Its ``keep_prob`` determines the constants.
    shared_axes : int or tuple of int, optional
        Axes along which one mask is shared.
    training : bool, optional
        False: nothing is drawn, and `x` itself is returned, with None for the mask.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
        With a rate of 1 all zeros: no mean and variance can be kept then.
    mask : Mask or None
        Its scale is ``a``, so that ``dropout_backward(grad_y, mask)`` is the gradient.

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If an argument is out of its range, or `mask` has no ``keep_prob``.

    References
    ----------
    .. [1] G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural
       networks", NeurIPS 2017, section 4 ("New dropout technique").

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x = numpy.random.default_rng(0).standard_normal(100_000)
    >>> y, mask = fastdrop.alpha_dropout(x, rate=0.2, rng=0)
    >>> f"mean {abs(y.mean()):.2f}, standard deviation {y.std():.2f}"
    'mean 0.00, standard deviation 1.00'
    """
    if mask is not None:
        check_given(mask, rate, keep_prob, rng, training)
    if not training:
        return dropout(x, rate, keep_prob=keep_prob, training=False, out=out)
    x = float_array(x, "x")
    if mask is None:
        keep = keep_probability(rate, keep_prob)
        y = result_array(out, x)
        mask = as_stream(rng).draw(x.shape, keep_prob=keep, shared_axes=shared_axes)
    else:
        if mask.keep_prob is None:
            raise ValueError("mask must have a keep_prob, which determines the constants, got None")
        keep = mask.keep_prob
        y = result_array(out, x)
    constants = alpha_constants(keep)
    placed = (x, *mask_operand(mask, x.shape), *constants)
    written(y, lambda direct: kernels.apply_affine(*placed, direct))
    return OutputAndMask((y, mask.with_scale(constants[0])))


def feature_alpha_dropout(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    training: bool = True,
    out: Array | None = None,
) -> OutputAndMask:
    """Alpha dropout of whole channels: one bit for each of axis 1 of each example.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (N, C, ...)
        At least two axes.
    rate, keep_prob, rng, mask, training, out : optional
        As for `alpha_dropout`.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    mask : Mask or None

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, mask = fastdrop.feature_alpha_dropout(numpy.zeros((2, 3, 4)), rate=0.5, rng=0)
    >>> mask.shape
    (2, 3, 1)
    """
    x = float_array(x, "x")
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 axes, (N, C, ...), got {x.ndim}")
    return alpha_dropout(
        x,
        rate,
        keep_prob=keep_prob,
        rng=rng,
        mask=mask,
        shared_axes=() if mask is not None else tuple(range(2, x.ndim)),
        training=training,
        out=out,
    )
