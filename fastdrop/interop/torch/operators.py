"""The operators ``torch.ops.fastdrop``: what compilers, exporters and function transforms see.

Two of them. ``dropout`` returns the result and the packed mask; ``dropout_backward`` applies such a
mask, is linear, and its own backward. Both are functional: nothing is a view, nothing is mutated.
Eager calls of the public functions take a shorter way, in function.py, to the same kernels; the
transforms of torch.func go by way of transforms.py.
"""

import torch

from fastdrop.interop.torch.keys import torch_key
from fastdrop.interop.torch.memory import apply, dropped
from fastdrop.interop.torch.plan import plan

__all__ = ["dropout", "dropout_backward", "save_given_mask", "save_mask"]

# rows_per_mask is an int in a schema: 0 stands for "batch".
_LAYOUT = "float p, int[] shared_axes=[], int rows_per_mask=1, bool exact_count=False"
_library = torch.library.Library("fastdrop", "DEF")
# Seeded by torch's generator where no key is given: a compiler neither merges nor repeats it.
_library.define(
    f"dropout(Tensor x, {_LAYOUT}, bool alpha=False, int? key=None, int draw=0)"
    " -> (Tensor, Tensor)",
    tags=(torch.Tag.nondeterministic_seeded, torch.Tag.pt2_compliant_tag),
)
_library.define(
    f"dropout_backward(Tensor grad, Tensor bits, {_LAYOUT}, bool alpha=False) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


dropout = torch.ops.fastdrop.dropout.default
dropout_backward = torch.ops.fastdrop.dropout_backward.default


def _plan(x, p, shared_axes, rows_per_mask, exact_count, alpha):
    rows = rows_per_mask or "batch"
    return plan(tuple(x.shape), float(p), tuple(shared_axes), rows, exact_count, alpha)


@torch.library.impl(_library, "dropout", "CPU")
def _dropout(
    x, p, shared_axes=(), rows_per_mask=1, exact_count=False, alpha=False, key=None, draw=0
):
    layout = _plan(x, p, shared_axes, rows_per_mask, exact_count, alpha)
    return dropped(x, layout, torch_key() if key is None else key, draw)


@torch.library.impl(_library, "dropout_backward", "CPU")
def _dropout_backward(
    grad, bits, p, shared_axes=(), rows_per_mask=1, exact_count=False, alpha=False
):
    return apply(grad, bits, _plan(grad, p, shared_axes, rows_per_mask, exact_count, alpha))


@torch.library.register_fake("fastdrop::dropout")
def _(x, p, shared_axes=(), rows_per_mask=1, exact_count=False, alpha=False, key=None, draw=0):
    elements = 1
    for axis, extent in enumerate(x.shape):
        if axis == 0 and rows_per_mask != 1:
            extent = 1 if rows_per_mask == 0 else (extent + rows_per_mask - 1) // rows_per_mask
        elements = elements * (1 if axis in shared_axes else extent)
    return torch.empty_like(x), x.new_empty((elements + 7) // 8, dtype=torch.uint8)


@torch.library.register_fake("fastdrop::dropout_backward")
def _(grad, bits, p, shared_axes=(), rows_per_mask=1, exact_count=False, alpha=False):
    return torch.empty_like(grad)


def save_mask(ctx, inputs, output):
    """What `dropout` keeps for its backward pass."""
    ctx.layout = inputs[1:6]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def save_given_mask(ctx, inputs, output):
    """What `dropout_backward` keeps for its own."""
    ctx.layout = inputs[2:]
    ctx.save_for_backward(inputs[1])


def _gradient(ctx, grad):
    (bits,) = ctx.saved_tensors
    return None if grad is None else dropout_backward(grad, bits, *ctx.layout)


torch.library.register_autograd(
    "fastdrop::dropout",
    lambda ctx, grad, _: (_gradient(ctx, grad), *[None] * 7),
    setup_context=save_mask,
)
torch.library.register_autograd(
    "fastdrop::dropout_backward",
    lambda ctx, grad: (_gradient(ctx, grad), *[None] * 6),
    setup_context=save_given_mask,
)
