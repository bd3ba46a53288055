"""The functions of a fused block: layers between its product and its dropout."""

from typing import Any

import numpy

from fastdrop.nn.layer import Layer, fresh
from fastdrop.nn.passes import Passes
from fastdrop.nn.types import Dtype, Scratch
from fastdrop.parameters import Parameter
from fastdrop.types import Array, Shape

__all__ = ["ElementwiseFunction", "UnitsFunction"]


class ElementwiseFunction:
    """An activation function.

    Parameters
    ----------
    layer : Elementwise
    dtype : numpy.dtype
        Of the network.

    Attributes
    ----------
    from_output : bool
        Whether the derivative needs the output only, so that `forward` may write to its input.
    homogeneous : bool
        As for `Elementwise`.
    keeps_output : bool
        Whether the derivative needs the output, which then has to stay as it is.
    learns : bool
        Whether it may have parameters.
    """

    keeps_output = True
    learns = False

    def __init__(self, layer: Any, dtype: Dtype) -> None:
        self._layer = layer
        self.from_output = layer.from_output
        self.homogeneous = layer.homogeneous

    def forward(self, x: Array, out: Array, batch_shape: Shape, scratch: Scratch) -> Any:
        """Write the function of x to out; return what `multiply_derivative` is to be asked of."""
        self._layer.apply(x, out, scratch)
        return self._layer.as_applied()

    def infer(self, x: Array, batch_shape: Shape) -> Array:
        """Return the function of x at test time; x may be overwritten."""
        out = x if self.from_output else numpy.empty_like(x)
        self._layer.apply(x, out, fresh)
        return out


class UnitsFunction:
    """A layer with passes of its own, of which no unit depends on another: it gets the kept ones.

    Parameters and attributes are those of `ElementwiseFunction`.
    """

    from_output = False  # the layer may hold what it is given
    homogeneous = False
    keeps_output = False
    learns = True

    def __init__(self, layer: Any, dtype: Dtype) -> None:
        self._layer: Layer = layer
        self._passes = Passes(layer)
        self._dtype = dtype
        self._batch_shape: Shape = ()

    def forward(self, x: Array, out: Array, batch_shape: Shape, scratch: Scratch) -> Any:
        """Call the layer's forward; write to out, an array that the layer does not see."""
        self._batch_shape = batch_shape
        numpy.copyto(out, self._called(x, batch_shape, True))
        return self

    def infer(self, x: Array, batch_shape: Shape) -> Array:
        """Return the layer's output at test time, a fresh array."""
        return self._called(x, batch_shape, False).copy()

    def _called(self, x: Array, batch_shape: Shape, training: bool) -> Array:
        shape = (*batch_shape, x.shape[1])
        y = numpy.asarray(self._passes.forward(x.reshape(shape), training), self._dtype)
        return self._fitting(y, shape, "forward").reshape(x.shape)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Call the layer's backward, and put what it returns in the place of grad."""
        shape = (*self._batch_shape, grad.shape[1])
        given = numpy.asarray(self._passes.backward(grad.reshape(shape), True), self._dtype)
        numpy.copyto(grad, self._fitting(given, shape, "backward").reshape(grad.shape))

    def parameters(self) -> list[Parameter]:
        """Return the layer's parameters."""
        return self._layer.parameters()

    def _fitting(self, array: Array, shape: Shape, method: str) -> Array:
        if array.shape != shape:
            raise ValueError(
                f"{self._layer.name}: {method} must return the shape that it is given, expected "
                f"{shape}, got {array.shape}"
            )
        return array
