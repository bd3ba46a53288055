"""A layer outside of fused blocks: it is called with whole arrays."""

import math

import numpy

from fastdrop.nn.layer import Layer
from fastdrop.nn.passes import Passes
from fastdrop.nn.signal import Signal
from fastdrop.nn.types import Dtype, Ready, Rows
from fastdrop.types import Array

__all__ = ["UnfusedLayer"]


class UnfusedLayer:
    """A block of one layer with forward and backward passes of its own.

    Parameters
    ----------
    layer : Layer
    dtype : numpy.dtype
        Of the network.
    """

    fresh = False
    learns = True
    overwrites = True
    _input: Signal
    _output: Signal

    def __init__(self, layer: Layer, dtype: Dtype) -> None:
        self._layer = layer
        self._passes = Passes(layer)
        self._dtype = dtype

    def forward(self, signal: Signal, rows: Rows | None = None, last: bool = False) -> Signal:
        """Return the layer's output as a signal; see `FusedBlock.forward`."""
        self._input = signal
        out = self._output = self._called(signal, True)
        return out

    def infer(self, signal: Signal) -> Signal:
        """Return the layer's output at test time as a signal; keep nothing."""
        out = self._called(signal, False)
        out.array = out.array.copy()  # the layer may still hold the other
        return out

    def _called(self, signal: Signal, training: bool) -> Signal:
        x = signal.all_units().reshape(signal.shape)
        y = numpy.asarray(self._passes.forward(x, training), self._dtype)
        if y.ndim < 1 or y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"{self._layer.name}: forward must return shape ({x.shape[0]}, ...), got {y.shape}"
            )
        if y.ndim == 1:  # one number for each example is a unit
            y = y[:, None]
        out = Signal(y.shape[:-1], y.shape[-1])
        out.array = numpy.ascontiguousarray(y.reshape(math.prod(out.batch_shape), out.units))
        return out

    def backward(
        self, grad: Array, input_gradient: bool, ready: Ready | None = None
    ) -> Array | None:
        """Return the input's gradient; see `FusedBlock.backward`."""
        signal = self._input
        given = self._passes.backward(grad.reshape(self._output.shape), input_gradient)
        if ready is not None:
            for parameter in self._layer.parameters():
                ready(parameter)
        if not input_gradient:
            return None
        given = numpy.ascontiguousarray(given, self._dtype)
        if given.shape != signal.shape:
            raise ValueError(
                f"{self._layer.name}: backward must return the shape of the input, expected "
                f"{signal.shape}, got {given.shape}"
            )
        matrix = given.reshape(len(signal.array), signal.units)
        if numpy.may_share_memory(matrix, grad):
            matrix = matrix.copy()
        return signal.kept_columns(matrix)
