"""Drawing the bits of a mask, without applying them."""

import functools

import fastdrop

from . import verify
from .cases import RATES, SEED, Bar, Case, Contender
from .rivals import numpy as plain

__all__ = ["CASES"]

SIZES = (1 << 10, 1 << 16, 1 << 20, 1 << 24)


def _bits(n, *, rate):
    keep_prob = 1.0 - rate

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

    return [
        own("fastdrop", None),
        own("fastdrop, AVX2 forced", "avx2"),
        plain.random_below(n, rate),
        plain.random_bytes(n, rate),
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
                usual_threads=(1,),
                extended=rate == 0.1 or size == 1 << 16,
            )


CASES = list(_cases())
