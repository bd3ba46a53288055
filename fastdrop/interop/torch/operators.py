"""The operators ``torch.ops.fastdrop``: what compilers, exporters and function transforms see.

Two of them. ``dropout`` returns the result and the packed mask; ``dropout_backward`` applies such a
mask, is linear, and its own backward. Both are functional: nothing is a view, nothing is mutated.
Eager calls of the public functions take a shorter way, in function.py, to the same kernels.
"""

import torch

from fastdrop.interop.torch.keys import torch_key
from fastdrop.interop.torch.memory import apply, dropped
from fastdrop.interop.torch.plan import plan

__all__ = []

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


def _save_mask(ctx, inputs, output):
    ctx.layout = inputs[1:6]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _save_given_mask(ctx, inputs, output):
    ctx.layout = inputs[2:]
    ctx.save_for_backward(inputs[1])


def _gradient(ctx, grad):
    (bits,) = ctx.saved_tensors
    return None if grad is None else torch.ops.fastdrop.dropout_backward(grad, bits, *ctx.layout)


torch.library.register_autograd(
    "fastdrop::dropout",
    lambda ctx, grad, _: (_gradient(ctx, grad), *[None] * 7),
    setup_context=_save_mask,
)
torch.library.register_autograd(
    "fastdrop::dropout_backward",
    lambda ctx, grad: (_gradient(ctx, grad), *[None] * 6),
    setup_context=_save_given_mask,
)


def _shared_by_all(x, shared_axes, rows_per_mask):
    """The axes of a mask that all samples share, where axis 0 of `x` numbers them."""
    axes = {0, *(axis % (x.dim() - 1) + 1 for axis in shared_axes)}
    return sorted(axes | ({1} if rows_per_mask == 0 else set()))


def _dropout_batched(info, in_dims, x, p, shared_axes, rows, exact, alpha, key, draw):
    """vmap: of every sample its own mask ("different"), or one for all ("same")."""
    x = x.movedim(in_dims[0], 0)
    if info.randomness == "same":
        if rows in (0, 1):
            axes = _shared_by_all(x, shared_axes, rows)
            y, bits = torch.ops.fastdrop.dropout(x, p, axes, 1, exact, alpha, key, draw)
            return (y, bits), (0, None)
        key = torch_key() if key is None else key
    elif info.randomness != "different":
        raise RuntimeError(
            'vmap: dropout is random; say randomness="different" or randomness="same" to vmap'
        )
    elif key is not None:
        raise RuntimeError(
            'rng: a call draws one mask of a MaskStream; with it, vmap needs randomness="same"'
        )
    layout = (p, shared_axes, rows, exact, alpha, key, draw)
    parts = [torch.ops.fastdrop.dropout(sample, *layout) for sample in x.unbind(0)]
    y, bits = (torch.stack(part) for part in zip(*parts, strict=True))
    return (y, bits), (0, 0)


def _backward_batched(info, in_dims, grad, bits, p, shared_axes, rows, exact, alpha):
    if in_dims[1] is None and rows in (0, 1):
        grad = grad.movedim(in_dims[0], 0)
        axes = _shared_by_all(grad, shared_axes, rows)
        return torch.ops.fastdrop.dropout_backward(grad, bits, p, axes, 1, exact, alpha), 0
    samples = info.batch_size
    grads, masks = (
        part.movedim(dim, 0).unbind(0) if dim is not None else [part] * samples
        for part, dim in ((grad, in_dims[0]), (bits, in_dims[1]))
    )
    layout = (p, shared_axes, rows, exact, alpha)
    parts = [
        torch.ops.fastdrop.dropout_backward(one, mask, *layout)
        for one, mask in zip(grads, masks, strict=True)
    ]
    return torch.stack(parts), 0


def _with_defaults(rule, defaults):
    """The rule, called with all arguments: torch leaves out those that equal their defaults."""

    def call(info, in_dims, *arguments):
        return rule(info, in_dims, *arguments, *defaults[len(arguments) :])

    return call


if hasattr(torch.library, "register_vmap"):  # from torch 2.5 on
    _LAYOUT_DEFAULTS = ((), 1, False, False)
    torch.library.register_vmap(
        "fastdrop::dropout",
        _with_defaults(_dropout_batched, (None, None, *_LAYOUT_DEFAULTS, None, 0)),
    )
    torch.library.register_vmap(
        "fastdrop::dropout_backward",
        _with_defaults(_backward_batched, (None, None, None, *_LAYOUT_DEFAULTS)),
    )
