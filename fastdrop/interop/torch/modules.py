"""The dropout modules of `torch.nn`, on the package's kernels."""

import torch

from fastdrop.arguments import mask_plan
from fastdrop.interop.torch import functional
from fastdrop.interop.torch.keys import owned_stream
from fastdrop.interop.torch.state import StreamInState

__all__ = [
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class _Dropout(StreamInState):
    """What the modules have beyond torch's: arguments, and the stream in the ``state_dict``."""

    _function = None  # of functional.py
    _ever_inplace = True

    def __init__(self, p=0.5, inplace=False, *, rows_per_mask=1, exact_count=False, rng=None):
        super().__init__(p, inplace)
        mask_plan((1,), (), rows_per_mask)  # an error now, not in the first forward pass
        self.rows_per_mask = rows_per_mask
        self.exact_count = bool(exact_count)
        self.rng = owned_stream(rng)

    def forward(self, input):
        """Run the forward pass."""
        return type(self)._function(
            input,
            self.p,
            self.training,
            self.inplace and self._ever_inplace,
            rows_per_mask=self.rows_per_mask,
            exact_count=self.exact_count,
            rng=self.rng,
        )

    def extra_repr(self):
        """What `print` shows between the parentheses."""
        text = super().extra_repr()
        if self.rows_per_mask != 1:
            text += f", rows_per_mask={self.rows_per_mask!r}"
        if self.exact_count:
            text += ", exact_count=True"
        if self.rng is not None:
            text += f", rng={self.rng!r}"
        return text


class Dropout(_Dropout, torch.nn.Dropout):
    """Zero elements with probability `p` in training; `torch.nn.Dropout`, faster on the CPU.

    Parameters
    ----------
    p : float, optional
        Probability that an element is zeroed, in [0, 1].
    inplace : bool, optional
        Write into the input.
    rows_per_mask, exact_count, rng : optional
        As for `fastdrop.torch.dropout`. The module keeps a MaskStream made of an int or other
        seeds, and advances it; its state is in the module's ``state_dict`` as ``rng_state``.
        Without a stream the ``state_dict`` is empty, like that of torch's module.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Examples
    --------
    >>> import torch, fastdrop.torch
    >>> drop = fastdrop.torch.Dropout(0.2, rows_per_mask="batch")
    >>> drop
    Dropout(p=0.2, inplace=False, rows_per_mask='batch')
    >>> y = drop(torch.ones(4, 1000))
    >>> torch.equal(y[0], y[3])
    True
    """

    _function = staticmethod(functional.dropout)


class Dropout1d(_Dropout, torch.nn.Dropout1d):
    """Zero whole channels of (N, C, L) or (C, L); arguments as for `Dropout`."""

    _function = staticmethod(functional.dropout1d)


class Dropout2d(_Dropout, torch.nn.Dropout2d):
    """Zero whole channels of (N, C, H, W); arguments as for `Dropout`."""

    _function = staticmethod(functional.dropout2d)


class Dropout3d(_Dropout, torch.nn.Dropout3d):
    """Zero whole channels of (N, C, D, H, W) or (C, D, H, W); arguments as for `Dropout`."""

    _function = staticmethod(functional.dropout3d)


class AlphaDropout(_Dropout, torch.nn.AlphaDropout):
    """Alpha dropout, for SELU networks; arguments as for `Dropout`.

    As torch's module does, it ignores `inplace`.
    """

    _function = staticmethod(functional.alpha_dropout)
    _ever_inplace = False


class FeatureAlphaDropout(_Dropout, torch.nn.FeatureAlphaDropout):
    """Alpha dropout of whole channels (axis 1); arguments as for `AlphaDropout`."""

    _function = staticmethod(functional.feature_alpha_dropout)
    _ever_inplace = False
