"""What layers with weights beside Dense have in common: when they are made, and assigning them."""

from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.aligned import aligned_zeros
from fastdrop.arguments import as_array, integer
from fastdrop.nn.layer import Layer
from fastdrop.nn.types import Dtype
from fastdrop.parameters import Parameter
from fastdrop.types import Array

__all__ = ["WeightedLayer", "at_least_one", "weight_of"]


class WeightedLayer(Layer):
    """Base of layers whose parameters are made when a network, or a first use, asks for them.

    A class derived from it defines ``_initial(generator)``, which returns arrays by name, and has a
    property made by `weight_of` for each of them.
    """

    _made: dict[str, Parameter] | None = None
    _assigned: dict[str, Array] | None = None

    def _initial(self, generator: "numpy.random.Generator") -> dict[str, Array]:
        raise NotImplementedError(f"{self.name} defines no _initial")

    def build(self, dtype: Dtype, generator: "numpy.random.Generator") -> None:
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
        made, assigned = {}, self._assigned or {}
        for name, initial in self._initial(generator).items():
            value = aligned_zeros(initial.shape, dtype)
            value[...] = assigned.get(name, initial)
            made[name] = Parameter(name, value)
        self._made, self._assigned = made, None

    def parameters(self) -> list[Parameter]:
        """Return the list of the layer's `Parameter` objects, the same ones every time."""
        return list(self._by_name().values())

    def _parameter(self, name: str) -> Parameter:
        return self._by_name()[name]

    def _by_name(self) -> dict[str, Parameter]:
        if self._made is None:
            self.build(numpy.dtype(numpy.float32), numpy.random.default_rng())
            for parameter in self._by_name().values():
                parameter.belongs_to(self.name)
            return self._by_name()
        return self._made

    def _dtype(self) -> Dtype:
        return self.parameters()[0].value.dtype


def weight_of(name: str, doc: str) -> Any:
    """Return a property for the array of a parameter; assigning copies into it."""

    def read(layer: WeightedLayer) -> Array:
        return layer._parameter(name).value

    def write(layer: WeightedLayer, value: ArrayLike) -> None:
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


def at_least_one(value: int, name: str) -> int:
    """An argument as an int from 1 on."""
    value = integer(value, name)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value
