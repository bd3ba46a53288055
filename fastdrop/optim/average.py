"""The exponential moving average of weights, for evaluation [1]_.

References
----------
.. [1] B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM
   Journal on Control and Optimization 30 (1992).
"""

from collections.abc import Sequence
from typing import Any

import numpy

from fastdrop._backend import kernels
from fastdrop.aligned import aligned_empty
from fastdrop.parameters import Units, active_indices
from fastdrop.types import Array

__all__ = ["Averages"]

# Rows of a matrix that go through all operations together, while they are in the cache.
CHUNK = 1 << 15


class Averages:
    """Moves averages towards weights where units were active."""

    def __init__(self) -> None:
        self._scratch: dict[Any, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_scratch": {}}

    def move(self, average: Array, value: Array, decay: float, units: Sequence[Units]) -> None:
        """``average += (1 - decay) * (value - average)``, for what was active.

        Parameters
        ----------
        average, value : numpy.ndarray, C-contiguous, shape (rows, columns)
        decay : float
        units : tuple
            Active units of both axes, as `operands` has them.
        """
        rest = 1.0 - decay
        if any(part is not None for part in units):
            shape = [active_indices(*axis).size for axis in zip(units, value.shape, strict=True)]
            now, before = (self._array(name, shape, value.dtype) for name in ("now", "before"))
            kernels.gather(value, *units, now)
            kernels.gather(average, *units, before)
            numpy.subtract(now, before, out=now)
            kernels.scatter(now, *units, average, scale=rest, accumulate=True)
            return
        average, value = average.reshape(-1), value.reshape(-1)
        for first in range(0, value.size, CHUNK):
            mine, now = average[first : first + CHUNK], value[first : first + CHUNK]
            step = self._array("now", now.shape, now.dtype)
            numpy.subtract(now, mine, out=step)
            numpy.multiply(step, rest, out=step)
            numpy.add(mine, step, out=mine)

    def _array(self, name: str, shape: Sequence[int], dtype: numpy.dtype[Any]) -> Array:
        size = int(numpy.prod(shape))
        held = self._scratch.get((name, dtype))
        if held is None or held.size < size:
            held = self._scratch[name, dtype] = aligned_empty((size,), dtype)
        return held[:size].reshape(shape)
