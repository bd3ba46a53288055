"""Types of arguments and results, for annotations.

Kinds of arrays are not told apart by dtype here: functions take float16, float32 and float64, and
check them when they are called.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from numpy.random import BitGenerator, Generator, RandomState, SeedSequence
from numpy.typing import NDArray

__all__ = ["Array", "Axes", "RowsPerMask", "Seed", "Shape", "ShapeLike"]

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
ShapeLike: TypeAlias = int | Sequence[int]
Axes: TypeAlias = int | Sequence[int]
RowsPerMask: TypeAlias = int | Literal["batch"]
# What makes a new stream; a function's `rng` takes a MaskStream as well.
Seed: TypeAlias = int | Sequence[int] | SeedSequence | Generator | BitGenerator | RandomState | None
