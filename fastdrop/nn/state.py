"""The state of a network: what training changes, by name, and what a state has to agree on."""

from collections.abc import Sequence
from typing import Any

import numpy

from fastdrop.arguments import native
from fastdrop.callers import warn_caller
from fastdrop.nn.layer import Layer
from fastdrop.parameters import Parameter, check_keys, check_names
from fastdrop.stream import MaskStream
from fastdrop.types import Array

__all__ = ["State"]

SETTINGS = "settings"


class State:
    """Parameters, buffers, mask streams and settings of layers.

    Parameters
    ----------
    names : list of str
        Of the layers.
    layers : sequence of Layer
    parameters : list of (str, Parameter)

    Raises
    ------
    ValueError
        If two parameters or buffers have one name.
    """

    def __init__(
        self, names: Sequence[str], layers: Sequence[Layer], parameters: list[tuple[str, Parameter]]
    ) -> None:
        self._layers = list(zip(names, layers, strict=True))
        self._parameters = parameters
        check_names([*(name for name, _ in parameters), *self.buffers(), *self._streams()])

    def buffers(self) -> dict[str, Array]:
        """The buffers of all layers, by name.

        Raises
        ------
        TypeError
            If one is no array.
        """
        found = {}
        for name, layer in self._layers:
            for own, array in layer.buffers().items():
                if not isinstance(array, numpy.ndarray):
                    raise TypeError(
                        f"{name}: buffers must hold NumPy arrays, got {type(array).__name__} for "
                        f"{own}"
                    )
                found[f"{name}.{own}"] = array
        return found

    def _streams(self) -> dict[str, Any]:
        """The layers with a mask stream, by the stream's name."""
        return {f"{name}.stream": layer for name, layer in self._layers if layer.draws_masks}

    def taken(self) -> dict[str, Any]:
        """The state as it is now; see `Sequential.state_dict`."""
        state: dict[str, Any] = {
            name: parameter.value.copy() for name, parameter in self._parameters
        }
        state |= {name: array.copy() for name, array in self.buffers().items()}
        state |= {name: layer.stream.state for name, layer in self._streams().items()}
        state[SETTINGS] = {name: dict(layer.settings()) for name, layer in self._layers}
        return state

    def restore(self, state: dict[str, Any], strict: bool) -> None:
        """Take over a state; see `Sequential.load_state_dict`."""
        expected = self.taken()
        check_keys(state, expected, "network")
        streams = {name: _stream(name, state[name]) for name in self._streams()}
        arrays = {name: parameter.value for name, parameter in self._parameters}
        arrays |= self.buffers()
        for name, mine in arrays.items():
            given = native(numpy.asarray(state[name]))
            if given.shape != mine.shape or given.dtype != mine.dtype:
                raise ValueError(
                    f"{name}: expected shape {mine.shape} and dtype {mine.dtype}, got "
                    f"{given.shape} and {given.dtype}"
                )
            if not mine.flags.writeable:
                raise ValueError(f"{name} must be writeable, got a read-only array")
        differences = _differences(state[SETTINGS], expected[SETTINGS])
        if differences and strict:
            raise ValueError(f"other settings: {differences}")
        if differences:
            warn_caller(
                f"the state is of a network with other settings, those here hold: {differences}"
            )
        for name, mine in arrays.items():
            mine[...] = state[name]
        for name, layer in self._streams().items():
            layer.stream = streams[name]


def _stream(name: str, state: Any) -> MaskStream:
    try:
        return MaskStream.from_state(state)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: no state of a mask stream: {error!r}") from None


def _differences(theirs: Any, mine: dict[str, dict[str, Any]]) -> str:
    """What differs, in words; empty if nothing does."""
    if not isinstance(theirs, dict) or not all(isinstance(own, dict) for own in theirs.values()):
        raise ValueError(f"{SETTINGS} must be a dict of dicts, got {theirs!r}")
    if list(theirs) != list(mine):
        return f"the layers are {', '.join(theirs)} in the state and {', '.join(mine)} here"
    found = []
    for layer, settings in mine.items():
        for name in sorted(settings.keys() | theirs[layer].keys()):
            here, there = settings.get(name), theirs[layer].get(name)
            if here != there:
                found.append(f"{layer}.{name} is {there!r} in the state and {here!r} here")
    return "; ".join(found)
