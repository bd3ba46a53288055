"""Send the dropout functions of `torch.nn.functional` to fastdrop's, for code that calls them."""

import threading

import torch.nn.functional as F

from fastdrop.interop.torch import attention, functional

__all__ = ["patched"]

_lock = threading.Lock()
_depth = 0
_NAMES = (*functional.__all__, *attention.__all__)


class _Patch:
    """One use of `patched`: on from the start, off at the end of a ``with`` or by `close`."""

    def __init__(self):
        self._open = True
        _enter()

    def close(self):
        """End it; the functions are torch's again when all that began have ended."""
        if self._open:
            self._open = False
            _leave()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        return f"<fastdrop.torch.patched(), {'on' if self._open else 'off'}>"


def patched():
    """Send `torch.nn.functional.dropout` and its relatives to fastdrop, from now on.

    Code that calls the functions, rather than modules, gains as well: attention in
    ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer``, models of Hugging Face, and
    torch's own dropout modules, which call them, too. Replaced are ``dropout``, ``dropout1d``,
    ``dropout2d``, ``dropout3d``, ``alpha_dropout``, ``feature_alpha_dropout`` and
    ``scaled_dot_product_attention``, whose other uses than on CPU tensors with ``dropout_p > 0``
    are torch's own.

    Returns
    -------
    object
        Use it in a ``with`` statement, or call its ``close()``, to have torch's functions back;
        otherwise the functions stay replaced for the whole process, all its threads included.

    Notes
    -----
    A module that did ``from torch.nn.functional import dropout`` before has its own reference to
    torch's function, which stays. Uses may be nested.

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
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            for name in _NAMES:
                setattr(F, name, _ours(name))


def _leave():
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            for name in _NAMES:
                if getattr(F, name) is _ours(name):  # what somebody else put there is theirs
                    setattr(F, name, _theirs(name))


def _ours(name):
    return getattr(attention if name in attention.__all__ else functional, name)


def _theirs(name):
    return attention.THEIRS if name in attention.__all__ else functional.THEIRS[name]
