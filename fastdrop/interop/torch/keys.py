"""Where a mask's key comes from: torch's generator, or a stream of one's own."""

import contextlib
import threading

import torch

from fastdrop.stream import MaskStream, as_stream, stream_key, take_position

__all__ = ["key_of", "owned_stream", "repeat_masks", "torch_key"]

_LOWEST = -(1 << 63)
_recomputing = threading.local()
_own = threading.local()  # a tensor of one number: to allocate one takes longer than to fill it


def torch_key(generator=None):
    """One 64-bit draw from a CPU generator of torch, the default one unless given."""
    try:
        word = _own.word
    except AttributeError:
        with torch.inference_mode(False):
            word = _own.word = torch.empty((), dtype=torch.int64, device="cpu")
    if generator is None:
        return word.random_(_LOWEST, None).item()
    return word.random_(_LOWEST, None, generator=generator).item()


def key_of(rng):
    """The key and the number of the draw of one call.

    Raises
    ------
    RuntimeError
        If a stream or a generator would draw another mask for a forward pass that is computed
        again.
    """
    if rng is None:
        return torch_key(), 0
    generator = isinstance(rng, torch.Generator)
    repeats = not generator and getattr(_recomputing, "depth", 0)
    if torch._C._current_graph_task_id() != -1 and not repeats:
        raise RuntimeError(
            "rng: a forward pass is computed again in a backward pass (activation checkpointing), "
            f"for which a {type(rng).__name__} would draw another mask. Leave rng out, so that the "
            "mask comes from torch's default generator, or pass a MaskStream and "
            "checkpoint(..., use_reentrant=False, "
            "context_fn=fastdrop.torch.repeat_masks(stream))"
        )
    if generator:
        return torch_key(rng), 0
    stream = as_stream(rng)
    draw = take_position(stream)
    key0, key1 = stream_key(stream)
    return key0 | key1 << 32, draw


def owned_stream(rng):
    """What a module keeps of its argument `rng`: None, a torch.Generator or a MaskStream."""
    return rng if rng is None or isinstance(rng, torch.Generator) else as_stream(rng)


def repeat_masks(*streams):
    """Return a ``context_fn`` for `torch.utils.checkpoint.checkpoint` that repeats streams' masks.

    Only needed for dropout with ``rng=``: masks from torch's generator repeat by themselves.

    Parameters
    ----------
    *streams : MaskStream
        All that the checkpointed function draws from.

    Returns
    -------
    callable
        Give it as ``context_fn``, with ``use_reentrant=False``.

    Raises
    ------
    TypeError
        If one of `streams` is no MaskStream.

    Examples
    --------
    >>> import torch, fastdrop, fastdrop.torch
    >>> from torch.utils.checkpoint import checkpoint
    >>> stream = fastdrop.MaskStream(0)
    >>> drop = fastdrop.torch.Dropout(0.5, rng=stream)
    >>> x = torch.ones(4, requires_grad=True)
    >>> again = fastdrop.torch.repeat_masks(stream)
    >>> y = checkpoint(lambda x: drop(x).exp(), x, use_reentrant=False, context_fn=again)
    >>> y.sum().backward()
    >>> torch.equal(x.grad != 0, y != 1)
    True
    """
    for stream in streams:
        if not isinstance(stream, MaskStream):
            raise TypeError(f"streams must be fastdrop.MaskStream, got {type(stream).__name__}")

    def contexts():
        began = []
        return _remembered(streams, began), _repeated(streams, began)

    return contexts


@contextlib.contextmanager
def _remembered(streams, began):
    began[:] = [stream.position for stream in streams]
    yield


@contextlib.contextmanager
def _repeated(streams, began):
    """Draw from where the forward pass did, then go on from where the streams stood."""
    now = [stream.position for stream in streams]
    for stream, position in zip(streams, began, strict=True):
        stream.position = position
    _recomputing.depth = getattr(_recomputing, "depth", 0) + 1
    try:
        yield
    finally:
        _recomputing.depth -= 1
        for stream, position in zip(streams, now, strict=True):
            stream.position = position
