"""Dropout for PyTorch on the CPU: modules, functions, and whole models by one call.

>>> import torch, fastdrop.torch
>>> generator = torch.manual_seed(0)
>>> drop = fastdrop.torch.Dropout(0.5)
>>> drop(torch.ones(2, 4)).shape
torch.Size([2, 4])

docs/guide/pytorch.md has the tour. Bottom to top: `plan` works out how a mask is drawn, `keys`
where its key comes from, `memory` runs the kernels on tensors, `operators` tells torch's dispatcher
of them, `function` is the short way of eager mode, `functional` has the functions users call.
"""

from fastdrop.interop import needs

with needs("torch", "torch", "fastdrop.torch needs torch"):
    import torch

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 4):
    raise ImportError(
        f"fastdrop.torch needs torch 2.4 or newer, got {torch.__version__}. Install it with\n"
        "    python -m pip install --upgrade 'fastdrop-numpy[torch]'",
        name="torch",
    )

from fastdrop.interop.torch.attention import scaled_dot_product_attention
from fastdrop.interop.torch.functional import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from fastdrop.interop.torch.keys import repeat_masks
from fastdrop.interop.torch.linear import LinearDropout
from fastdrop.interop.torch.modules import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
)
from fastdrop.interop.torch.patch import patched
from fastdrop.interop.torch.replace import replace_dropout, restore_dropout

__all__ = [
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "LinearDropout",
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "patched",
    "repeat_masks",
    "replace_dropout",
    "restore_dropout",
    "scaled_dot_product_attention",
]
