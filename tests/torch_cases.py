"""What the tests of fastdrop.torch share; import it behind ``pytest.importorskip("torch")``."""

import warnings

import numpy
import torch

from fastdrop import reference
from fastdrop.interop.torch.keys import torch_key

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def kept_by_reference(shape, p, seed, mask_shape=None):
    """The mask that the next call after `torch.manual_seed(seed)` draws, as booleans."""
    mask_shape = tuple(shape) if mask_shape is None else mask_shape
    torch.manual_seed(seed)
    key = torch_key()
    n = int(numpy.prod(mask_shape))
    bits = numpy.empty((n + 7) // 8, numpy.uint8)
    threshold = reference.bernoulli_threshold(1.0 - p)
    zeros = (0,) * len(mask_shape)
    words = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    reference.draw_bernoulli(*words, 0, threshold, mask_shape, zeros, mask_shape, bits)
    kept = numpy.unpackbits(bits, count=n, bitorder="little").astype(bool).reshape(mask_shape)
    torch.manual_seed(seed)
    return torch.from_numpy(numpy.broadcast_to(kept, shape).copy())


def tensors(shape, dtype):
    """Tensors of one shape in many layouts."""
    x = torch.randn(shape, dtype=torch.float64).to(dtype)
    yield "contiguous", x
    yield "transposed", x.transpose(0, -1).contiguous().transpose(0, -1)
    yield "strided", torch.stack([x, x], -1)[..., 0]
    yield "expanded", x[:1].expand(shape)
    yield "of one value", torch.ones((), dtype=dtype).expand(shape)
    if len(shape) == 4:
        yield "channels last", x.to(memory_format=torch.channels_last)


def outcome(function, *arguments, **further):
    """What a call raises and warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            function(*arguments, **further)
            error = None
        except Exception as raised:
            error = type(raised), str(raised).partition("\n")[0]
    return error, [(warning.category, str(warning.message)) for warning in caught]
