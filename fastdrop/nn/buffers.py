"""Work arrays that a network keeps from step to step."""

import math
from typing import Any

from fastdrop.aligned import aligned_empty
from fastdrop.nn.types import Dtype
from fastdrop.types import Array, Shape

__all__ = ["Buffers"]


class Buffers:
    """Named work arrays of one dtype; each is overwritten by the next request for its name.

    `reserve` says how large an array may become, so that it is allocated once although masks keep
    more units in one step than in another. Memory that is never written is never taken from the
    system.

    Parameters
    ----------
    dtype : numpy.dtype

    Examples
    --------
    >>> import numpy
    >>> buffers = Buffers(numpy.dtype(numpy.float32))
    >>> first = buffers.matrix("x", 2, 3, reserve=8)
    >>> second = buffers.matrix("x", 2, 4)
    >>> numpy.shares_memory(first, second)
    True
    """

    __slots__ = ("_dtype", "_held", "_others")

    def __init__(self, dtype: Dtype) -> None:
        self._dtype = dtype
        # For each name the memory, and the matrix that it was last.
        self._held: dict[str, tuple[Array, Array]] = {}
        self._others: dict[tuple[str, Any], Array] = {}

    def matrix(self, name: str, rows: int, columns: int, reserve: int = 0) -> Array:
        """A C-contiguous matrix of the buffers' dtype."""
        held = self._held.get(name)
        if held is not None and held[1].shape == (rows, columns):
            return held[1]
        size = rows * columns
        if held is not None and held[0].size >= size:
            memory = held[0]
        else:
            memory = aligned_empty((max(size, reserve),), self._dtype)
        matrix = memory[:size].reshape(rows, columns)
        self._held[name] = memory, matrix
        return matrix

    def scratch(self, name: str, shape: Shape, dtype: Any) -> Array:
        """A work array of any shape and dtype."""
        size = math.prod(shape)
        held = self._others.get((name, dtype))
        if held is None or held.size < size:
            held = self._others[name, dtype] = aligned_empty((size,), dtype)
        return held[:size].reshape(shape)
