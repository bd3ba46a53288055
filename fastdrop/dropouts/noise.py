"""Noise in the place of dropped values: `gaussian_dropout`, `uniform_dropout`, `gaussian_noise`.

The factor on a value has mean 1 and, at a rate, the variance that dropout's has, ``rate / (1 -
rate)``. Nothing is exactly 0, and nothing changes at test time.
"""

import math
from typing import Any, Literal

import numpy
from numpy.typing import ArrayLike

from fastdrop._backend import kernels
from fastdrop.arguments import keep_probability, mask_plan, real_number
from fastdrop.functional import float_array, output_for
from fastdrop.noise import Noise, check_kind, new_noise, noise_operand
from fastdrop.pair import OutputAndNoise
from fastdrop.stream import RandomSource, as_stream, draw_with
from fastdrop.types import Array, Axes, Shape

__all__ = ["apply_noise", "gaussian_dropout", "gaussian_noise", "noise_backward", "uniform_dropout"]


def gaussian_dropout(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    noise: Noise | None = None,
    shared_axes: Axes = (),
    training: bool = True,
    out: Array | None = None,
) -> OutputAndNoise:
    """Multiply values by normal numbers of mean 1 and variance ``rate / (1 - rate)`` [1]_.

    ``y = x * (1 + s * z)`` with ``s = sqrt(rate / (1 - rate))`` and standard normal numbers z. The
    expectation and, at the same rate, the variance are those of `dropout`; a pass at test time
    changes nothing.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any shape and layout
    rate, keep_prob : float
        The rate of the dropout that has the same variance, in [0, 1); exactly one of the two.
    rng : optional
        As for `dropout`: where the numbers come from.
    noise : Noise, optional
        A noise to apply, as this function returned it, in the place of a drawn one; then no rate.
    shared_axes : int or tuple of int, optional
        Axes along which all values get one number.
    training : bool, optional
        False: nothing is drawn, and `x` itself is returned, with None for the noise.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    noise : Noise or None
        For `noise_backward`, which makes the numbers again: nothing of the size of `x` is kept.

    Raises
    ------
    TypeError
        If `x` or `out` is of another dtype, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If an argument is out of its range: at rate 1 the variance is infinite. If `noise` is of
        another kind, or added.

    Notes
    -----
    The numbers are "normal, version 1" of the mask stream, a function of seed, draw and element,
    the same on every machine. They have the precision of float32, in float64 arrays too; the
    largest is 6.66. float16 is computed in float32 and rounded once.

    References
    ----------
    .. [1] N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a
       simple way to prevent neural networks from overfitting", JMLR 15 (2014), section 10.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> stream = fastdrop.MaskStream(0)
    >>> y, noise = fastdrop.gaussian_dropout(numpy.ones(4), rate=0.2, rng=stream)
    >>> y.round(3)
    array([1.01 , 0.966, 0.06 , 1.508])
    >>> fastdrop.noise_backward(numpy.ones(4), noise).round(3)
    array([1.01 , 0.966, 0.06 , 1.508])
    """
    scale = 1.0
    if noise is None:
        scale = math.sqrt(_variance(rate, keep_prob, "gaussian_dropout"))
    given = {"rate": rate, "keep_prob": keep_prob}
    return _noisy(
        "gaussian_dropout", x, "normal", scale, False, rng, noise, given, shared_axes, training, out
    )


def uniform_dropout(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    noise: Noise | None = None,
    shared_axes: Axes = (),
    training: bool = True,
    out: Array | None = None,
) -> OutputAndNoise:
    """Multiply values by uniform numbers of mean 1 and variance ``rate / (1 - rate)``.

    ``y = x * (1 + b * u)`` with ``b = sqrt(3 * rate / (1 - rate))`` and uniform numbers u in (-1,
    1). At ``rate=0.25`` the factors are uniform in (0, 2): continuous dropout [1]_, divided by its
    mean; small rates are the "Uout" of [2]_. No factor is larger than ``1 + b``.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any shape and layout
    rate, keep_prob, rng, noise, shared_axes, training, out : optional
        As for `gaussian_dropout`.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    noise : Noise or None
        For `noise_backward`.

    Raises
    ------
    TypeError, ValueError
        As for `gaussian_dropout`.

    References
    ----------
    .. [1] X. Shen, X. Tian, T. Liu, F. Xu, D. Tao, "Continuous dropout", arXiv 1911.12675 (2019),
       section 3.
    .. [2] X. Li, S. Chen, X. Hu, J. Yang, "Understanding the disharmony between dropout and batch
       normalization by variance shift", CVPR 2019, section 5.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, noise = fastdrop.uniform_dropout(numpy.ones(4), rate=0.25, rng=0)
    >>> y.round(3)
    array([0.501, 0.774, 1.073, 1.018])
    """
    scale = 1.0
    if noise is None:
        scale = math.sqrt(3 * _variance(rate, keep_prob, "uniform_dropout"))
    given = {"rate": rate, "keep_prob": keep_prob}
    return _noisy(
        "uniform_dropout", x, "uniform", scale, False, rng, noise, given, shared_axes, training, out
    )


def gaussian_noise(
    x: ArrayLike,
    std: float | None = None,
    *,
    rng: RandomSource = None,
    noise: Noise | None = None,
    shared_axes: Axes = (),
    training: bool = True,
    out: Array | None = None,
) -> OutputAndNoise:
    """Add normal numbers of mean 0 and standard deviation `std`: ``y = x + std * z``.

    Noise on a network's input [1]_. The gradient with respect to `x` is that with respect to y.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any shape and layout
    std : float
        Standard deviation, at least 0 and finite.
    rng, noise, shared_axes, training, out : optional
        As for `gaussian_dropout`.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    noise : Noise or None

    Raises
    ------
    TypeError
        If `x` or `out` is of another dtype, or `std` is no real number.
    ValueError
        If an argument is out of its range.

    References
    ----------
    .. [1] C. M. Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural
       Computation 7 (1995), section 2.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, noise = fastdrop.gaussian_noise(numpy.zeros(4), std=0.1, rng=0)
    >>> y.round(3)
    array([ 0.002, -0.007, -0.188,  0.102])
    """
    if noise is None:
        std = real_number(std, "std")
        if not 0 <= std < math.inf:
            raise ValueError(f"std must be at least 0 and finite, got {std}")
    given = {"std": std}
    scale = 1.0 if std is None else std
    return _noisy(
        "gaussian_noise", x, "normal", scale, True, rng, noise, given, shared_axes, training, out
    )


def apply_noise(x: ArrayLike, noise: Noise, *, out: Array | None = None) -> Array:
    """Apply a noise to any array: ``x * (1 + scale * z)``, or if additive ``x + scale * z``.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any layout
    noise : Noise
        Of the shape of `x`, or one that broadcasts to it.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    numpy.ndarray, shape and dtype of `x`

    Raises
    ------
    TypeError
        If `x` or `out` is of another dtype, or `noise` is no Noise.
    ValueError
        If `noise` does not fit `x`, or `out` overlaps `x` in part.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, noise = fastdrop.gaussian_dropout(numpy.ones(3), rate=0.5, rng=0)
    >>> numpy.array_equal(fastdrop.apply_noise(numpy.full(3, 2.0), noise), 2 * y)
    True
    """
    return _applied(float_array(x, "x"), noise, out, "x")


def noise_backward(grad_y: ArrayLike, noise: Noise | None, *, out: Array | None = None) -> Array:
    """Return the gradient of `gaussian_dropout`, `uniform_dropout` or `gaussian_noise`.

    ``grad_y * (1 + scale * z)``, with the numbers z made again; where the noise was added, or there
    was none, `grad_y` in a new array.

    Parameters
    ----------
    grad_y : array_like of float16, float32 or float64
        Gradient with respect to the output.
    noise : Noise or None
        The forward pass's. None: outside of training nothing was changed.
    out : numpy.ndarray, optional
        Where the result goes; `grad_y` itself, or an array that does not overlap it.

    Returns
    -------
    numpy.ndarray, shape and dtype of `grad_y`

    Raises
    ------
    TypeError
        If `grad_y` or `out` is of another dtype, or `noise` is neither a Noise nor None.
    ValueError
        If `noise` does not fit `grad_y`, or `out` overlaps `grad_y` in part.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x = numpy.arange(3.0)
    >>> y, noise = fastdrop.uniform_dropout(x, rate=0.25, rng=1)
    >>> numpy.allclose(fastdrop.noise_backward(numpy.ones(3), noise) * x, y)
    True
    """
    grad_y = float_array(grad_y, "grad_y")
    if noise is not None:
        noise_operand(noise, grad_y.shape, "grad_y")
    if noise is None or noise.additive:
        return _copied(grad_y, out, "grad_y")
    return _applied(grad_y, noise, out, "grad_y")


def _variance(rate: float | None, keep_prob: float | None, name: str) -> float:
    """The variance of the factor at a rate.

    Raises
    ------
    ValueError
        Where it is infinite.
    """
    keep = keep_probability(rate, keep_prob)
    if keep == 0:
        given = (
            f"rate must be below 1 for {name}"
            if rate is not None
            else (f"keep_prob must be above 0 for {name}")
        )
        value = 1.0 if rate is not None else 0.0
        raise ValueError(
            f"{given}, whose variance rate / (1 - rate) is infinite there, got {value}"
        )
    return (1.0 - keep) / keep


def _noisy(
    function: str,
    x: ArrayLike,
    kind: Literal["normal", "uniform"],
    scale: float,
    additive: bool,
    rng: RandomSource,
    noise: Noise | None,
    given: dict[str, Any],
    shared_axes: Axes,
    training: bool,
    out: Array | None,
) -> OutputAndNoise:
    """Draw a noise, or take the one that is given, and apply it; ``(y, noise)``."""
    original: Any = x
    x = float_array(x, "x")
    if noise is not None:
        check_given_noise(noise, given | {"rng": rng}, training)
        check_kind(noise, kind, additive, function)
        return OutputAndNoise((_applied(x, noise, out, "x"), noise))
    plan = mask_plan(x.shape, shared_axes, 1)
    if not training:
        return OutputAndNoise((original if out is None else _copied(x, out, "x"), None))
    y = numpy.empty_like(x) if out is None else output_for(out, x)

    def drawn(key0: int, key1: int, number: int) -> OutputAndNoise:
        noise = new_noise((key0, key1), number, kind, plan.shape, scale, additive)
        return OutputAndNoise((_applied(x, noise, y, "x"), noise))

    return draw_with(as_stream(rng), drawn)


def check_given_noise(noise: object, others: dict[str, Any], training: bool) -> None:
    """Check that nothing says how to draw another noise than the one that is given.

    Raises
    ------
    TypeError
        If one of `others`, arguments by name, is not None, or outside of training.
    """
    for name, value in others.items():
        if value is not None:
            raise TypeError(f"give a noise or {name}, not both: with a noise nothing is drawn")
    if not training:
        raise TypeError("noise must be None with training=False: nothing is changed then")


def _copied(x: Array, out: Array | None, name: str) -> Array:
    y = numpy.empty_like(x) if out is None else output_for(out, x, name)
    numpy.copyto(y, x)
    return y


def _applied(x: Array, noise: Noise, out: Array | None, name: str) -> Array:
    own, arguments = noise_operand(noise, x.shape, name)
    y = numpy.empty_like(x) if out is None else output_for(out, x, name)
    if arguments is None:
        _broadcast(x, noise, own, y)
        return y
    direct = y if y.flags.carray and y.dtype.isnative else numpy.empty(x.shape, x.dtype)
    source = x
    if not x.flags.c_contiguous:
        source = direct
        numpy.copyto(source, x)
    kernels.apply_noise(source, *arguments, direct)
    if direct is not y:
        numpy.copyto(y, direct)
    return y


def _broadcast(x: Array, noise: Noise, own: Shape, y: Array) -> None:
    """What the kernel computes, where values share a number, or are rows of a larger array."""
    working = numpy.promote_types(x.dtype, numpy.float32)
    moved = noise.to_array(working).reshape(own)
    if not noise.additive:
        moved += working.type(1)
    with numpy.errstate(all="ignore"):  # as silent as the kernels
        (numpy.add if noise.additive else numpy.multiply)(
            x, moved, out=y, dtype=working, casting="same_kind"
        )
