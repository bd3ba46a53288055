"""Settings of optimisers: checked whenever they are set, and in effect from the next step on."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy

from fastdrop.arguments import real_number

__all__ = ["Rate", "Setting", "flag", "interval", "optional", "rate_or_schedule"]

# A learning rate, or a schedule: a function of the number of steps done.
Rate: TypeAlias = float | Callable[[int], float]
# Makes of a value and the setting's name what is kept, or raises.
Check: TypeAlias = Callable[[Any, str], Any]


class Setting(property):
    """An attribute of an optimiser, or of one of its groups, that is checked when it is set.

    The object keeps it by ``_set(name, value)`` and returns it by ``_get(name)``.

    Parameters
    ----------
    check : callable
        Makes of a value and the setting's name what is kept, or raises.
    doc : str
    """

    def __init__(self, check: Check, doc: str) -> None:
        self._check = check
        super().__init__(self._read, self._write, doc=doc)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def _read(self, holder: Any) -> Any:
        return holder._get(self._name)

    def _write(self, holder: Any, value: Any) -> None:
        holder._set(self._name, self._check(value, self._name))


def interval(lowest: float, below: float = math.inf, lowest_allowed: bool = True) -> Check:
    """A check for numbers from `lowest` to less than `below`."""

    def check(value: Any, name: str) -> float:
        number = real_number(value, name)
        if not (lowest <= number < below) or (number == lowest and not lowest_allowed):
            left = "[" if lowest_allowed else "("
            raise ValueError(f"{name} must be in {left}{lowest:g}, {below:g}), got {number}")
        return number

    return check


def optional(check: Check) -> Check:
    """The same check, or None."""
    return lambda value, name: None if value is None else check(value, name)


def flag(value: Any, name: str) -> bool:
    """A check for True and False."""
    if not isinstance(value, bool | numpy.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def rate_or_schedule(value: Any, name: str) -> Any:
    """A check for learning rates, and for functions of the step that return one."""
    return value if callable(value) else interval(0.0)(value, name)
