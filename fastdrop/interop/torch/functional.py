"""The dropout functions of `torch.nn.functional`, on the package's kernels.

Arguments, defaults, errors, warnings, shapes and gradients are torch's. Tensors that the kernels
cannot read (on another device, sparse, nested, of integers, subclasses) go to torch's own function.
"""

import torch
import torch.nn.functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from fastdrop.interop.torch import memory, operators, transforms
from fastdrop.interop.torch.elsewhere import elsewhere
from fastdrop.interop.torch.function import drop, is_plain, through_operator
from fastdrop.interop.torch.keys import key_of, torch_key
from fastdrop.interop.torch.plan import plan, rows_number

__all__ = [
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
]

# torch's own, whatever `patched` puts in their places.
THEIRS = {name: getattr(F, name) for name in __all__}


def dropout(
    input, p=0.5, training=True, inplace=False, *, rows_per_mask=1, exact_count=False, rng=None
):
    """Zero elements of a tensor with probability `p` and multiply the others by ``1 / (1 - p)``.

    `torch.nn.functional.dropout`, faster on the CPU. The gradient needs the mask only: one bit of
    each element is saved for it.

    Parameters
    ----------
    input : torch.Tensor, any shape and layout
        float16, bfloat16, float32 or float64 on the CPU; anything else goes to torch's function.
    p : float, optional
        Probability that an element is zeroed, in [0, 1].
    training : bool, optional
        False returns `input`.
    inplace : bool, optional
        Write into `input` and return it.
    rows_per_mask : int or "batch", optional
        How many consecutive rows (axis 0) share one row of the mask; "batch": one for all.
    exact_count : bool, optional
        Zero the same number of elements in every row of the last axis: of n elements
        ``floor((1 - p) * n + 0.5 + 1e-6)`` stay.
    rng : None, torch.Generator, MaskStream, int, or another `rng` of `fastdrop.dropout`, optional
        None: torch's default CPU generator, from which each call takes one 64-bit number, so
        that ``torch.manual_seed`` repeats the masks. A MaskStream gives reproducible masks
        independent of everything else. An int gives the same mask in every call.

    Returns
    -------
    torch.Tensor, shape and dtype of `input`
        Dropped elements are exactly 0, whatever they were (NaN and infinity too).

    Raises
    ------
    ValueError
        If `p`, `rows_per_mask` or `exact_count` is out of range.
    RuntimeError
        As torch's function does, for example if `inplace` is set for a leaf that requires a
        gradient; if a checkpointed function draws from a MaskStream, see `repeat_masks`.

    Examples
    --------
    >>> import torch, fastdrop.torch
    >>> generator = torch.manual_seed(0)
    >>> x = torch.ones(2, 1000, requires_grad=True)
    >>> y = fastdrop.torch.dropout(x, 0.5)
    >>> y.sum().backward()
    >>> torch.equal(x.grad, y)
    True
    """
    if (
        training
        and rng is None
        and rows_per_mask.__class__ is int
        and rows_per_mask == 1
        and not exact_count
        and p.__class__ is float
        and 0.0 < p < 1.0
        and not inplace
        and not has_torch_function_unary(input)
        and not through_operator()
        and is_plain(input)
    ):
        layout = plan(input.shape, p, (), 1, False, False)
        if layout.elements:
            return drop(input, layout, torch_key(), 0, False)
    further = (rows_per_mask, exact_count, rng)
    return _call(dropout, input, p, training, inplace, further)


def alpha_dropout(
    input, p=0.5, training=False, inplace=False, *, rows_per_mask=1, exact_count=False, rng=None
):
    """Alpha dropout [1]_: keeps mean and variance of SELU's outputs; otherwise as `dropout`.

    Returns
    -------
    torch.Tensor, shape and dtype of `input`
        Dropped elements are SELU's negative saturation value, then all are scaled and shifted.

    References
    ----------
    .. [1] G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural
       networks", NeurIPS 2017, section 4.

    Examples
    --------
    >>> import torch, fastdrop.torch
    >>> y = fastdrop.torch.alpha_dropout(torch.zeros(1000), 0.5, training=True)
    >>> len(y.unique())
    2
    """
    further = (rows_per_mask, exact_count, rng)
    return _call(alpha_dropout, input, p, training, inplace, further, alpha=True)


def dropout1d(
    input, p=0.5, training=True, inplace=False, *, rows_per_mask=1, exact_count=False, rng=None
):
    """Zero whole channels of a tensor of shape (N, C, L) or (C, L); else as `dropout`.

    The mask has one bit for each channel of each sample; ``exact_count`` drops the same number of
    channels of every sample.
    """
    further = (rows_per_mask, exact_count, rng)
    return _call(dropout1d, input, p, training, inplace, further, features=3, usual=(2, 3))


def dropout2d(
    input, p=0.5, training=True, inplace=False, *, rows_per_mask=1, exact_count=False, rng=None
):
    """Zero whole channels of a tensor of shape (N, C, H, W); else as `dropout`.

    The mask has one bit for each channel of each sample; ``exact_count`` drops the same number of
    channels of every sample. As torch does, a tensor of 3 axes is taken for (N, C, L), with a
    warning.
    """
    further = (rows_per_mask, exact_count, rng)
    return _call(dropout2d, input, p, training, inplace, further, features=True, usual=(4,))


def dropout3d(
    input, p=0.5, training=True, inplace=False, *, rows_per_mask=1, exact_count=False, rng=None
):
    """Zero whole channels of a tensor of shape (N, C, D, H, W) or (C, D, H, W); else as `dropout`.

    The mask has one bit for each channel of each sample; ``exact_count`` drops the same number of
    channels of every sample.
    """
    further = (rows_per_mask, exact_count, rng)
    return _call(dropout3d, input, p, training, inplace, further, features=5, usual=(4, 5))


def feature_alpha_dropout(
    input, p=0.5, training=False, inplace=False, *, rows_per_mask=1, exact_count=False, rng=None
):
    """Alpha dropout of whole channels (axis 1); else as `alpha_dropout`."""
    further = (rows_per_mask, exact_count, rng)
    return _call(
        feature_alpha_dropout, input, p, training, inplace, further, alpha=True, features=True
    )


def _call(ours, input, p, training, inplace, further, alpha=False, features=False, usual=None):
    """Any dropout, in any situation.

    `features` is True for whole channels, axis 1; a number if a tensor of another number of axes
    has no axis of samples. `usual` are the numbers of axes of which torch says nothing, None if it
    never does.
    """
    theirs = THEIRS[ours.__name__]
    rows_per_mask, exact_count, rng = further
    only_theirs = rng is None and rows_per_mask == 1 and not exact_count
    if has_torch_function_unary(input):
        # A subclass may know torch's function; a mode, or what stands for a tensor, gets ours.
        if only_theirs and isinstance(input, torch.Tensor) and _overrides(type(input)):
            return handle_torch_function(
                theirs, (input,), input, p=p, training=training, inplace=inplace
            )
        return handle_torch_function(
            ours,
            (input,),
            input,
            p=p,
            training=training,
            inplace=inplace,
            rows_per_mask=rows_per_mask,
            exact_count=exact_count,
            rng=rng,
        )
    if not isinstance(input, torch.Tensor):
        return theirs(input, p, training, inplace)  # which says what is wrong
    dimensions = input.dim()
    free = 2 if features in (True, dimensions) else 1
    shared = tuple(range(free, dimensions)) if features else ()
    if p < 0.0 or p > 1.0 or p != p or (features and dimensions < 2):
        return theirs(input, p, training, inplace)  # likewise
    operator = through_operator()
    readable = _is_ours(input) if operator else is_plain(input)
    refused = inplace and training and not operator and _is_refused(input)
    if (only_theirs and not readable) or refused:
        return theirs(input, p, training, inplace)
    if usual and dimensions not in usual and not torch.compiler.is_compiling():
        # It has something to say, on the number of axes; the values do not matter.
        theirs(torch.empty(input.shape, device="meta"), p, training)
    if rows_per_mask != 1 and features and free == 1:
        raise ValueError(
            f"rows_per_mask must be 1 without an axis of samples, got {rows_per_mask!r} for an "
            f"input of {dimensions} axes"
        )
    if not training:
        return input
    if isinstance(p, torch.Tensor) and p.requires_grad:  # would get no gradient
        return theirs(input, p, training, inplace)  # likewise
    p = float(p)
    if not readable:
        return elsewhere(input, p, inplace, shared, alpha, *further)
    if operator and rng is not None and _is_recorded():
        return _uncompiled(ours, input, p, inplace, *further)
    if operator:
        return _operated(input, p, inplace, shared, alpha, *further)
    layout = plan(input.shape, p, shared, rows_per_mask, bool(exact_count), alpha)
    key, draw = _key_of(rng, layout.random and input.numel() > 0)
    if p == 0.0 or input.numel() == 0:
        return input
    return drop(input, layout, key, draw, inplace)


def _key_of(rng, random):
    """As `key_of`; where nothing is random torch's generators draw no number, as with torch."""
    if not random and (rng is None or isinstance(rng, torch.Generator)):
        return 0, 0
    return key_of(rng)


def _operated(input, p, inplace, shared, alpha, rows_per_mask, exact_count, rng):
    """The same by way of the operator."""
    key, draw = (None, 0) if rng is None else _key_of(rng, 0.0 < p < 1.0)
    if p == 0.0:
        return input
    if key is not None and key >> 63:
        key -= 1 << 64  # an operator's int has a sign
    layout = (p, shared, rows_number(rows_per_mask), bool(exact_count), alpha)
    if not torch.compiler.is_compiling() and transforms.inside_transform():
        x = transforms.of_every_sample(input) if p < 1.0 else input
        y, _ = transforms.Dropout.apply(x, *layout, key, draw)
    else:
        y, _ = operators.dropout(input, *layout, key, draw)
    return input.copy_(y) if inplace else y


def _is_ours(input):
    """Whether the operator takes a tensor, which may be a compiler's or a transform's."""
    return (
        input.device.type == "cpu"
        and input.layout is torch.strided
        and input.dtype in memory.DTYPES
        and not input.is_nested
    )


def _overrides(tensor_type):
    """Whether a subclass has something of its own to do for a function."""
    return tensor_type.__torch_function__ not in (
        torch.Tensor.__torch_function__,
        torch._C._disabled_torch_function_impl,
    )


def _is_recorded():
    """Whether what happens now will be repeated without us: then a number would be a constant."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def _is_refused(input):
    """Whether torch does not write into a tensor."""
    return (input.requires_grad and input.is_leaf and torch.is_grad_enabled()) or (
        not input.is_contiguous() and torch._debug_has_internal_overlap(input) == 1
    )


def _uncompiled(ours, input, p, inplace, rows_per_mask, exact_count, rng):
    """Drawing from a stream moves it, which no compiled graph does: between two graphs."""
    if not torch.compiler.is_dynamo_compiling():  # traced, or exported without dynamo
        raise RuntimeError(
            f"rng: {type(rng).__name__} cannot be traced or exported, its next draw would become a "
            "constant; leave rng out, so that the mask comes from torch's generator"
        )
    return _between_graphs(ours, input, p, inplace, rows_per_mask, exact_count, rng)


def _outside_graphs(function):
    reason = (
        "rng: the draw of a MaskStream or a torch.Generator cannot be part of a compiled or "
        "exported graph; leave rng out, so that the mask comes from torch's generator"
    )
    try:
        return torch.compiler.disable(function, reason=reason)
    except TypeError:  # before torch 2.7 no reason can be given
        return torch.compiler.disable(function)


@_outside_graphs
def _between_graphs(ours, input, p, inplace, rows_per_mask, exact_count, rng):
    return ours(
        input,
        p,
        True,
        inplace,
        rows_per_mask=rows_per_mask,
        exact_count=exact_count,
        rng=rng,
    )
