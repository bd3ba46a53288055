"""Drawing masks: the arithmetic of the mask stream, version 1, and the kernels that draw.

This is an independent implementation of ``docs/design/mask-stream.md``.

References
----------
.. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
   1, 2, 3", SC'11, section 3.3.
"""

import math
from collections.abc import Iterable

import numpy
from numpy.typing import ArrayLike

from fastdrop.reference.bits import Array, Shape, check_bits

__all__ = [
    "bernoulli_threshold",
    "digits",
    "draw_bernoulli",
    "draw_bernoulli_rows",
    "draw_exact_count",
    "exact_keep_count",
    "kept_bernoulli",
    "philox4x32",
    "uniforms",
    "window_elements",
]

ROUNDS = 10
DIGITS = 64

_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_WORD_MASK = 0xFFFFFFFF

# Elements handled at a time, a multiple of 8 so that every chunk starts on a whole byte. It keeps
# the temporaries in the cache and memory independent of the size of the mask.
_CHUNK = 1 << 15


# --- The stream's arithmetic -------------------------------------------------------------------


def philox4x32(counter: Iterable[ArrayLike], key: tuple[int, int]) -> Array:
    """Encrypt 128-bit counters with Philox4x32, ten rounds [1]_.

    Parameters
    ----------
    counter, key : sequence of four and of two array_like of int
        The words c0 to c3 and k0, k1, each below 2**32; they broadcast together.

    Returns
    -------
    numpy.ndarray of uint32, shape (4, ...)
        The four output words of every counter.

    Examples
    --------
    >>> [f"{int(word):08x}" for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    # Each 32-bit word lives in a 64-bit lane: a product of two words then fits in one lane.
    c0: Array
    c1: Array
    c2: Array
    c3: Array
    k0: Array
    k1: Array
    c0, c1, c2, c3 = (numpy.asarray(word, dtype=numpy.uint64) for word in counter)
    k0, k1 = (numpy.asarray(word, dtype=numpy.uint64) for word in key)
    for _ in range(ROUNDS):
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0 = (product_1 >> 32) ^ c1 ^ k0
        c1 = product_1 & _WORD_MASK
        c2 = (product_0 >> 32) ^ c3 ^ k1
        c3 = product_0 & _WORD_MASK
        k0 = (k0 + _WEYL_0) & _WORD_MASK
        k1 = (k1 + _WEYL_1) & _WORD_MASK
    return numpy.stack(numpy.broadcast_arrays(c0, c1, c2, c3)).astype(numpy.uint32)


def digits(elements: ArrayLike, draw: int, digit: int, key: tuple[int, int]) -> Array:
    """Return binary digit number `digit` of the uniform number of each element.

    Digit 0 is worth 1/2, digit 63 is worth 2**-64.

    Returns
    -------
    numpy.ndarray of uint8, shape (n,)
        Zeros and ones.

    Examples
    --------
    >>> digits([0, 1, 2, 3, 4], draw=0, digit=0, key=(0xB0F478BE, 0xDB2CD7E7))
    array([0, 0, 1, 1, 0], dtype=uint8)
    """
    elements = numpy.asarray(elements, dtype=numpy.uint64)
    block = elements >> 7
    # Philox runs once for each run of elements of the same block of 128.
    new_run = numpy.ones(block.shape, dtype=bool)
    new_run[1:] = block[1:] != block[:-1]
    run = numpy.cumsum(new_run) - 1
    block = block[new_run]
    counter = (
        block & _WORD_MASK,
        block >> 32,
        draw & _WORD_MASK,
        (draw >> 32) << 8 | digit,
    )
    word = philox4x32(counter, key)[(elements >> 5) & 3, run]
    return numpy.asarray(word >> (elements & 31) & 1, numpy.uint8)


def uniforms(elements: ArrayLike, draw: int, key: tuple[int, int]) -> Array:
    """Return the uniform number of each element, all 64 digits of it, times 2**64.

    Returns
    -------
    numpy.ndarray of uint64, shape (n,)

    Examples
    --------
    >>> [hex(u) for u in uniforms([0, 1], draw=0, key=(0xB0F478BE, 0xDB2CD7E7))]
    ['0x7b26781b7e7aa4c1', '0x5c99c1d1ecb8bf77']
    """
    elements = numpy.asarray(elements, dtype=numpy.uint64)
    result: Array = numpy.zeros(elements.shape, dtype=numpy.uint64)
    for digit in range(DIGITS):
        result = result << 1 | digits(elements, draw, digit, key)
    return result


def bernoulli_threshold(keep_prob: float) -> int:
    """Return ``keep_prob * 2**64`` rounded half to even, an int in [0, 2**64].

    Examples
    --------
    >>> bernoulli_threshold(0.5) == 2**63
    True
    """
    # Scaling by a power of two is exact, and Python rounds a float half to even.
    return round(math.ldexp(float(keep_prob), 64))


def exact_keep_count(keep_prob: float, n: int) -> int:
    """Return how many elements of a row of length `n` an exact-count mask keeps.

    It is the nearest integer, halves upwards; the 1e-6 makes up for the rounding of ``1 - rate``,
    so that rate 0.9 keeps 1 of 5 as keep_prob 0.1 does.

    Examples
    --------
    >>> exact_keep_count(0.5, 256), exact_keep_count(1 - 0.9, 5)
    (128, 1)
    """
    return math.floor(keep_prob * n + 0.5 + 1e-6)


def kept_bernoulli(elements: ArrayLike, draw: int, threshold: int, key: tuple[int, int]) -> Array:
    """Tell which elements a Bernoulli mask keeps: those with ``U * 2**64 < threshold``.

    Returns
    -------
    numpy.ndarray of bool, shape (n,)

    Examples
    --------
    >>> kept_bernoulli([0, 1, 2, 3, 4], 0, 2**63, key=(0xB0F478BE, 0xDB2CD7E7))
    array([ True,  True, False, False,  True])
    """
    elements = numpy.asarray(elements, dtype=numpy.uint64)
    if threshold == 1 << DIGITS:
        return numpy.ones(elements.shape, dtype=bool)
    kept = numpy.zeros(elements.shape, dtype=bool)
    undecided = numpy.arange(elements.size)
    for digit in range(DIGITS):
        # With only zeros left in the threshold, a tie so far cannot become "smaller".
        rest_of_threshold = threshold & ((1 << (DIGITS - digit)) - 1)
        if rest_of_threshold == 0 or undecided.size == 0:
            break
        bit = digits(elements[undecided], draw, digit, key)
        if rest_of_threshold >> (DIGITS - 1 - digit):
            kept[undecided[bit == 0]] = True
            undecided = undecided[bit == 1]
        else:
            undecided = undecided[bit == 0]
    return kept


# --- The kernels -------------------------------------------------------------------------------


def draw_bernoulli(
    key0: int,
    key1: int,
    draw: int,
    threshold: int,
    shape: Shape,
    starts: Shape,
    stops: Shape,
    bits: Array,
) -> None:
    """Write the packed bits of a Bernoulli mask, or of a window of one, to `bits`.

    Examples
    --------
    >>> bits = numpy.empty(8, dtype=numpy.uint8)
    >>> draw_bernoulli(0xB0F478BE, 0xDB2CD7E7, 0, 2**63, (64,), (0,), (64,), bits)
    >>> bits.tobytes().hex()
    '135cb8e044850e70'
    """
    if not 0 <= threshold <= 1 << DIGITS:
        raise ValueError(f"threshold must be in [0, 2**64], got {threshold}")
    n = _check_draw(key0, key1, draw, shape, starts, stops, bits)
    for first in range(0, n, _CHUNK):
        last = min(first + _CHUNK, n)
        elements = window_elements(first, last, shape, starts, stops)
        kept = kept_bernoulli(elements, draw, threshold, (key0, key1))
        bits[first // 8 : (last + 7) // 8] = numpy.packbits(kept, bitorder="little")


def draw_bernoulli_rows(
    key0: int, key1: int, draw: int, threshold: int, width: int, bits: Array
) -> None:
    """Write the packed bits of several draws of a mask of shape (width,), each to a row of `bits`.

    Row i, whole bytes, is draw number ``draw + i``.

    Examples
    --------
    >>> bits = numpy.empty((2, 8), dtype=numpy.uint8)
    >>> draw_bernoulli_rows(0xB0F478BE, 0xDB2CD7E7, 0, 2**63, 64, bits)
    >>> bits[0].tobytes().hex()
    '135cb8e044850e70'
    """
    for number, row in enumerate(bits, draw):
        draw_bernoulli(key0, key1, number, threshold, (width,), (0,), (width,), row)


def draw_exact_count(
    key0: int,
    key1: int,
    draw: int,
    keep: int,
    shape: Shape,
    starts: Shape,
    stops: Shape,
    bits: Array,
) -> None:
    """Write the packed bits of an exact-count mask, or of a window of one, to `bits`.

    A row runs along the last axis of `shape` (a caller leaves trailing shared axes out) and keeps
    the `keep` elements with the smallest ``(U, element index)``. Memory is O(row).

    Examples
    --------
    >>> key, bits = (0xB0F478BE, 0xDB2CD7E7), numpy.empty(5, dtype=numpy.uint8)
    >>> draw_exact_count(*key, 0, 10, (2, 20), (0, 0), (2, 20), bits)
    >>> bits.tobytes().hex()
    '935cbae0c6'
    """
    if len(shape) == 0:
        raise ValueError("shape must have at least one axis, got ()")
    if not 0 <= keep <= shape[-1]:
        raise ValueError(f"keep must be in [0, {shape[-1]}], got {keep}")
    n = _check_draw(key0, key1, draw, shape, starts, stops, bits)
    if n == 0:
        return
    length = shape[-1]
    width = stops[-1] - starts[-1]
    rows = n // width
    # Groups of a multiple of 8 rows start on a whole byte, whatever the width of the window.
    group = max(_CHUNK // length // 8, 1) * 8
    for first in range(0, rows, group):
        last = min(first + group, rows)
        row = window_elements(first, last, shape[:-1], starts[:-1], stops[:-1])
        elements = row[:, None] * length + numpy.arange(length, dtype=numpy.uint64)
        uniform = uniforms(elements.ravel(), draw, (key0, key1)).reshape(elements.shape)
        # The sort is stable, so equal numbers stay in the order of their index.
        smallest = numpy.argsort(uniform, axis=1, kind="stable")[:, :keep]
        kept = numpy.zeros(elements.shape, dtype=bool)
        numpy.put_along_axis(kept, smallest, True, axis=1)
        packed = numpy.packbits(kept[:, starts[-1] : stops[-1]].ravel(), bitorder="little")
        begin = first * width // 8
        bits[begin : begin + packed.size] = packed


# --- Checks and indices ------------------------------------------------------------------------


def _check_draw(
    key0: int, key1: int, draw: int, shape: Shape, starts: Shape, stops: Shape, bits: Array
) -> int:
    """Check what both kinds of draw take; return the number of elements of the window."""
    for name, value, limit in (("key0", key0, 32), ("key1", key1, 32), ("draw", draw, 56)):
        if not 0 <= value < 1 << limit:
            raise ValueError(f"{name} must be in [0, 2**{limit}), got {value}")
    window = list(zip(starts, stops, strict=True))
    for size, (start, stop) in zip(shape, window, strict=True):
        if not 0 <= start <= stop <= size:
            raise ValueError(f"starts and stops must lie in {shape}, got {starts}, {stops}")
    if math.prod(shape) >= 1 << 63:
        raise ValueError(f"shape must have fewer than 2**63 elements, got {shape}")
    n = math.prod(stop - start for start, stop in window)
    check_bits(bits, n)
    return n


def window_elements(first: int, last: int, shape: Shape, starts: Shape, stops: Shape) -> Array:
    """Return the element indices of positions `first` to `last` of a window, both in C order."""
    position = numpy.arange(first, last, dtype=numpy.uint64)
    element = numpy.zeros_like(position)
    stride = 1
    for size, start, stop in zip(shape[::-1], starts[::-1], stops[::-1], strict=True):
        position, along_axis = numpy.divmod(position, numpy.uint64(stop - start))
        element += (along_axis + numpy.uint64(start)) * numpy.uint64(stride)
        stride *= size
    return element
