"""The layer of softmax and dropout in one."""

from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.dropouts import softmax_dropout, softmax_dropout_backward
from fastdrop.nn.layer import as_floats, fitting_gradient
from fastdrop.nn.random import RateLayer
from fastdrop.nn.types import Rate
from fastdrop.nn.windows import draw_rows
from fastdrop.stream import RandomSource
from fastdrop.types import Array

__all__ = ["SoftmaxDropout"]


class SoftmaxDropout(RateLayer):
    """Softmax of the rows of attention scores, and dropout of its elements in training.

    Parameters
    ----------
    rate, keep_prob : float
        Probability that a weight is dropped, or kept; exactly one of the two. Can be set later.
    causal : bool, optional
        Query i attends to keys 0 to i only.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.SoftmaxDropout(0.5, causal=True, rng=0)
    >>> layer.forward(numpy.zeros((1, 2, 2)))
    array([[[1. , 0. ],
            [0.5, 0.5]]])
    """

    _sealed = True
    _kept = None

    def __init__(
        self,
        rate: Rate | None = None,
        *,
        keep_prob: float | None = None,
        causal: bool = False,
        rng: RandomSource = None,
    ) -> None:
        super().__init__(rate, keep_prob, rng)
        self._causal = bool(causal)

    def settings(self) -> dict[str, Any]:
        """Return the arguments by name."""
        return super().settings() | {"causal": self._causal}

    def forward(
        self, x: ArrayLike, training: bool = False, attend: ArrayLike | None = None
    ) -> Array:
        """Return the weights of attention.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, shape (batch, ..., keys)
            Scores.
        training : bool, optional
        attend : array_like of bool, optional
            As for `fastdrop.softmax_dropout`.

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
        """
        x = as_floats(x, self.name)
        if training:
            self.follow_schedule()
        options: dict[str, Any] = {"attend": attend, "causal": self._causal, "training": training}
        if training and self._rows is not None:
            mask = draw_rows(self.stream, x.shape, self._rows, keep_prob=self.keep_prob)
            options["mask"] = mask
        else:
            options |= {"keep_prob": self.keep_prob, "rng": self.stream}
        y, drawn, probabilities = softmax_dropout(x, **options)
        if training:
            # what is handed out may be changed by its owner
            own = probabilities.copy() if probabilities is y else probabilities
            self._kept = (drawn, own)
        return y

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Return the gradient with respect to the scores, or None if it is not asked for."""
        if self._kept is None:
            raise self._missing_forward()
        mask, probabilities = self._kept
        grad = fitting_gradient(grad, probabilities.shape, probabilities.dtype, self.name)
        if not input_gradient:
            return None
        return softmax_dropout_backward(grad, probabilities, mask, out=numpy.empty_like(grad))

    def __repr__(self) -> str:
        return f"SoftmaxDropout({self._chosen_rate()}, causal={self._causal})"
