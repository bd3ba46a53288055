"""A list of layers read as links: which Dense, activations and dropout are computed as one."""

import itertools

import numpy

from fastdrop.nn.layer import Layer, fused_as
from fastdrop.nn.link import Link
from fastdrop.nn.passes import Passes
from fastdrop.nn.source import Source

__all__ = ["Whole", "chain_of", "check_layers", "check_units", "learning"]

# What may stand between a Dense and the dropout behind it.
FUNCTIONS = ("elementwise", "relu", "identity", "any units")


class Whole(Source):
    """A link around a layer of somebody else's: whole arrays in, whole arrays out.

    Parameters
    ----------
    layer : Layer
    source : Source
    dtype : numpy.dtype
    """

    fresh = False
    dense = None

    def __init__(self, layer, source, dtype):
        super().__init__()
        self.layer = layer
        self.passes = Passes(layer)
        self.source = source
        self.dtype = dtype
        self.shape_in = self.lead = None

    def forward(self, x, lead, last, rows=None):
        """Return the layer's output as a matrix; `lead` says what its leading axes were."""
        if self.source.units is not None:
            x = self.source.expanded(x, numpy.empty((len(x), self.source.width), self.dtype))
        x = _with_batch(x, lead)
        matrix, self.lead = self._called(x, True)
        self.shape_in = x.shape
        self.width = self.active = matrix.shape[1]
        return matrix

    def infer(self, x, lead):
        """Return the layer's output at test time, and the shape of the batch; keep nothing."""
        matrix, lead = self._called(_with_batch(x, lead), False)
        return matrix.copy(), lead  # the layer may still hold the other

    def _called(self, x, training):
        y = numpy.asarray(self.passes.forward(x, training), self.dtype)
        if y.ndim < 1 or y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"{self.layer.name}: forward must return shape ({x.shape[0]}, ...), got {y.shape}"
            )
        matrix = y.reshape(-1, y.shape[-1]) if y.ndim > 1 else y[:, None]
        return numpy.ascontiguousarray(matrix), y.shape[:-1] if y.ndim > 1 else y.shape

    def backward(self, grad, input_gradient, ready=None):
        """Return the input's gradient as a matrix of the columns that the source stores."""
        given = self.passes.backward(grad.reshape(*self.lead, grad.shape[1]), input_gradient)
        if ready is not None:
            for parameter in self.layer.parameters():
                ready(parameter)
        if not input_gradient:
            return None
        given = numpy.ascontiguousarray(given, self.dtype)
        if given.shape != self.shape_in:
            raise ValueError(
                f"{self.layer.name}: backward must return the shape of the input, expected "
                f"{self.shape_in}, got {given.shape}"
            )
        matrix = given.reshape(-1, self.shape_in[-1])
        if numpy.may_share_memory(matrix, grad):
            matrix = matrix.copy()
        return self.source.compressed(matrix)


def _with_batch(x, lead):
    """A matrix with the axes of the batch in front."""
    return x.reshape(*lead, -1 if x.size else x.shape[-1])


def chain_of(layers, source, dtype):
    """Return the links of a list of layers.

    Functions that commute with a positive factor and keep zeros (`ReLU`, `LeakyReLU`, `Identity`)
    may stand behind a dropout as well as before it; the link has them before.

    Parameters
    ----------
    layers : sequence of Layer
    source : Source
        The network's input.
    dtype : numpy.dtype

    Returns
    -------
    list of Link and Whole
    """
    links = []
    rest = [(layer, fused_as(layer)) for layer in layers]
    while rest:
        kind = rest[0][1]
        if kind is None:
            links.append(Whole(rest.pop(0)[0], source, dtype))
        else:
            dense = rest.pop(0)[0] if kind == "dense" else None
            functions = _take_while(rest, lambda layer, kind: kind in FUNCTIONS)
            dropout = rest.pop(0)[0] if rest and rest[0][1] == "dropout" else None
            if dropout is not None:
                functions += _take_while(
                    rest, lambda layer, kind: kind in FUNCTIONS[:-1] and layer.homogeneous
                )
            links.append(Link(dense, functions, dropout, source, dtype))
        source = links[-1]
    return links


def learning(links):
    """The links from the first one that may have parameters on: those a backward pass is for."""
    without = itertools.takewhile(lambda link: isinstance(link, Link) and not link.learns, links)
    return links[len(list(without)) :]


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
