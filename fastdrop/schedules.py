"""Schedules: functions of the step, for learning rates and for the rates of dropout.

Each is called with a number of steps, 0 at first, and returns a float. All of them can be pickled
and compared, and print as they were made. Any function of the step does as well.

For a learning rate the step is the optimiser's, ``opt.steps``; for the rate of a dropout layer it
is the number of the draw, ``layer.stream.position``, which a checkpoint restores.

References
----------
.. [1] P. Morerio, J. Cavazza, R. Volpi, R. Vidal, V. Murino, "Curriculum dropout", ICCV 2017,
   section 3, equation 4.
.. [2] Z. Liu, Z. Xu, J. Jin, Z. Shen, T. Darrell, "Dropout reduces underfitting", ICML 2023,
   sections 4 and 5.
.. [3] I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
   equation 5, for one period.
.. [4] P. Goyal et al., "Accurate, large minibatch SGD", arXiv 1706.02677 (2017), section 2.2.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from fastdrop.arguments import integer, probability, real_number

__all__ = [
    "Cosine",
    "Curriculum",
    "Early",
    "Exponential",
    "Late",
    "Linear",
    "Piecewise",
    "Warmup",
]


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """What all have in common: their numbers are checked when they are made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int":
                value = integer(value, field.name)
                if value < 1:
                    raise ValueError(f"{field.name} must be at least 1, got {value}")
            elif field.type == "float":
                value = real_number(value, field.name)
                if not math.isfinite(value):
                    raise ValueError(f"{field.name} must be finite, got {value}")
                if field.name == "rate":
                    probability(value, "rate")
            object.__setattr__(self, field.name, value)

    def __call__(self, step: int) -> float:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Linear(_Schedule):
    """From `start` in a straight line to `end`, reached after `steps` steps, and on.

    Examples
    --------
    >>> from fastdrop.schedules import Linear
    >>> rate = Linear(0.0, 0.5, steps=10)
    >>> [rate(step) for step in (0, 5, 10, 1000)]
    [0.0, 0.25, 0.5, 0.5]
    """

    start: "float"
    end: "float"
    steps: "int"

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        if step >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * (step / self.steps)


@dataclasses.dataclass(frozen=True)
class Cosine(_Schedule):
    """From `start` along half a cosine to `end`, reached after `steps` steps, and on [3]_.

    Examples
    --------
    >>> from fastdrop.schedules import Cosine
    >>> rate = Cosine(1.0, 0.0, steps=10)
    >>> [round(rate(step), 3) for step in (0, 5, 10, 1000)]
    [1.0, 0.5, 0.0, 0.0]
    """

    start: "float"
    end: "float"
    steps: "int"

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        if step >= self.steps:
            return self.end
        share = 0.5 + 0.5 * math.cos(math.pi * step / self.steps)
        return self.end + (self.start - self.end) * share


@dataclasses.dataclass(frozen=True)
class Exponential(_Schedule):
    """``start * factor**(step / steps)``: multiplied by `factor` in `steps` steps.

    Examples
    --------
    >>> from fastdrop.schedules import Exponential
    >>> rate = Exponential(0.1, factor=0.5, steps=10)
    >>> [rate(step) for step in (0, 10, 20)]
    [0.1, 0.05, 0.025]
    """

    start: "float"
    factor: "float"
    steps: "int"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor <= 0:
            raise ValueError(f"factor must be greater than 0, got {self.factor}")

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return float(self.start * self.factor ** (step / self.steps))


@dataclasses.dataclass(frozen=True)
class Piecewise(_Schedule):
    """Constant between boundaries: ``values[k]`` from step ``boundaries[k - 1]`` on.

    Parameters
    ----------
    values : sequence of float
    boundaries : sequence of int
        Ascending, one fewer than values.

    Examples
    --------
    >>> from fastdrop.schedules import Piecewise
    >>> rate = Piecewise([0.1, 0.01], [100])
    >>> rate(99), rate(100)
    (0.1, 0.01)
    """

    values: tuple[float, ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        values = tuple(real_number(value, "values") for value in self.values)
        boundaries = tuple(integer(step, "boundaries") for step in self.boundaries)
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"values must be one more than boundaries, got {len(values)} and {len(boundaries)}"
            )
        if any(a >= b for a, b in zip((0, *boundaries), boundaries, strict=False)):
            raise ValueError(f"boundaries must ascend from 1 on, got {boundaries}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "boundaries", boundaries)

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return self.values[sum(step >= boundary for boundary in self.boundaries)]


@dataclasses.dataclass(frozen=True)
class Warmup(_Schedule):
    """From 0 in a straight line to a rate, or to where another schedule begins, which follows [4]_.

    Parameters
    ----------
    steps : int
        Of the line; step `steps` is the first one of `then`.
    then : float or callable
        The rate, or a schedule, which is called with the steps since.

    Examples
    --------
    >>> from fastdrop.schedules import Cosine, Warmup
    >>> rate = Warmup(4, Cosine(0.8, 0.0, steps=10))
    >>> [round(rate(step), 3) for step in (0, 1, 4, 9, 14)]
    [0.0, 0.2, 0.8, 0.4, 0.0]
    """

    steps: "int"
    then: float | Callable[[int], float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.then):
            object.__setattr__(self, "then", real_number(self.then, "then"))

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        since = max(step - self.steps, 0)
        value = self.then(since) if callable(self.then) else self.then
        return value if step >= self.steps else value * (step / self.steps)


@dataclasses.dataclass(frozen=True)
class Curriculum(_Schedule):
    """Curriculum dropout [1]_: from 0 towards `rate`, ``rate * (1 - exp(-10 * step / steps))``.

    The network learns without dropout first. After `steps`, the steps of the whole training, the
    rate is within 5e-5 of its end.

    Examples
    --------
    >>> from fastdrop.schedules import Curriculum
    >>> rate = Curriculum(0.5, steps=1000)
    >>> [round(rate(step), 3) for step in (0, 100, 1000)]
    [0.0, 0.316, 0.5]
    """

    rate: "float"
    steps: "int"

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return self.rate * (1 - math.exp(-10 * step / self.steps))


@dataclasses.dataclass(frozen=True)
class Early(_Schedule):
    """Early dropout [2]_: in the first `steps` steps only, and 0 from then on.

    For a network that underfits: at first dropout makes the gradients of different batches agree.

    Parameters
    ----------
    rate : float
    steps : int
    decreasing : bool, optional
        In a straight line from `rate` to 0, as in the paper's experiments, or constant and then 0.

    Examples
    --------
    >>> from fastdrop.schedules import Early
    >>> [Early(0.2, 10)(step) for step in (0, 5, 10)]
    [0.2, 0.1, 0.0]
    >>> [Early(0.2, 10, decreasing=False)(step) for step in (0, 9, 10)]
    [0.2, 0.2, 0.0]
    """

    rate: "float"
    steps: "int"
    decreasing: bool = True

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        if step >= self.steps:
            return 0.0
        return self.rate * (1 - step / self.steps) if self.decreasing else self.rate


@dataclasses.dataclass(frozen=True)
class Late(_Schedule):
    """Late dropout [2]_: 0 in the first `steps` steps, and `rate` from then on.

    For a network that overfits, without what dropout costs at first.

    Examples
    --------
    >>> from fastdrop.schedules import Late
    >>> [Late(0.2, 10)(step) for step in (0, 9, 10)]
    [0.0, 0.0, 0.2]
    """

    rate: "float"
    steps: "int"

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return self.rate if step >= self.steps else 0.0


def evaluated(schedule: Callable[[int], Any], step: int, name: str) -> float:
    """The value of a schedule, or of any function of the step, as a float.

    Raises
    ------
    TypeError
        If it is no real number; `name` is the argument that the schedule was given for.
    """
    return real_number(schedule(step), f"{name}({step})")


def described(schedule: Callable[[int], Any]) -> str:
    """A schedule in words that do not change from run to run, for states to compare."""
    if isinstance(schedule, _Schedule):
        return repr(schedule)
    return str(getattr(schedule, "__qualname__", type(schedule).__qualname__))
