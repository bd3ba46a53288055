"""Types of arguments and results, for annotations.

Kinds of arrays are not told apart by dtype here: functions take float16, float32 and float64, and
check them when they are called.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from numpy.typing import NDArray

if TYPE_CHECKING:
    import numpy

__all__ = [
    "Array",
    "Axes",
    "DataFormat",
    "Method",
    "Normalised",
    "RowsPerMask",
    "ScaleAt",
    "Seed",
    "Shape",
    "ShapeLike",
]

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
ShapeLike: TypeAlias = int | Sequence[int]
Axes: TypeAlias = int | Sequence[int]
RowsPerMask: TypeAlias = int | Literal["batch"]
ScaleAt: TypeAlias = Literal["train", "test"]
DataFormat: TypeAlias = Literal["channels_first", "channels_last"]
Normalised: TypeAlias = Literal["batch", "example", "none"]
# How a masked product is computed.
Method: TypeAlias = Literal["auto", "compact", "skip", "dense"]
# What makes a new stream; a function's `rng` takes a MaskStream as well. Text, since numpy.random
# takes longer to import than this whole package.
Seed: TypeAlias = (
    "int | Sequence[int] | numpy.random.SeedSequence | numpy.random.Generator"
    " | numpy.random.BitGenerator | numpy.random.RandomState | None"
)
