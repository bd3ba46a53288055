"""The kernels on tensors' own memory; nothing here knows of gradients."""

import torch

from fastdrop._backend import kernels
from fastdrop.interop.torch.threads import follow_torch

__all__ = ["DTYPES", "apply", "draw_bits", "dropped"]

# The kernels' numbers of element types, where memory is given by its address.
DTYPES = {torch.float16: 0, torch.float32: 1, torch.float64: 2, torch.bfloat16: 3}
# Below this number of elements the kernels run on one thread, whatever the limit.
ONE_THREAD = 1 << 18
_new_bytes = torch.empty(0, dtype=torch.uint8, device="cpu").new_empty


def dropped(x, plan, key, draw, out=None):
    """Draw a mask and apply it.

    Parameters
    ----------
    x : torch.Tensor
        On the CPU, strided, of a dtype in `DTYPES`.
    plan : Plan
    key, draw : int
        64 bits: the two words of the stream's key; the number of the draw.
    out : torch.Tensor, optional
        `x` itself.

    Returns
    -------
    y : torch.Tensor
        With the strides of ``torch.empty_like(x)``; `out` if given.
    bits : torch.Tensor of uint8
        The packed mask.
    """
    if out is not None and out.data_ptr() % out.element_size():
        y, bits = dropped(x.clone(), plan, key, draw)  # parts of a file may begin anywhere
        return out.copy_(y), bits
    y = torch.empty_like(x) if out is None else out
    n = x.numel()
    if n >= ONE_THREAD:
        follow_torch()
    if plan.plain and not plan.affine and y.is_contiguous():
        bits = _new_bytes(plan.bytes)
        kernels.dropout_at(
            _place(x, y),
            DTYPES[x.dtype],
            n,
            key & 0xFFFFFFFF,
            key >> 32 & 0xFFFFFFFF,
            draw,
            plan.threshold,
            plan.scale,
            bits.data_ptr(),
            y.data_ptr(),
        )
    else:
        bits = draw_bits(plan, key, draw)
        _strided(x, bits, plan, y, plan.affine)
    return y, bits


def draw_bits(plan, key, draw):
    """Draw a mask alone."""
    bits = _new_bytes(plan.bytes)
    shape, starts = plan.drawn_shape, (0,) * len(plan.drawn_shape)
    if plan.kept is None:
        drawing, parameter = kernels.draw_bernoulli, plan.threshold
    else:
        drawing, parameter = kernels.draw_exact_count, plan.kept
    words = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    drawing(*words, draw, parameter, shape, starts, shape, bits.numpy())
    return bits


def apply(x, bits, plan):
    """Keep what packed bits keep, times the plan's scale: backward of `dropped`, and linear."""
    y = torch.empty_like(x)
    n = x.numel()
    if n >= ONE_THREAD:
        follow_torch()
    if plan.plain and y.is_contiguous():
        kernels.apply_mask_at(
            _place(x, y), DTYPES[x.dtype], n, bits.data_ptr(), plan.scale, y.data_ptr()
        )
    else:
        _strided(x, bits, plan, y)
    return y


def _place(x, y):
    """The address of the values in C order, aligned: those of x, or of y, which then holds them."""
    place = x.data_ptr()
    if x.is_contiguous() and place % x.element_size() == 0:
        return place
    if x is not y:
        y.copy_(x)
    return y.data_ptr()


def _strided(x, bits, plan, y, affine=None):
    """Any layout, and alpha dropout.

    What begins between two elements, as parts of a file may, is copied first.
    """
    source = x if x.data_ptr() % x.element_size() == 0 else x.clone()
    placed = (_array(source), bits.numpy(), plan.mask_shape, plan.rows_per_mask)
    if affine:
        kernels.apply_affine(*placed, *affine, _array(y))
    else:
        kernels.apply_mask(*placed, plan.scale, _array(y))


def _array(x):
    """A tensor's memory as an array; bfloat16 as its bits."""
    x = x.detach()
    return x.numpy() if x.dtype is not torch.bfloat16 else x.view(torch.uint16).numpy()
