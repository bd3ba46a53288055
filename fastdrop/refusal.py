"""Arithmetic refused: operators and NumPy functions that would leave out a mask's scale.

NumPy makes an array of every operand. The array of a mask is its bits, without the scale; the
array of the pair that `fastdrop.dropout` returns is both parts stacked, with one axis more. Either
gives a wrong result without a word, so both classes derive from `NoArithmetic`.
"""

from collections.abc import Callable
from typing import NoReturn

import numpy

__all__ = ["NoArithmetic", "is_product"]

_OPERATORS = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift",
    "rshift", "and", "xor", "or",
)  # fmt: skip
_UNARY = ("neg", "pos", "abs")
_COMPARISONS = ("lt", "le", "gt", "ge")

# NumPy's sums of products that are no ufuncs. Functions that select or count may have the bits.
_PRODUCTS = frozenset(
    {
        numpy.convolve, numpy.correlate, numpy.cross, numpy.dot, numpy.einsum, numpy.inner,
        numpy.kron, numpy.linalg.cross, numpy.linalg.matmul, numpy.linalg.multi_dot,
        numpy.linalg.outer, numpy.linalg.tensordot, numpy.linalg.vecdot, numpy.outer,
        numpy.tensordot, numpy.vdot,
    }
)  # fmt: skip


def is_product(function: object) -> bool:
    """Whether a function of NumPy's multiplies its operands, without being a ufunc."""
    return function in _PRODUCTS


class NoArithmetic:
    """Base of classes that take no part in arithmetic.

    A subclass defines `_refused`, the advice that the TypeError of every operator and ufunc gives;
    operators that it has a meaning for, it defines itself.
    """

    __slots__ = ()

    _refused = ""

    def __array_ufunc__(
        self, ufunc: numpy.ufunc, method: str, *inputs: object, **kwargs: object
    ) -> NoReturn:
        raise TypeError(f"numpy.{ufunc.__name__}: {self._refused}")


def _operator(name: str, plain: str) -> Callable[..., NoReturn]:
    def refuse(self: NoArithmetic, *_: object) -> NoReturn:
        raise TypeError(f"operator {plain}: {self._refused}")

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


for _name in _OPERATORS:
    for _form in (f"__{_name}__", f"__r{_name}__", f"__i{_name}__"):
        setattr(NoArithmetic, _form, _operator(_form, _name))
for _name in (*_UNARY, *_COMPARISONS):
    setattr(NoArithmetic, f"__{_name}__", _operator(f"__{_name}__", _name))
