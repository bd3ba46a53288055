"""What layers with weights beside Dense have in common: when they are made, and assigning them."""

import numpy

from fastdrop.aligned import aligned_zeros
from fastdrop.arguments import as_array, integer
from fastdrop.nn.layer import Layer
from fastdrop.parameters import Parameter

__all__ = ["WeightedLayer", "at_least_one", "weight_of"]


class WeightedLayer(Layer):
    """Base of layers whose parameters are made when a network, or a first use, asks for them.

    A class derived from it defines ``_initial(generator)``, which returns arrays by name, and has a
    property made by `weight_of` for each of them.
    """

    _made = _assigned = None

    def _initial(self, generator):
        raise NotImplementedError(f"{self.name} defines no _initial")

    def build(self, dtype, generator):
        """Make the parameters, unless they were made before.

        Raises
        ------
        ValueError
            If they were made before, in another dtype.
        """
        if self._made is not None:
            for parameter in self._made.values():
                mine = parameter.value.dtype
                if mine != dtype:
                    raise ValueError(
                        f"{self.name}: its parameters are {mine} and the network is {dtype}: give "
                        f"the network dtype={mine}, or make a new layer"
                    )
            return
        made = {}
        for name, initial in self._initial(generator).items():
            value = aligned_zeros(initial.shape, dtype)
            value[...] = (self._assigned or {}).get(name, initial)
            made[name] = Parameter(name, value)
        self._made, self._assigned = made, None

    def parameters(self):
        """Return the list of the layer's `Parameter` objects, the same ones every time."""
        if self._made is None:
            self.build(numpy.dtype(numpy.float32), numpy.random.default_rng())
            for parameter in self._made.values():
                parameter.belongs_to(self.name)
        return list(self._made.values())

    def _parameter(self, name):
        self.parameters()
        return self._made[name]

    def _dtype(self):
        return self.parameters()[0].value.dtype


def weight_of(name, doc):
    """Return a property for the array of a parameter; assigning copies into it."""

    def read(layer):
        return layer._parameter(name).value

    def write(layer, value):
        if layer._made is None:  # a network may still come, and decide the dtype
            mine = layer._initial(numpy.random.default_rng(0))[name]
            kept = layer._assigned = dict(layer._assigned or {})
            kept[name] = mine
        else:
            mine = layer._made[name].value
        value = as_array(value, f"{layer.name}.{name}")
        if value.dtype.kind not in "biuf":
            raise TypeError(f"{layer.name}.{name} must hold real numbers, got dtype {value.dtype}")
        if value.shape != mine.shape:
            raise ValueError(f"{layer.name}.{name} must have shape {mine.shape}, got {value.shape}")
        mine[...] = value

    return property(read, write, doc=doc)


def at_least_one(value, name):
    """An argument as an int from 1 on."""
    value = integer(value, name)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value
