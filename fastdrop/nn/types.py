"""Types that annotations of layers share."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy

from fastdrop.parameters import Parameter
from fastdrop.types import Array, Shape

__all__ = ["Dtype", "Kind", "Rate", "Ready", "Rows", "Scratch"]

Dtype: TypeAlias = numpy.dtype[Any]
# Of noise.
Kind: TypeAlias = Literal["normal", "uniform"]
# A probability, or a schedule: a function of the number of the draw.
Rate: TypeAlias = float | Callable[[int], float]
# Called with a parameter whose gradient is there.
Ready: TypeAlias = Callable[[Parameter], object]
# (first, total): rows first, first + 1, ... of a batch of total rows.
Rows: TypeAlias = tuple[int, int]
# Gives a work array: of a name, shape and dtype.
Scratch: TypeAlias = Callable[[str, Shape, Any], Array]
