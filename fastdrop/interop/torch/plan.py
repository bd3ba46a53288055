"""What a call of dropout has to know before it sees a value: worked out once, then remembered."""

import functools
import math

from fastdrop.arguments import mask_plan, threshold
from fastdrop.dropouts.alpha import alpha_constants

__all__ = ["Plan", "plan", "rows_number"]


class Plan:
    """How the mask of one shape is drawn and applied.

    Attributes
    ----------
    plain : bool
        Every element has its own bit, independent of the others.
    mask_shape : tuple of int
        The mask's own shape, as many axes as the tensor.
    drawn_shape : tuple of int
        The same without the axes of one element behind the rows of an exact count.
    rows_per_mask : int
        As the kernels want it.
    elements, bytes : int
        Of the mask, and of its packed bits.
    threshold : int
        The keep probability in units of 2**-64.
    kept : int or None
        Kept elements of a row, of exact counts.
    random : bool
        Whether p is neither 0 nor 1.
    scale : float
        The factor on kept values.
    arguments : tuple
        As the operators take them: p, shared axes, rows per mask, exact count, alpha.
    affine : tuple of float or None
        Of alpha dropout: factor and shift of kept values, and what dropped ones become.
    """

    __slots__ = (
        "affine",
        "arguments",
        "bytes",
        "drawn_shape",
        "elements",
        "kept",
        "mask_shape",
        "plain",
        "random",
        "rows_per_mask",
        "scale",
        "threshold",
    )

    def __init__(self, shape, p, shared_axes, rows_per_mask, exact_count, alpha):
        self.arguments = (p, shared_axes, rows_number(rows_per_mask), exact_count, alpha)
        self.random = 0.0 < p < 1.0
        keep = 1.0 - p
        layout = mask_plan(shape, shared_axes, rows_per_mask)
        self.drawn_shape = layout.shape
        self.plain = not shared_axes and rows_per_mask == 1 and not exact_count
        self.mask_shape = layout.shape
        most = max(shape[0], 1) if shape else 1
        self.rows_per_mask = 1 if rows_per_mask in (1, "batch") else min(rows_per_mask, most)
        self.elements = math.prod(layout.shape)
        self.bytes = -(-self.elements // 8)
        self.threshold = threshold(keep)
        self.kept = None
        if exact_count:
            row_axis, self.kept, inverse = layout.exact_count(keep)
            self.drawn_shape = layout.shape[: row_axis + 1]
            keep = 1.0 / inverse if inverse else 0.0
        elif not self.threshold:
            keep = 0.0
        self.affine = None
        self.scale = 1.0 / keep if keep else 0.0
        if alpha and keep:
            self.affine = alpha_constants(keep)
            self.scale = self.affine[0]


def rows_number(rows_per_mask):
    """The int that stands for an argument `rows_per_mask` in the operators: 0 for "batch"."""
    return 0 if rows_per_mask == "batch" else rows_per_mask


# A model has some hundred of them; a training run with many lengths of sequences some thousand.
plan = functools.lru_cache(maxsize=8192)(Plan)
