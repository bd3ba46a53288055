"""Who else does dropout: NumPy in several ways, a numba loop, torch, Keras, thinc.

Each function takes the input, the rate, and where the rival can use it the array for the result,
and returns a contender, or `Skipped` where its package is not installed.
"""

import functools
import os

import numpy

from . import verify
from .cases import Contender, Skipped, needs
from .environment import torch_generator

__all__ = [
    "ROUNDED_TO",
    "copy",
    "copyto",
    "every_rival",
    "keras_dropout",
    "numba_loop",
    "numpy_expression",
    "numpy_raw_bytes",
    "numpy_raw_bytes_blocked",
    "thinc_dropout",
    "torch_feature_dropout",
    "torch_functional",
    "torch_native",
]

# The raw-bytes trick has 8-bit rates.
ROUNDED_TO = 256

# Bytes of random bits that the blocked form of that trick makes at a time.
BLOCK = 1 << 15


def copyto(x, out):
    """Copy into an existing array: the bound, since dropout reads and writes as much."""
    return Contender(
        "copyto",
        run=lambda: (numpy.copyto(out, x), out)[1],
        check=lambda result: verify.check_copy(result, x),
        calls="numpy.copyto",
    )


def copy(x):
    """Copy into a new array: the bound where the result is a new array."""
    return Contender(
        "copy",
        run=lambda: x.copy(),
        check=lambda result: verify.check_copy(result, x),
        calls="numpy.ndarray.copy",
    )


def numpy_expression(x, rate, out=None, mask_shape=None):
    """Compare uniform float32 numbers with the rate, multiply by the result, scale."""
    generator = numpy.random.default_rng(1)
    keep_prob = 1.0 - rate
    scale = x.dtype.type(1 / keep_prob)
    mask_shape = x.shape if mask_shape is None else mask_shape
    shared = tuple(i for i, (n, m) in enumerate(zip(x.shape, mask_shape, strict=True)) if n != m)

    def run():
        kept = generator.random(mask_shape, dtype=numpy.float32) >= rate
        y = numpy.multiply(x, kept, out=out)
        y *= scale
        return y

    def check(result):
        verify.check_rival(result, x, keep_prob, shared_axes=shared)

    return Contender("NumPy expression", run, check, calls="numpy.random.Generator.random")


def numpy_raw_bytes(x, rate, out):
    """Compare the bytes of SFC64's raw words with an 8-bit rate, multiply, scale."""
    source = numpy.random.SFC64(1)
    dropped = round(rate * ROUNDED_TO)
    keep_prob = 1 - dropped / ROUNDED_TO
    scale = x.dtype.type(1 / keep_prob)

    def run():
        words = source.random_raw(-(-x.size // 8))
        kept = words.view(numpy.uint8)[: x.size].reshape(x.shape) >= dropped
        numpy.multiply(x, kept, out=out)
        return numpy.multiply(out, scale, out=out)

    def check(result):
        verify.check_rival(result, x, keep_prob)

    return Contender("NumPy raw bytes", run, check, calls="numpy.random.SFC64.random_raw")


def numpy_raw_bytes_blocked(x, rate, out):
    """Do the same block by block, so that nothing but x and the result leaves the cache."""
    source = numpy.random.SFC64(1)
    dropped = round(rate * ROUNDED_TO)
    keep_prob = 1 - dropped / ROUNDED_TO
    scale = x.dtype.type(1 / keep_prob)
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)

    def run():
        for start in range(0, x.size, BLOCK):
            part, to = flat_x[start : start + BLOCK], flat_out[start : start + BLOCK]
            words = source.random_raw(-(-part.size // 8))
            kept = words.view(numpy.uint8)[: part.size] >= dropped
            numpy.multiply(part, kept, out=to)
            numpy.multiply(to, scale, out=to)
        return out

    def check(result):
        verify.check_rival(result, x, keep_prob)

    return Contender("NumPy raw bytes, blocked", run, check, calls="numpy.random.SFC64.random_raw")


@functools.cache
def _compiled_loop():
    import numba

    @numba.njit
    def dropout_loop(x, out, kept, rate, scale):
        for i in range(x.size):
            # numba compiles its own generator into the loop; there is no call per number.
            keep = numpy.random.random() >= rate  # noqa: NPY002
            kept[i] = keep
            out[i] = x[i] * scale if keep else numpy.float32(0)

    return dropout_loop


@needs("numba", "numba loop")
def numba_loop(x, rate, out):
    """One compiled loop over the elements that keeps a byte mask."""
    dropout_loop = _compiled_loop()
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    scale = numpy.float32(1 / (1 - rate))

    def run():
        kept = numpy.empty(x.size, bool)
        dropout_loop(flat_x, flat_out, kept, rate, scale)
        return out

    return Contender(
        "numba loop",
        run,
        check=lambda result: verify.check_rival(result, x, 1 - rate),
        calls="bench.rivals.dropout_loop",
        note="one thread",
    )


@needs("torch", "torch F.dropout")
def torch_functional(x, rate):
    """The function that torch's layer calls."""
    import torch
    import torch.nn.functional as F

    tensor = torch.from_numpy(x)
    return Contender(
        "torch F.dropout",
        run=lambda: F.dropout(tensor, rate, training=True),
        check=lambda result: verify.check_rival(result.numpy(), x, 1 - rate),
        calls="torch.nn.functional.dropout",
        note=f"draws with {torch_generator()}",
    )


@needs("torch", "torch native_dropout")
def torch_native(x, rate):
    """The operator that keeps the byte mask for backward."""
    import torch

    tensor = torch.from_numpy(x)
    return Contender(
        "torch native_dropout",
        run=lambda: torch.native_dropout(tensor, rate, True),
        check=lambda result: verify.check_rival(result[0].numpy(), x, 1 - rate),
        calls="torch.native_dropout",
        note=f"draws with {torch_generator()}",
    )


@needs("torch", "torch F.dropout2d")
def torch_feature_dropout(x, rate):
    """Drop whole channels of an N x C x H x W array."""
    import torch
    import torch.nn.functional as F

    tensor = torch.from_numpy(x)
    return Contender(
        "torch F.dropout2d",
        run=lambda: F.dropout2d(tensor, rate, training=True),
        check=lambda result: verify.check_rival(result.numpy(), x, 1 - rate, shared_axes=(2, 3)),
        calls="torch.nn.functional.dropout2d",
    )


def keras_dropout(x, rate):
    """Keras on its NumPy backend, which has to be chosen before the first import."""
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    return _keras_dropout(x, rate)


@needs("keras", "Keras, NumPy backend")
def _keras_dropout(x, rate):
    import keras

    name = "Keras, NumPy backend"
    if keras.backend.backend() != "numpy":
        return Skipped(name, f"Keras runs on its {keras.backend.backend()} backend here")
    seed = keras.random.SeedGenerator(1)
    return Contender(
        name,
        run=lambda: keras.random.dropout(x, rate, seed=seed),
        check=lambda result: verify.check_rival(result, x, 1 - rate),
        calls="keras.random.dropout",
    )


@needs("thinc", "thinc")
def thinc_dropout(x, rate):
    """thinc's layer, called as in training."""
    from thinc.api import Dropout

    layer = Dropout(rate)
    return Contender(
        "thinc",
        run=lambda: layer.begin_update(x),
        check=lambda result: verify.check_rival(result[0], x, 1 - rate),
        calls="thinc.model.Model.begin_update",
    )


def every_rival(x, rate, out):
    """Return all rivals that draw a mask of their own for every element."""
    return [
        numpy_expression(x, rate, out),
        numpy_raw_bytes(x, rate, out),
        numpy_raw_bytes_blocked(x, rate, out),
        numba_loop(x, rate, out),
        torch_functional(x, rate),
        torch_native(x, rate),
        keras_dropout(x, rate),
        thinc_dropout(x, rate),
    ]
