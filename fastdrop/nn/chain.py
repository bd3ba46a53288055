"""A list of layers read as blocks: which Dense, activations and dropout are computed as one."""

import itertools

from fastdrop.nn.fused import FUNCTIONS, FusedBlock
from fastdrop.nn.layer import Layer, fused_as
from fastdrop.nn.unfused import UnfusedLayer

__all__ = ["blocks_of", "check_layers", "check_units", "learning"]


def blocks_of(layers, dtype):
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
    blocks = []
    rest = [(layer, fused_as(layer)) for layer in layers]
    while rest:
        kind = rest[0][1]
        if kind is None:
            blocks.append(UnfusedLayer(rest.pop(0)[0], dtype))
            continue
        dense = rest.pop(0)[0] if kind == "dense" else None
        functions = _take_while(rest, lambda layer, kind: kind in FUNCTIONS)
        dropout = rest.pop(0)[0] if rest and rest[0][1] == "dropout" else None
        if dropout is not None:
            functions += _take_while(rest, _commutes)
        blocks.append(FusedBlock(dense, functions, dropout, dtype))
    return blocks


def _commutes(layer, kind):
    """Whether a layer may change places with the dropout before it."""
    return kind in FUNCTIONS and kind != "any units" and layer.homogeneous


def learning(blocks):
    """The blocks from the first one that may have parameters on: those a backward pass is for."""
    without = itertools.takewhile(lambda block: not block.learns, blocks)
    return blocks[len(list(without)) :]


def _take_while(layers, wanted):
    taken = []
    while layers and wanted(*layers[0]):
        taken.append(layers.pop(0))
    return taken


def check_units(layers):
    """Check that every layer gets what the one before makes; return the first Dense, if it decides
    the width of the network's input, else None.

    Raises
    ------
    ValueError
        Naming the layer, what it would get and what it expects.
    """
    width, first, unknown = None, None, False
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


def check_layers(layers):
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
        if hasattr(layer, "layers"):
            raise TypeError(
                f"layers must not hold a network, got {type(layer).__name__}: hand over its layers"
            )
    if len({id(layer) for layer in layers}) != len(layers):
        raise ValueError("layers must not hold a layer twice: it would keep one forward pass only")
    if not layers:
        raise ValueError("layers must hold at least one layer")
