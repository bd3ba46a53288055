"""Layers of noise: GaussianDropout, UniformDropout, GaussianNoise."""

import math
from typing import Any

from fastdrop.arguments import real_number
from fastdrop.dropouts import (
    apply_noise,
    gaussian_dropout,
    gaussian_noise,
    noise_backward,
    uniform_dropout,
)
from fastdrop.nn.random import DrawnLayer, RateLayer
from fastdrop.nn.types import Kind, Rate, Rows
from fastdrop.nn.windows import draw_noise
from fastdrop.noise import Noise
from fastdrop.stream import RandomSource
from fastdrop.types import Array

__all__ = ["GaussianDropout", "GaussianNoise", "UniformDropout"]


class _NoiseLayer(DrawnLayer):
    """What the three have in common: the backward pass makes the noise again."""

    def _gradient(self, grad: Array, noise: Any) -> Array:
        return noise_backward(grad, noise)

    def _apply_part(
        self, x: Array, out: Array, rows: Rows, kind: Kind, scale: float, additive: bool
    ) -> Noise:
        """Apply the noise of some rows of a larger batch."""
        noise = draw_noise(self.stream, kind, x.shape, scale, additive, rows)
        apply_noise(x, noise, out=out)
        return noise


class _FactorLayer(_NoiseLayer, RateLayer):
    _function: Any = None
    _kind: Kind
    _of_variance: int  # of the noise's numbers, inverted

    def __init__(
        self, rate: Rate | None = None, *, keep_prob: float | None = None, rng: RandomSource = None
    ) -> None:
        RateLayer.__init__(self, rate, keep_prob, rng)

    def _set_keep_prob(self, keep_prob: float) -> None:
        if keep_prob == 0:
            raise ValueError(
                f"{self.name}: rate must be below 1, where the variance of the noise is infinite"
            )
        super()._set_keep_prob(keep_prob)

    def _drop(self, x: Array, training: bool, out: Array) -> Any:
        if training and self._rows is not None:
            variance = type(self)._of_variance * (1 - self.keep_prob) / self.keep_prob
            scale = math.sqrt(variance)
            return self._apply_part(x, out, self._rows, type(self)._kind, scale, False)
        _, noise = type(self)._function(
            x, keep_prob=self.keep_prob, rng=self.stream, training=training, out=out
        )
        return noise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._chosen_rate()})"


class GaussianDropout(_FactorLayer):
    """Multiply by normal numbers of mean 1 in training; see `fastdrop.gaussian_dropout`.

    Parameters
    ----------
    rate, keep_prob : float
        The rate of the dropout that has the same variance, below 1; exactly one of the two. Can be
        set later.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.GaussianDropout(0.2, rng=0)
    >>> y = layer.forward(numpy.ones((1, 4)), training=True)
    >>> numpy.array_equal(layer.backward(numpy.ones((1, 4))), y)
    True
    """

    _sealed = True
    _function = staticmethod(gaussian_dropout)
    _kind, _of_variance = "normal", 1


class UniformDropout(_FactorLayer):
    """Multiply by uniform numbers of mean 1 in training; see `fastdrop.uniform_dropout`.

    Parameters
    ----------
    rate, keep_prob, rng : optional
        As for `GaussianDropout`.
    """

    _sealed = True
    _function = staticmethod(uniform_dropout)
    _kind, _of_variance = "uniform", 3


class GaussianNoise(_NoiseLayer):
    """Add normal numbers of mean 0 in training; see `fastdrop.gaussian_noise`.

    Parameters
    ----------
    std : float
        Standard deviation, at least 0 and finite. Can be set later.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.GaussianNoise(0.5, rng=0)
    >>> layer.forward(numpy.zeros((1, 3)), training=True).round(3)
    array([[ 0.01 , -0.034, -0.94 ]])
    >>> layer.forward(numpy.zeros((1, 3)))
    array([[0., 0., 0.]])
    """

    _sealed = True

    def __init__(self, std: float, *, rng: RandomSource = None) -> None:
        super().__init__(rng)
        self.std = std

    @property
    def std(self) -> float:
        """float: the standard deviation of the noise."""
        return self._std

    @std.setter
    def std(self, std: float) -> None:
        std = real_number(std, "std")
        if not 0 <= std < math.inf:
            raise ValueError(f"std must be at least 0 and finite, got {std}")
        self._std = std

    def settings(self) -> dict[str, Any]:
        """Return the standard deviation, by name."""
        return {"std": self._std}

    def _drop(self, x: Array, training: bool, out: Array) -> Any:
        if training and self._rows is not None:
            return self._apply_part(x, out, self._rows, "normal", self._std, True)
        _, noise = gaussian_noise(x, self._std, rng=self.stream, training=training, out=out)
        return noise

    def __repr__(self) -> str:
        return f"GaussianNoise({self._std:g})"
