"""Optimisers that follow the masks: what was dropped in a step is not touched by it.

Each step is one pass over the weights that took part in the forward and backward pass, read, moved
and written once, together with what the optimiser remembers of them. A dropped unit's weights,
velocities, moments and counts keep their bits; no momentum moves it on, no decay shrinks it. For
masks of single rows or groups of rows, a unit took part when any row of the batch kept it.

References
----------
.. [1] N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
   JMLR 15 (2014), section 5.1 (max-norm).
.. [2] I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and
   momentum in deep learning", ICML 2013, section 2.
.. [3] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
.. [4] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
"""

import math

import numpy

from fastdrop._backend import kernels
from fastdrop.aligned import aligned_zeros
from fastdrop.arguments import integer, native, real_number
from fastdrop.parameters import check_keys, check_names, named_parameters_of, operands

__all__ = ["SGD", "Adam", "AdamW"]


class _Optimiser:
    """Parameters, the learning rate, the number of steps, and states that can be kept.

    A subclass has `_SETTINGS`, names of numbers that a state must agree on, `_make_memory`, which
    arrays a parameter needs, and `_update`.
    """

    _SETTINGS = ()

    def __init__(self, params, learning_rate, weight_decay, max_norm):
        named = named_parameters_of(params)
        self._names = [name for name, _ in named]
        check_names(self._names)
        self.parameters = [parameter for _, parameter in named]
        if not callable(learning_rate):
            learning_rate = _number(learning_rate, "learning_rate", 0.0)
        self.learning_rate = learning_rate
        self.weight_decay = _number(weight_decay, "weight_decay", 0.0)
        self.max_norm = max_norm
        if max_norm is not None:
            self.max_norm = _number(max_norm, "max_norm", 0.0, lowest_allowed=False)
        self.steps = 0
        self._memory = [self._make_memory(parameter.value) for parameter in self.parameters]

    def step(self):
        """Move every parameter that has a gradient by one step, in place.

        Parameters without one are left alone. A gradient stays after the step: the next backward
        pass replaces it.

        Raises
        ------
        RuntimeError
            If no parameter has a gradient.
        TypeError, ValueError
            If a gradient or the units that were active do not fit their parameter, or the learning
            rate of this step is no number from 0 on.
        """
        rate = self.learning_rate
        if callable(rate):
            rate = _number(rate(self.steps), f"learning_rate({self.steps})", 0.0)
        calls = []
        for parameter, memory in zip(self.parameters, self._memory, strict=True):
            if parameter.grad is not None:
                calls.append((parameter, memory, *operands(parameter)))
        if not calls:
            raise RuntimeError(
                "step() before a backward pass: no parameter has a gradient. An optimiser that was "
                "copied without its network never gets one: copy network and optimiser together, "
                "as in copy.deepcopy((net, opt))"
            )
        limit = math.inf if self.max_norm is None else self.max_norm
        for parameter, memory, value, *gradient in calls:
            bound = limit if parameter.value.ndim == 2 else math.inf
            self._update(value, memory, gradient, rate, bound)
        self.steps += 1

    def state_dict(self):
        """Return what `step` changes beside the weights: all that resuming bit for bit needs.

        Returns
        -------
        dict
            ``"optimiser"``: the class's name; ``"steps"``; the settings, such as ``"momentum"``;
            and arrays by parameter, such as ``"dense0.weight.velocity"``, copies. The learning rate
            is not part of it: a schedule is a function of the step.
        """
        state = {"optimiser": type(self).__name__, "steps": self.steps}
        state |= {name: getattr(self, name) for name in self._SETTINGS}
        for name, memory in self._arrays():
            state[name] = memory if isinstance(memory, int) else memory.copy()
        return state

    def load_state_dict(self, state):
        """Take over a state that `state_dict` returned, in place.

        Parameters
        ----------
        state : dict

        Raises
        ------
        ValueError
            If it is of another class, other settings or other parameters: by name, what it has and
            what is expected. Nothing is changed then.
        """
        expected = self.state_dict()
        kind = str(state.get("optimiser"))
        if kind != expected["optimiser"]:
            raise ValueError(f"the state is of {kind}, this optimiser is {expected['optimiser']}")
        check_keys(state, expected, "optimiser")
        for name in self._SETTINGS:
            if state[name] != expected[name]:
                raise ValueError(f"{name} is {state[name]} in the state and {expected[name]} here")
        steps = integer(state["steps"], "steps")
        if steps < 0:
            raise ValueError(f"steps must not be negative, got {steps}")
        for name, mine in self._arrays():
            given = native(numpy.asarray(state[name]))
            mine = numpy.asarray(mine)
            if given.shape != mine.shape or given.dtype.kind != mine.dtype.kind:
                raise ValueError(
                    f"{name}: expected shape {mine.shape} and dtype {mine.dtype}, got "
                    f"{given.shape} and {given.dtype}"
                )
            if mine.ndim and given.dtype != mine.dtype:
                raise ValueError(f"{name}: expected dtype {mine.dtype}, got {given.dtype}")
        for name in self._names:
            self._check_memory(name, state, steps)
        self.steps = steps
        for name, memory in zip(self._names, self._memory, strict=True):
            for what, mine in memory.items():
                given = state[f"{name}.{what}"]
                if isinstance(mine, int):
                    memory[what] = int(given)
                else:
                    mine[...] = numpy.asarray(given)

    def _check_memory(self, name, state, steps):
        """Check numbers that the kernels rely on, of one parameter in a state."""

    def _arrays(self):
        """Pairs of name and what is remembered, of all parameters."""
        for name, memory in zip(self._names, self._memory, strict=True):
            for what, value in memory.items():
                yield f"{name}.{what}", value

    def __repr__(self):
        settings = [f"learning_rate={self.learning_rate!r}"]
        settings += [f"{name}={getattr(self, name)!r}" for name in self._SETTINGS]
        return f"{type(self).__name__}({len(self.parameters)} parameters, {', '.join(settings)})"


class SGD(_Optimiser):
    """Stochastic gradient descent, with momentum if wanted [2]_.

    With g the gradient plus ``weight_decay * w``: ``u = momentum * u + g``, and
    ``w -= learning_rate * u``; with `nesterov`, ``w -= learning_rate * (g + momentum * u)``.

    Parameters
    ----------
    params : object with ``parameters()``, or iterable of Parameter
        A network, a layer, or what they have.
    learning_rate : float or callable
        A schedule takes the number of steps done, 0 at first, and returns the rate of the next.
    momentum : float
        In [0, 1). 0 remembers nothing.
    nesterov : bool
        Needs a momentum.
    weight_decay : float
        Factor on the weights, biases too, that is added to the gradient.
    max_norm : float, optional
        After the step, the incoming weights of every active unit, a column of a parameter of shape
        (units_in, units_out), are scaled down where their Euclidean norm exceeds it [1]_. All of
        them count and are scaled, those from dropped units too; those of dropped units of the
        output stay. Biases are not bounded.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number or out of its range, or two parameters have one name.

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

    _SETTINGS = ("momentum", "nesterov", "weight_decay", "max_norm")

    def __init__(
        self, params, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0, max_norm=None
    ):
        self.momentum = _number(momentum, "momentum", 0.0, 1.0)
        if not isinstance(nesterov, bool | numpy.bool_):
            raise TypeError(f"nesterov must be True or False, got {nesterov!r}")
        if nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum greater than 0, got 0.0")
        self.nesterov = bool(nesterov)
        super().__init__(params, learning_rate, weight_decay, max_norm)

    def _make_memory(self, value):
        return {"velocity": aligned_zeros(value.shape, value.dtype)} if self.momentum else {}

    def _update(self, value, memory, gradient, rate, max_norm):
        velocity = memory.get("velocity")
        if velocity is not None:
            velocity = velocity.reshape(value.shape)
        kernels.update_sgd(
            value, velocity, *gradient,
            rate, self.momentum, self.nesterov, self.weight_decay, max_norm,
        )  # fmt: skip


class Adam(_Optimiser):
    """Adam [3]_, each unit's bias correction by the updates it took part in.

    With g the gradient plus ``weight_decay * w``::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w -= learning_rate * (m / c1) / (sqrt(v / c2) + epsilon)

    A weight's moments stand still while it is inactive, so the corrections c1 and c2 go by the
    number k of updates it had, ``1 - beta**k``, not by the number of steps: after a first update at
    a late step, m and v are ``(1 - beta1) * g`` and ``(1 - beta2) * g**2``. Divided by what the
    step's number says, nearly 1 both, they would make a step of ``(1 - beta1) / sqrt(1 - beta2)`` =
    3.2 learning rates; divided by their own corrections, they make a step of one.

    No count is kept for every weight, but one for every row and column of a parameter. Where only
    rows or only columns are masked, and for biases, k is exactly theirs. Where both are, k is taken
    as ``n * m / t``, for units that were active in n and m of t updates: what independent masks
    give on average. The first update of a unit, however late, is always corrected exactly.

    Parameters
    ----------
    params, learning_rate, max_norm
        As for `SGD`.
    beta1, beta2 : float
        In [0, 1).
    epsilon : float
        Greater than 0.
    weight_decay : float
        Factor on the weights that is added to the gradient; see also `AdamW`.

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

    _SETTINGS = ("beta1", "beta2", "epsilon", "weight_decay", "max_norm")
    _decoupled = False

    def __init__(
        self,
        params,
        learning_rate=0.001,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.0,
        max_norm=None,
    ):
        self.beta1 = _number(beta1, "beta1", 0.0, 1.0)
        self.beta2 = _number(beta2, "beta2", 0.0, 1.0)
        self.epsilon = _number(epsilon, "epsilon", 0.0, lowest_allowed=False)
        self._table = _corrections(self.beta1, self.beta2, 1 << 10)
        super().__init__(params, learning_rate, weight_decay, max_norm)

    def _make_memory(self, value):
        rows = value.shape[0] if value.ndim == 2 else 1
        return {
            "first_moment": aligned_zeros(value.shape, value.dtype),
            "second_moment": aligned_zeros(value.shape, value.dtype),
            "row_counts": numpy.zeros(rows, numpy.int64),
            "column_counts": numpy.zeros(value.shape[-1], numpy.int64),
            "updates": 0,
        }

    def _check_memory(self, name, state, steps):
        updates = int(state[f"{name}.updates"])
        if not 0 <= updates <= steps:
            raise ValueError(f"{name}.updates must be from 0 to {steps}, the steps, got {updates}")
        for what in ("row_counts", "column_counts"):
            counts = numpy.asarray(state[f"{name}.{what}"])
            if ((counts < 0) | (counts > updates)).any():
                raise ValueError(f"{name}.{what} must be from 0 to {updates}, the updates")

    def _update(self, value, memory, gradient, rate, max_norm):
        updates = memory["updates"] + 1
        table = self._table
        if updates >= len(table) and (table[-1] != 1).any():
            table = self._table = _corrections(self.beta1, self.beta2, 2 * updates)
        # The table ends where all corrections are 1.
        updates = min(updates, len(table) - 1)
        kernels.update_adam(
            value,
            memory["first_moment"].reshape(value.shape),
            memory["second_moment"].reshape(value.shape),
            memory["row_counts"], memory["column_counts"], updates, table, *gradient,
            rate, self.beta1, self.beta2, self.epsilon, self.weight_decay, self._decoupled,
            max_norm,
        )  # fmt: skip
        memory["updates"] = updates


class AdamW(Adam):
    """Adam with decoupled weight decay [4]_: the weights shrink, the gradient does not see it.

    Before each step of `Adam`, active weights are multiplied by
    ``1 - learning_rate * weight_decay``. Dropped ones are not.

    Parameters
    ----------
    params, learning_rate, beta1, beta2, epsilon, max_norm
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

    _decoupled = True

    def __init__(
        self,
        params,
        learning_rate=0.001,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.01,
        max_norm=None,
    ):
        super().__init__(params, learning_rate, beta1, beta2, epsilon, weight_decay, max_norm)


def _corrections(beta1, beta2, lines):
    """Line k: 1 - beta2**k, 1 - beta1**k; ends with the first line of ones, if there is one."""
    slowest = max(beta1, beta2)
    if slowest > 0:  # 1 - beta**k is 1 from beta**k = 2**-54 on
        lines = min(lines, 2 + math.ceil(54 * math.log(2) / -math.log(slowest)))
    k = numpy.arange(lines)
    table = numpy.stack([1 - beta2**k, 1 - beta1**k], axis=1)
    ones = numpy.flatnonzero((table == 1).all(axis=1))
    return table[: ones[0] + 1].copy() if ones.size else table


def _number(value, name, lowest, below=math.inf, lowest_allowed=True):
    """An argument as a float of an interval."""
    value = real_number(value, name)
    if not (lowest <= value < below) or (value == lowest and not lowest_allowed):
        left = "[" if lowest_allowed else "("
        raise ValueError(f"{name} must be in {left}{lowest:g}, {below:g}), got {value}")
    return value
