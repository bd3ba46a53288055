"""The product of a fused block: that of its Dense, or none, of kept units only.

A block draws its mask before it multiplies. Where all rows share a mask, the product has the size
of the kept units: the kept rows and columns of the weights are gathered once a step, for both
directions. Elsewhere the product skips the zeros that a mask or a ReLU made.

    forward    y = x @ w + b
    backward   grad_w = x.T @ grad    grad_b = sum(grad)    grad_x = grad @ w.T
"""

import numpy

from fastdrop._backend import kernels
from fastdrop.nn.buffers import Buffers
from fastdrop.nn.dense import Dense, set_gradient
from fastdrop.nn.masks import compress, expand
from fastdrop.nn.signal import Signal
from fastdrop.nn.types import Ready
from fastdrop.parameters import Parameter
from fastdrop.types import Array

__all__ = ["DenseProduct", "NoProduct"]


class DenseProduct:
    """The product of a Dense.

    Parameters
    ----------
    dense : Dense
    buffers : Buffers
    """

    learns = True
    _input: Signal
    _weight: Array  # as it was multiplied

    def __init__(self, dense: Dense, buffers: Buffers) -> None:
        self._dense = dense
        self._units_in, self._units_out = dense.units_in, dense.units_out
        self._buffers = buffers

    def units_out(self, signal: Signal) -> int:
        """Return the units of the product, of a signal that fits.

        Raises
        ------
        ValueError
            If the signal has other units than the Dense expects.
        """
        if signal.units != self._units_in:
            self._dense.check_input(signal.shape)
        return self._units_out

    def forward(self, signal: Signal, out: Signal, fresh: bool) -> Array:
        """Return the array of the product, (rows, kept).

        Parameters
        ----------
        signal : Signal
        out : Signal
            What the block will return: its kept units and its mask.
        fresh : bool
            Whether the array is to be none of the block's work arrays.
        """
        x, buffers = signal.array, self._buffers
        rows = x.shape[0]
        if fresh:
            y = numpy.empty((rows, out.kept), x.dtype)
        else:
            y = buffers.matrix("y", rows, out.kept, rows * out.units)
        parameters = self._dense.parameters()
        weight = parameters[0].value
        bias = parameters[1].value if len(parameters) > 1 else None
        kept_in, kept_out = signal.kept_units, out.kept_units
        if kept_in is not None or kept_out is not None:
            part = buffers.matrix("weight", signal.kept, out.kept, weight.size)
            weight = compress(weight, kept_out, part, kept_in)
            if bias is not None and kept_out is not None:
                part = buffers.matrix("bias", 1, out.kept, out.units)
                bias = compress(bias.reshape(1, -1), kept_out, part)[0]
        self._input, self._weight = signal, weight
        product = kernels.Product(
            x, weight, y, mask_a=signal.mask, mask_c=out.mask, bias=bias, fused=True,
            skip_zeros=signal.skip_zeros, nonzeros=signal.nonzeros,
        )  # fmt: skip
        kernels.matmul(product)
        return y

    def backward(
        self, grad: Array, out: Signal, input_gradient: bool, ready: Ready | None
    ) -> Array | None:
        """Set the gradients of the parameters; return the input's, or None; see `FusedBlock`."""
        parameters = self._dense.parameters()
        self._weight_gradient(parameters[0], grad, out)
        if len(parameters) > 1:
            sums = self._buffers.matrix("grad bias", 1, out.kept, out.units)[0]
            kernels.masked_sums(grad, None, sums)
            set_gradient(parameters[1], sums, None, out.any_kept, out.kept_units is not None)
        if ready is not None:
            for parameter in parameters:
                ready(parameter)
        return self._input_gradient(grad, out) if input_gradient else None

    def _weight_gradient(self, parameter: Parameter, grad: Array, out: Signal) -> None:
        signal = self._input
        result = self._buffers.matrix("grad weight", signal.kept, out.kept, parameter.value.size)
        product = kernels.Product(
            signal.array.T, grad, result, mask_a=signal.mask, mask_b=out.mask, sum_rows=True,
            fused=True, skip_zeros=signal.skip_zeros, nonzeros=signal.nonzeros,
        )  # fmt: skip
        kernels.matmul(product)
        compact = signal.kept_units is not None or out.kept_units is not None
        if compact:
            result = _kept_by_any_row(result, signal, out)
        set_gradient(parameter, result, signal.any_kept, out.any_kept, compact)

    def _input_gradient(self, grad: Array, out: Signal) -> Array:
        signal, rows = self._input, grad.shape[0]
        result = self._buffers.matrix("grad", rows, signal.kept, rows * signal.units)
        product = kernels.Product(
            grad, self._weight.T, result, mask_a=out.mask, mask_c=signal.mask, fused=True,
            skip_zeros=out.skip_zeros, nonzeros=out.nonzeros,
        )  # fmt: skip
        kernels.matmul(product)
        return result

    def infer(self, signal: Signal) -> Array:
        """Return the array of the product at test time, a fresh one."""
        self.units_out(signal)
        parameters = self._dense.parameters()
        y: Array = numpy.matmul(signal.array, parameters[0].value)
        if len(parameters) > 1:
            numpy.add(y, parameters[1].value, out=y)
        return y


class NoProduct:
    """A copy, where a block has no Dense: what is behind it works in place.

    Parameters
    ----------
    buffers : Buffers
    """

    learns = False
    _input: Signal

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers

    def units_out(self, signal: Signal) -> int:
        """Return the units of the signal."""
        return signal.units

    def forward(self, signal: Signal, out: Signal, fresh: bool) -> Array:
        """Return the array, (rows, kept); see `DenseProduct.forward`."""
        buffers, rows = self._buffers, signal.array.shape[0]
        self._input = signal
        x = signal.array
        if signal.kept_units is not None:
            x = signal.all_units(buffers.matrix("all units", rows, signal.units))
        y = buffers.matrix("y", rows, out.kept, rows * out.units)
        if out.kept_units is not None:
            return compress(x, out.kept_units, y)
        numpy.copyto(y, x)
        return y

    def backward(
        self, grad: Array, out: Signal, input_gradient: bool, ready: Ready | None
    ) -> Array | None:
        """Return the input's gradient, or None; see `FusedBlock.backward`."""
        if not input_gradient:
            return None
        signal, buffers, rows = self._input, self._buffers, grad.shape[0]
        if out.kept_units is not None:
            grad = expand(grad, out.kept_units, buffers.matrix("grad", rows, out.units))
        if signal.kept_units is None:
            return grad
        return signal.kept_columns(grad, buffers.matrix("part", rows, signal.kept))

    def infer(self, signal: Signal) -> Array:
        """Return the array itself."""
        return signal.array


def _kept_by_any_row(grad: Array, signal: Signal, out: Signal) -> Array:
    """The compact gradient of weights without the units that no row kept.

    Where one side's units are left out because all rows share a mask, so are those of the other
    side that no row's mask kept: an optimiser wants both sides compact, or none.
    """
    rows = signal.any_kept if signal.kept_units is None else None
    columns = out.any_kept if out.kept_units is None else None
    if rows is None and columns is None:
        return grad
    index = numpy.ix_(_indices(rows, grad.shape[0]), _indices(columns, grad.shape[1]))
    compact: Array = numpy.ascontiguousarray(grad)[index]
    return compact


def _indices(units: Array | None, width: int) -> Array:
    if units is None:
        return numpy.arange(width)
    return numpy.flatnonzero(numpy.unpackbits(units, count=width, bitorder="little"))
