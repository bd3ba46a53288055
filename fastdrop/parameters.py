"""What a layer hands to an optimiser: an array of weights, its gradient, and who took part."""

import collections
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy

from fastdrop.arguments import native
from fastdrop.attributes import read_only
from fastdrop.mask import Mask
from fastdrop.types import Array, Shape

__all__ = [
    "Parameter",
    "active_indices",
    "check_keys",
    "check_names",
    "kept_weights",
    "named_parameters_of",
    "operands",
    "unpacked_weights",
]

# Packed bits of active units, and the number of the first one's bit; None: all units.
Units: TypeAlias = tuple[Array, int] | None

_DTYPES = (numpy.dtype(numpy.float32), numpy.dtype(numpy.float64))


class Parameter:
    """Weights, their gradient, and the units that were active when it was computed.

    Parameters
    ----------
    name : str
        What it is in its layer, such as ``"weight"``.
    value : numpy.ndarray of float32 or float64, shape (units_in, units_out) or (units,)
        Updated in place.

    Attributes
    ----------
    name : str
        With the name of its layer before it, once a network has given it one: "dense0.weight".
        Read-only.
    value : numpy.ndarray
        May be replaced by an array of the same shape, dtype and layout.
    grad : numpy.ndarray or None
        The gradient of the last backward pass, of the dtype of `value`; None before the first. Of
        the shape of `value`, or where `compact` is true of shape (active rows, active columns):
        weights that are not active have no gradient, and a full array is not read there.
    rows, columns : tuple of (numpy.ndarray of uint8, int), or None
        The active units along the first and the last axis of `value`: packed bits, as in
        `fastdrop.Mask.bits`, and the number of the first one's bit. None: all of them. Weights of
        one dimension, such as biases, have `columns` only.
    compact : bool
    mask : Mask or None
        Which single weights took part, of the shape of `value`; None: all. The optimiser leaves the
        others, and what it remembers of them, as they are, as it does with those of inactive units.
        With a mask, `columns` are None, and the gradient is not compact.

    Notes
    -----
    A copy, or an unpickled one, has no gradient. So an optimiser that was copied without its
    network, and would train arrays that no network uses, raises an error at its first step.

    Examples
    --------
    >>> parameter = Parameter("bias", numpy.zeros(3))
    >>> parameter.columns = (numpy.array([0b101], dtype=numpy.uint8), 0)
    >>> parameter.grad, parameter.compact = numpy.array([1.0, 2.0]), True
    >>> parameter.full_grad()
    array([1., 0., 2.])
    """

    __slots__ = ("_layer", "_own_name", "_value", "columns", "compact", "grad", "mask", "rows")

    _layer: str | None
    _own_name: str
    _value: Array
    grad: Array | None
    rows: Units
    columns: Units
    mask: Mask | None
    compact: bool

    def __init__(self, name: str, value: Array) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"name must be a string that is not empty, got {name!r}")
        self._own_name = name
        self._layer = None
        self._value = value
        self.grad = None
        self.rows = None
        self.columns = None
        self.mask = None
        self.compact = False

    @read_only("states go by it")
    def name(self) -> str:
        """str: its name, with that of its layer before it if it has one."""
        return self._own_name if self._layer is None else f"{self._layer}.{self._own_name}"

    def belongs_to(self, layer: str) -> None:
        """Put the name of a layer before the parameter's own."""
        self._layer = layer

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self._own_name, "layer": self._layer, "value": self._value}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Parameter.__init__(self, state["name"], state["value"])
        self._layer = state["layer"]

    @property
    def value(self) -> Array:
        """numpy.ndarray: the weights."""
        return self._value

    @value.setter
    def value(self, value: Array) -> None:
        mine = self._value
        if type(value) is not type(mine) or value.dtype != mine.dtype:
            kind = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"{self.name} must have dtype {mine.dtype}, got {kind}")
        if value.shape != mine.shape or not value.flags.carray:
            raise ValueError(
                f"{self.name} must be a writeable C-contiguous array of shape {mine.shape}, got "
                f"shape {value.shape}"
            )
        self._value = value

    def full_grad(self) -> Array:
        """Return the gradient in the shape of `value`, +0.0 where units were not active.

        Returns
        -------
        numpy.ndarray
            A new array.

        Raises
        ------
        RuntimeError
            If there is no gradient yet.
        """
        if self.grad is None:
            raise RuntimeError(f"{self.name} has no gradient before the first backward pass")
        units = [self.columns] if self.value.ndim == 1 else [self.rows, self.columns]
        index = numpy.ix_(*map(active_indices, units, self.value.shape))
        full = numpy.zeros_like(self.value)
        full[index] = self.grad if self.compact else self.grad[index]
        return full

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape {self.value.shape}, {self.value.dtype})"


def named_parameters_of(params: Any) -> list[tuple[str, Parameter]]:
    """Pairs of name and parameter, checked.

    Parameters
    ----------
    params : object with ``named_parameters()`` or ``parameters()``, or iterable of Parameter

    Returns
    -------
    list of (str, Parameter)

    Raises
    ------
    TypeError, ValueError
        If it holds something else, arrays that no optimiser can move, or nothing.
    """
    if callable(getattr(params, "named_parameters", None)):
        found = list(params.named_parameters())
    else:
        found = [(None, parameter) for parameter in _listed(params)]
    for _, parameter in found:
        if not isinstance(parameter, Parameter):
            raise TypeError(
                "params must be a network or an iterable of Parameter, got "
                f"{type(params if parameter is None else parameter).__name__}"
            )
        value = parameter.value
        if not isinstance(value, numpy.ndarray) or value.dtype not in _DTYPES:
            kind = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"{parameter.name} must be float32 or float64, got {kind}")
        if value.ndim not in (1, 2) or not value.flags.carray:
            raise ValueError(
                f"{parameter.name} must be a writable C-contiguous array of 1 or 2 dimensions, got "
                f"shape {value.shape}"
            )
    if not found:
        raise ValueError("params has no parameters")
    return [(name or parameter.name, parameter) for name, parameter in found]


def _listed(params: Any) -> list[Any]:
    given = params.parameters() if callable(getattr(params, "parameters", None)) else params
    try:
        return list(given)
    except TypeError:
        return [None]


def check_names(names: Iterable[str]) -> None:
    """Check that no name is there twice: states go by them.

    Raises
    ------
    ValueError
    """
    seen = collections.Counter(names)
    twice = sorted(name for name, times in seen.items() if times > 1)
    if twice:
        raise ValueError(f"params must have different names, got twice: {', '.join(twice)}")


def check_keys(state: Mapping[str, Any], expected: Mapping[str, Any], whose: str) -> None:
    """Check that a state has the names it should have.

    Raises
    ------
    ValueError
        Naming those that it lacks, or those that belong to no such `whose`.
    """
    for problem, names in (
        ("lacks", expected.keys() - state.keys()),
        (f"has what the {whose} does not", state.keys() - expected.keys()),
    ):
        if names:
            raise ValueError(f"the state {problem}: {', '.join(sorted(names))}")


def operands(parameter: Parameter) -> tuple[Array, Array, bool, Units, Units]:
    """The value, its gradient, whether that is compact, and the active units of both axes.

    All two-dimensional, as the kernels take them; units are packed bits and the number of the first
    one, None where all are active.
    """
    value, grad, compact = parameter.value, parameter.grad, parameter.compact
    if not value.flags.writeable:
        raise ValueError(f"{parameter.name} must be writeable, got a read-only array")
    if not isinstance(grad, numpy.ndarray):
        raise TypeError(
            f"the gradient of {parameter.name} must be a numpy.ndarray, got {type(grad).__name__}"
        )
    grad = native(grad)
    if grad.dtype != value.dtype or grad.ndim != value.ndim:
        raise TypeError(
            f"the gradient of {parameter.name} must have {value.ndim} dimensions and dtype "
            f"{value.dtype}, got shape {grad.shape} and {grad.dtype}"
        )
    if not (grad.flags.c_contiguous and grad.flags.aligned):
        grad = grad.copy()
    rows, columns = parameter.rows, parameter.columns
    if value.ndim == 1:
        value, grad, rows = value.reshape(1, -1), grad.reshape(1, -1), None
    rows = _units(rows, value.shape[0], parameter.name, "rows")
    columns = _units(columns, value.shape[1], parameter.name, "columns")
    return value, grad, compact, rows, columns


def kept_weights(parameter: Parameter) -> Array | None:
    """Packed bits of the single weights that took part in a parameter's gradient; None: all.

    Raises
    ------
    TypeError, ValueError
        If the parameter's mask is none, or does not fit.
    """
    mask, name = parameter.mask, parameter.name
    if mask is None:
        return None
    if not isinstance(mask, Mask):
        raise TypeError(f"{name}: mask must be a fastdrop.Mask or None, got {type(mask).__name__}")
    if mask.shape != parameter.value.shape or mask.rows_per_mask != 1:
        raise ValueError(
            f"{name}: mask of shape {mask.shape} does not fit weights of shape "
            f"{parameter.value.shape}"
        )
    if parameter.columns is not None or parameter.compact:
        raise ValueError(f"{name}: a mask goes with all columns and a gradient that is not compact")
    return mask.bits


def unpacked_weights(kept: Array, shape: Shape) -> Array:
    """Packed bits of single weights as booleans of the weights' shape."""
    bits = numpy.unpackbits(kept, count=math.prod(shape), bitorder="little")
    return bits.reshape(shape).view(bool)


def _units(units: Units, extent: int, parameter: str, name: str) -> Units:
    """The active units of an axis, checked."""
    if units is None:
        return None
    bits, offset = units
    if not (isinstance(bits, numpy.ndarray) and bits.dtype == numpy.uint8 and bits.ndim == 1):
        raise TypeError(f"{parameter}: {name} must hold a one-dimensional array of uint8 bits")
    if not bits.flags.c_contiguous:
        bits = numpy.ascontiguousarray(bits)
    if not 0 <= offset <= bits.size * 8 - extent:
        raise ValueError(
            f"{parameter}: {name} has too few bits for {extent} units from bit {offset} on"
        )
    return bits, offset


def active_indices(units: Units, extent: int) -> Array:
    """The indices of the active units of an axis."""
    if units is None:
        return numpy.arange(extent)
    bits, offset = units
    return numpy.flatnonzero(
        numpy.unpackbits(bits, count=offset + extent, bitorder="little")[offset:]
    )
