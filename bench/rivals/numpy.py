"""NumPy: what a careful user writes for dropout, its mask, its gradient, and an update."""

import math

import numpy

from fastdrop.aligned import aligned_zeros

from .. import verify
from ..cases import SEED, Contender
from ..work import update as work

__all__ = [
    "ROUNDED_TO",
    "argpartition",
    "byte_mask",
    "copy",
    "copyto",
    "expression",
    "float_mask",
    "normal_factors",
    "random_below",
    "random_bytes",
    "raw_bytes",
    "raw_bytes_blocked",
    "uniform_factors",
    "update",
]

# The raw-bytes trick has 8-bit rates.
ROUNDED_TO = 256

# Bytes of random bits that the blocked form of that trick makes at a time.
BLOCK = 1 << 15


# --- Dropout -----------------------------------------------------------------------------------


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


def expression(x, rate, out=None, mask_shape=None):
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


def raw_bytes(x, rate, out):
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


def raw_bytes_blocked(x, rate, out):
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


def argpartition(x, rate, out):
    """Keep the exact count of each row: those whose random numbers are smallest."""
    keep = math.floor((1 - rate) * x.shape[1] + 0.5 + 1e-6)
    generator = numpy.random.default_rng(SEED)
    scale = numpy.float32(x.shape[1] / keep)

    def run():
        order = generator.random(x.shape, dtype=numpy.float32).argpartition(keep - 1, axis=1)
        kept = numpy.zeros(x.shape, bool)
        numpy.put_along_axis(kept, order[:, :keep], True, axis=1)
        numpy.multiply(x, kept, out=out)
        return numpy.multiply(out, scale, out=out)

    def check(result):
        verify.check_rival(result, x, keep / x.shape[1])
        counts = numpy.count_nonzero(result, axis=1)
        verify.require((counts == keep).all(), "a row does not keep the exact count")

    return Contender("NumPy argpartition", run, check, "numpy.ndarray.argpartition")


# --- A mask alone, and a mask that is there ----------------------------------------------------


def random_below(n, rate):
    """Compare uniform float32 numbers with the keep probability."""
    generator = numpy.random.default_rng(SEED)
    keep_prob = 1.0 - rate
    return Contender(
        "NumPy random < q",
        lambda: generator.random(n, dtype=numpy.float32) < keep_prob,
        _byte_mask_check(n, keep_prob),
        calls="numpy.random.Generator.random",
    )


def random_bytes(n, rate):
    """Compare the bytes of SFC64's raw words with an 8-bit rate."""
    source = numpy.random.SFC64(SEED)
    dropped = round(rate * ROUNDED_TO)
    return Contender(
        "NumPy raw bytes",
        lambda: source.random_raw(-(-n // 8)).view(numpy.uint8)[:n] >= dropped,
        _byte_mask_check(n, 1 - dropped / ROUNDED_TO),
        calls="numpy.random.SFC64.random_raw",
    )


def _byte_mask_check(n, probability):
    def check(kept):
        verify.require(kept.shape == (n,) and kept.dtype == bool, "this is not a byte mask")
        verify.check_share(int(numpy.count_nonzero(kept)), n, probability)

    return check


def normal_factors(x, rate, out):
    """Multiply by normal numbers of mean 1, made in place in the result's memory."""
    std = x.dtype.type((rate / (1 - rate)) ** 0.5)
    generator = numpy.random.default_rng(1)
    state = generator.bit_generator.state

    def run(generator=generator, out=out):
        nonlocal state
        state = generator.bit_generator.state
        generator.standard_normal(dtype=numpy.float32, out=out)
        numpy.multiply(out, std, out=out)
        numpy.add(out, 1, out=out)
        return numpy.multiply(x, out, out=out)

    def check(result):
        again = numpy.random.default_rng(1)
        again.bit_generator.state = state
        same = numpy.array_equal(result, run(again, numpy.empty_like(x)))
        verify.require(same, "y is not x times its factors")
        verify.check_factors(result, x, rate)

    return Contender(
        "NumPy normal numbers", run, check, calls="numpy.random.Generator.standard_normal"
    )


def uniform_factors(x, rate, out):
    """Multiply by uniform numbers of mean 1, made in place in the result's memory."""
    width = x.dtype.type(2 * (3 * rate / (1 - rate)) ** 0.5)
    generator = numpy.random.default_rng(1)
    state = generator.bit_generator.state

    def run(generator=generator, out=out):
        nonlocal state
        state = generator.bit_generator.state
        generator.random(dtype=numpy.float32, out=out)
        numpy.multiply(out, width, out=out)
        numpy.add(out, 1 - width / 2, out=out)
        return numpy.multiply(x, out, out=out)

    def check(result):
        again = numpy.random.default_rng(1)
        again.bit_generator.state = state
        same = numpy.array_equal(result, run(again, numpy.empty_like(x)))
        verify.require(same, "y is not x times its factors")
        verify.check_factors(result, x, rate)

    return Contender("NumPy uniform numbers", run, check, calls="numpy.random.Generator.random")


def byte_mask(x, kept, scale, out, check):
    """Multiply by a mask of bytes that is there, then scale."""

    def run():
        numpy.multiply(x, kept, out=out)
        return numpy.multiply(out, scale, out=out)

    return Contender("NumPy byte mask", run, check, "numpy.multiply")


def float_mask(x, factors, out, check):
    """Multiply by a mask of scaled floats that is there, which takes 32 times the memory."""
    return Contender(
        "NumPy float mask",
        lambda: numpy.multiply(x, factors, out=out),
        check,
        "numpy.multiply",
    )


# --- The update of all weights -----------------------------------------------------------------


def update(size, rule):
    """Every operation writes to an array that is there, one pass through memory each."""
    w, g = work.arrays(size)
    u, v, some = (aligned_zeros(size, numpy.float32) for _ in range(3))
    steps = 0

    def sgd():
        numpy.multiply(u, work.MOMENTUM, out=u)
        numpy.add(u, g, out=u)
        numpy.multiply(u, work.RATE, out=some)

    def adam():
        numpy.multiply(u, work.BETA1, out=u)
        numpy.multiply(g, 1 - work.BETA1, out=some)
        numpy.add(u, some, out=u)
        numpy.multiply(v, work.BETA2, out=v)
        numpy.multiply(g, g, out=some)
        numpy.multiply(some, 1 - work.BETA2, out=some)
        numpy.add(v, some, out=v)
        numpy.sqrt(v, out=some)
        numpy.multiply(some, 1 / math.sqrt(1 - work.BETA2**steps), out=some)
        numpy.add(some, work.EPSILON, out=some)
        numpy.divide(u, some, out=some)
        numpy.multiply(some, work.RATE / (1 - work.BETA1**steps), out=some)

    update = adam if rule == "adam" else sgd

    def run():
        nonlocal steps
        steps += 1
        update()
        return numpy.subtract(w, some, out=w)

    def check(result):
        verify.require(numpy.array_equal(result, w), "the result is not the weights")
        before, moments, number = w.copy(), [u.astype(float), v.astype(float)], steps + 1
        run()
        expected = before - work.step(rule, g.astype(float), moments, number)
        close = numpy.allclose(w, expected, rtol=1e-5, atol=1e-6)
        verify.require(close, "the weights did not make the step")

    return Contender(
        "NumPy, in place", run, check, "numpy.subtract", note="everything is updated; one thread"
    )
