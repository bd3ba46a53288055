"""Arguments that several functions take: checked, and said what they mean for a mask.

Every error names the argument and the value.
"""

import math
import operator
import sys
from collections.abc import Collection, Iterable
from typing import Any

import numpy
from numpy.typing import DTypeLike

from fastdrop.types import Array, RowsPerMask, Shape

__all__ = [
    "MaskPlan",
    "as_array",
    "check_unmasked",
    "contiguous",
    "integer",
    "inverse",
    "is_one_of",
    "keep_probability",
    "mask_plan",
    "native",
    "noise_axes",
    "probability",
    "real_number",
    "threshold",
    "window_bounds",
]

TWO_64 = 2.0**64
MAX_ELEMENTS = (1 << 63) - 1
MAX_DIMENSIONS = 64  # NumPy's own limit, and the kernels'


class MaskPlan:
    """How a mask is laid out for an array: its own shape, which axes share, rows per mask."""

    __slots__ = ("rows_per_mask", "shape", "shared")

    def __init__(self, shape: Shape, shared: set[int], rows_per_mask: RowsPerMask) -> None:
        self.shape = shape
        self.shared = shared
        self.rows_per_mask = rows_per_mask

    def exact_count(self, keep: float) -> tuple[int, int, float]:
        """Row axis, elements kept of each row, and scale of an exact-count mask.

        Raises
        ------
        ValueError
            If all axes are shared.
        """
        free = [axis for axis in range(len(self.shape)) if axis not in self.shared]
        if not free:
            raise ValueError("exact_count needs an axis that is not shared, all axes are shared")
        n = self.shape[free[-1]]
        kept = math.floor(keep * n + 0.5 + 1e-6)
        return free[-1], kept, n / kept if kept else 0.0


def mask_plan(shape: Any, shared_axes: Any, rows_per_mask: Any) -> MaskPlan:
    """Validate what shapes a mask and return its `MaskPlan`."""
    if not isinstance(shape, tuple):
        shape = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    shape = tuple(integer(extent, "shape") for extent in shape)
    if min(shape, default=0) < 0:
        raise ValueError(f"shape must not be negative, got {shape}")
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"shape must have at most {MAX_DIMENSIONS} axes, got {len(shape)}")
    shared = _shared_axes(shared_axes, len(shape))
    if not is_one_of(rows_per_mask, ("batch",)):
        if isinstance(rows_per_mask, str):
            raise ValueError(f"rows_per_mask must be an int or 'batch', got {rows_per_mask!r}")
        rows_per_mask = integer(rows_per_mask, "rows_per_mask")
        if rows_per_mask < 1:
            raise ValueError(f"rows_per_mask must be at least 1, got {rows_per_mask}")
    own = [1 if axis in shared else extent for axis, extent in enumerate(shape)]
    if rows_per_mask != 1:
        if not shape:
            raise ValueError(f"rows_per_mask must be 1 for 0 dimensions, got {rows_per_mask!r}")
        if 0 in shared:
            raise ValueError(
                f"rows_per_mask must be 1 where axis 0 is shared, got {rows_per_mask!r}"
            )
        if rows_per_mask == "batch":
            own[0] = 1
            shared = shared | {0}
        else:
            own[0] = -(-shape[0] // rows_per_mask)
    if max(math.prod(own), *own, 0) > MAX_ELEMENTS:
        raise ValueError(f"shape must have less than 2**63 elements, got {shape}")
    return MaskPlan(tuple(own), shared, rows_per_mask)


def _shared_axes(shared_axes: Any, dimensions: int) -> set[int]:
    """The axes as a set of non-negative ints."""
    axes = shared_axes if isinstance(shared_axes, tuple | list) else (shared_axes,)
    shared: set[int] = set()
    for given in axes:
        axis = integer(given, "shared_axes")
        if not -dimensions <= axis < dimensions:
            raise ValueError(
                f"shared_axes must be axes of {dimensions} dimensions, got {shared_axes}"
            )
        axis %= dimensions
        if axis in shared:
            raise ValueError(f"shared_axes must not name an axis twice, got {shared_axes}")
        shared.add(axis)
    return shared


def noise_axes(noise_shape: Iterable[int | None], shape: Shape | None = None) -> Shape:
    """The axes along which a `noise_shape` shares one mask, ascending, as a tuple.

    Parameters
    ----------
    noise_shape : sequence of int or None
        One entry for each axis: 1 shares the mask along it, None or the axis' length does not.
    shape : tuple of int, optional
        Of the array; without it only the entries themselves are checked.

    Raises
    ------
    TypeError
        If it is no sequence of ints and None.
    ValueError
        If it does not fit the shape.
    """
    if isinstance(noise_shape, str) or not hasattr(noise_shape, "__iter__"):
        raise TypeError(f"noise_shape must be a tuple of ints and None, got {noise_shape!r}")
    given = [None if part is None else integer(part, "noise_shape") for part in noise_shape]
    if any(part is not None and part < 1 for part in given):
        raise ValueError(f"noise_shape must hold None and ints from 1, got {noise_shape!r}")
    if shape is not None and (
        len(given) != len(shape)
        or any(part not in (None, 1, own) for part, own in zip(given, shape, strict=True))
    ):
        raise ValueError(
            f"noise_shape must have None, 1 or the length of x for each axis, got {noise_shape!r} "
            f"for shape {shape}"
        )
    return tuple(axis for axis, part in enumerate(given) if part == 1)


def window_bounds(window: Any, shape: Shape) -> tuple[Shape, Shape]:
    """Starts and stops of a window, as tuples; negative ends count from the end."""
    slices = window if isinstance(window, tuple) else (window,)
    if not all(isinstance(part, slice) for part in slices):
        raise TypeError(f"window must be a tuple of slices, got {window!r}")
    if len(slices) != len(shape):
        raise ValueError(
            f"window must have one slice for each of the mask's {len(shape)} axes, got {window!r}"
        )
    if any(part.step not in (None, 1) for part in slices):
        raise ValueError(f"window must have slices of step 1, got {window!r}")
    try:
        bounds = [part.indices(extent)[:2] for part, extent in zip(slices, shape, strict=True)]
    except TypeError:
        raise TypeError(f"window must have slices of integers, got {window!r}") from None
    if any(_beyond(part, extent) for part, extent in zip(slices, shape, strict=True)):
        raise ValueError(f"window must lie within the mask's shape {shape}, got {window!r}")
    return tuple(start for start, _ in bounds), tuple(max(pair) for pair in bounds)


def _beyond(part: slice, extent: int) -> bool:
    """Whether a slice names an end that an axis does not have, which slicing would cut off."""
    ends = [end for end in (part.start, part.stop) if end is not None]
    return any(not -extent <= operator.index(end) <= extent for end in ends)


def keep_probability(rate: Any, keep_prob: Any) -> float:
    """The probability to keep, from exactly one of the two.

    Raises
    ------
    TypeError
        If neither or both are given, or not a real number.
    ValueError
        If it is not in [0, 1].
    """
    if (rate is None) == (keep_prob is None):
        both = "neither" if rate is None else "both"
        raise TypeError(f"give exactly one of rate and keep_prob, got {both}")
    name, value = ("rate", rate) if rate is not None else ("keep_prob", keep_prob)
    value = probability(value, name)
    return 1.0 - value if rate is not None else value


def probability(value: Any, name: str) -> float:
    """An argument as a float in [0, 1].

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    if type(value) is not float:
        value = real_number(value, name)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return float(value)


def threshold(keep: float) -> int:
    """The design's T: the keep probability in units of 2**-64, an int."""
    return round(keep * TWO_64)


def inverse(keep: float) -> float:
    """The scale of a Bernoulli mask: 1 / keep_prob, 0 where nothing can be kept."""
    return 1.0 / keep if threshold(keep) else 0.0


def is_one_of(value: object, words: Collection[str]) -> bool:
    """Whether an argument is one of some words; arrays and the like are not."""
    return isinstance(value, str) and value in words


def integer(value: Any, name: str) -> int:
    """An argument as an int.

    Raises
    ------
    TypeError
        If it is not an integer.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None


def real_number(value: Any, name: str) -> float:
    """An argument as a float.

    Raises
    ------
    TypeError
        If it is not a real number.
    ValueError
        If it is an integer too large for a float.
    """
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    if isinstance(value, str | bytes | bool) or kind not in "iuf":
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None
    except OverflowError:
        kind = type(value).__name__
        raise ValueError(f"{name} must be in the range of a float, got a larger {kind}") from None


def as_array(value: Any, name: str) -> Array:
    """An argument as a plain array of the machine's byte order.

    Raises
    ------
    TypeError
        For a masked array: what stands under its mask are no values to compute with.
    TypeError, ValueError
        For what NumPy makes no array of.
    """
    if type(value) is numpy.ndarray:
        return value if value.dtype.isnative else native(value)
    check_unmasked(value, name)
    try:
        return native(numpy.asarray(value))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} cannot be made an array: {error}") from None


def native(array: Array) -> Array:
    """The array itself, or a copy of it where its bytes have the other order (FITS, networks)."""
    dtype = array.dtype
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def contiguous(array: Any, dtype: DTypeLike) -> Array:
    """The array itself where it is C-contiguous, aligned and of a dtype; else a copy that is."""
    found: Array = numpy.asarray(array, dtype, order="C")
    return found if found.flags.aligned else found.copy()


def check_unmasked(value: object, name: str) -> None:
    """Check that an argument is no masked array.

    Raises
    ------
    TypeError
        If it is one.
    """
    masked = sys.modules.get("numpy.ma")  # NumPy imports it when it is first used
    if masked is not None and isinstance(value, masked.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array; give an array, such as its filled(value)"
        )
