"""Send the dropout functions of `torch.nn.functional` to fastdrop's, for code that calls them."""

import functools
import threading

import torch
import torch.nn.functional as F

from fastdrop.interop.torch import attention, functional

__all__ = ["patched"]

_lock = threading.Lock()
_open = 0
_places = {}  # by module and name: what was there, and what stands in for it


def _torch_dropout(input, p, train):
    """`torch.dropout`, which `torch.nn.functional.dropout` is not: what is wrong is torch's."""
    if isinstance(input, torch.Tensor) and isinstance(p, float | int) and 0.0 <= p <= 1.0:
        return functional.dropout(input, p, train)
    return _TORCH_DROPOUT(input, p, train)


_TORCH_DROPOUT = torch.dropout
_OURS = {(F, name): getattr(functional, name) for name in functional.__all__}
_OURS |= {(F, name): getattr(attention, name) for name in attention.__all__}
_OURS[torch, "dropout"] = _torch_dropout


class _Patch:
    """One use of `patched`: on from the start, off at the end of a ``with`` or by `close`.

    It may be begun again by another ``with``, and decorate a function.
    """

    def __init__(self):
        self._open = True
        _enter()

    def close(self):
        """End it; the functions are again what they were when all that began have ended."""
        if self._open:
            self._open = False
            _leave()

    def __enter__(self):
        if not self._open:
            self._open = True
            _enter()
        return self

    def __exit__(self, *_):
        self.close()

    def __call__(self, function):
        """Return the function, in whose calls the functions are replaced, and only there."""
        self.close()

        @functools.wraps(function)
        def inside(*args, **kwargs):
            with patched():
                return function(*args, **kwargs)

        return inside

    def __repr__(self):
        return f"<fastdrop.torch.patched(), {'on' if self._open else 'off'}>"


def patched():
    """Send `torch.nn.functional.dropout` and its relatives to fastdrop, from now on.

    Code that calls the functions, rather than modules, gains as well: attention in
    ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer``, models of Hugging Face, and
    torch's own dropout modules, which call them, too. Replaced are ``dropout``, ``dropout1d``,
    ``dropout2d``, ``dropout3d``, ``alpha_dropout``, ``feature_alpha_dropout``, ``torch.dropout``
    and ``scaled_dot_product_attention``, whose other uses than on CPU tensors with
    ``dropout_p > 0`` are torch's own.

    Returns
    -------
    object
        Use it in a ``with`` statement or as a decorator, or call its ``close()``, to have the
        functions back that were there; otherwise they stay replaced for the whole process, all
        its threads included.

    Notes
    -----
    A module that did ``from torch.nn.functional import dropout`` before has its own reference to
    torch's function, which stays; so does the dropout between the layers of ``nn.LSTM``,
    ``nn.GRU`` and ``nn.RNN``, which is inside torch. Uses may be nested. A function that somebody
    has put in the place of torch's before is back at the end; one that is put there in between
    stays, and calls torch's from then on if it called fastdrop's.

    Examples
    --------
    >>> import torch, fastdrop.torch
    >>> with fastdrop.torch.patched():
    ...     y = torch.nn.functional.dropout(torch.ones(1000), 0.1)
    >>> (y == 0).any().item()
    True
    """
    return _Patch()


def _enter():
    global _open
    with _lock:
        _open += 1
        if _open == 1:
            for (module, name), ours in _OURS.items():
                theirs = getattr(module, name)
                stand_in = _stand_in(ours, theirs)
                _places[module, name] = theirs, stand_in
                setattr(module, name, stand_in)


def _leave():
    global _open
    with _lock:
        _open -= 1
        if _open == 0:
            for (module, name), (theirs, stand_in) in _places.items():
                stand_in.switch.on = False
                if getattr(module, name) is stand_in:  # what somebody else put there is theirs
                    setattr(module, name, theirs)
            _places.clear()


def _stand_in(ours, theirs):
    """What is put in the place of a function of torch's, while its ``switch`` is on.

    Somebody may keep it, or wrap it, and put it back when fastdrop's time is over: then it is the
    function that was there.
    """
    switch = _Switch()

    @functools.wraps(theirs)
    def stand_in(*args, **kwargs):
        return (ours if switch.on else theirs)(*args, **kwargs)

    stand_in.switch = switch
    return stand_in


class _Switch:
    on = True
