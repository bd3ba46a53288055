"""Rates that are learned: `concrete_dropout` and `standout`, with the gradients of their rates.

Both compute with NumPy, in the dtype of x (float16: in float32).
"""

import math
from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import mask_plan, real_number
from fastdrop.dropouts.given import check_given
from fastdrop.dropouts.noise import check_given_noise
from fastdrop.functional import float_array
from fastdrop.mask import Mask
from fastdrop.noise import Noise, check_kind, new_noise, noise_operand
from fastdrop.pair import OutputAndMask, OutputAndNoise
from fastdrop.stream import RandomSource, as_stream, draw_with
from fastdrop.types import Array, Axes, Shape

__all__ = [
    "concrete_dropout",
    "concrete_dropout_backward",
    "standout",
    "standout_backward",
]


def concrete_dropout(
    x: ArrayLike,
    rate: float,
    *,
    temperature: float = 0.1,
    rng: RandomSource = None,
    noise: Noise | None = None,
    shared_axes: Axes = (),
    training: bool = True,
) -> OutputAndNoise:
    """Dropout whose masks are nearly 0 or 1, and have a derivative with respect to the rate [1]_.

    ``y = x * k / (1 - rate)`` with ``k = 1 - sigmoid((logit(rate) + logit(u)) / temperature)`` and
    uniform numbers u in (0, 1). The smaller the temperature, the nearer k is to 0 and 1.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any shape and layout
    rate : float
        In (0, 1), both ends excluded.
    temperature : float, optional
        Greater than 0.
    rng : optional
        As for `dropout`: where the numbers come from.
    noise : Noise, optional
        That of another call, in the place of a drawn one.
    shared_axes : int or tuple of int, optional
        Axes along which all values get one number.
    training : bool, optional
        False: nothing is drawn, and `x` itself is returned, with None for the noise.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    noise : Noise or None
        For `concrete_dropout_backward`.

    Raises
    ------
    TypeError
        If `x` is of another dtype, or a number none.
    ValueError
        If an argument is out of its range, or `noise` is not of this function.

    References
    ----------
    .. [1] Y. Gal, J. Hron, A. Kendall, "Concrete dropout", NIPS 2017, section 3.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, noise = fastdrop.concrete_dropout(numpy.ones(6), 0.5, rng=0)
    >>> y.round(2)
    array([2.  , 1.98, 0.38, 0.82, 2.  , 2.  ])
    """
    given: Any = x
    x = float_array(x, "x")
    rate, temperature = _checked(rate, temperature)
    plan = mask_plan(x.shape, shared_axes, 1)
    if noise is not None:
        check_given_noise(noise, {"rng": rng}, training)
    elif not training:
        return OutputAndNoise((given, None))
    else:
        noise = _drawn(rng, plan.shape)
    kept = _concrete(x, rate, temperature, noise)
    with numpy.errstate(invalid="ignore", over="ignore"):
        y = numpy.asarray(x * (kept / kept.dtype.type(1 - rate)), x.dtype)
    return OutputAndNoise((y, noise))


def concrete_dropout_backward(
    grad_y: ArrayLike, x: ArrayLike, rate: float, noise: Noise, *, temperature: float = 0.1
) -> tuple[Array, float]:
    """Return the gradients of `concrete_dropout` with respect to x and to the logit of the rate.

    Parameters
    ----------
    grad_y : array_like, shape of `x`
        Gradient with respect to the output.
    x, rate, temperature
        As in the forward pass.
    noise : Noise
        What the forward pass returned.

    Returns
    -------
    grad_x : numpy.ndarray, shape and dtype of `x`
    grad_logit : float
        With respect to ``log(rate / (1 - rate))``. Divided by ``rate * (1 - rate)``, with respect
        to the rate.

    Raises
    ------
    TypeError, ValueError
        As for `concrete_dropout`, and if `grad_y` or `noise` does not fit `x`.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x = numpy.ones(6)
    >>> y, noise = fastdrop.concrete_dropout(x, 0.5, rng=0)
    >>> grad_x, grad_logit = fastdrop.concrete_dropout_backward(numpy.ones(6), x, 0.5, noise)
    >>> numpy.array_equal(grad_x, y), round(grad_logit, 3)
    (True, -3.499)
    """
    x, grad_y = float_array(x, "x"), float_array(grad_y, "grad_y")
    _same_shape(grad_y, x)
    rate, temperature = _checked(rate, temperature)
    kept = _concrete(x, rate, temperature, noise)
    slope = kept * (rate - (1 - kept) / temperature) / (1 - rate)
    grad_x = numpy.asarray(grad_y * (kept / kept.dtype.type(1 - rate)), x.dtype)
    grad_logit = numpy.sum(grad_y * x * slope, dtype=numpy.float64)
    return grad_x, float(grad_logit)


def standout(
    x: ArrayLike,
    a: ArrayLike,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    rng: RandomSource = None,
    mask: Mask | None = None,
    training: bool = True,
) -> OutputAndMask:
    """Keep each value with a probability of its own, which its pre-activation gives [1]_.

    ``y = m * x``, each m 1 with probability ``sigmoid(alpha * a + beta)``, else 0; outside of
    training ``y = sigmoid(alpha * a + beta) * x``, the expectation.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any shape and layout
        Activations.
    a : array_like, shape of `x`
        The pre-activations that they are functions of: with the tied weights of the paper, what the
        activation function was given.
    alpha, beta : float, optional
        Finite. With ``alpha=0`` it is dropout with ``keep_prob=sigmoid(beta)`` and
        ``scale_at="test"``.
    rng : optional
        As for `dropout`: where the masks come from.
    mask : Mask, optional
        That of another call, in the place of a drawn one.
    training : bool, optional
        False: nothing is drawn.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    mask : Mask or None
        For `standout_backward`; its scale is 1.

    Raises
    ------
    TypeError
        If `x` or `a` is of another dtype, or a number none.
    ValueError
        If `a` or `mask` has another shape.

    References
    ----------
    .. [1] L. J. Ba, B. Frey, "Adaptive dropout for training deep neural networks", NIPS 2013,
       sections 3 and 4.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> a = numpy.array([-9.0, -1.0, 1.0, 9.0])
    >>> y, mask = fastdrop.standout(numpy.ones(4), a, rng=0)
    >>> mask.to_array(int)
    array([0, 0, 1, 1])
    >>> fastdrop.standout(numpy.ones(4), a, training=False)[0].round(3)
    array([0.   , 0.269, 0.731, 1.   ])
    """
    x, keep = _standout(x, a, alpha, beta)
    if mask is not None:
        _check_mask(mask, x.shape, rng, training)
        kept = mask.to_array()
    elif not training:
        with numpy.errstate(invalid="ignore"):
            return OutputAndMask((numpy.asarray(x * keep, x.dtype), None))
    else:
        kept = _kept(_drawn(rng, x.shape), keep)
        mask = Mask.from_array(kept)
    return OutputAndMask((numpy.where(kept, x, x.dtype.type(0)), mask))


def standout_mask(noise: Noise, a: ArrayLike, *, alpha: float, beta: float) -> Mask:
    """The mask that `standout` draws, of the uniform noise of the same draw.

    Parameters
    ----------
    noise : Noise
        Of the shape of `a`, with scale 1.
    a, alpha, beta
        As for `standout`.

    Returns
    -------
    Mask
    """
    return Mask.from_array(_kept(noise, _standout(a, a, alpha, beta)[1]))


def standout_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    a: ArrayLike,
    mask: Mask,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> tuple[Array, Array, float, float]:
    """Return the gradients of `standout`.

    That of x is exact. Those of a, alpha and beta go by way of the probabilities, as if m had the
    derivative 1 with respect to them (the straight-through estimate): the change of the loss, to
    first order, where a unit is kept more often.

    Parameters
    ----------
    grad_y : array_like, shape of `x`
        Gradient with respect to the output.
    x, a, alpha, beta
        As in the forward pass.
    mask : Mask
        What the forward pass returned.

    Returns
    -------
    grad_x, grad_a : numpy.ndarray, shape and dtype of `x`
    grad_alpha, grad_beta : float

    Raises
    ------
    TypeError, ValueError
        As for `standout`.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x = a = numpy.array([-1.0, 1.0])
    >>> y, mask = fastdrop.standout(x, a, rng=0)
    >>> grads = fastdrop.standout_backward(numpy.ones(2), x, a, mask)
    >>> grads[0], grads[1].round(3)
    (array([1., 1.]), array([-0.197,  0.197]))
    """
    grad_y = float_array(grad_y, "grad_y")
    x, keep = _standout(x, a, alpha, beta)
    _same_shape(grad_y, x)
    _check_mask(mask, x.shape, None, True)
    a = numpy.asarray(a, keep.dtype)
    slope = grad_y * x * (keep * (1 - keep))
    grad_x = numpy.where(mask.to_array(), grad_y, grad_y.dtype.type(0)).astype(x.dtype, copy=False)
    grad_a = numpy.asarray(slope * keep.dtype.type(alpha), x.dtype)
    sums = (slope * a).sum(dtype=numpy.float64), slope.sum(dtype=numpy.float64)
    return grad_x, grad_a, float(sums[0]), float(sums[1])


def _kept(noise: Noise, keep: Array) -> Array:
    """Which elements a uniform noise in (-1, 1) keeps, each with its probability."""
    return ~(noise.to_array(keep.dtype) >= 2 * keep - 1)  # where that is NaN, it shows


def _checked(rate: float, temperature: float) -> tuple[float, float]:
    rate, temperature = real_number(rate, "rate"), real_number(temperature, "temperature")
    if not 0 < rate < 1:
        raise ValueError(f"rate must be in (0, 1), both ends excluded, got {rate}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be greater than 0 and finite, got {temperature}")
    return rate, temperature


def _drawn(rng: RandomSource, shape: Shape) -> Noise:
    """The uniform noise of the next draw, with scale 1."""

    def drawn(key0: int, key1: int, number: int) -> Noise:
        return new_noise((key0, key1), number, "uniform", shape, 1.0, False)

    return draw_with(as_stream(rng), drawn)


def _concrete(x: Array, rate: float, temperature: float, noise: Noise) -> Array:
    """How much of each value is kept, in [0, 1]."""
    check_kind(noise, "uniform", False, "concrete_dropout", scale=1.0)
    own, _ = noise_operand(noise, x.shape)
    v = noise.to_array(numpy.promote_types(x.dtype, numpy.float32)).reshape(own)
    with numpy.errstate(divide="ignore", over="ignore"):
        # logit((1 + v) / 2) = 2 * artanh(v), infinite where v is rounded to 1
        moved = (2 * numpy.arctanh(v) + (math.log(rate) - math.log1p(-rate))) / temperature
        return numpy.broadcast_to(_sigmoid(-moved), x.shape)


def _standout(x: ArrayLike, a: ArrayLike, alpha: float, beta: float) -> tuple[Array, Array]:
    """x, and the probabilities to keep."""
    x, a = float_array(x, "x"), float_array(a, "a")
    alpha, beta = real_number(alpha, "alpha"), real_number(beta, "beta")
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
    if a.shape != x.shape:
        raise ValueError(f"a must have the shape of x, expected {x.shape}, got {a.shape}")
    working = numpy.promote_types(x.dtype, numpy.float32)
    with numpy.errstate(over="ignore", invalid="ignore"):
        return x, _sigmoid(a.astype(working) * working.type(alpha) + working.type(beta))


def _sigmoid(x: Array) -> Array:
    return 0.5 + 0.5 * numpy.tanh(0.5 * x)


def _same_shape(grad_y: Array, x: Array) -> None:
    if grad_y.shape != x.shape:
        raise ValueError(f"grad_y must have the shape of x, expected {x.shape}, got {grad_y.shape}")


def _check_mask(mask: Mask, shape: Shape, rng: RandomSource, training: bool) -> None:
    check_given(mask, None, None, rng, training)
    if mask.shape != shape:
        raise ValueError(f"mask of shape {mask.shape} does not fit x of shape {shape}")
