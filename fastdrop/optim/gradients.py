"""Gradients as an optimiser uses them: clipped, and with the sign of what is sought."""

import math
from collections.abc import Iterable
from typing import Any

import numpy

from fastdrop.aligned import aligned_empty
from fastdrop.parameters import Units, active_indices
from fastdrop.types import Array

__all__ = ["Gradients"]

# Elements whose squares are summed by one call of the BLAS: too few for it to wake threads.
CHUNK = 1 << 13


class Gradients:
    """Makes the gradients of a step what the rule is to see; gradients themselves stay.

    With masks, a gradient has the elements of active units only. The others count as 0 in the norm,
    which they are: what is clipped to is the norm of the gradient of this step's smaller network.

    Parameters
    ----------
    clip_value, clip_norm : float or None
    maximize : bool
    """

    def __init__(self, clip_value: float | None, clip_norm: float | None, maximize: bool) -> None:
        self._value = clip_value
        self._norm = clip_norm
        self._sign = -1.0 if maximize else 1.0
        self._scratch: dict[Any, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_scratch": {}}

    def factor(self, gradients: Iterable[Any]) -> float:
        """By what all gradients of a step are multiplied, after their values are clipped.

        Parameters
        ----------
        gradients : list of tuple
            The gradient, whether it is compact, and the active units, as `operands` has them.

        Raises
        ------
        FloatingPointError
            If their norm is to be bounded and is not finite.
        """
        if self._norm is None:
            return self._sign
        norm = math.hypot(*(self._norm_of(*gradient) for gradient in gradients))
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"the norm of the gradients is {norm}, which clip_norm cannot bound; no parameter "
                "was updated"
            )
        return float(self._sign * (self._norm / norm if norm > self._norm else 1.0))

    def adjusted(self, gradient: Array, factor: float) -> Array:
        """The gradient clipped and multiplied: itself, or in an array that the next call reuses."""
        if self._value is not None:
            gradient = numpy.clip(
                gradient, -self._value, self._value, out=self._array_like(gradient)
            )
        if factor != 1:
            out = self._array_like(gradient)
            with numpy.errstate(all="ignore"):  # what no unit was active for may be anything
                gradient = numpy.multiply(gradient, factor, out=out)
        return gradient

    def _array_like(self, gradient: Array) -> Array:
        held = self._scratch.get(gradient.dtype)
        if held is None or held.size < gradient.size:
            held = self._scratch[gradient.dtype] = aligned_empty((gradient.size,), gradient.dtype)
        return held[: gradient.size].reshape(gradient.shape)

    def _norm_of(self, gradient: Array, compact: bool, *units: Units) -> float:
        """The Euclidean norm of what is active of a gradient."""
        if not compact and any(part is not None for part in units):
            gradient = gradient[numpy.ix_(*map(active_indices, units, gradient.shape))]
        gradient = self.adjusted(gradient, 1)
        flat = gradient.reshape(-1)
        parts = [flat[first : first + CHUNK] for first in range(0, flat.size, CHUNK)]
        with numpy.errstate(over="ignore", invalid="ignore"):
            squares = math.fsum(float(numpy.dot(part, part)) for part in parts)
        tiny = float(numpy.finfo(flat.dtype).tiny)
        if not tiny <= squares < math.inf and flat.size:  # too large for squares, or too small
            return self._scaled_norm(flat)
        return math.sqrt(squares)

    @staticmethod
    def _scaled_norm(flat: Array) -> float:
        largest = float(numpy.abs(flat).max())
        if largest == 0 or not math.isfinite(largest):
            return largest
        return largest * math.sqrt(float(numpy.square(flat.astype(numpy.float64) / largest).sum()))
