"""RMSprop."""

from typing import Any

import numpy

from fastdrop._backend import kernels
from fastdrop.aligned import aligned_zeros
from fastdrop.optim.groups import Params
from fastdrop.optim.optimiser import Gradient, Memory, Optimiser
from fastdrop.optim.settings import Rate, Setting, interval
from fastdrop.parameters import active_indices, unpacked_weights
from fastdrop.types import Array

__all__ = ["RMSprop"]


class RMSprop(Optimiser):
    """RMSprop [1]_: gradients divided by the root of a moving average of their squares.

    With g the gradient plus ``weight_decay * w``::

        v = rho * v + (1 - rho) * g**2
        u = momentum * u + g / (sqrt(v) + epsilon)
        w -= learning_rate * u

    What was dropped keeps w, v and u. (Torch calls rho alpha, with 0.99 by default.)

    Parameters
    ----------
    params, learning_rate, weight_decay, max_norm, maximize, clip_value, clip_norm, average
        As for `SGD`.
    rho : float
        In [0, 1).
    momentum : float
        In [0, 1). 0 remembers no u.
    epsilon : float
        Greater than 0.

    Attributes
    ----------
    rho, momentum, epsilon
        May be set.
    parameters, groups, steps, learning_rate, ...
        As for `SGD`.

    Raises
    ------
    TypeError, ValueError
        As for `SGD`.

    References
    ----------
    .. [1] T. Tieleman, G. Hinton, "Lecture 6.5: RMSprop", Coursera: Neural networks for machine
       learning (2012).

    Examples
    --------
    >>> import numpy
    >>> from fastdrop.parameters import Parameter
    >>> weight = Parameter("weight", numpy.ones((1, 2)))
    >>> weight.grad = numpy.full((1, 2), 5.0)
    >>> weight.columns = (numpy.array([0b01], dtype=numpy.uint8), 0)
    >>> RMSprop([weight], learning_rate=0.1, rho=0.75).step()
    >>> weight.value.round(6)
    array([[0.8, 1. ]])
    """

    _sealed = True
    _SETTINGS = ("rho", "momentum", "epsilon", *Optimiser._SETTINGS)

    rho = Setting(interval(0.0, 1.0), "float: in [0, 1), decay of the average of squares.")
    momentum = Setting(interval(0.0, 1.0), "float: in [0, 1); 0 remembers nothing.")
    epsilon = Setting(interval(0.0, lowest_allowed=False), "float: greater than 0.")

    def __init__(
        self,
        params: Params,
        learning_rate: Rate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        *,
        maximize: bool = False,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
    ) -> None:
        super().__init__(
            params,
            learning_rate=learning_rate,
            rho=rho,
            momentum=momentum,
            epsilon=epsilon,
            weight_decay=weight_decay,
            max_norm=max_norm,
            maximize=maximize,
            clip_value=clip_value,
            clip_norm=clip_norm,
            average=average,
        )

    def _make_memory(self, value: Array) -> Memory:
        memory = {"squares": aligned_zeros(value.shape, value.dtype)}
        if self.momentum:
            memory["velocity"] = aligned_zeros(value.shape, value.dtype)
        return memory

    def _changed(self, name: str, before: Any) -> None:
        super()._changed(name, before)
        if name == "momentum" and (before == 0) != (self.momentum == 0):
            for (_, parameter, _), memory in zip(self._entries, self._memory, strict=True):
                memory.pop("velocity", None)
                if self.momentum:
                    memory["velocity"] = self._make_memory(parameter.value)["velocity"]

    def _update(
        self,
        value: Array,
        memory: Memory,
        gradient: Gradient,
        rate: float,
        weight_decay: float,
        max_norm: float,
    ) -> None:
        array, compact, *units, kept = gradient
        squares = memory["squares"].reshape(value.shape)
        velocity = memory.get("velocity")
        if velocity is not None:
            velocity = velocity.reshape(value.shape)
        cast = value.dtype.type
        if kept is not None:
            taken = unpacked_weights(kept, value.shape)
            g = array + cast(weight_decay) * value if weight_decay else array
            moved = cast(self.rho) * squares + cast(1 - self.rho) * numpy.square(g)
            numpy.copyto(squares, moved, where=taken)
            direction = g / (numpy.sqrt(squares) + cast(self.epsilon))
        elif units == [None, None]:
            g = array + cast(weight_decay) * value if weight_decay else array
            squares *= cast(self.rho)
            squares += cast(1 - self.rho) * numpy.square(g)
            direction = g / (numpy.sqrt(squares) + cast(self.epsilon))
        else:
            places = numpy.ix_(*map(active_indices, units, value.shape))
            g = array if compact else array[places]
            g = g + cast(weight_decay) * value[places] if weight_decay else g
            v = cast(self.rho) * squares[places] + cast(1 - self.rho) * numpy.square(g)
            squares[places] = v
            direction = g / (numpy.sqrt(v) + cast(self.epsilon))
            compact = True
        # The rest is a step of gradient descent in that direction, with the bound of norms.
        rows, columns = units
        update = kernels.Update(
            value, numpy.ascontiguousarray(direction), rows=rows, columns=columns, kept=kept,
            compact=compact, first=velocity, learning_rate=rate, momentum=self.momentum,
            max_norm=max_norm,
        )  # fmt: skip
        kernels.update(update)
