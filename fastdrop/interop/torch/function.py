"""Dropout of one tensor: which way it goes, and the short one of eager mode.

torch's dispatcher costs a custom operator some 20 microseconds a call, several times what a small
tensor takes. So an eager call on a plain tensor goes to the kernels directly, through an
`autograd.Function`; everything that looks at operators (compilers, exporters, function transforms,
dispatch modes, tracing) gets ``torch.ops.fastdrop``, or its form for transforms.
"""

import torch
from torch.autograd import forward_ad

from fastdrop.interop.torch import memory, operators, transforms

__all__ = ["drop", "is_plain", "through_operator"]

_C = torch._C
_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)


# An int; before torch 2.5 only the text can be had.
_as_value = getattr(_C.DispatchKeySet, "raw_repr", _C.DispatchKeySet.__repr__)


def _plain_keys():
    """The dispatch keys of dense tensors on the CPU, those made in inference mode as well."""
    found = set()
    for inference in (True, False):
        with torch.inference_mode(inference):
            found.add(_as_value(_C._dispatch_keys(torch.empty(0, device="cpu"))))
    return found


_PLAIN_KEYS = _plain_keys()


_is_compiling = torch.compiler.is_compiling
_modes = _C._len_torch_dispatch_stack
_tracing = _C._get_tracing_state
_transform = _C._functorch.peek_interpreter_stack
_dispatch_keys = _C._dispatch_keys
_records = torch.is_grad_enabled


def through_operator():
    """Whether somebody looks at operators: a compiler, a tracer, a mode or a transform."""
    return _is_compiling() or _transform() is not None or _modes() > 0 or _tracing() is not None


def is_plain(x):
    """Whether a tensor is what the kernels can read: dense, on the CPU, of a dtype they know.

    Its dispatch keys tell all of it at once: device, layout, wrappers, negation put off.
    """
    return (
        x.__class__ in _PLAIN_TYPES
        and x.dtype in memory.DTYPES
        and _as_value(_dispatch_keys(x)) in _PLAIN_KEYS
    )


class _Dropout(torch.autograd.Function):
    """Forward: draw and apply. Saved: the packed mask."""

    @staticmethod
    def forward(ctx, x, call):
        plan, key, draw, inplace = call
        if inplace:
            ctx.mark_dirty(x)
        y, bits = memory.dropped(x, plan, key, draw, x if inplace else None)
        ctx.plan = plan
        ctx.save_for_backward(bits)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(bits)
        return y

    @staticmethod
    def backward(ctx, grad):
        return _applied(grad, ctx.saved_tensors[0], ctx.plan), None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _applied(tangent, ctx.saved_tensors[0], ctx.plan)


# `_Dropout.apply` without the Python around it, which sees to the transforms of torch.func and to
# what is left of their tensors: `is_plain` and `through_operator` have ruled out both.
_apply_dropout = super(torch.autograd.Function, _Dropout).apply


class _Apply(torch.autograd.Function):
    """A given mask, applied: the gradient of both, and of itself."""

    @staticmethod
    def forward(ctx, x, bits, plan):
        ctx.plan = plan
        ctx.save_for_backward(bits)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(bits)
        return memory.apply(x, bits, plan)

    @staticmethod
    def backward(ctx, grad):
        return _applied(grad, ctx.saved_tensors[0], ctx.plan), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _applied(tangent, ctx.saved_tensors[0], ctx.plan)


def _applied(x, bits, plan):
    if _modes() or not is_plain(x):  # a compiler's tensors are not plain
        if not _is_compiling() and transforms.inside_transform():
            return transforms.Apply.apply(x, bits, *plan.arguments)
        return operators.dropout_backward(x, bits, *plan.arguments)
    if (_records() and x.requires_grad) or forward_ad._current_level >= 0:
        return _Apply.apply(x, bits, plan)
    return memory.apply(x, bits, plan)


def drop(x, plan, key, draw, inplace):
    """Dropout of a plain tensor, in eager mode; differentiable.

    Parameters
    ----------
    x : torch.Tensor
        See `is_plain`.
    plan : Plan
    key, draw : int
    inplace : bool
        Whether the result goes into `x`, which torch allows (no leaf that wants a gradient, no
        element that stands for several).
    """
    if forward_ad._current_level >= 0:
        if inplace:  # whose tangent is to change in place as well: torch's copy_ sees to that
            return x.copy_(_Dropout.apply(x, (plan, key, draw, False)))
        return _Dropout.apply(x, (plan, key, draw, False))
    if x.requires_grad and _records():
        return _apply_dropout(x, (plan, key, draw, inplace))
    if inplace:
        memory.dropped(x, plan, key, draw, x)
        torch.autograd.graph.increment_version(x)
        return x
    return memory.dropped(x, plan, key, draw)[0]
