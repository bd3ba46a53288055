"""Dropout forward and backward, shared masks, exact counts, small calls, two threads."""

import functools

import numpy

import fastdrop

from . import environment, verify
from .cases import RATES, SEED, Bar, Case, Contender, Skipped
from .controls import available_cpus
from .rivals import jax, keras, numba, thinc, torch
from .rivals import numpy as plain

__all__ = ["CASES", "normal", "own_forward"]

SIZES = tuple(1 << k for k in range(10, 27, 2))
# Only the bound takes part at the other sizes: some rivals need seconds there.
SIZES_OF_RIVALS = (1 << 10, 1 << 16, 1 << 20, 1 << 24)
LARGEST = SIZES[-1]
USUAL_RATES = (0.5, 0.2)
ONE = {"usual_threads": (1,)}


def normal(shape, dtype=numpy.float32):
    """Return normal numbers, none of them zero."""
    x = numpy.random.default_rng(SEED).standard_normal(shape, dtype=numpy.float32)
    x[x == 0] = 1
    return x.astype(dtype, copy=False)


def _rows(n):
    """Return a shape of n elements as rows of units."""
    units = 1024 if n >= 1 << 16 else 32
    return (n // units, units)


def _images(n):
    """Return a shape of n elements as N x C x H x W."""
    channels, side = (64, 16) if n >= 1 << 16 else (8, 4)
    return (n // (channels * side * side), channels, side, side)


def own_forward(x, rate, out, *, name="fastdrop", threads=None, isa=None, **options):
    """Return fastdrop's contender for dropout of x, into out or if that is None a new array."""
    stream = fastdrop.MaskStream(SEED)
    return Contender(
        name,
        run=lambda: fastdrop.dropout(x, rate, rng=stream, out=out, **options),
        check=lambda result: verify.check_forward(
            result, x, stream, seed=SEED, rate=rate, **options
        ),
        calls="fastdrop.dropout",
        threads=threads,
        isa=isa,
    )


# --- Forward -----------------------------------------------------------------------------------


def _forward_out(n, *, rate, with_rivals, dtype=numpy.float32):
    x = normal(n, dtype)
    out = numpy.zeros_like(x)
    made = [own_forward(x, rate, out), plain.copyto(x, out)]
    return made + (_every_rival(x, rate, out) if with_rivals else [])


def _every_rival(x, rate, out):
    """Return all that draw a mask of their own for every element."""
    return [
        plain.expression(x, rate, out),
        plain.raw_bytes(x, rate, out),
        plain.raw_bytes_blocked(x, rate, out),
        numba.loop(x, rate, out),
        numba.hashed_loop(x, rate, out),
        torch.functional_dropout(x, rate),
        torch.native_dropout(x, rate),
        torch.compiled_dropout(x, rate),
        jax.dropout(x, rate),
        keras.dropout(x, rate),
        thinc.dropout(x, rate),
    ]


def _forward_new(n, *, rate):
    x = normal(n)
    return [own_forward(x, rate, None), plain.copy(x), plain.expression(x, rate)]


def _copyto_limit(size, rate):
    """Return how long dropout may take beside np.copyto, on the two makers' server cores."""
    even = rate == 0.5
    if environment.is_intel():
        if size >= 1 << 24:
            return 1.05 if even else 1.5
        return 1.5 if even else 2.9
    if size == LARGEST:
        return 0.75 if even else 1.1
    return 2.2 if even else 4


def _forward_out_bars(size, rate, with_rivals=False):
    if size < 1 << 16:
        return []
    bars = [Bar("copyto", at_most=_copyto_limit(size, rate), threads=1)]
    if size == 1 << 24 and with_rivals:
        torch = ("torch F.dropout", "torch native_dropout", "torch F.dropout, compiled")
        bars += [
            Bar("NumPy expression", times_faster=10, threads=1),
            Bar("NumPy raw bytes", times_faster=4, threads=1),
            Bar(torch, times_faster=20 if environment.is_intel() else 40, threads=1),
        ]
    return bars


def _forward_cases():
    for rate in RATES:
        for size in SIZES:
            yield Case(
                f"forward-out/{rate}",
                size,
                functools.partial(_forward_out, rate=rate, with_rivals=size in SIZES_OF_RIVALS),
                calls="fastdrop.dropout",
                bars=_forward_out_bars(size, rate, with_rivals=True),
                extended=rate not in USUAL_RATES or size in (1 << 10, 1 << 12, 1 << 14),
                **ONE,
            )
        for size in (1 << 20, 1 << 24, LARGEST):
            yield Case(
                f"forward/{rate}",
                size,
                functools.partial(_forward_new, rate=rate),
                calls="fastdrop.dropout",
                bars=[Bar("copy", at_most=1.1 if size == 1 << 24 else 1.15, threads=1)],
                extended=rate not in USUAL_RATES,
                **ONE,
            )
    for dtype in ("float64", "float16"):
        yield Case(
            f"forward-out-{dtype}/0.5",
            1 << 20,
            functools.partial(_forward_out, rate=0.5, with_rivals=False, dtype=dtype),
            calls="fastdrop.dropout",
            **ONE,
        )


# --- Masks that rows, groups of rows or pixels share, exact counts -----------------------------


def _shared(n, *, rate, kind):
    if kind == "channel":
        x, options = normal(_images(n)), {"shared_axes": (2, 3)}
        mask_shape = (*x.shape[:2], 1, 1)
    else:
        x, options = normal(_rows(n)), {"rows_per_mask": "batch" if kind == "unit" else 32}
        mask_shape = (1, x.shape[1])
    out = numpy.zeros_like(x)
    made = [own_forward(x, rate, out, **options), plain.copyto(x, out)]
    if kind == "channel":
        made.append(torch.feature_dropout(x, rate))
    if kind != "group":
        made.append(plain.expression(x, rate, out, mask_shape))
    return made


def _exact_count(n, *, rate):
    x = normal(_rows(n))
    out = numpy.zeros_like(x)
    return [
        own_forward(x, rate, out, exact_count=True),
        plain.copyto(x, out),
        plain.argpartition(x, rate, out),
    ]


def _shared_cases():
    for rate in (0.5, 0.2):
        for kind in ("unit", "group", "channel"):
            for size in (1 << 20, LARGEST):
                yield Case(
                    f"{kind}-mask/{rate}",
                    size,
                    functools.partial(_shared, rate=rate, kind=kind),
                    calls="fastdrop.dropout",
                    bars=_forward_out_bars(size, rate),
                    extended=(rate, size) != (0.5, 1 << 20),
                    **ONE,
                )
        for size in (1 << 16, 1 << 20):
            yield Case(
                f"exact-count/{rate}",
                size,
                functools.partial(_exact_count, rate=rate),
                calls="fastdrop.dropout",
                extended=(rate, size) != (0.5, 1 << 20),
                **ONE,
            )


# --- Backward, and a given mask ----------------------------------------------------------------


def _given_mask(n, *, rate, backward):
    x = normal(n)
    out = numpy.zeros_like(x)
    stream = fastdrop.MaskStream(SEED)
    mask = stream.draw(x.shape, rate=rate)
    kept = mask.to_array(dtype=bool)
    scale = numpy.float32(mask.scale)
    factors = numpy.where(kept, scale, numpy.float32(0))

    def check_own(result):
        verify.check_mask(mask, x.shape, seed=SEED, draw=0, keep_prob=1 - rate)
        verify.check_masked(result, x, mask.bits, x.shape, 1 / (1 - rate))

    def check(result):
        # A product of a negative number and 0 is -0.0, which adding 0 turns into +0.0.
        verify.check_masked(result + numpy.float32(0), x, mask.bits, x.shape, scale)

    if backward:
        run, calls = (lambda: fastdrop.dropout_backward(x, mask, out=out)), "dropout_backward"
    else:
        run, calls = (lambda: fastdrop.apply_mask(x, mask, out=out)), "apply_mask"
    return [
        Contender("fastdrop", run, check_own, f"fastdrop.{calls}"),
        plain.copyto(x, out),
        plain.byte_mask(x, kept, scale, out, check),
        plain.float_mask(x, factors, out, check),
        torch.dropout_backward(x, kept, scale, check),
    ]


def _given_mask_cases():
    limits = {LARGEST: 0.75, 1 << 20: 1.6}
    if environment.is_intel():
        limits = dict.fromkeys((1 << 20, 1 << 22, 1 << 24, LARGEST), 1.05)
    for rate, sizes in ((0.5, SIZES), (0.2, (1 << 20, LARGEST))):
        for size in sizes:
            bars = [Bar("NumPy byte mask", at_most=1)]
            if size in limits:
                bars.append(Bar("copyto", at_most=limits[size]))
            yield Case(
                f"backward/{rate}",
                size,
                functools.partial(_given_mask, rate=rate, backward=True),
                calls="fastdrop.dropout_backward",
                bars=bars,
                extended=size < 1 << 16,
                **ONE,
            )
    for size in SIZES_OF_RIVALS:
        yield Case(
            "apply/0.5",
            size,
            functools.partial(_given_mask, rate=0.5, backward=False),
            calls="fastdrop.apply_mask",
            extended=size != 1 << 20,
            **ONE,
        )


# --- Small calls, two threads ------------------------------------------------------------------


def _small_call(n, *, with_stream):
    x = normal(n)
    if with_stream:
        own = own_forward(x, 0.5, None)
    else:
        own = Contender(
            "fastdrop",
            run=lambda: fastdrop.dropout(x, 0.5, rng=None),
            check=lambda result: verify.check_forward(result, x, None, seed=None, rate=0.5),
            calls="fastdrop.dropout",
        )
    return [own, plain.expression(x, 0.5), torch.functional_dropout(x, 0.5)]


def _two_threads(n, *, rate):
    x = normal(n)
    out = numpy.zeros_like(x)
    two, one = "fastdrop, 2 threads", "fastdrop, 1 thread"
    if available_cpus() < 2:
        first = Skipped(two, "this process may use one processor only")
    else:
        first = own_forward(x, rate, out, name=two, threads=2)
    return [first, own_forward(x, rate, out, name=one, threads=1), plain.copyto(x, out)]


def _call_cases():
    for kind, with_stream in (("stream", True), ("none", False)):
        yield Case(
            f"small-call/rng-{kind}",
            1 << 10,
            functools.partial(_small_call, with_stream=with_stream),
            calls="fastdrop.dropout",
            bars=[Bar(at_most=3e-6), Bar("NumPy expression", at_most=0.35)],
            **ONE,
        )
    for rate in RATES:
        yield Case(
            f"two-threads/{rate}",
            1 << 22,
            functools.partial(_two_threads, rate=rate),
            calls="fastdrop.dropout",
            bars=[Bar("fastdrop, 1 thread", times_faster=1.6, contender="fastdrop, 2 threads")],
            threads=(2,),
            extended=rate not in USUAL_RATES,
        )


CASES = [
    *_forward_cases(),
    *_shared_cases(),
    *_given_mask_cases(),
    *_call_cases(),
]
