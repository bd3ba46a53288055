"""Softmax, as a layer."""

import numpy
from numpy.typing import ArrayLike

from fastdrop.nn.layer import Layer, as_floats, fitting_gradient
from fastdrop.types import Array

__all__ = ["Softmax"]


class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` over the last axis.

    For the last layer of a network that tells classes apart, leave it out in training and use
    `SoftmaxCrossEntropy`, which takes the scores themselves.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.Softmax().forward(numpy.array([[0.0, 0.0], [1000.0, 0.0]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """

    _sealed = True
    _output: Array | None = None

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the probabilities.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, shape (..., classes)
        training : bool, optional
            Keep what `backward` needs.

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
        """
        x = as_floats(x, self.name)
        if x.ndim == 0 or x.shape[-1] == 0:
            raise ValueError(
                f"{self.name}: x must have a last axis of classes, got shape {x.shape}"
            )
        with numpy.errstate(invalid="ignore", under="ignore"):
            y: Array = numpy.exp(x - numpy.maximum.reduce(x, axis=-1, keepdims=True))
            y /= numpy.add.reduce(y, axis=-1, keepdims=True)
        if training:
            self._output = y.copy()
        return y

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Return the gradient with respect to the input, or None if it is not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        y = self._output
        if y is None:
            raise self._missing_forward()
        grad = fitting_gradient(grad, y.shape, y.dtype, self.name)
        if not input_gradient:
            return None
        given: Array = grad - numpy.einsum("...i,...i->...", grad, y)[..., None]
        given *= y
        return given

    def __repr__(self) -> str:
        return "Softmax()"
