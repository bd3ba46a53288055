"""A linear layer with ReLU and dropout whose products leave out dropped units."""

import math
import weakref

import numpy
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from fastdrop._backend import kernels
from fastdrop.arguments import keep_probability, mask_plan
from fastdrop.functional import apply_mask
from fastdrop.interop.torch import functional
from fastdrop.interop.torch.function import is_plain, through_operator
from fastdrop.interop.torch.keys import key_of, owned_stream
from fastdrop.interop.torch.memory import draw_bits
from fastdrop.interop.torch.plan import plan
from fastdrop.interop.torch.state import StreamInState
from fastdrop.interop.torch.threads import follow_torch
from fastdrop.mask import new_mask
from fastdrop.matmul import bias_gradient, masked_matmul, weight_gradient

__all__ = ["LinearDropout"]

_DTYPES = (torch.float32, torch.float64)
_ACTIVATIONS = ("relu", None)


class LinearDropout(StreamInState, torch.nn.Linear):
    """`torch.nn.Linear`, ReLU and dropout in one layer that computes kept units only.

    Where rows share a mask, dropped units cost nothing, forward and backward: their products are
    left out. A layer of this class that gets the result as it is, as in a ``Sequential``, leaves
    out its products with them, too, except in ``torch.inference_mode``, where torch does not say
    whether a tensor has been changed. Parameters, their names, shapes, layout and initial values
    are those of `torch.nn.Linear`, and the optimiser is torch's.

    Parameters
    ----------
    in_features, out_features : int
    rate : float
        Probability that a unit is dropped in training, in [0, 1].
    activation : "relu" or None, optional
        The activation function between the product and the dropout.
    bias : bool, optional
    rows_per_mask : int or "batch", optional
        How many consecutive rows (all axes but the last taken together) share one set of units.
        "batch", the default, is fastest (Graham et al. [1]_); 32 is a compromise; with 1 every
        row has its own, and little is saved.
    exact_count : bool, optional
        Keep the same number of units in every set.
    rng : optional
        As for `fastdrop.torch.Dropout`; the state of a MaskStream is in the ``state_dict``.
    device, dtype : optional
        As for `torch.nn.Linear`. float32 and float64 on the CPU use the package's products;
        anything else, compiled graphs and function transforms use torch's, with the same result.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Notes
    -----
    Gradients are of the first order. Masks come from torch's generator unless `rng` says otherwise.

    References
    ----------
    .. [1] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
       submatrices", arXiv 1502.02478 (2015).

    Examples
    --------
    >>> import torch, fastdrop.torch
    >>> layer = fastdrop.torch.LinearDropout(8, 100, 0.5)
    >>> y = layer(torch.randn(4, 8))
    >>> y.sum().backward()
    >>> dropped = (y == 0).all(0)
    >>> bool((layer.weight.grad[dropped] == 0).all())
    True
    """

    def __init__(
        self,
        in_features,
        out_features,
        rate=0.5,
        activation="relu",
        bias=True,
        *,
        rows_per_mask="batch",
        exact_count=False,
        rng=None,
        device=None,
        dtype=None,
    ):
        self.rate = 1.0 - keep_probability(rate, None)
        if activation not in _ACTIVATIONS:
            raise ValueError(f'activation must be "relu" or None, got {activation!r}')
        mask_plan((1, 1), (), rows_per_mask)
        super().__init__(in_features, out_features, bias, device, dtype)
        self.activation = activation
        self.rows_per_mask = rows_per_mask
        self.exact_count = bool(exact_count)
        self.rng = owned_stream(rng)

    def forward(self, input):
        """Run the forward pass."""
        if not self.training or not self._is_ours(input):
            return self._by_torch(input)
        rows = input.numel() // self.in_features
        follow_torch()
        shape = (rows, self.out_features)
        layout = plan(shape, self.rate, (), self.rows_per_mask, self.exact_count, False)
        bits = draw_bits(layout, *key_of(self.rng))
        mask = new_mask(bits.numpy(), layout.mask_shape, self.rows_per_mask, None, layout.scale)
        y = _LinearDropout.apply(
            input, self.weight, self.bias, mask, _mask_of(input), self.activation
        )
        _remember(y, mask)
        return y

    def _is_ours(self, input):
        tensors = [input, self.weight] + ([] if self.bias is None else [self.bias])
        return (
            not through_operator()
            and forward_ad._current_level < 0
            and all(is_plain(tensor) for tensor in tensors)
            and len({tensor.dtype for tensor in tensors}) == 1
            and input.dtype in _DTYPES
            and input.dim() >= 2
            and input.numel() > 0
            and input.shape[-1] == self.in_features
            and not torch.is_autocast_enabled("cpu")
        )

    def _by_torch(self, input):
        y = super().forward(input)
        if self.activation == "relu":
            y = F.relu(y)
        if not self.training:
            return y
        return functional.dropout(
            y.reshape(-1, self.out_features),
            self.rate,
            rows_per_mask=self.rows_per_mask,
            exact_count=self.exact_count,
            rng=self.rng,
        ).reshape(y.shape)

    def extra_repr(self):
        """What `print` shows between the parentheses."""
        return (
            f"{super().extra_repr()}, rate={self.rate}, activation={self.activation!r}, "
            f"rows_per_mask={self.rows_per_mask!r}"
        )


# By a result's id: the result itself, weakly, its mask, and its version then. Not an attribute of
# the result, which would be saved with it.
_masks = {}


def _remember(y, mask):
    """Note the mask that made the zeros of a result."""
    if not y.is_inference():  # which does not tell whether it has been changed
        place = id(y)
        forget = lambda _: _masks.pop(place, None)  # noqa: E731
        _masks[place] = weakref.ref(y, forget), mask.with_scale(1.0), y._version


def _mask_of(x):
    """The mask that made the zeros of a tensor, if it comes from such a layer, unchanged."""
    made, mask, version = _masks.get(id(x), (None, None, None))
    return mask if made is not None and made() is x and version == x._version else None


class _LinearDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mask, mask_in, activation):
        rows = _rows_of(x)
        y = torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device="cpu")
        out = _rows_of(y)
        added = None if bias is None else bias.detach().numpy()
        first = mask.with_scale(1.0) if activation else mask
        columns = weight.detach().numpy().T
        masked_matmul(rows, columns, mask_in=mask_in, mask_out=first, bias=added, out=out)
        passed = None
        if activation:
            passed = torch.empty((y.numel() + 7) // 8, dtype=torch.uint8, device="cpu")
            kernels.rectify(out.reshape(-1), None, mask.scale, passed.numpy())
        ctx.masks = mask, mask_in
        ctx.save_for_backward(x, weight, passed)
        return y

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():  # the gradients are to have gradients
            return _by_operations(ctx, grad)
        x, weight, passed = ctx.saved_tensors
        mask, mask_in = ctx.masks
        grad = grad.contiguous()
        if passed is not None:
            gated = torch.empty_like(grad)
            flat, target = _rows_of(grad).reshape(-1), _rows_of(gated).reshape(-1)
            kernels.apply_mask(flat, passed.numpy(), flat.shape, 1, mask.scale, target)
            grad, mask = gated, mask.with_scale(1.0)
        rows = _rows_of(grad)
        grad_x = grad_w = grad_bias = None
        if ctx.needs_input_grad[2]:
            grad_bias = grad.new_empty(weight.shape[0])
            bias_gradient(rows, mask, grad_bias.numpy())
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
            masked_matmul(
                rows, weight.detach().numpy(), mask_in=mask, mask_out=mask_in, out=_rows_of(grad_x)
            )
        if ctx.needs_input_grad[1]:
            grad_w = torch.empty_like(weight, memory_format=torch.contiguous_format)
            weight_gradient(rows, _rows_of(x), mask, mask_in, grad_w.numpy())
        return grad_x, grad_w, grad_bias, None, None, None


def _by_operations(ctx, grad):
    """The gradients by operations of torch's, so that they can be differentiated in their turn."""
    x, weight, passed = ctx.saved_tensors
    mask, mask_in = ctx.masks
    rows = grad.reshape(-1, weight.shape[0])
    ones = torch.ones(rows.shape, dtype=grad.dtype, device="cpu").numpy()
    if passed is None:
        factor = apply_mask(ones, mask)
    else:  # what the activation let through the mask had kept
        kept = numpy.unpackbits(passed.numpy(), count=ones.size, bitorder="little")
        factor = ones * kept.reshape(ones.shape) * ones.dtype.type(mask.scale)
    rows = rows * torch.from_numpy(factor)
    grad_x = grad_w = grad_bias = None
    if ctx.needs_input_grad[2]:
        grad_bias = rows.sum(0)
    if ctx.needs_input_grad[0]:
        grad_x = rows @ weight
        if mask_in is not None:
            ones = torch.ones(grad_x.shape, dtype=grad.dtype, device="cpu").numpy()
            grad_x = grad_x * torch.from_numpy(apply_mask(ones, mask_in))
        grad_x = grad_x.reshape(x.shape)
    if ctx.needs_input_grad[1]:
        grad_w = rows.T @ x.reshape(-1, x.shape[-1])
    return grad_x, grad_w, grad_bias, None, None, None


def _rows_of(x):
    """A tensor as a matrix of NumPy's, its leading axes joined."""
    return x.detach().reshape(math.prod(x.shape[:-1]), x.shape[-1]).numpy()
