"""Work arrays that a network keeps from step to step."""

import math

from fastdrop.aligned import aligned_empty

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

    def __init__(self, dtype):
        self._dtype = dtype
        self._held = {}
        self._others = {}

    def matrix(self, name, rows, columns, reserve=0):
        """A C-contiguous matrix of the buffers' dtype."""
        memory, last = self._held.get(name, (None, None))
        if last is not None and last.shape == (rows, columns):
            return last
        size = rows * columns
        if memory is None or memory.size < size:
            memory = aligned_empty((max(size, reserve),), self._dtype)
        last = memory[:size].reshape(rows, columns)
        self._held[name] = memory, last
        return last

    def scratch(self, name, shape, dtype):
        """A work array of any shape and dtype."""
        size = math.prod(shape)
        held = self._others.get((name, dtype))
        if held is None or held.size < size:
            held = self._others[name, dtype] = aligned_empty((size,), dtype)
        return held[:size].reshape(shape)
