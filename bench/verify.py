"""How a benchmark knows that a result is right, before it times anything.

fastdrop's masks are compared bit for bit with `fastdrop.reference` (in three windows where the
mask is large), and its arrays bit for bit with what the mask says. A rival's array must be the
input, scaled, where it is not zero, and as much of it must be zero as the rate says, within six
standard deviations.
"""

import math

import numpy

__all__ = [
    "WrongResult",
    "check_copy",
    "check_factors",
    "check_forward",
    "check_mask",
    "check_masked",
    "check_rival",
    "check_share",
    "require",
]

# Masks of more elements are compared with the reference in three windows of about this size.
WINDOW = 1 << 16

# Elements handled at a time, so that checking 2^26 of them needs little memory.
CHUNK = 1 << 20


class WrongResult(Exception):
    """A contender did not compute what it is said to."""


def require(condition, message):
    """Raise `WrongResult` unless the condition holds."""
    if not condition:
        raise WrongResult(message)


def _chunks(n):
    return (slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK))


def _same_bits(a, b):
    """Whether two float arrays agree bit for bit, so that -0.0 is not +0.0."""
    unsigned = f"u{a.dtype.itemsize}"
    return a.dtype == b.dtype and numpy.array_equal(a.view(unsigned), b.view(unsigned))


def check_copy(result, x):
    """Require that `result` is a copy of `x`."""
    same = result is not x and result.shape == x.shape
    require(same and _same_bits(result.ravel(), x.ravel()), "the copy differs from its source")


def check_share(kept, n, keep_prob):
    """Require that `kept` of `n` elements are as many as the probability says, within 6 sigma."""
    slack = 6 * math.sqrt(n * keep_prob * (1 - keep_prob)) + 1
    require(
        abs(kept - n * keep_prob) <= slack,
        f"{kept} of {n} elements are kept, at a keep probability of {keep_prob:g}",
    )


def check_rival(y, x, keep_prob, *, scale=None, shared_axes=()):
    """Require that `y` is `x` with dropout: zeros, and the rest scaled, in the right share.

    Parameters
    ----------
    y, x : numpy.ndarray
    keep_prob : float
        The probability that `y` is made with: the rival's own where it has to round.
    scale : float, optional
        Factor on kept values, ``1 / keep_prob`` if not given.
    shared_axes : int or tuple of int
        Axes along which one mask is shared.
    """
    scale = 1 / keep_prob if scale is None else scale
    require(y.shape == x.shape and y.dtype == x.dtype, "the result has another shape or dtype")
    flat_x, flat_y = x.ravel(), y.ravel()
    kept = 0
    for part in _chunks(x.size):
        is_kept = flat_y[part] != 0
        expected = numpy.where(is_kept, flat_x[part] * x.dtype.type(scale), 0)
        close = numpy.allclose(flat_y[part], expected, rtol=1e-5, atol=0)
        require(close, "a kept element is not the scaled input")
        kept += numpy.count_nonzero(is_kept)
    if shared_axes == ():
        check_share(kept, x.size, keep_prob)
        return
    pattern = y != 0
    one = pattern.any(axis=shared_axes, keepdims=True)
    require(numpy.array_equal(pattern, one & numpy.ones_like(pattern)), "the mask is not shared")
    check_share(numpy.count_nonzero(one), one.size, keep_prob)


def check_factors(y, x, rate):
    """Require that y is x times factors of mean 1 and variance ``rate / (1 - rate)``, to 6 sigma.

    The fourth moment is at most that of normal numbers.
    """
    require(y.shape == x.shape and y is not x, "the result has another shape")
    factors = numpy.asarray(y, numpy.float64) / x
    variance, n = rate / (1 - rate), x.size
    distance = abs(factors.mean() - 1)
    require(distance <= 6 * math.sqrt(variance / n), f"the factors' mean is off by {distance:.2g}")
    distance = abs(factors.var() - variance)
    slack = 6 * variance * math.sqrt(2 / n) + variance / n
    require(distance <= slack, f"the factors' variance is off by {distance:.2g}")


def _reference_bits(seed, draw, shape, keep_prob, exact_count, starts, stops):
    """Return what the reference says of a window of a mask, unpacked."""
    from fastdrop import reference

    key = [int(word) for word in numpy.random.SeedSequence(seed).generate_state(2, numpy.uint32)]
    n = math.prod(stop - start for start, stop in zip(starts, stops, strict=True))
    bits = numpy.zeros(-(-n // 8), numpy.uint8)
    if exact_count:
        keep = reference.exact_keep_count(keep_prob, shape[-1])
        reference.draw_exact_count(*key, draw, keep, shape, starts, stops, bits)
    else:
        threshold = reference.bernoulli_threshold(keep_prob)
        reference.draw_bernoulli(*key, draw, threshold, shape, starts, stops, bits)
    return numpy.unpackbits(bits, count=n, bitorder="little").view(bool)


def check_mask(mask, shape, *, seed, draw, keep_prob, exact_count=False):
    """Require that a `fastdrop.Mask` has the reference's bits for this seed, draw and shape."""
    n = math.prod(shape)
    require(tuple(mask.shape) == tuple(shape), f"the mask has shape {mask.shape}, not {shape}")
    require(mask.bits.nbytes == -(-n // 8), f"the mask has {mask.bits.nbytes} bytes for {n} bits")
    row = math.prod(shape[1:])
    rows = min(shape[0], max(1, WINDOW // max(row, 1)))
    for first in sorted({0, (shape[0] - rows) // 2, shape[0] - rows}):
        start, stop = first * row, (first + rows) * row
        starts = (first,) + (0,) * (len(shape) - 1)
        stops = (first + rows, *shape[1:])
        expected = _reference_bits(seed, draw, shape, keep_prob, exact_count, starts, stops)
        window = mask.bits[start // 8 : -(-stop // 8)]
        found = numpy.unpackbits(window, bitorder="little")[start % 8 :][: stop - start]
        require(numpy.array_equal(found, expected), f"the mask's bits {start}:{stop} are wrong")
    if not exact_count:
        kept = sum(int(numpy.bitwise_count(mask.bits[part]).sum()) for part in _chunks(-(-n // 8)))
        check_share(kept, n, keep_prob)


def check_masked(y, x, bits, mask_shape, scale, *, rows_per_mask=1):
    """Require bit for bit that `y` is ``x * scale`` where the mask is set and +0.0 elsewhere.

    Parameters
    ----------
    y, x : numpy.ndarray
    bits : numpy.ndarray of uint8
        Packed mask.
    mask_shape : tuple of int
        The mask's own shape: x's, with 1 along shared axes and fewer rows where rows share.
    scale : float
    rows_per_mask : int
        Consecutive rows that share a row of the mask.
    """
    require(y.shape == x.shape and y.dtype == x.dtype, "the result has another shape or dtype")
    factor = x.dtype.type(scale)
    zero = x.dtype.type(0)
    if mask_shape == x.shape:
        flat_x, flat_y = x.ravel(), y.ravel()
        parts = ((flat_x[part], flat_y[part], part.start, part.stop) for part in _chunks(x.size))
        for source, found, start, stop in parts:
            kept = numpy.unpackbits(bits[start // 8 : -(-stop // 8)], bitorder="little")
            expected = numpy.where(kept[: stop - start], source * factor, zero)
            require(_same_bits(found, expected), f"elements {start}:{stop} do not follow the mask")
        return
    mask = numpy.unpackbits(bits, count=math.prod(mask_shape), bitorder="little")
    mask = mask.reshape(mask_shape)
    rows = max(1, CHUNK // max(1, math.prod(x.shape[1:])))
    for first in range(0, x.shape[0], rows):
        part = slice(first, min(first + rows, x.shape[0]))
        of_row = numpy.arange(part.start, part.stop) // rows_per_mask
        kept = mask if mask_shape[0] == 1 else mask[of_row]
        expected = numpy.where(kept, x[part] * factor, zero)
        require(_same_bits(y[part], expected), f"rows from {first} on do not follow the mask")


def check_forward(
    result, x, stream, *, seed, rate, shared_axes=(), rows_per_mask=1, exact_count=False
):
    """Require that ``fastdrop.dropout(x, rate, rng=stream, ...)`` gave this result, just now.

    Parameters
    ----------
    result : tuple
        The array and its mask.
    x : numpy.ndarray
    stream : fastdrop.MaskStream or None
        The stream used, whose position has moved by one since. None where it is unknown: the
        mask is then checked for its share only.
    seed : int
        The stream's seed.
    rate : float
    shared_axes, rows_per_mask, exact_count
        As in `fastdrop.dropout`.
    """
    y, mask = result
    shape = list(x.shape)
    for axis in [shared_axes] if isinstance(shared_axes, int) else shared_axes:
        shape[axis] = 1
    if rows_per_mask == "batch":
        shape[0] = 1
    else:
        shape[0] = -(-shape[0] // rows_per_mask)
    shape = tuple(shape)
    keep_prob = 1.0 - rate
    scale = 1 / keep_prob
    if exact_count:
        from fastdrop import reference

        scale = shape[-1] / reference.exact_keep_count(keep_prob, shape[-1])
    if stream is None:
        bits = mask.bits
        check_share(int(numpy.bitwise_count(bits).sum()), math.prod(shape), keep_prob)
    else:
        draw = stream.position - 1
        check_mask(mask, shape, seed=seed, draw=draw, keep_prob=keep_prob, exact_count=exact_count)
    of_rows = 1 if rows_per_mask == "batch" else rows_per_mask
    check_masked(y, x, mask.bits, shape, scale, rows_per_mask=of_rows)
