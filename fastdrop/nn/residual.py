"""The layer of bias, dropout and residual sum in one pass."""

import numpy
from numpy.typing import ArrayLike, DTypeLike

from fastdrop.arguments import as_array, contiguous, integer
from fastdrop.dropouts import bias_dropout_residual, bias_dropout_residual_backward
from fastdrop.nn.layer import fitting_gradient
from fastdrop.nn.random import RateLayer
from fastdrop.nn.types import Rate
from fastdrop.parameters import Parameter
from fastdrop.stream import RandomSource
from fastdrop.types import Array

__all__ = ["BiasDropoutResidual"]


class BiasDropoutResidual(RateLayer):
    """``residual + dropout(x + bias)``, for networks whose passes are written out.

    It takes two arrays and gives two gradients, so that a `Sequential` cannot hold it.

    Parameters
    ----------
    units : int
        Length of the last axis.
    rate, keep_prob : float
        Probability that an element is dropped, or kept; exactly one of the two. Can be set later.
    dtype : optional
        float32 or float64: of the bias, which begins at 0.
    rng : optional
        As for `fastdrop.dropout`.

    Attributes
    ----------
    bias : numpy.ndarray, shape (units,)
        The biases themselves; an optimiser moves them, as `parameters` says.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.BiasDropoutResidual(3, 0.5, rng=0)
    >>> x, residual = numpy.ones((2, 3), numpy.float32), numpy.zeros((2, 3), numpy.float32)
    >>> layer.forward(x, residual, training=True)
    array([[2., 2., 0.],
           [0., 2., 0.]], dtype=float32)
    >>> grad_x, grad_residual = layer.backward(numpy.ones((2, 3), numpy.float32))
    >>> layer.parameters()[0].grad
    array([2., 4., 0.], dtype=float32)
    """

    _sealed = True
    _mask = _drawn_for = None
    takes_one_array = False

    def __init__(
        self,
        units: int,
        rate: Rate | None = None,
        *,
        keep_prob: float | None = None,
        dtype: DTypeLike = numpy.float32,
        rng: RandomSource = None,
    ) -> None:
        super().__init__(rate, keep_prob, rng)
        units = integer(units, "units")
        if units < 1:
            raise ValueError(f"units must be at least 1, got {units}")
        dtype = numpy.dtype(dtype)
        if dtype not in (numpy.float32, numpy.float64):
            raise TypeError(f"dtype must be float32 or float64, got {dtype}")
        self._bias = Parameter("bias", numpy.zeros(units, dtype))
        self._bias.belongs_to(self.name)

    @property
    def bias(self) -> Array:
        """numpy.ndarray: the biases themselves."""
        return self._bias.value

    def named(self, name: str) -> None:
        """Take a name, which is the parameter's, too."""
        super().named(name)
        self._bias.belongs_to(name)

    def parameters(self) -> list[Parameter]:
        """Return the bias in a list."""
        return [self._bias]

    def forward(self, x: ArrayLike, residual: ArrayLike, training: bool = False) -> Array:  # type: ignore[override]
        """Return ``residual + dropout(x + bias)``.

        Parameters
        ----------
        x, residual : array_like of the layer's dtype, shape (..., units)
        training : bool, optional

        Returns
        -------
        numpy.ndarray, shape of `x`
        """
        x, residual = self._checked(x, "x"), self._checked(residual, "residual")
        if training:
            self.follow_schedule()
        y, mask = bias_dropout_residual(
            x, residual, self.bias, keep_prob=self.keep_prob, rng=self.stream, training=training
        )
        if training:
            self._mask, self._drawn_for = mask, (x.shape, x.dtype)
        return y

    def _checked(self, given: ArrayLike, argument: str) -> Array:
        """An argument as an array of the layer's dtype."""
        array, bias = as_array(given, argument), self.bias
        wide = numpy.dtype(numpy.float32) if array.dtype == numpy.float16 else array.dtype
        if wide != bias.dtype:
            raise TypeError(
                f"{self.name}: {argument} must have the layer's dtype, {bias.dtype}, got "
                f"{array.dtype}"
            )
        if array.shape[-1:] != bias.shape:
            raise ValueError(
                f"{self.name}: {argument} must have shape (..., {bias.size}), got {array.shape}"
            )
        return contiguous(array, bias.dtype)

    def backward(  # type: ignore[override]
        self, grad: ArrayLike, input_gradient: bool = True
    ) -> tuple[Array, Array] | None:
        """Set the bias' gradient; return those of `x` and `residual`, or None.

        The second one is `grad` itself.
        """
        if self._drawn_for is None:
            raise self._missing_forward()
        grad = fitting_gradient(grad, *self._drawn_for, self.name)
        grad_x, self._bias.grad = bias_dropout_residual_backward(grad, self._mask)
        return (grad_x, grad) if input_gradient else None

    def __repr__(self) -> str:
        return f"BiasDropoutResidual({self.bias.size}, {self._chosen_rate()})"
