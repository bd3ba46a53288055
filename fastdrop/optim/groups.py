"""Groups of parameters, each with settings of its own."""

import contextlib

from fastdrop.attributes import Sealed, read_only
from fastdrop.optim.settings import Setting, interval, optional, rate_or_schedule
from fastdrop.parameters import check_names, named_parameters_of

__all__ = ["Group", "groups_of"]


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

    def __init__(self, names, parameters, optimiser):
        self._names = names
        self._parameters = tuple(parameters)
        self._optimiser = optimiser
        self._own = {}

    @read_only("make a new optimiser")
    def parameters(self):
        """tuple of Parameter: those of the group."""
        return self._parameters

    def _get(self, name):
        return self._own[name] if name in self._own else self._optimiser._get(name)

    def _set(self, name, value):
        self._own[name] = value

    def described(self):
        """What a state has to agree on: names, and settings of its own but the learning rate."""
        own = {name: value for name, value in self._own.items() if name != "learning_rate"}
        return {"params": list(self._names), **own}

    def __repr__(self):
        own = "".join(f", {name}={value!r}" for name, value in self._own.items())
        return f"Group({len(self._parameters)} parameters{own})"


SETTINGS = [name for name, value in vars(Group).items() if isinstance(value, Setting)]


def groups_of(params, optimiser):
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
    if not callable(getattr(params, "parameters", None)) and not isinstance(params, str | dict):
        with contextlib.suppress(TypeError):  # what cannot be listed is told below
            params = list(params)
    descriptions = [{"params": params}]
    if isinstance(params, dict):
        descriptions = [params]
    elif isinstance(params, list) and params and all(isinstance(one, dict) for one in params):
        descriptions = params
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
        seen = set()
        twice = sorted(
            parameter.name
            for parameter in parameters
            if id(parameter) in seen or seen.add(id(parameter))
        )
        raise ValueError(f"params must have every parameter once, got twice: {', '.join(twice)}")
    check_names(name for group in groups for name in group._names)
    return groups
