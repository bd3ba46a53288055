"""A fused block: a Dense, functions of its output and dropout, computed as one.

A block draws its mask first. Where all rows share the mask, the block's output has columns for the
kept units only, and so has the next product; elsewhere dropped elements are +0.0, and the products
behind the block skip these zeros, and those of a ReLU.

    forward    z = x @ w + b    h = f(z)    y = scale * mask ∘ h
    backward   grad = scale * mask ∘ grad_y * f'(z), and that of the product
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy

from fastdrop._backend import kernels
from fastdrop.nn.buffers import Buffers
from fastdrop.nn.dense import Dense
from fastdrop.nn.dropout import Dropout
from fastdrop.nn.functions import ElementwiseFunction, UnitsFunction
from fastdrop.nn.layer import Layer
from fastdrop.nn.masks import per_element
from fastdrop.nn.product import DenseProduct, NoProduct
from fastdrop.nn.signal import Signal
from fastdrop.nn.types import Dtype, Ready, Rows
from fastdrop.types import Array, Shape

__all__ = ["FUNCTIONS", "FusedBlock"]

# A function that was computed: whom to ask for its derivative, its input (None where the derivative
# does not need it) and its output.
_Step: TypeAlias = tuple[Any, Array | None, Array]
# What dropped elements and a ReLU's zeros are: bits, their shape and rows per mask.
_Zeroing: TypeAlias = tuple[Array, Shape, int]

# What stands between product and dropout for a layer of each kind, in the words of its `fused_as`.
FUNCTIONS: dict[Any, type[ElementwiseFunction] | type[UnitsFunction]] = {
    "any units": UnitsFunction,
    "elementwise": ElementwiseFunction,
    "relu": ElementwiseFunction,
}


class FusedBlock:
    """Dense (or None), functions of its output, Dropout (or None); see the module.

    Parameters
    ----------
    dense : Dense or None
    functions : sequence of (Layer, str)
        Each with what it is to a fused block, one of `FUNCTIONS`.
    dropout : Dropout or None
    dtype : numpy.dtype

    Attributes
    ----------
    fresh : bool
        Whether the array that `forward` returns is none of the block's work arrays if the block is
        the last one.
    learns : bool
        Whether it may have parameters.
    overwrites : bool
        Whether `infer` writes to the array that it is given.
    """

    _done: tuple[Signal, list[_Step], _Zeroing | None]  # what a backward pass needs

    def __init__(
        self,
        dense: Dense | None,
        functions: Sequence[tuple[Layer, Any]],
        dropout: Dropout | None,
        dtype: Dtype,
    ) -> None:
        self._functions = [FUNCTIONS[kind](layer, dtype) for layer, kind in functions]
        self._homogeneous = all(function.homogeneous for function in self._functions)
        # A ReLU at the end needs no array: what passes it and the mask is one bit.
        self._relu = bool(functions) and functions[-1][1] == "relu"
        if self._relu:
            self._functions.pop()
        self._dropout = dropout
        self._dtype = dtype
        self._buffers = Buffers(dtype)
        self._product: DenseProduct | NoProduct = NoProduct(self._buffers)
        if dense is not None:
            self._product = DenseProduct(dense, self._buffers)
        self.fresh = dense is not None and not functions and dropout is None
        self.learns = any(part.learns for part in (self._product, *self._functions))
        self.overwrites = dense is None

    def forward(self, signal: Signal, rows: Rows | None = None, last: bool = False) -> Signal:
        """Return the output in training.

        Parameters
        ----------
        signal : Signal
            What the block before returned, or the network's input. `backward` reads its array.
        rows : tuple of int, optional
            Of which batch these rows are which, as for `Dropout.draw`.
        last : bool, optional
            Whether the result leaves the network.

        Returns
        -------
        Signal
        """
        product, dropout = self._product, self._dropout
        units = product.units_out(signal)
        if dropout is None:
            out = Signal(signal.batch_shape, units)
        else:
            out = dropout.draw((*signal.batch_shape, units), rows)
        y = product.forward(signal, out, last and self.fresh)
        if self.fresh:
            out.array = y
            self._done = out, [], None
            return out
        steps = self._through_functions(y, out.batch_shape)
        if steps:
            y = steps[-1][2]
        if not (product.learns or steps or self._relu):
            out.skip_zeros, out.nonzeros = signal.skip_zeros, signal.nonzeros
        zeroing = self._rectify(y, out) if self._relu else self._drop(y, out)
        self._done = out, steps, zeroing
        return out

    def _through_functions(self, x: Array, batch_shape: Shape) -> list[_Step]:
        """Compute the functions; return for each whom to ask for the derivative, input, output."""
        steps: list[_Step] = []
        scratch = self._buffers.scratch
        for number, function in enumerate(self._functions):
            y = x
            if number or not function.from_output:  # the derivative needs x
                y = scratch(f"function {number}", x.shape, self._dtype)
            applied = function.forward(x, y, batch_shape, scratch)
            steps.append((applied, None if function.from_output else x, y))
            x = y
        return steps

    def _rectify(self, y: Array, out: Signal) -> _Zeroing:
        """ReLU, mask and scale in one pass; what is not <= 0 passes, so that NaN does.

        Sets the array of `out`; returns the arguments of ``kernels.apply_mask`` by which the
        gradient is 0 in the same places.
        """
        if self._functions and self._functions[-1].keeps_output:
            output = self._buffers.scratch("output", y.shape, self._dtype)
            numpy.copyto(output, y)
            y = output
        bits = None if out.mask is None else per_element(out.mask, y.shape[0])
        passing = numpy.empty(-(-y.size // 8), numpy.uint8)
        count = kernels.rectify(y, bits, out.scale, passing)
        out.array = y
        out.skip_zeros, out.nonzeros = True, count / y.size if y.size else 0.0
        return passing, y.shape, 1

    def _drop(self, y: Array, out: Signal) -> _Zeroing | None:
        """Mask and scale; see `_rectify`. Returns None where no element is dropped."""
        mask, scale = out.mask, out.scale
        out.array = y
        if mask is None and scale == 1:
            return None
        if not self._homogeneous:  # the derivative needs y
            out.array = self._buffers.scratch("output", y.shape, self._dtype)
        if mask is None:
            numpy.multiply(y, scale, out=out.array)
            return None
        zeroing = (mask.bits, mask.shape, mask.rows_per_mask)
        kernels.apply_mask(y, *zeroing, scale, out.array)
        out.skip_zeros, out.nonzeros = True, out.nonzeros * mask.density()
        return zeroing

    def backward(
        self, grad: Array, input_gradient: bool, ready: Ready | None = None
    ) -> Array | None:
        """Set the gradients of the parameters; return the input's.

        Parameters
        ----------
        grad : numpy.ndarray, shape of the array that `forward` returned
            Overwritten.
        input_gradient : bool
        ready : callable, optional
            Called with each parameter once its gradient is there, before the input's is computed.

        Returns
        -------
        numpy.ndarray or None
            Of the shape of the array that `forward` was given; None unless asked for.
        """
        out, steps, zeroing = self._done
        if zeroing is not None:
            kernels.apply_mask(grad, *zeroing, out.scale, grad)
        elif out.scale != 1:
            numpy.multiply(grad, out.scale, out=grad)
        for function, x, y in reversed(steps):
            function.multiply_derivative(grad, x, y, self._buffers.scratch)
            if ready is not None:
                for parameter in function.parameters():
                    ready(parameter)
        return self._product.backward(grad, out, input_gradient, ready)

    def infer(self, signal: Signal) -> Signal:
        """Return the output at test time, of every unit, in the signal that is given.

        Writes nothing that other threads may use at the same time: work arrays are fresh.
        """
        y = self._product.infer(signal)
        signal.units = signal.kept = y.shape[1]
        for function in self._functions:
            y = function.infer(y, signal.batch_shape)
        if self._relu:
            numpy.maximum(y, 0, out=y)
        dropout = self._dropout
        if dropout is not None and dropout.scale_at == "test":
            numpy.multiply(y, dropout.test_scale(signal.shape), out=y)
        signal.array = y
        return signal
