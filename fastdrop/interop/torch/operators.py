"""The operators ``torch.ops.fastdrop``: what compilers, exporters and function transforms see.

Two of them. ``dropout`` returns the result and the packed mask; ``dropout_backward`` applies such a
mask, is linear, and its own backward. Both are functional: nothing is a view, nothing is mutated.
Eager calls of the public functions take a shorter way, in function.py, to the same kernels; the
transforms of torch.func go by way of transforms.py.
"""

import torch

from fastdrop.interop.torch.keys import torch_key
from fastdrop.interop.torch.memory import DTYPES, apply, dropped
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


_DRAWS = 1 << 56


def _check(x, p, name="x"):
    """What the operators ask of a tensor and of p, real or a compiler's."""
    if x.dtype not in DTYPES:
        raise TypeError(f"{name} must be of float16, bfloat16, float32 or float64, got {x.dtype}")
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p must be in [0, 1], got {p}")


def _check_bits(bits, grad):
    if bits.device != grad.device:
        raise ValueError(f"bits must be on {grad.device}, where grad is, got {bits.device}")
    if bits.dtype != torch.uint8 or bits.dim() != 1:
        raise TypeError(
            f"bits must be a tensor of uint8 with one axis, got {bits.dtype}, {bits.dim()} axes"
        )


def _plan(x, p, shared_axes, rows_per_mask, exact_count, alpha):
    rows = rows_per_mask or "batch"
    return plan(tuple(x.shape), float(p), tuple(shared_axes), rows, exact_count, alpha)


@torch.library.impl(_library, "dropout", "CPU")
def _dropout(
    x, p, shared_axes=(), rows_per_mask=1, exact_count=False, alpha=False, key=None, draw=0
):
    _check(x, p)
    if not 0 <= draw < _DRAWS:
        raise ValueError(f"draw must be in [0, 2**56), got {draw}")
    layout = _plan(x, p, shared_axes, rows_per_mask, exact_count, alpha)
    if key is None:  # torch draws no number where none is needed
        key = torch_key() if layout.random and x.numel() else 0
    return dropped(x, layout, key, draw)


@torch.library.impl(_library, "dropout_backward", "CPU")
def _dropout_backward(
    grad, bits, p, shared_axes=(), rows_per_mask=1, exact_count=False, alpha=False
):
    _check(grad, p, "grad")
    _check_bits(bits, grad)
    layout = _plan(grad, p, shared_axes, rows_per_mask, exact_count, alpha)
    if bits.numel() != layout.bytes:
        raise ValueError(
            f"bits must be {layout.bytes} bytes, a bit for each of the mask's {layout.elements} "
            f"elements, got {bits.numel()}"
        )
    return apply(grad, bits.contiguous(), layout)


@torch.library.register_fake("fastdrop::dropout")
def _(x, p, shared_axes=(), rows_per_mask=1, exact_count=False, alpha=False, key=None, draw=0):
    _check(x, p)
    elements = 1
    shared = {axis % x.dim() for axis in shared_axes} if x.dim() else ()
    for axis, extent in enumerate(x.shape):
        if axis == 0 and rows_per_mask != 1:
            extent = 1 if rows_per_mask == 0 else (extent + rows_per_mask - 1) // rows_per_mask
        elements = elements * (1 if axis in shared else extent)
    return torch.empty_like(x), x.new_empty((elements + 7) // 8, dtype=torch.uint8)


@torch.library.register_fake("fastdrop::dropout_backward")
def _(grad, bits, p, shared_axes=(), rows_per_mask=1, exact_count=False, alpha=False):
    _check(grad, p, "grad")
    _check_bits(bits, grad)
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
