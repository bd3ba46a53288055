"""Layers of alpha dropout, for networks of SELU units."""

from typing import Any

from fastdrop.dropouts import alpha_dropout, feature_alpha_dropout
from fastdrop.nn.random import FunctionLayer
from fastdrop.nn.types import Rate
from fastdrop.stream import RandomSource
from fastdrop.types import Shape

__all__ = ["AlphaDropout", "FeatureAlphaDropout"]


class AlphaDropout(FunctionLayer):
    """Alpha dropout in training, the identity outside; see `fastdrop.alpha_dropout`.

    Parameters
    ----------
    rate, keep_prob : float
        Probability that a unit is dropped, or kept; exactly one of the two. Can be set later.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.AlphaDropout(0.5, rng=0).forward(numpy.zeros((1, 4)), training=True).round(2)
    array([[ 0.78,  0.78, -0.78, -0.78]])
    """

    _sealed = True
    _function = staticmethod(alpha_dropout)

    def __init__(
        self, rate: Rate | None = None, *, keep_prob: float | None = None, rng: RandomSource = None
    ) -> None:
        super().__init__(rate, keep_prob, rng)


class FeatureAlphaDropout(FunctionLayer):
    """Alpha dropout of whole channels (axis 1); see `AlphaDropout`."""

    _sealed = True
    _function = staticmethod(feature_alpha_dropout)

    def __init__(
        self, rate: Rate | None = None, *, keep_prob: float | None = None, rng: RandomSource = None
    ) -> None:
        super().__init__(rate, keep_prob, rng)

    def _sharing(self, shape: Shape) -> dict[str, Any]:
        return {"shared_axes": tuple(range(2, len(shape)))}
