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
        ``f(x, rate)``: of every element of y; y outside of training. Without a variance the
        kind's contract on it is not tested here.
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
    mean: Callable = itself
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
]
