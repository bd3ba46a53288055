"""Groups of parameters, each with settings of its own."""

import collections
import contextlib
from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

from fastdrop.attributes import Sealed, read_only
from fastdrop.optim.settings import Setting, interval, optional, rate_or_schedule
from fastdrop.parameters import Parameter, check_names, named_parameters_of

__all__ = ["Group", "Params", "groups_of"]


class HasParameters(Protocol):
    """A network, a layer, or what else has parameters."""

    def parameters(self) -> Iterable[Parameter]: ...


Params: TypeAlias = HasParameters | Iterable[Parameter] | Iterable[dict[str, Any]] | dict[str, Any]


class Group(Sealed):
    """Parameters of an optimiser, and in what they differ from its other ones.

    Attributes
    ----------
    parameters : tuple of Parameter
        Read-only.
    learning_rate, weight_decay, max_norm
        As for the optimiser, whose own holds where a group was given none. May be set.
    """

    _sealed = True

    learning_rate = Setting(rate_or_schedule, "float or callable: as for the optimiser.")
    weight_decay = Setting(interval(0.0), "float: as for the optimiser.")
    max_norm = Setting(
        optional(interval(0.0, lowest_allowed=False)), "float or None: as for the optimiser."
    )

    def __init__(self, names: list[str], parameters: list[Parameter], optimiser: Any) -> None:
        self._names = names
        self._parameters = tuple(parameters)
        self._optimiser = optimiser
        self._own: dict[str, Any] = {}

    @read_only("make a new optimiser")
    def parameters(self) -> tuple[Parameter, ...]:
        """tuple of Parameter: those of the group."""
        return self._parameters

    def _get(self, name: str) -> Any:
        return self._own[name] if name in self._own else self._optimiser._get(name)

    def _set(self, name: str, value: Any) -> None:
        self._own[name] = value

    def described(self) -> dict[str, Any]:
        """What a state has to agree on: names, and settings of its own but the learning rate."""
        own = {name: value for name, value in self._own.items() if name != "learning_rate"}
        return {"params": list(self._names), **own}

    def __repr__(self) -> str:
        own = "".join(f", {name}={value!r}" for name, value in self._own.items())
        return f"Group({len(self._parameters)} parameters{own})"


SETTINGS = [name for name, value in vars(Group).items() if isinstance(value, Setting)]


def groups_of(params: Params, optimiser: Any) -> list[Group]:
    """Read the `params` argument of an optimiser.

    Parameters
    ----------
    params : object with ``parameters()``, or iterable of Parameter or dict
        Dicts have "params", one of the former, and settings by name.
    optimiser : object
        Whose settings hold where a group has none.

    Returns
    -------
    list of Group

    Raises
    ------
    TypeError, ValueError
        Naming what cannot be.
    """
    given: Any = params
    if not callable(getattr(given, "parameters", None)) and not isinstance(given, str | dict):
        with contextlib.suppress(TypeError):  # what cannot be listed is told below
            given = list(given)
    descriptions: list[dict[str, Any]] = [{"params": given}]
    if isinstance(given, dict):
        descriptions = [given]
    elif isinstance(given, list) and given and all(isinstance(one, dict) for one in given):
        descriptions = given
    groups = []
    for description in descriptions:
        if "params" not in description:
            raise ValueError(
                f"params must hold groups with the key 'params', got {list(description)}"
            )
        named = named_parameters_of(description["params"])
        group = Group([name for name, _ in named], [one for _, one in named], optimiser)
        for name, value in description.items():
            if name == "params":
                continue
            if name not in SETTINGS:
                raise TypeError(
                    f"params must hold groups with the keys params, {', '.join(SETTINGS)}, got "
                    f"{name!r}; for other settings make another optimiser"
                )
            setattr(group, name, value)
        groups.append(group)
    parameters = [parameter for group in groups for parameter in group.parameters]
    if len({id(parameter) for parameter in parameters}) < len(parameters):
        times = collections.Counter(map(id, parameters))
        twice = sorted({one.name for one in parameters if times[id(one)] > 1})
        raise ValueError(f"params must have every parameter once, got twice: {', '.join(twice)}")
    check_names(name for group in groups for name in group._names)
    return groups
