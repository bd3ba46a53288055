"""What all optimisers have: parameters in groups, settings, steps, and states that can be kept."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

import numpy

from fastdrop.aligned import aligned_zeros
from fastdrop.arguments import integer, native
from fastdrop.attributes import Sealed, read_only
from fastdrop.optim.average import Averages
from fastdrop.optim.gradients import Gradients
from fastdrop.optim.groups import Group, Params, groups_of
from fastdrop.optim.settings import Setting, flag, interval, optional, rate_or_schedule
from fastdrop.parameters import Parameter, check_keys, kept_weights, operands
from fastdrop.types import Array

__all__ = ["Gradient", "Memory", "Optimiser"]

# What an optimiser remembers of a parameter, by name: arrays, and a number of updates.
Memory: TypeAlias = dict[str, Any]
# A gradient, whether it is compact, the active units of both axes, and bits of single kept weights.
Gradient: TypeAlias = list[Any]


class Optimiser(Sealed):
    """Base of the optimisers.

    A subclass has further settings, in `_SETTINGS` those that a state must agree on;
    `_make_memory`, which arrays a parameter needs; `_update`, and if need be `_changed`.
    """

    _SETTINGS: ClassVar[tuple[str, ...]] = (
        "weight_decay",
        "max_norm",
        "maximize",
        "clip_value",
        "clip_norm",
        "average",
    )

    learning_rate = Setting(rate_or_schedule, "float or callable: the rate, or a schedule.")
    weight_decay = Setting(interval(0.0), "float: factor on the weights.")
    max_norm = Setting(
        optional(interval(0.0, lowest_allowed=False)),
        "float or None: bound of the norm of a unit's incoming weights.",
    )
    maximize = Setting(flag, "bool: whether to go up, not down.")
    clip_value = Setting(
        optional(interval(0.0, lowest_allowed=False)),
        "float or None: bound of every element of the gradients.",
    )
    clip_norm = Setting(
        optional(interval(0.0, lowest_allowed=False)),
        "float or None: bound of the norm of all gradients together.",
    )
    average = Setting(
        optional(interval(0.0, 1.0)), "float or None: decay of the moving average of the weights."
    )

    def __init__(self, params: Params, **settings: Any) -> None:
        self._settings: dict[str, Any] = {}
        self._memory: list[Memory] = []
        self._built = False  # until all settings are checked
        self._steps = 0
        self._averages = Averages()
        self._averaged = False
        for name, value in settings.items():
            setattr(self, name, value)
        self._groups = tuple(groups_of(params, self))
        # One entry for each parameter, in the order of the groups.
        self._entries = [
            (name, parameter, group)
            for group in self._groups
            for name, parameter in zip(group._names, group.parameters, strict=True)
        ]
        self._memory = [
            self._make_memory(parameter.value) | self._make_average(parameter.value)
            for _, parameter, _ in self._entries
        ]
        self._built = True

    @read_only("make a new optimiser")
    def parameters(self) -> tuple[Parameter, ...]:
        """tuple of Parameter: the parameters that it updates."""
        return tuple(parameter for _, parameter, _ in self._entries)

    @read_only("make a new optimiser, or set attributes of a group")
    def groups(self) -> tuple[Group, ...]:
        """tuple of Group: the parameters with their settings."""
        return self._groups

    @read_only("load_state_dict sets it")
    def steps(self) -> int:
        """int: steps done."""
        return self._steps

    def _get(self, name: str) -> Any:
        return self._settings[name]

    def _set(self, name: str, value: Any) -> None:
        """Take a setting that has been checked."""
        before = self._settings.get(name)
        self._settings[name] = value
        if name in ("clip_value", "clip_norm", "maximize"):
            get = self._settings.get
            clip_value, clip_norm = get("clip_value"), get("clip_norm")
            self._gradients = Gradients(clip_value, clip_norm, bool(get("maximize")))
        if not self._built:
            return
        try:
            self._changed(name, before)
        except BaseException:
            self._settings[name] = before
            raise

    def _changed(self, name: str, before: Any) -> None:
        """Adapt velocities and moments to a new value of a setting that was `before`."""
        if name == "average" and (before is None) != (self.average is None):
            self._not_averaged("average cannot be set")
            for (_, parameter, _), memory in zip(self._entries, self._memory, strict=True):
                memory.pop("average", None)
                memory |= self._make_average(parameter.value)

    def _make_memory(self, value: Array) -> Memory:
        """What is remembered of a parameter."""
        raise NotImplementedError(f"{type(self).__name__} defines no _make_memory")

    def _update(
        self,
        value: Array,
        memory: Memory,
        gradient: Gradient,
        rate: float,
        weight_decay: float,
        max_norm: float,
    ) -> None:
        """Move a parameter, as a matrix, and what is remembered of it."""
        raise NotImplementedError(f"{type(self).__name__} defines no _update")

    def _make_average(self, value: Array) -> Memory:
        """The average of a parameter, which begins at its value."""
        if self.average is None:
            return {}
        average = aligned_zeros(value.shape, value.dtype)
        average[...] = value
        return {"average": average}

    def step(self) -> None:
        """Move every parameter that has a gradient by one step, in place.

        Parameters without one are left alone. A gradient stays after the step: the next backward
        pass replaces it.

        Raises
        ------
        RuntimeError
            If no parameter has a gradient, or the averages stand in the place of the weights.
        FloatingPointError
            If the gradients have no finite norm, and `clip_norm` is given.
        TypeError, ValueError
            If a gradient or the units that were active do not fit their parameter, or the learning
            rate of this step is no number from 0 on.
        """
        self._not_averaged("step() is of the weights")
        calls: list[tuple[Any, ...]] = []
        for (_, parameter, group), memory in zip(self._entries, self._memory, strict=True):
            if parameter.grad is not None:
                kept = kept_weights(parameter)
                calls.append((parameter, group, memory, kept, *operands(parameter)))
        if not calls:
            raise RuntimeError(
                "step() before a backward pass: no parameter has a gradient. An optimiser that was "
                "copied without its network never gets one: copy network and optimiser together, "
                "as in copy.deepcopy((net, opt))"
            )
        rates = {id(group): self._rate(group) for group in self._groups}
        factor = self._gradients.factor([call[5:] for call in calls])
        for parameter, group, memory, kept, value, gradient, *units in calls:
            gradient = self._gradients.adjusted(gradient, factor)
            limit = group.max_norm
            bound = math.inf if limit is None or parameter.value.ndim != 2 else limit
            decay = group.weight_decay
            self._update(value, memory, [gradient, *units, kept], rates[id(group)], decay, bound)
            if "average" in memory:
                average = memory["average"].reshape(value.shape)
                self._averages.move(average, value, self.average, units[1:])
        self._steps += 1

    def _rate(self, group: Group) -> float:
        """The learning rate of a group in this step."""
        rate = group.learning_rate
        if callable(rate):
            rate = interval(0.0)(rate(self._steps), f"learning_rate({self._steps})")
        return float(rate)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averages of the weights in the weights' place, for a ``with`` block.

        There, networks compute with the averages; `step` and `state_dict` are errors.

        Raises
        ------
        RuntimeError
            Without `average`, or in such a block already.

        Examples
        --------
        >>> import numpy
        >>> from fastdrop import optim
        >>> from fastdrop.parameters import Parameter
        >>> bias = Parameter("bias", numpy.zeros(1))
        >>> opt = optim.SGD([bias], learning_rate=1.0, average=0.75)
        >>> bias.grad = numpy.array([-4.0])
        >>> opt.step()
        >>> with opt.averaged():
        ...     print(bias.value)
        [1.]
        >>> bias.value
        array([4.])
        """
        if self.average is None:
            raise RuntimeError("averaged() needs an optimiser with average, the decay, got None")
        self._not_averaged("averaged() is already in use")
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        self._averaged = not self._averaged
        for (_, parameter, _), memory in zip(self._entries, self._memory, strict=True):
            value = parameter.value
            parameter.value = memory["average"]
            memory["average"] = value

    def _not_averaged(self, what: str) -> None:
        if self._averaged:
            raise RuntimeError(f"{what}: not within averaged(), where the weights are averages")

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimiser, from which a run resumes bit for bit.

        Returns
        -------
        dict
            ``"optimiser"``: the class's name; ``"steps"``; the settings, such as ``"momentum"``;
            ``"groups"``, if there are several; and arrays by parameter, such as
            ``"dense0.weight.velocity"``, copies. The learning rate is not part of it: a schedule is
            a function of the step.

        Raises
        ------
        RuntimeError
            If the averages stand in the place of the weights.
        """
        self._not_averaged("state_dict() is of the weights")
        state = {"optimiser": type(self).__name__, "steps": self._steps}
        state |= {name: self._settings[name] for name in self._SETTINGS}
        groups = [group.described() for group in self._groups]
        if len(groups) > 1 or len(groups[0]) > 1:
            state["groups"] = groups
        for name, memory in self._arrays():
            state[name] = memory if isinstance(memory, int) else memory.copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` returned, in place.

        Parameters
        ----------
        state : dict

        Raises
        ------
        ValueError
            If it is of another class, other settings or other parameters: the message names the
            difference, and nothing is changed.
        """
        expected = self.state_dict()
        kind = str(state.get("optimiser"))
        if kind != expected["optimiser"]:
            raise ValueError(f"the state is of {kind}, this optimiser is {expected['optimiser']}")
        check_keys(state, expected, "optimiser")
        for name in (*self._SETTINGS, "groups"):
            if name in expected and state[name] != expected[name]:
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
        for name, _, _ in self._entries:
            self._check_memory(name, state, steps)
        self._steps = steps
        for (name, _, _), memory in zip(self._entries, self._memory, strict=True):
            for what, mine in memory.items():
                given = state[f"{name}.{what}"]
                if isinstance(mine, int):
                    memory[what] = int(given)
                else:
                    mine[...] = numpy.asarray(given)

    def _check_memory(self, name: str, state: Mapping[str, Any], steps: int) -> None:
        """Check numbers that the kernels rely on, of one parameter in a state."""

    def _arrays(self) -> Iterator[tuple[str, Any]]:
        """Pairs of name and what is remembered, of all parameters."""
        for (name, _, _), memory in zip(self._entries, self._memory, strict=True):
            for what, value in memory.items():
                yield f"{name}.{what}", value

    def __repr__(self) -> str:
        settings = [f"learning_rate={self.learning_rate!r}"]
        settings += [f"{name}={self._settings[name]!r}" for name in self._SETTINGS]
        groups = f" in {len(self._groups)} groups" if len(self._groups) > 1 else ""
        number = len(self._entries)
        return f"{type(self).__name__}({number} parameters{groups}, {', '.join(settings)})"
