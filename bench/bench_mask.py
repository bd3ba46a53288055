"""Drawing the bits of a mask, without applying them."""

import functools

import numpy

import fastdrop

from . import rivals, verify
from .cases import RATES, SEED, Bar, Case, Contender

__all__ = ["CASES"]

SIZES = (1 << 10, 1 << 16, 1 << 20, 1 << 24)


def _bits(n, *, rate):
    keep_prob = 1.0 - rate
    generator, source = numpy.random.default_rng(SEED), numpy.random.SFC64(SEED)
    dropped = round(rate * rivals.ROUNDED_TO)

    def own(name, isa):
        stream = fastdrop.MaskStream(SEED)

        def check(mask):
            draw = stream.position - 1
            verify.check_mask(mask, (n,), seed=SEED, draw=draw, keep_prob=keep_prob)

        return Contender(
            name,
            lambda: stream.draw((n,), rate=rate),
            check,
            calls="fastdrop.MaskStream.draw",
            isa=isa,
        )

    def check_bytes(probability):
        def check(kept):
            verify.require(kept.shape == (n,) and kept.dtype == bool, "this is not a byte mask")
            verify.check_share(int(numpy.count_nonzero(kept)), n, probability)

        return check

    return [
        own("fastdrop", None),
        own("fastdrop, AVX2 forced", "avx2"),
        Contender(
            "NumPy random < q",
            lambda: generator.random(n, dtype=numpy.float32) < keep_prob,
            check_bytes(keep_prob),
            calls="numpy.random.Generator.random",
        ),
        Contender(
            "NumPy raw bytes",
            lambda: source.random_raw(-(-n // 8)).view(numpy.uint8)[:n] >= dropped,
            check_bytes(1 - dropped / rivals.ROUNDED_TO),
            calls="numpy.random.SFC64.random_raw",
        ),
    ]


def _cases():
    for rate in RATES:
        even = rate == 0.5
        for size in SIZES:
            bars = [
                Bar("NumPy random < q", at_most=0.05 if even else 0.12, threads=1),
                Bar(
                    "NumPy random < q",
                    at_most=0.05 if even else 0.3,
                    contender="fastdrop, AVX2 forced",
                    isa="avx2",
                    threads=1,
                ),
            ]
            yield Case(
                f"bits/{rate}",
                size,
                functools.partial(_bits, rate=rate),
                calls="fastdrop.MaskStream.draw",
                bars=bars if size == 1 << 24 else (),
            )


CASES = list(_cases())
