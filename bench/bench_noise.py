"""Noise: dropout by normal and uniform factors, forward and backward, beside NumPy and Keras."""

import functools

import numpy

import fastdrop

from . import verify
from .bench_dropout import normal
from .cases import SEED, Bar, Case, Contender
from .rivals import keras
from .rivals import numpy as plain

__all__ = ["CASES"]

RATE = 0.2
SIZES = (1 << 16, 1 << 20, 1 << 22, 1 << 24)
NAMES = {"normal": "fastdrop.gaussian_dropout", "uniform": "fastdrop.uniform_dropout"}


def _own(x, out, kind):
    stream = fastdrop.MaskStream(SEED)
    calls = {
        "normal": lambda: fastdrop.gaussian_dropout(x, RATE, rng=stream, out=out),
        "uniform": lambda: fastdrop.uniform_dropout(x, RATE, rng=stream, out=out),
    }

    def check(result):
        y, noise = result
        factor = 1 + noise.to_array()
        verify.require((y == x * factor).all(), "y is not x times its noise")
        verify.require(noise.kind == kind, f"the noise is {noise.kind}")
        verify.require(noise.draw == stream.position - 1, "the draw is not the stream's")

    return Contender("fastdrop", calls[kind], check, calls=NAMES[kind])


def _own_backward(x, out):
    grad = normal(x.size)
    _, noise = fastdrop.gaussian_dropout(x, RATE, rng=fastdrop.MaskStream(SEED))

    def check(result):
        right = grad * (1 + noise.to_array())
        verify.require(numpy.array_equal(result, right), "not the gradient under the noise")

    return Contender(
        "fastdrop",
        lambda: fastdrop.noise_backward(grad, noise, out=out),
        check,
        calls="fastdrop.noise_backward",
    )


def _forward(n, *, kind):
    x = normal(n)
    out = numpy.zeros_like(x)
    made = [_own(x, out, kind), plain.copyto(x, out)]
    if kind == "normal":
        made += [plain.normal_factors(x, RATE, out), keras.gaussian_dropout(x, RATE)]
    else:
        made.append(plain.uniform_factors(x, RATE, out))
    return made


def _backward(n):
    x = normal(n)
    out = numpy.zeros_like(x)
    return [_own_backward(x, out), plain.copyto(x, out)]


def _cases():
    for size in SIZES:
        bars = []
        if size >= 1 << 20:
            bars = [
                Bar("NumPy normal numbers", times_faster=5, threads=1),
                Bar("Keras", times_faster=5, threads=1),
            ]
        yield Case(
            "normal",
            size,
            functools.partial(_forward, kind="normal"),
            calls="fastdrop.gaussian_dropout",
            bars=bars,
        )
    yield Case(
        "uniform",
        1 << 22,
        functools.partial(_forward, kind="uniform"),
        calls="fastdrop.uniform_dropout",
    )
    yield Case("backward", 1 << 22, _backward, calls="fastdrop.noise_backward")


CASES = list(_cases())
