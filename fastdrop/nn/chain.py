"""A list of layers read as blocks: which Dense, activations and dropout are computed as one."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from fastdrop.nn.dense import Dense
from fastdrop.nn.fused import FUNCTIONS, FusedBlock
from fastdrop.nn.layer import Layer, fused_as
from fastdrop.nn.signal import Signal
from fastdrop.nn.types import Dtype, Ready, Rows
from fastdrop.nn.unfused import UnfusedLayer
from fastdrop.operands import share_of_nonzeros
from fastdrop.types import Array

# What may stand between a Dense and the dropout behind it.
BETWEEN = {*FUNCTIONS, "identity"}

Block: TypeAlias = FusedBlock | UnfusedLayer
# A layer, and what it is to a fused block.
_Read: TypeAlias = tuple[Any, str | None]

__all__ = ["Chain", "check_layers", "check_units"]


class Chain:
    """The blocks of a network one after the other, and the signals between them.

    Parameters
    ----------
    layers : sequence of Layer
    dtype : numpy.dtype
    skip_zeros : bool
        Whether products may leave out zeros of the network's input.

    Attributes
    ----------
    output : Signal or None
        Of the last training forward; None where there was none that a backward pass may follow.
    """

    _input: Signal

    def __init__(self, layers: Sequence[Layer], dtype: Dtype, skip_zeros: bool) -> None:
        self._blocks = _blocks_of(layers, dtype)
        without = itertools.takewhile(lambda block: not block.learns, self._blocks)
        self._learning = self._blocks[len(list(without)) :]  # whom a backward pass is for
        self._skip_zeros = skip_zeros
        self.output: Signal | None = None

    def forward(self, x: Array, rows: Rows | None = None) -> Array:
        """Return the output in training, a fresh array.

        Parameters
        ----------
        x : numpy.ndarray, shape (batch, ..., units)
            Of the network's dtype, C-contiguous; read again by `backward`.
        rows : tuple of int, optional
            As for `Sequential.forward`.
        """
        self.output = None
        signal = self._input = _signal_of(x)
        if self._skip_zeros:
            signal.skip_zeros, signal.nonzeros = True, share_of_nonzeros(signal.array)
        last = self._blocks[-1]
        for block in self._blocks:
            signal = block.forward(signal, rows, block is last)
        self.output = signal
        y = signal.all_units()
        if last.fresh:
            del signal.array  # y itself, which is the caller's
        elif signal.kept_units is None:
            y = y.copy()
        return y if len(signal.batch_shape) == 1 else y.reshape(signal.shape)

    def backward(
        self, output: Signal, grad: Array, input_gradient: bool, ready: Ready | None
    ) -> Array | None:
        """Set the gradients of the parameters; return the input's or None, as `Sequential` does.

        Parameters
        ----------
        output : Signal
            That of the last training forward.
        grad : numpy.ndarray, shape and dtype of the output
            C-contiguous.
        input_gradient, ready
            As for `Sequential.backward`.
        """
        grad = grad.reshape(math.prod(output.batch_shape), output.units)
        given: Any = output.kept_columns(grad)
        if given is grad and not self._blocks[-1].fresh:
            given = grad.copy()  # the block overwrites it
        blocks = self._blocks if input_gradient else self._learning
        for block in reversed(blocks):
            given = block.backward(given, input_gradient or block is not blocks[0], ready)
        return given.reshape(self._input.shape).copy() if input_gradient else None

    def infer(self, x: Array) -> Array:
        """Return the output at test time, a fresh array; keep nothing."""
        signal = _signal_of(x)
        if self._blocks[0].overwrites:
            signal.array = signal.array.copy()
        for block in self._blocks:
            signal = block.infer(signal)
        y = signal.array
        return y if len(signal.batch_shape) == 1 else y.reshape(signal.shape)


def _signal_of(x: Array) -> Signal:
    """The signal of a network's input."""
    signal = Signal(x.shape[:-1], x.shape[-1])
    signal.array = x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return signal


def _blocks_of(layers: Sequence[Layer], dtype: Dtype) -> list[Block]:
    """Return the blocks of a list of layers.

    Functions that commute with a positive factor and keep zeros (`ReLU`, `LeakyReLU`, `Identity`)
    may stand behind a dropout as well as before it; the block has them before.

    Parameters
    ----------
    layers : sequence of Layer
    dtype : numpy.dtype

    Returns
    -------
    list of FusedBlock and UnfusedLayer
    """
    blocks: list[Block] = []
    rest: list[_Read] = [(layer, fused_as(layer)) for layer in layers]
    while rest:
        kind = rest[0][1]
        if kind is None:
            blocks.append(UnfusedLayer(rest.pop(0)[0], dtype))
            continue
        dense = rest.pop(0)[0] if kind == "dense" else None
        functions = _take_while(rest, lambda layer, kind: kind in BETWEEN)
        dropout = rest.pop(0)[0] if rest and rest[0][1] == "dropout" else None
        if dropout is not None:
            functions += _take_while(rest, _commutes)
        functions = [each for each in functions if each[1] != "identity"]
        blocks.append(FusedBlock(dense, functions, dropout, dtype))
    return blocks


def _commutes(layer: Any, kind: str | None) -> bool:
    """Whether a layer may change places with the dropout before it."""
    return kind in BETWEEN and kind != "any units" and layer.homogeneous


def _take_while(layers: list[_Read], wanted: Callable[[Any, str | None], bool]) -> list[_Read]:
    taken: list[_Read] = []
    while layers and wanted(*layers[0]):
        taken.append(layers.pop(0))
    return taken


def check_units(layers: Sequence[Any]) -> Dense | None:
    """Check that every layer gets what the one before makes; return the first Dense, if it decides
    the width of the network's input, else None.

    Raises
    ------
    ValueError
        Naming the layer, what it would get and what it expects.
    """
    width: int | None = None
    first: Dense | None = None
    unknown = False
    for layer in layers:
        kind = fused_as(layer)
        if kind == "dense":
            if width is not None and layer.units_in != width:
                raise ValueError(
                    f"{layer.name}: units_in does not fit the layers before it, expected {width}, "
                    f"got {layer.units_in}"
                )
            if width is None and not unknown:
                first = layer
            width = layer.units_out
        elif kind is None:
            width, unknown = None, True
    return first


def check_layers(layers: Sequence[Any]) -> None:
    """Check that these are layers, each there once.

    Raises
    ------
    TypeError, ValueError
    """
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(
                f"layers must hold fastdrop.nn layers, got {type(layer).__name__}"
                + (" (the class, not an object of it)" if isinstance(layer, type) else "")
            )
        if not layer.takes_one_array:
            raise TypeError(
                f"layers must each take one array, got {type(layer).__name__}, which takes more: "
                "call its forward and backward in a layer of your own"
            )
        if hasattr(layer, "layers"):
            raise TypeError(
                f"layers must not hold a network, got {type(layer).__name__}: hand over its layers"
            )
    if len({id(layer) for layer in layers}) != len(layers):
        raise ValueError("layers must not hold a layer twice: it would keep one forward pass only")
    if not layers:
        raise ValueError("layers must hold at least one layer")
