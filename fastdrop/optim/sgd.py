"""Stochastic gradient descent; [1]_ and [2]_ as in `fastdrop.optim`."""

from typing import Any

import numpy

from fastdrop._backend import kernels
from fastdrop.aligned import aligned_zeros
from fastdrop.optim.groups import Params
from fastdrop.optim.optimiser import Gradient, Memory, Optimiser
from fastdrop.optim.settings import Rate, Setting, flag, interval
from fastdrop.parameters import active_indices, unpacked_weights
from fastdrop.types import Array

__all__ = ["SGD"]


class SGD(Optimiser):
    """Stochastic gradient descent, with optional momentum [2]_.

    With g the gradient plus ``weight_decay * w``: ``u = momentum * u + g``, and
    ``w -= learning_rate * u``; with `nesterov`, ``w -= learning_rate * (g + momentum * u)``.

    Parameters
    ----------
    params : object with ``parameters()``, or iterable of Parameter or dict
        A network, a layer or their parameters; or groups of them, dicts with ``"params"`` and
        settings of their own: ``"learning_rate"``, ``"weight_decay"``, ``"max_norm"``.
    learning_rate : float or callable
        A schedule takes the number of steps done, 0 at first, and returns the rate of the next.
    momentum : float
        In [0, 1). 0: none.
    nesterov : bool
        Needs a momentum.
    weight_decay : float
        Factor on the weights, biases too, that is added to the gradient.
    max_norm : float, optional
        After the step, the incoming weights of every active unit, a column of a parameter of shape
        (units_in, units_out), are scaled down where their Euclidean norm exceeds it [1]_. All of
        them count and are scaled, those from dropped units too; those of dropped units of the
        output stay. Biases are not bounded.
    dampening : float
        In [0, 1), with a momentum: ``u = momentum * u + (1 - dampening) * g``, but a weight's first
        update makes u the gradient itself. Not with `nesterov`.
    maximize : bool
        Go up: the gradients' signs are changed, before weights are added to them.
    clip_value : float, optional
        Every element of the gradients is brought into [-clip_value, clip_value] first.
    clip_norm : float, optional
        Then all gradients are multiplied by ``clip_norm / norm`` where the Euclidean norm of all of
        them together, of all groups, exceeds it. What is not active has no gradient: it counts as
        0.
    average : float, optional
        Decay d, in [0, 1), of a moving average of the weights, for evaluation; see `averaged`. It
        begins at the weights that the optimiser is given, and after a step that a weight takes part
        in becomes ``d * average + (1 - d) * weight``. A dropped weight's average stays, as its
        velocity does.

    Attributes
    ----------
    parameters : tuple of Parameter
        Read-only.
    groups : tuple of Group
        With `parameters`, `learning_rate`, `weight_decay` and `max_norm` of each. Those that a
        group was not given are the optimiser's.
    steps : int
        Steps done. Read-only.
    learning_rate, momentum, ...
        As given. Setting one checks it, and holds from the next step on.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number or out of its range, or a parameter is there twice, or two have
        one name.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop.parameters import Parameter
    >>> weight = Parameter("weight", numpy.ones((2, 2)))
    >>> weight.grad = numpy.ones((2, 2))
    >>> weight.columns = (numpy.array([0b01], dtype=numpy.uint8), 0)
    >>> SGD([weight], learning_rate=0.5, momentum=0.9).step()
    >>> weight.value
    array([[0.5, 1. ],
           [0.5, 1. ]])
    """

    _sealed = True
    _SETTINGS = ("momentum", "nesterov", "dampening", *Optimiser._SETTINGS)

    momentum = Setting(interval(0.0, 1.0), "float: in [0, 1); 0: none.")
    nesterov = Setting(flag, "bool: whether the momentum looks ahead.")
    dampening = Setting(interval(0.0, 1.0), "float: in [0, 1); the gradient counts 1 - dampening.")

    def __init__(
        self,
        params: Params,
        learning_rate: Rate,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        *,
        dampening: float = 0.0,
        maximize: bool = False,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
    ) -> None:
        super().__init__(
            params,
            momentum=momentum,
            nesterov=nesterov,
            dampening=dampening,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            max_norm=max_norm,
            maximize=maximize,
            clip_value=clip_value,
            clip_norm=clip_norm,
            average=average,
        )
        self._check()

    def _check(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum greater than 0, got 0.0")
        if self.nesterov and self.dampening:
            raise ValueError(f"nesterov needs a dampening of 0, got {self.dampening}")
        if self.dampening and self.momentum == 0:
            raise ValueError(
                f"dampening needs a momentum greater than 0, got momentum 0.0 and dampening "
                f"{self.dampening}"
            )

    def _changed(self, name: str, before: Any) -> None:
        super()._changed(name, before)
        self._check()
        if name == "momentum" and (before == 0) != (self.momentum == 0):
            for (_, parameter, _), memory in zip(self._entries, self._memory, strict=True):
                memory.pop("velocity", None)
                memory |= self._make_memory(parameter.value)

    def _make_memory(self, value: Array) -> Memory:
        return {"velocity": aligned_zeros(value.shape, value.dtype)} if self.momentum else {}

    def _update(
        self,
        value: Array,
        memory: Memory,
        gradient: Gradient,
        rate: float,
        weight_decay: float,
        max_norm: float,
    ) -> None:
        velocity = memory.get("velocity")
        if velocity is not None:
            velocity = velocity.reshape(value.shape)
        if self.dampening and velocity is not None:
            gradient, weight_decay = self._dampened(value, velocity, gradient, weight_decay)
        array, compact, rows, columns, kept = gradient
        update = kernels.Update(
            value, array, rows=rows, columns=columns, kept=kept, compact=compact, first=velocity,
            learning_rate=rate, momentum=self.momentum, nesterov=self.nesterov,
            weight_decay=weight_decay, max_norm=max_norm,
        )  # fmt: skip
        kernels.update(update)

    def _dampened(
        self, value: Array, velocity: Array, gradient: Gradient, weight_decay: float
    ) -> tuple[Gradient, float]:
        """Gradient and decay times ``1 - dampening``, and velocities that make up for it at first.

        A weight's first update is not dampened. It is told by its velocity, exactly 0, from which
        ``momentum * u + (1 - dampening) * g`` has to be g.
        """
        array, compact, *units, kept = gradient
        rest = 1.0 - self.dampening
        places = numpy.ix_(*map(active_indices, units, value.shape))
        before = velocity[places]
        new = before == 0
        if kept is not None:
            new &= unpacked_weights(kept, value.shape)[places]
        if new.any():
            cast = value.dtype.type
            g = (array if compact else array[places]) + cast(weight_decay) * value[places]
            before[new] = g[new] * cast(self.dampening / self.momentum)
            velocity[places] = before
        return [array * array.dtype.type(rest), compact, *units, kept], weight_decay * rest
