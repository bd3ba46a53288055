"""The base of activation functions: each element by itself."""

from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.nn.layer import Layer, as_floats, fitting_gradient, fresh
from fastdrop.nn.types import Scratch
from fastdrop.types import Array

__all__ = ["Elementwise"]


class Elementwise(Layer):
    """Base of the activation functions: each element by itself.

    One of your own derives from it and defines `function` and `derivative`. A `Sequential` computes
    it with the Dense before it, on kept units only. `apply` and `multiply_derivative`, which work
    in place, may be defined instead, and are faster.

    Attributes
    ----------
    from_output : bool
        Whether the derivative can be told from the output alone; the input is then not kept, and
        None is handed over in its place. False unless a class says otherwise.
    homogeneous : bool
        Whether ``f(s * x) == s * f(x)`` for every ``s >= 0``. Such a function may change places
        with a dropout. False unless a class says otherwise.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> class Swish(nn.Elementwise):
    ...     def function(self, x):
    ...         return x / (1 + numpy.exp(-x))
    ...     def derivative(self, x, y):
    ...         gate = 1 / (1 + numpy.exp(-x))
    ...         return y + gate * (1 - y)
    >>> net = nn.Sequential([nn.Dense(2, 3), Swish(), nn.Dropout(0.5), nn.Dense(3, 1)], rng=0)
    >>> net.forward(numpy.ones((4, 2)), training=True).shape
    (4, 1)
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = False
    homogeneous = False
    _input: Array | None = None
    _output: Array | None = None
    _applied: "Elementwise"

    def as_applied(self) -> "Elementwise":
        """Return a function that derivatives of the last forward pass are asked of.

        One whose settings may change until the backward pass returns a copy of itself.
        """
        return self

    def function(self, x: Array) -> Array:
        """Return the function of every element of x, an array of its shape.

        Parameters
        ----------
        x : numpy.ndarray of float32 or float64
            Not to be changed.
        """
        raise NotImplementedError(f"{self.name} defines no function")

    def derivative(self, x: Any, y: Array) -> Array:
        """Return the derivative at x, where the function is y; an array of their shape.

        Parameters
        ----------
        x, y : numpy.ndarray of float32 or float64
            Not to be changed. `x` is None where `from_output` is true.
        """
        raise NotImplementedError(f"{self.name} defines no derivative")

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Write the function of x to out.

        Parameters
        ----------
        x, out : numpy.ndarray
            Two arrays, or where `from_output` is true perhaps one.
        scratch : callable
            ``scratch(name, shape, dtype)`` gives a work array.
        """
        y = numpy.asarray(self.function(x))
        if y.shape != x.shape:
            raise ValueError(
                f"{self.name}: function must return the shape of x, expected {x.shape}, got "
                f"{y.shape}"
            )
        numpy.copyto(out, y, casting="same_kind")

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Multiply grad by the derivative, in place.

        Parameters
        ----------
        grad : numpy.ndarray
        x, y : numpy.ndarray
            As for `derivative`.
        scratch : callable
            As for `apply`.
        """
        slope = numpy.asarray(self.derivative(x, y))
        if slope.shape != grad.shape:
            raise ValueError(
                f"{self.name}: derivative must return the shape of y, expected {grad.shape}, got "
                f"{slope.shape}"
            )
        numpy.multiply(grad, slope, out=grad)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the activations.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, any shape
        training : bool, optional
            Keep what `backward` needs.

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
        """
        x = as_floats(x, self.name)
        y = numpy.empty(x.shape, x.dtype)
        self.apply(x, y, fresh)
        if training:
            self._input = None if self.from_output else x.copy()
            self._output = y.copy()
            self._applied = self.as_applied()
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
        if self._output is None:
            raise self._missing_forward()
        grad = fitting_gradient(grad, self._output.shape, self._output.dtype, self.name)
        if not input_gradient:
            return None
        grad = grad.copy()
        self._applied.multiply_derivative(grad, self._input, self._output, fresh)
        return grad

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
