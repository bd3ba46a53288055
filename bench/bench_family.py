"""The family of dropouts beside copying the bytes that they move, and beside torch and Keras."""

import functools

import numpy

import fastdrop
from fastdrop import reference

from . import verify
from .cases import SEED, Bar, Case, Contender
from .rivals import keras, torch_family
from .rivals import torch as torch_rivals

__all__ = ["CASES"]

SIZE = 1 << 22
RATES = (0.5, 0.2)
COPY = "np.copyto of its bytes"


def _normal(shape, seed=0):
    return numpy.random.default_rng(seed).standard_normal(shape, numpy.float32)


def _copy(n):
    """Copying that reads and writes 8 * n bytes."""
    x, out = _normal(n), numpy.zeros(n, numpy.float32)

    def run():
        numpy.copyto(out, x)
        return out

    return Contender(COPY, run, lambda y: verify.check_copy(y, x), "numpy.copyto")


def _own(run, calls, check):
    return Contender("fastdrop", run, lambda result: check(*result), f"fastdrop.{calls}")


def _place(x):
    """A stream, and an array for results."""
    return fastdrop.MaskStream(SEED), numpy.empty_like(x)


def _selected(x):
    def check(y, mask):
        expected = numpy.where(mask.to_array(), x * numpy.float32(mask.scale), 0)
        verify.require(numpy.array_equal(y, expected), "not what the mask keeps, scaled")

    return check


def _images(n):
    """Feature maps of 64 by 64 places and 64 channels, as far as n goes."""
    side = 64 if n >= 64**3 else 16
    return max(n // side**3, 1), side, side, side


def _channels(n, rate, data_format):
    x = _normal(_images(n))
    stream, out = _place(x)
    own = _own(
        lambda: fastdrop.dropout2d(x, rate, rng=stream, out=out, data_format=data_format),
        "dropout2d",
        _selected(x),
    )
    rival = keras.spatial_dropout(x, rate, data_format)
    return [own, _copy(x.size), torch_rivals.feature_dropout(x, rate), rival]


def _alpha(n, rate):
    x = _normal(n)
    stream, out = _place(x)

    def check(y, mask):
        expected = numpy.empty_like(x)
        constants = fastdrop.dropouts.alpha.alpha_constants(1 - rate)
        reference.apply_affine(x, mask.bits, x.shape, 1, *constants, expected)
        verify.require(numpy.array_equal(y, expected), "not the reference's result")

    own = _own(lambda: fastdrop.alpha_dropout(x, rate, rng=stream, out=out), "alpha_dropout", check)
    return [own, _copy(n), torch_family.alpha(x, rate), keras.alpha_dropout(x, rate)]


def _blocks(n, rate):
    x = 1 + _normal(_images(n))
    stream, out = _place(x)
    own = _own(
        lambda: fastdrop.dropblock2d(x, rate, 7, rng=stream, out=out), "dropblock2d", _selected(x)
    )
    return [own, _copy(x.size), torch_family.dropblock(x, rate, 7)]


def _depth(n, rate):
    x = _normal((64, n // 64))
    stream, out = _place(x)
    own = _own(
        lambda: fastdrop.stochastic_depth(x, rate, rng=stream, out=out),
        "stochastic_depth",
        _selected(x),
    )
    return [own, _copy(x.size)]


def _residual(n, rate):
    """Forward and backward: three arrays and two."""
    shape = (n // 1024, 1024)
    x, residual, grad = _normal(shape), _normal(shape, 1), _normal(shape, 2)
    bias, stream = _normal(1024, 3), fastdrop.MaskStream(SEED)
    y, grad_x = numpy.empty_like(x), numpy.empty_like(x)

    def run():
        _, mask = fastdrop.bias_dropout_residual(x, residual, bias, rate, rng=stream, out=y)
        return fastdrop.bias_dropout_residual_backward(grad, mask, out=grad_x)[1], mask

    def check(result):
        sums, mask = result
        kept, scale = mask.to_array(), numpy.float32(mask.scale)
        expected = residual + numpy.where(kept, (x + bias) * scale, 0)
        verify.require(numpy.array_equal(y, expected), "not residual + dropout(x + bias)")
        expected = numpy.where(kept, grad * scale, 0)
        verify.require(numpy.array_equal(grad_x, expected), "not the gradient")
        exact = expected.sum(axis=0, dtype=float)
        verify.require(numpy.allclose(sums, exact, rtol=1e-5, atol=1e-2), "not the sums")

    own = Contender("fastdrop", run, check, "fastdrop.bias_dropout_residual")
    rival = torch_family.residual(x, bias, residual, grad, rate)
    return [own, _copy(x.size * 5 // 2), rival]


def _softmax(shape, rate):
    """Forward and backward."""
    x, grad, stream = _normal(shape), _normal(shape, 1), fastdrop.MaskStream(SEED)
    out, grad_x = numpy.empty_like(x), numpy.empty_like(x)

    def run():
        y, mask, p = fastdrop.softmax_dropout(x, rate, rng=stream, out=out)
        return y, mask, p, fastdrop.softmax_dropout_backward(grad, p, mask, out=grad_x)

    def check(result):
        y, mask, p, gradient = result
        powers = numpy.exp(x.astype(float) - x.max(axis=-1, keepdims=True))
        exact = powers / powers.sum(axis=-1, keepdims=True)
        verify.require(numpy.allclose(p, exact, rtol=1e-5, atol=0), "not the softmax")
        kept = mask.to_array()
        verify.require(numpy.allclose(y, numpy.where(kept, exact * mask.scale, 0)), "not dropped")
        inner = numpy.where(kept, grad * mask.scale, 0)
        inner = exact * (inner - (inner * exact).sum(axis=-1, keepdims=True))
        verify.require(numpy.allclose(gradient, inner, rtol=0, atol=1e-5), "not the gradient")

    own = Contender("fastdrop", run, check, "fastdrop.softmax_dropout")
    return [own, torch_family.softmax(x, grad, rate)]


ALL_WEIGHTS = "np.matmul, all weights"


def _connected(shape, rate):
    """A product of masked weights: with a mask that is there, and with one that is drawn."""
    rows, units_in, units_out = shape
    x, w = _normal((rows, units_in)), _normal((units_in, units_out), 1)
    stream, out = fastdrop.MaskStream(SEED), numpy.empty((rows, units_out), numpy.float32)
    mask = stream.draw(w.shape, rate=rate)
    kept, masked = mask.to_array(numpy.float32) * numpy.float32(mask.scale), numpy.empty_like(w)

    def check(y, used=mask):
        exact = x.astype(float) @ numpy.where(used.to_array(), w * float(used.scale), 0)
        verify.require(numpy.allclose(y, exact, rtol=0, atol=1e-2), "not the masked product")

    def dense(y):
        verify.require(numpy.allclose(y, x.astype(float) @ w, rtol=0, atol=1e-2), "not x @ w")

    def copied():
        numpy.multiply(w, kept, out=masked)
        return numpy.matmul(x, masked, out=out)

    return [
        Contender(
            "fastdrop",
            lambda: fastdrop.dropconnect(x, w, mask=mask, out=out),
            lambda result: check(*result),
            "fastdrop.dropconnect",
        ),
        Contender(
            "fastdrop, and draws the mask",
            lambda: fastdrop.dropconnect(x, w, rate, rng=stream, out=out),
            lambda result: check(*result),
            "fastdrop.dropconnect",
        ),
        Contender(ALL_WEIGHTS, lambda: numpy.matmul(x, w, out=out), dense, "numpy.matmul"),
        Contender("np.matmul(x, w * mask)", copied, check, "numpy.matmul"),
        torch_family.dropconnect(x, w, rate),
    ]


def _bars(rivals, copy=1.6):
    bars = [Bar(COPY, at_most=copy, threads=1)]
    return bars + [Bar(one, times_faster=10, threads=1) for one in rivals]


def _cases():
    kinds = [
        ("channels first", functools.partial(_channels, data_format="channels_first"), "dropout2d"),
        ("channels last", functools.partial(_channels, data_format="channels_last"), "dropout2d"),
        ("alpha", _alpha, "alpha_dropout"),
        ("blocks", _blocks, "dropblock2d"),
        ("depth", _depth, "stochastic_depth"),
        ("residual", _residual, "bias_dropout_residual"),
    ]
    rivals = {
        "channels first": ("Keras",),
        "channels last": ("Keras",),
        "alpha": ("torch F.alpha_dropout", "Keras"),
        "blocks": ("torch, as torchvision's drop_block2d",),
        "residual": ("torch residual + F.dropout(x + bias)",),
    }
    for name, build, function in kinds:
        for rate in RATES:
            yield Case(
                f"{name}/{rate}",
                SIZE,
                functools.partial(build, rate=rate),
                calls=f"fastdrop.{function}",
                bars=_bars(rivals.get(name, ())),
                usual_threads=(1,),
                extended=rate == 0.2,
            )
    yield Case(
        "dropconnect/0.5",
        (128, 1024, 1024),
        functools.partial(_connected, rate=0.5),
        calls="fastdrop.dropconnect",
        bars=[Bar(ALL_WEIGHTS, at_most=1.25)],
        usual_threads=(1, 2),
    )
    yield Case(
        "softmax/0.1",
        (64, 128, 128),
        functools.partial(_softmax, rate=0.1),
        calls="fastdrop.softmax_dropout",
        bars=[Bar("torch softmax, dropout", times_faster=3)],
        usual_threads=(1, 2),
    )


CASES = list(_cases())
