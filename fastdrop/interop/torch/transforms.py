"""Dropout under the transforms of `torch.func`: grad, vjp, jvp, vmap and their combinations."""

import torch

from fastdrop.interop.torch import operators
from fastdrop.interop.torch.keys import torch_key
from fastdrop.interop.torch.plan import plan

__all__ = ["Apply", "Dropout", "inside_transform", "of_every_sample"]

_functorch = torch._C._functorch


def inside_transform():
    """Whether a transform of `torch.func` is at work."""
    return _functorch.peek_interpreter_stack() is not None


def of_every_sample(x):
    """Inside vmap, a tensor that is the same in all samples as one that need not be.

    A random number of torch's own decides: under vmap it exists once or for every sample, or is an
    error, as the caller said.
    """
    levels = _functorch.get_interpreter_stack() or ()
    if any(level.key() == _functorch.TransformType.Vmap for level in levels):
        # Of one element rather than no axis, which torch cannot multiply by an empty batch.
        return x * torch.rand((1,) * x.dim(), dtype=x.dtype).ge(0)
    return x


class Dropout(torch.autograd.Function):
    """The operator ``dropout`` in the form that transforms ask for."""

    @staticmethod
    def forward(x, p, shared_axes, rows, exact, alpha, key, draw):
        return operators.dropout(x, p, shared_axes, rows, exact, alpha, key, draw)

    @staticmethod
    def setup_context(ctx, inputs, output):
        operators.save_mask(ctx, inputs, output)
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx, grad, _):
        if grad is None:
            return (None,) * 8
        return Apply.apply(grad, ctx.saved_tensors[0], *ctx.layout), *[None] * 7

    @staticmethod
    def jvp(ctx, tangent, *_):
        return Apply.apply(tangent, ctx.saved_tensors[0], *ctx.layout), None

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _dropout_of_samples(Dropout.apply, info, in_dims, *arguments)


class Apply(torch.autograd.Function):
    """The operator ``dropout_backward``, likewise."""

    @staticmethod
    def forward(grad, bits, p, shared_axes, rows, exact, alpha):
        return operators.dropout_backward(grad, bits, p, shared_axes, rows, exact, alpha)

    @staticmethod
    def setup_context(ctx, inputs, output):
        operators.save_given_mask(ctx, inputs, output)
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx, grad):
        return Apply.apply(grad, ctx.saved_tensors[0], *ctx.layout), *[None] * 6

    @staticmethod
    def jvp(ctx, tangent, *_):
        return Apply.apply(tangent, ctx.saved_tensors[0], *ctx.layout)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _mask_of_samples(Apply.apply, info, in_dims, *arguments)


def _shared_by_all(x, shared_axes, rows):
    """The axes of a mask that all samples share, where axis 0 of `x` numbers them."""
    axes = {0, *(axis % (x.dim() - 1) + 1 for axis in shared_axes)}
    return tuple(sorted(axes | ({1} if rows == 0 else set())))


def _dropout_of_samples(dropout, info, in_dims, x, p, shared_axes, rows, exact, alpha, *word):
    """vmap: of every sample its own mask ("different"), or one for all ("same")."""
    x = x.movedim(in_dims[0], 0)
    key, draw = word
    if not 0.0 < p < 1.0:
        key = 0  # nothing is random
    elif info.randomness not in ("same", "different"):
        raise RuntimeError(
            'vmap: dropout is random; pass randomness="different" or randomness="same" to vmap'
        )
    if info.randomness == "same" and rows in (0, 1):
        axes = _shared_by_all(x, shared_axes, rows)
        return dropout(x, p, axes, 1, exact, alpha, key, draw), (0, None)
    if info.randomness == "same":
        key = torch_key() if key is None else key
    elif key is not None and 0.0 < p < 1.0:
        raise RuntimeError(
            'rng: a call draws one mask of a MaskStream; with it, vmap needs randomness="same"'
        )
    if len(x) == 0:
        layout = plan(tuple(x.shape[1:]), p, tuple(shared_axes), rows or "batch", exact, alpha)
        return (torch.empty_like(x), x.new_empty((0, layout.bytes), dtype=torch.uint8)), (0, 0)
    layout = (p, shared_axes, rows, exact, alpha, key, draw)
    parts = [dropout(sample, *layout) for sample in x.unbind(0)]
    y, bits = (torch.stack(part) for part in zip(*parts, strict=True))
    return (y, bits), (0, 0)


def _mask_of_samples(apply, info, in_dims, grad, bits, p, shared_axes, rows, exact, alpha):
    """vmap of a given mask: of every sample its own, or one for all."""
    if in_dims[1] is None and rows in (0, 1):
        grad = grad.movedim(in_dims[0], 0)
        axes = _shared_by_all(grad, shared_axes, rows)
        return apply(grad, bits, p, axes, 1, exact, alpha), 0
    grads, masks = (
        [part] * info.batch_size if dim is None else part.movedim(dim, 0).unbind(0)
        for part, dim in ((grad, in_dims[0]), (bits, in_dims[1]))
    )
    if info.batch_size == 0:
        return torch.empty_like(grad if in_dims[0] is None else grad.movedim(in_dims[0], 0)), 0
    layout = (p, shared_axes, rows, exact, alpha)
    parts = [apply(one, mask, *layout) for one, mask in zip(grads, masks, strict=True)]
    return torch.stack(parts), 0


def _register(name, rule, function):
    """The same rules for the operators themselves, which a compiled vmap calls."""
    schema = getattr(torch.ops.fastdrop, name).default._schema
    defaults = [argument.default_value for argument in schema.arguments]

    def complete(info, in_dims, *arguments):  # torch leaves out what equals a default
        return rule(function, info, in_dims, *arguments, *defaults[len(arguments) :])

    torch.library.register_vmap(f"fastdrop::{name}", complete)


if hasattr(torch.library, "register_vmap"):  # from torch 2.5 on
    _register("dropout", _dropout_of_samples, operators.dropout)
    _register("dropout_backward", _mask_of_samples, operators.dropout_backward)
