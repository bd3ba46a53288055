"""Scaled dot-product attention with dropout: torch's products and softmax, fastdrop's dropout."""

import math

import torch
import torch.nn.functional as F
from torch.overrides import has_torch_function

from fastdrop.interop.torch import functional
from fastdrop.interop.torch.function import is_plain, through_operator

__all__ = ["scaled_dot_product_attention"]

THEIRS = F.scaled_dot_product_attention


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """`torch.nn.functional.scaled_dot_product_attention`, faster with dropout on the CPU.

    With ``dropout_p > 0`` torch has no fused kernel on the CPU: it multiplies, takes the softmax,
    drops and multiplies, and the dropout takes most of the time. Here it does not. Without dropout,
    on other devices and for what is no plain tensor, this is torch's own function.

    Parameters
    ----------
    query : torch.Tensor, shape (..., heads, target, features)
    key : torch.Tensor, shape (..., heads, source, features)
    value : torch.Tensor, shape (..., heads, source, value_features)
    attn_mask : torch.Tensor, optional
        Broadcasts to (..., heads, target, source): of bool, True where attention is allowed, or
        of numbers to be added.
    dropout_p, is_causal, scale, enable_gqa : optional
        As torch's function takes them.

    Returns
    -------
    torch.Tensor, shape (..., heads, target, value_features)

    Examples
    --------
    >>> import torch, fastdrop.torch
    >>> x = torch.randn(2, 4, 10, 8)
    >>> fastdrop.torch.scaled_dot_product_attention(x, x, x, dropout_p=0.1).shape
    torch.Size([2, 4, 10, 8])
    """
    if not _is_ours(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa):
        further = {"enable_gqa": enable_gqa} if enable_gqa else {}  # torch 2.4 does not know it
        return THEIRS(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **further)
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    if scale is None:
        scale = 1.0 / math.sqrt(max(query.shape[-1], 1))
    scores = (query * scale) @ key.transpose(-2, -1)
    if is_causal:
        rows, columns = scores.shape[-2:]
        attn_mask = torch.ones(rows, columns, dtype=torch.bool, device="cpu").tril()
    if attn_mask is None:
        weights = torch.softmax(scores, -1)
    elif attn_mask.dtype == torch.bool:
        weights = _safe_softmax(scores.masked_fill_(~attn_mask, -math.inf))
    else:
        weights = _safe_softmax(scores.add_(attn_mask))
    return functional.dropout(weights, dropout_p) @ value


def _is_ours(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa):
    """Whether a call is for the steps here: everything else, mistakes included, is torch's."""
    tensors = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
    if not (
        isinstance(dropout_p, float)
        and 0.0 < dropout_p < 1.0
        and isinstance(scale, float | int | None)
        and all(isinstance(tensor, torch.Tensor) for tensor in tensors)
        and not has_torch_function(tensors)
        and all(tensor.device.type == "cpu" and not tensor.is_nested for tensor in tensors)
        and (through_operator() or all(is_plain(tensor) for tensor in tensors[:3]))
        and query.dtype == key.dtype == value.dtype
        and min(tensor.dim() for tensor in tensors[:3]) >= (3 if enable_gqa else 2)
    ):
        return False
    if enable_gqa and any(
        heads == 0 or query.shape[-3] % heads for heads in (key.shape[-3], value.shape[-3])
    ):
        return False
    return attn_mask is None or (
        not is_causal and attn_mask.dtype in (torch.bool, torch.float32, query.dtype)
    )


def _safe_softmax(scores):
    """Softmax of rows; 0, as torch has it, in rows where every score is -inf."""
    nothing = (scores == -math.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(nothing, 0.0), -1).masked_fill(nothing, 0.0)
