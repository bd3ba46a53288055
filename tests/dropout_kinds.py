"""The kinds of dropout, each with what it promises to tests/api/test_dropout_kinds.py.

A new kind gets its line in KINDS; every contract then holds for it.
"""

import dataclasses
from collections.abc import Callable

import numpy

import fastdrop
from fastdrop import nn


def itself(x, rate):
    """Return the expectation of most kinds, and what most of them are outside of training."""
    return x


def spread(x, rate):
    """Variance of a value that is kept with probability 1 - rate and divided by it."""
    return x * x * rate / (1 - rate)


def selected(x, kept, mask):
    """Kept values times the mask's scale: what most kinds compute."""
    return numpy.where(kept, x * mask.scale, 0)


def zeros(x):
    """All is dropped."""
    return numpy.zeros_like(x)


def masked_gradient(grad, x, result):
    """Return the gradient of most kinds: the output's under the mask."""
    return fastdrop.dropout_backward(grad, result[1])


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of dropout, and its promises in float64.

    Attributes
    ----------
    call : callable
        ``call(x, rate, rng=, mask=, training=)`` returns ``(y, mask)`` or more behind them.
    shape : tuple of int
        Of an array that it takes.
    mask_shape : tuple of int
        Of its mask for that array: 1 along axes that share it.
    layer : callable or None
        ``layer(rate, rng=)`` makes its layer of `fastdrop.nn`, where that takes one array.
    reference : callable
        ``reference(x, kept, mask)``: y, where `kept` is the mask as an array of the shape of x.
    gradient : callable
        ``gradient(grad_y, x, result)``: with respect to x; `result` is what `call` returned.
    mean, variance, evaluated : callable
        ``f(x, rate)``: of every element of y; y outside of training. Where no formula is known
        for the first two they are None, and a file of the kind's own tests its statistics.
    at_one : callable
        ``at_one(x)``: y where the rate is 1.
    empty : tuple of tuple of int
        Shapes without elements that it takes; ``()``, where it takes an array without axes.
    tolerance : float
        Of sums, relative to the machine epsilon of the dtype: 0 compares bit for bit.
    """

    name: str
    call: Callable
    shape: tuple
    mask_shape: tuple
    layer: Callable | None
    reference: Callable = selected
    gradient: Callable = masked_gradient
    mean: Callable | None = itself
    variance: Callable | None = spread
    evaluated: Callable = itself
    at_one: Callable = zeros
    empty: tuple = ((0,), (3, 0), ())
    tolerance: float = 0

    def __str__(self):
        return self.name


def last(function):
    """The same function for channels behind everything else."""

    def call(x, rate=None, **options):
        return function(x, rate, data_format="channels_last", **options)

    return call


def plain(x, rate=None, *, mask=None, **options):
    """`fastdrop.dropout`, which has `apply_mask` for a mask that is given."""
    if mask is not None:
        return fastdrop.apply_mask(x, mask), mask
    return fastdrop.dropout(x, rate, **options)


from fastdrop.dropouts.alpha import SATURATION as S  # noqa: E402


def alpha_of(keep):
    """Factor and shift from the paper's formulas."""
    factor = (keep + S**2 * keep * (1 - keep)) ** -0.5
    return factor, -factor * (1 - keep) * S


def alpha_reference(x, kept, mask):
    factor, shift = (x.dtype.type(number) for number in alpha_of(mask.keep_prob))
    dropped = fastdrop.dropouts.alpha.alpha_constants(mask.keep_prob)[2]
    return numpy.where(kept, x * factor + shift, dropped)


def alpha_mean(x, rate):
    factor, shift = alpha_of(1 - rate)
    return factor * ((1 - rate) * x + rate * S) + shift


def alpha_variance(x, rate):
    factor, _ = alpha_of(1 - rate)
    return factor**2 * rate * (1 - rate) * (x - S) ** 2


def blocked(function, size, **options):
    def call(x, rate=None, **given):
        return function(x, rate, size, **options, **given)

    return call


def example_reference(x, kept, mask):
    """Each example's places by its kept ones."""
    axes = tuple(range(1, x.ndim))
    return numpy.where(kept, x * (kept[0].size / kept.sum(axes, keepdims=True)), 0)


def depth(x, rate=None, **options):
    return fastdrop.stochastic_depth(x, rate, mode="batch", **options)


RESIDUAL, BIAS = numpy.random.default_rng(3).standard_normal((2, 4, 37))


def residual(x, rate=None, **options):
    """With a residual and a bias that are always the same."""
    other = numpy.resize(RESIDUAL, x.shape).astype(x.dtype)
    bias = numpy.resize(BIAS, x.shape[-1:]).astype(x.dtype) if x.ndim else None
    return fastdrop.bias_dropout_residual(x, other, bias, rate, **options)


def parts(x):
    bias = numpy.resize(BIAS, x.shape[-1:]).astype(x.dtype)
    return x + bias, numpy.resize(RESIDUAL, x.shape).astype(x.dtype)


def residual_gradient(grad, x, result):
    return fastdrop.bias_dropout_residual_backward(grad, result[1], bias=x.ndim > 0)[0]


def softmax(x, rate=0):
    powers = numpy.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_gradient(grad, x, result):
    return fastdrop.softmax_dropout_backward(grad, result[2], result[1])


INPUTS = numpy.random.default_rng(4).standard_normal((16, 16))


def inputs(w):
    """Rows that are multiplied by weights: a square matrix, so that the result is like w."""
    return INPUTS[: w.shape[0], : w.shape[0]].astype(w.dtype)


def connected(w, rate=None, **options):
    """`fastdrop.dropconnect` of inputs that are always the same, as a function of the weights."""
    return fastdrop.dropconnect(inputs(w), w, rate, **options)


def zoned(x, rate=None, **options):
    """`fastdrop.zoneout` of a previous state that is 0.5 everywhere."""
    return fastdrop.zoneout(x, numpy.full_like(x, 0.5), rate, **options)


KINDS = [
    Kind("dropout", plain, (4, 37), (4, 37), nn.Dropout),
    Kind(
        "dropout1d",
        fastdrop.dropout1d,
        (3, 5, 7),
        (3, 5, 1),
        nn.Dropout1d,
        empty=((0, 2), (2, 0, 3), (2, 3, 0)),
    ),
    Kind(
        "dropout1d, channels last",
        last(fastdrop.dropout1d),
        (3, 7, 5),
        (3, 1, 5),
        lambda rate, rng: nn.Dropout1d(rate, rng=rng, data_format="channels_last"),
        empty=((0, 2), (2, 0, 3), (2, 3, 0)),
    ),
    Kind(
        "dropout2d",
        fastdrop.dropout2d,
        (2, 6, 3, 5),
        (2, 6, 1, 1),
        nn.Dropout2d,
        empty=((0, 2, 3, 4), (2, 3, 0, 4)),
    ),
    Kind(
        "dropout3d",
        fastdrop.dropout3d,
        (2, 6, 2, 3, 3),
        (2, 6, 1, 1, 1),
        nn.Dropout3d,
        empty=((0, 2, 3, 4), (2, 3, 0, 4, 1)),
    ),
    Kind(
        "alpha_dropout",
        fastdrop.alpha_dropout,
        (4, 37),
        (4, 37),
        nn.AlphaDropout,
        alpha_reference,
        mean=alpha_mean,
        variance=alpha_variance,
        tolerance=8,
    ),
    Kind(
        "feature_alpha_dropout",
        fastdrop.feature_alpha_dropout,
        (3, 6, 2, 4),
        (3, 6, 1, 1),
        nn.FeatureAlphaDropout,
        alpha_reference,
        mean=alpha_mean,
        variance=alpha_variance,
        tolerance=8,
        empty=((0, 2), (2, 0, 3), (2, 3, 0)),
    ),
    Kind(
        "dropblock1d",
        blocked(fastdrop.dropblock1d, 3),
        (2, 3, 40),
        (2, 3, 40),
        lambda rate, rng: nn.DropBlock1d(rate, 3, rng=rng),
        mean=None,
        variance=None,
        empty=((0, 2, 4), (2, 0, 3), (2, 3, 0)),
    ),
    Kind(
        "dropblock2d",
        blocked(fastdrop.dropblock2d, (2, 3)),
        (2, 3, 9, 11),
        (2, 3, 9, 11),
        lambda rate, rng: nn.DropBlock2d(rate, (2, 3), rng=rng),
        mean=None,
        variance=None,
        empty=((0, 2, 4, 4), (2, 0, 3, 4), (2, 3, 0, 4)),
    ),
    Kind(
        "dropblock2d, of each example",
        blocked(fastdrop.dropblock2d, 3, normalise="example"),
        (4, 2, 9, 11),
        (4, 2, 9, 11),
        lambda rate, rng: nn.DropBlock2d(rate, 3, rng=rng, normalise="example"),
        example_reference,
        lambda grad, x, result: fastdrop.dropblock_backward(grad, result[1], normalise="example"),
        mean=None,
        variance=None,
        empty=((0, 2, 4, 4), (2, 0, 3, 4), (2, 3, 0, 4)),
    ),
    Kind(
        "dropblock3d",
        blocked(fastdrop.dropblock3d, 2),
        (2, 3, 5, 4, 6),
        (2, 3, 5, 4, 6),
        lambda rate, rng: nn.DropBlock3d(rate, 2, rng=rng),
        mean=None,
        variance=None,
        empty=((0, 2, 4, 4, 3), (2, 3, 0, 4, 2)),
    ),
    Kind(
        "stochastic_depth",
        fastdrop.stochastic_depth,
        (8, 3, 4),
        (8, 1, 1),
        nn.StochasticDepth,
        empty=((0,), (0, 3), (3, 0)),
    ),
    Kind(
        "stochastic_depth, of the batch",
        depth,
        (8, 3, 4),
        (1, 1, 1),
        lambda rate, rng: nn.StochasticDepth(rate, "batch", rng=rng),
        empty=((0,), (0, 3), (3, 0)),
    ),
    Kind(
        "bias_dropout_residual",
        residual,
        (4, 37),
        (4, 37),
        None,
        lambda x, kept, mask: numpy.where(kept, parts(x)[0] * mask.scale, 0) + parts(x)[1],
        residual_gradient,
        mean=lambda x, rate: sum(parts(x)),
        variance=lambda x, rate: spread(parts(x)[0], rate),
        evaluated=lambda x, rate: sum(parts(x)),
        at_one=lambda x: parts(x)[1],
        tolerance=4,
    ),
    Kind(
        "softmax_dropout",
        fastdrop.softmax_dropout,
        (3, 5, 11),
        (3, 5, 11),
        nn.SoftmaxDropout,
        lambda x, kept, mask: numpy.where(kept, softmax(x) * mask.scale, 0),
        softmax_gradient,
        mean=softmax,
        variance=lambda x, rate: spread(softmax(x), rate),
        evaluated=softmax,
        tolerance=16,
    ),
    Kind(
        "dropconnect",
        connected,
        (5, 37),
        (5, 37),
        None,
        lambda w, kept, mask: inputs(w) @ numpy.where(kept, w * mask.scale, 0),
        lambda grad, w, result: fastdrop.dropconnect_backward(grad, inputs(w), w, result[1])[1],
        mean=lambda w, rate: inputs(w) @ w,
        variance=lambda w, rate: inputs(w) ** 2 @ spread(w, rate),
        evaluated=lambda w, rate: inputs(w) @ w,
        empty=((0, 3), (3, 0)),
        tolerance=64,
    ),
    Kind(
        "variational_dropout",
        fastdrop.variational_dropout,
        (3, 5, 7),
        (3, 1, 7),
        nn.VariationalDropout,
        empty=((0, 2), (2, 0, 3), (2, 3, 0)),
    ),
    Kind(
        "zoneout",
        zoned,
        (4, 37),
        (4, 37),
        None,
        reference=lambda x, kept, mask: numpy.where(kept, x, 0.5),
        gradient=lambda grad, x, result: fastdrop.zoneout_backward(grad, result[1])[0],
        mean=lambda x, rate: (1 - rate) * x + rate * 0.5,
        variance=lambda x, rate: (x - 0.5) ** 2 * rate * (1 - rate),
        evaluated=lambda x, rate: (1 - rate) * x + rate * 0.5,
        at_one=lambda x: numpy.full_like(x, 0.5),
        tolerance=4,
    ),
]
