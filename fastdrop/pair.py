"""`OutputAndMask` and `OutputAndNoise`: what `dropout` and its family return."""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from numpy.typing import DTypeLike

from fastdrop.mask import Mask
from fastdrop.noise import Noise
from fastdrop.refusal import NoArithmetic
from fastdrop.types import Array

__all__ = ["OutputAndMask", "OutputAndNoise"]

Drawn = TypeVar("Drawn")


class Pair(NoArithmetic, tuple[Array, Drawn | None]):
    """A result and what was drawn for it: a tuple that refuses to be computed with.

    ``h = dropout(h, 0.5)`` followed by ``h @ w`` would have NumPy stack the two into one array.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> h = fastdrop.dropout(numpy.ones((2, 3)), rate=0.5, rng=0)
    >>> h @ numpy.ones((3, 2))
    Traceback (most recent call last):
    TypeError: operator matmul: dropout returned a pair, unpack it first: y, mask = dropout(...)
    """

    __slots__ = ()

    _refused = "dropout returned a pair, unpack it first: y, mask = dropout(...)"

    def __add__(self, other: Any) -> Any:
        """Concatenate with another tuple, as tuples do; two pairs are meant to be added up."""
        if not isinstance(other, tuple) or isinstance(other, Pair):
            raise TypeError(f"operator add: {self._refused}")
        return tuple.__add__(self, other)

    __iadd__ = __add__

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, tuple):
            raise TypeError(f"operator add: {self._refused}")
        return other + tuple(self)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NoReturn:
        raise TypeError(self._refused)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> NoReturn:
        raise TypeError(f"numpy.{func.__name__}: {self._refused}")


class OutputAndMask(Pair[Mask]):
    """The pair ``(y, mask)`` that `dropout` returns."""

    __slots__ = ()


class OutputAndNoise(Pair[Noise]):
    """The pair ``(y, noise)`` that `gaussian_dropout` returns."""

    __slots__ = ()
