"""Further arguments of dropout for tensors that the kernels cannot read, on a GPU for example."""

import torch

from fastdrop.interop.torch.keys import key_of
from fastdrop.interop.torch.memory import draw_bits
from fastdrop.interop.torch.plan import plan

__all__ = ["elsewhere"]


def elsewhere(input, p, inplace, shared, alpha, rows_per_mask, exact_count, rng):
    """Draw the mask here, take it to where the tensor is, and let torch do the rest.

    Raises
    ------
    TypeError
        If the tensor is sparse, nested or not of floating-point numbers.
    """
    if not input.is_floating_point() or input.layout is not torch.strided or input.is_nested:
        raise TypeError(
            "input must be a dense tensor of floating-point numbers for rows_per_mask, exact_count "
            f"and rng, got {input.dtype}, {input.layout}"
        )
    layout = plan(tuple(input.shape), p, shared, rows_per_mask, bool(exact_count), alpha)
    bits = draw_bits(layout, *key_of(rng))
    places = torch.arange(8, dtype=torch.uint8)
    keep = (bits[:, None] >> places & 1).flatten()[: layout.elements].bool()
    keep = keep.reshape(layout.mask_shape)
    if layout.rows_per_mask > 1:
        keep = keep.repeat_interleave(layout.rows_per_mask, 0)[: input.shape[0]]
    scale, shift, dropped = layout.affine or (layout.scale, 0.0, 0.0)
    y = torch.where(keep.to(input.device), input * scale + shift, dropped).to(input.dtype)
    return input.copy_(y) if inplace else y
