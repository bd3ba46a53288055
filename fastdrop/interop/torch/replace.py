"""Swap the dropout modules of a whole model, and back."""

import torch

from fastdrop.interop.torch import modules
from fastdrop.interop.torch.keys import owned_stream

__all__ = ["replace_dropout", "restore_dropout"]

_OURS = {getattr(torch.nn, name): getattr(modules, name) for name in modules.__all__}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def replace_dropout(model, *, rows_per_mask=1, exact_count=False, rng=None):
    """Swap every dropout module of a model, in place, for fastdrop's.

    ``p``, ``inplace``, the training flag, hooks, names and the keys of the ``state_dict`` stay.
    Modules of classes derived from torch's are left alone, since they may do something else. Calls
    of functions, such as attention's, are the business of `patched`.

    Parameters
    ----------
    model : torch.nn.Module
        Itself a dropout module, it cannot be swapped in place: construct one of fastdrop's.
    rows_per_mask, exact_count, rng : optional
        Given to all new modules; see `dropout`. Modules share one stream.

    Returns
    -------
    dict of str to torch.nn.Module
        Names of the swapped modules, and the new ones; empty where nothing was left to do.

    Raises
    ------
    TypeError
        If `model` is no module, or a dropout module itself; or compiled by TorchScript.

    See Also
    --------
    restore_dropout : undoes it.

    Examples
    --------
    >>> import torch, fastdrop.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.1))
    >>> fastdrop.torch.replace_dropout(model)
    {'1': Dropout(p=0.1, inplace=False)}
    >>> fastdrop.torch.replace_dropout(model)
    {}
    """
    stream = owned_stream(rng)

    def new(old):
        return _OURS[type(old)](
            old.p, old.inplace, rows_per_mask=rows_per_mask, exact_count=exact_count, rng=stream
        )

    return _swap(model, _OURS, new, "replaced")


def restore_dropout(model):
    """Swap fastdrop's dropout modules, in place, for torch's.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    dict of str to torch.nn.Module
        Names of the swapped modules, and the new ones.

    Raises
    ------
    TypeError
        As `replace_dropout` does.

    Examples
    --------
    >>> import torch, fastdrop.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.1))
    >>> names = fastdrop.torch.replace_dropout(model)
    >>> fastdrop.torch.restore_dropout(model)
    {'1': Dropout(p=0.1, inplace=False)}
    >>> type(model[1]) is torch.nn.Dropout
    True
    """
    return _swap(model, _THEIRS, lambda old: _THEIRS[type(old)](old.p, old.inplace), "restored")


def _swap(model, classes, new, verb):
    """Swap all modules of some classes; one that is in several places stays one."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if type(model) in classes:
        raise TypeError(
            f"model must contain the modules to be {verb}, got a {type(model).__name__} itself"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model must not be compiled by TorchScript: its modules cannot be swapped")
    made, swapped = {}, {}
    for path, parent in list(model.named_modules(remove_duplicate=False)):
        for name, child in list(parent._modules.items()):
            if type(child) in classes:
                if child not in made:
                    made[child] = _taking_over(new(child), child)
                parent._modules[name] = made[child]
                swapped[f"{path}.{name}" if path else name] = made[child]
    return swapped


# What a module consists of that its class's constructor makes anew: everything else is the user's.
_OWN = ("p", "inplace", "rows_per_mask", "exact_count", "rng")


def _taking_over(new, old):
    """A module with all that the old one has: hooks, the training flag, attributes."""
    for name, value in vars(old).items():
        if name not in _OWN:
            vars(new)[name] = value
    return new
