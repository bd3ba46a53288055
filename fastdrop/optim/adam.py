"""Adam and AdamW; [3]_, [4]_ and [5]_ as in `fastdrop.optim`."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy

from fastdrop._backend import kernels
from fastdrop.aligned import aligned_zeros
from fastdrop.optim.groups import Params
from fastdrop.optim.optimiser import Gradient, Memory, Optimiser
from fastdrop.optim.settings import Rate, Setting, flag, interval
from fastdrop.types import Array

__all__ = ["Adam", "AdamW"]


class Adam(Optimiser):
    """Adam [3]_, each unit's bias correction by the updates it took part in.

    With g the gradient plus ``weight_decay * w``::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w -= learning_rate * (m / c1) / (sqrt(v / c2) + epsilon)

    A weight's moments stand still while it is inactive, so the corrections c1 and c2 go by the
    number k of updates it had, ``1 - beta**k``, not by the number of steps: after a first update at
    a late step, m and v are ``(1 - beta1) * g`` and ``(1 - beta2) * g**2``. Divided by the
    corrections of the step's number, both nearly 1, they would make a step of
    ``(1 - beta1) / sqrt(1 - beta2)`` = 3.2 learning rates; by their own corrections, of one.

    No count is kept for every weight, but one for every row and column of a parameter. Where only
    rows or only columns are masked, and for biases, k is exactly theirs. Where both are, k is taken
    as ``n * m / t``, for units that were active in n and m of t updates, the expectation for
    independent masks. The first update of a unit, however late, is always corrected exactly. Of
    weights with a mask of their own (`Parameter.mask`) k is taken as the unit's, times the share of
    weights that the mask keeps.

    Parameters
    ----------
    params, learning_rate, max_norm, maximize, clip_value, clip_norm, average
        As for `SGD`.
    beta1, beta2 : float
        In [0, 1).
    epsilon : float
        Greater than 0.
    weight_decay : float
        Factor on the weights that is added to the gradient; see also `AdamW`.
    amsgrad : bool
        Divide by the root of the largest v that each weight has had [5]_, not of the present one.

    Attributes
    ----------
    beta1, beta2
        May be set. The moments are then rescaled to those that the gradients so far would have, had
        they been averaged with the new number: so the correction stays right, and steps keep their
        length.
    parameters, groups, steps, learning_rate, ...
        As for `SGD`.

    Raises
    ------
    TypeError, ValueError
        As for `SGD`.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop.parameters import Parameter
    >>> bias = Parameter("bias", numpy.zeros(2))
    >>> opt = Adam([bias], learning_rate=0.1)
    >>> bias.grad = numpy.array([5.0, 5.0])
    >>> for active in (0b01, 0b01, 0b10):
    ...     bias.columns = (numpy.array([active], dtype=numpy.uint8), 0)
    ...     opt.step()
    >>> bias.value.round(6)
    array([-0.2, -0.1])
    """

    _sealed = True
    _SETTINGS = ("beta1", "beta2", "epsilon", "amsgrad", *Optimiser._SETTINGS)
    _decoupled = False

    beta1 = Setting(interval(0.0, 1.0), "float: in [0, 1), decay of the first moment.")
    beta2 = Setting(interval(0.0, 1.0), "float: in [0, 1), decay of the second moment.")
    epsilon = Setting(interval(0.0, lowest_allowed=False), "float: greater than 0.")
    amsgrad = Setting(flag, "bool: whether the largest second moments so far are divided by.")

    def __init__(
        self,
        params: Params,
        learning_rate: Rate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        *,
        amsgrad: bool = False,
        maximize: bool = False,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
    ) -> None:
        super().__init__(
            params,
            learning_rate=learning_rate,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            weight_decay=weight_decay,
            max_norm=max_norm,
            maximize=maximize,
            clip_value=clip_value,
            clip_norm=clip_norm,
            average=average,
        )
        self._table = _corrections(self.beta1, self.beta2, 1 << 10)

    def _make_memory(self, value: Array) -> Memory:
        rows = value.shape[0] if value.ndim == 2 else 1
        memory = {
            "first_moment": aligned_zeros(value.shape, value.dtype),
            "second_moment": aligned_zeros(value.shape, value.dtype),
            "row_counts": numpy.zeros(rows, numpy.int64),
            "column_counts": numpy.zeros(value.shape[-1], numpy.int64),
            "updates": 0,
        }
        if self.amsgrad:
            memory["largest_second_moment"] = aligned_zeros(value.shape, value.dtype)
        return memory

    def _changed(self, name: str, before: Any) -> None:
        super()._changed(name, before)
        if name == "amsgrad" and self.amsgrad != before:
            for memory in self._memory:
                memory.pop("largest_second_moment", None)
                if self.amsgrad:
                    second = memory["second_moment"]
                    largest = aligned_zeros(second.shape, second.dtype)
                    largest[...] = second
                    memory["largest_second_moment"] = largest
        elif name in ("beta1", "beta2"):
            self._table = _corrections(self.beta1, self.beta2, 1 << 10)
            moments = ["first_moment"]
            if name == "beta2":
                moments = ["second_moment", "largest_second_moment"]
            for memory in self._memory:
                _correct_anew(memory, moments, before, self._settings[name])
                self._shorten_counts(memory)

    def _shorten_counts(self, memory: Memory) -> None:
        """Let no count exceed the table, whose last line is good for all that follow."""
        last, updates = len(self._table) - 1, memory["updates"]
        if updates > last and (self._table[-1] == 1).all():
            for name in ("row_counts", "column_counts"):
                counts = memory[name]
                counts[...] = -(-counts * last // updates)
            memory["updates"] = last

    def _check_memory(self, name: str, state: Mapping[str, Any], steps: int) -> None:
        updates = int(state[f"{name}.updates"])
        if not 0 <= updates <= steps:
            raise ValueError(f"{name}.updates must be from 0 to {steps}, the steps, got {updates}")
        for what in ("row_counts", "column_counts"):
            counts = numpy.asarray(state[f"{name}.{what}"])
            if ((counts < 0) | (counts > updates)).any():
                raise ValueError(f"{name}.{what} must be from 0 to {updates}, the updates")

    def _update(
        self,
        value: Array,
        memory: Memory,
        gradient: Gradient,
        rate: float,
        weight_decay: float,
        max_norm: float,
    ) -> None:
        updates = memory["updates"] + 1
        table = self._table
        if updates >= len(table) and (table[-1] != 1).any():
            table = self._table = _corrections(self.beta1, self.beta2, 2 * updates)
        # The table ends where all corrections are 1.
        updates = min(updates, len(table) - 1)
        largest = memory.get("largest_second_moment")
        array, compact, rows, columns, kept = gradient
        update = kernels.Update(
            value, array, rows=rows, columns=columns, kept=kept, compact=compact,
            first=memory["first_moment"].reshape(value.shape),
            second=memory["second_moment"].reshape(value.shape),
            top=None if largest is None else largest.reshape(value.shape),
            row_counts=memory["row_counts"], column_counts=memory["column_counts"], steps=updates,
            table=table, learning_rate=rate, beta1=self.beta1, beta2=self.beta2,
            epsilon=self.epsilon, weight_decay=weight_decay, decoupled=self._decoupled,
            max_norm=max_norm,
        )  # fmt: skip
        kernels.update(update)
        memory["updates"] = updates


class AdamW(Adam):
    """Adam with decoupled weight decay [4]_: the weights shrink, the gradient does not see it.

    Before each step of `Adam`, active weights are multiplied by
    ``1 - learning_rate * weight_decay``. Dropped ones are not.

    Parameters
    ----------
    params, learning_rate, beta1, beta2, epsilon, max_norm, amsgrad
        As for `Adam`.
    maximize, clip_value, clip_norm, average
        As for `Adam`.
    weight_decay : float

    Examples
    --------
    >>> import numpy
    >>> from fastdrop.parameters import Parameter
    >>> weight = Parameter("weight", numpy.ones((1, 2)))
    >>> weight.grad = numpy.zeros((1, 2))
    >>> weight.columns = (numpy.array([0b01], dtype=numpy.uint8), 0)
    >>> AdamW([weight], learning_rate=0.5, weight_decay=0.5).step()
    >>> weight.value
    array([[0.75, 1.  ]])
    """

    _sealed = True
    _decoupled = True

    def __init__(
        self,
        params: Params,
        learning_rate: Rate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        max_norm: float | None = None,
        *,
        amsgrad: bool = False,
        maximize: bool = False,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
    ) -> None:
        super().__init__(
            params,
            learning_rate,
            beta1,
            beta2,
            epsilon,
            weight_decay,
            max_norm,
            amsgrad=amsgrad,
            maximize=maximize,
            clip_value=clip_value,
            clip_norm=clip_norm,
            average=average,
        )


def _corrections(beta1: float, beta2: float, lines: int) -> Array:
    """Line k: 1 - beta2**k, 1 - beta1**k; ends with the first line of ones, if there is one."""
    slowest = max(beta1, beta2)
    if slowest > 0:  # 1 - beta**k is 1 from beta**k = 2**-54 on
        lines = min(lines, 2 + math.ceil(54 * math.log(2) / -math.log(slowest)))
    k = numpy.arange(lines)
    table = numpy.stack([1 - beta2**k, 1 - beta1**k], axis=1)
    ones = numpy.flatnonzero((table == 1).all(axis=1))
    return table[: ones[0] + 1].copy() if ones.size else table


def _correct_anew(memory: Memory, moments: Iterable[str], before: float, now: float) -> None:
    """Rescale moments that were averaged with the decay `before` to those of the decay `now`.

    A moment after k updates is ``1 - before**k`` times a weighted mean of gradients, or of their
    squares, and is to be ``1 - now**k`` times that mean. As in the update, k is ``n * m / t``.
    """
    updates = memory["updates"]
    if updates == 0 or before == now:
        return
    rows, columns = memory["row_counts"], memory["column_counts"]
    k = numpy.multiply.outer(rows, columns) / updates
    k[(rows == 1)[:, None] | (columns == 1)] = 1
    k = numpy.maximum(k, 1e-3)  # of weights that had no update: their moments are 0
    factor = (1 - now**k) / (1 - before**k)
    for name in moments:
        if name in memory:
            moment = memory[name]
            moment *= factor.reshape(moment.shape).astype(moment.dtype)
