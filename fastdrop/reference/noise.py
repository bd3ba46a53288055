"""Normal and uniform numbers of a mask stream: "normal, version 1" and "uniform, version 1".

This is an independent implementation of the section "Noise" of the mask stream's definition. Every
operation is in float32 and rounded once, in a fixed order: the kernels give the same bits.

References
----------
.. [1] G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates", Annals of
   Mathematical Statistics 29 (1958), pp. 610-611.
"""

from collections.abc import Sequence

import numpy
from numpy.typing import ArrayLike

from fastdrop.reference.bits import Array, Shape
from fastdrop.reference.stream import philox4x32, window_elements

__all__ = [
    "NORMAL",
    "UNIFORM",
    "apply_noise",
    "draw_noise",
    "noise_words",
    "normals",
    "uniform_noise",
]

NORMAL, UNIFORM = 0, 1
NOISE_DIGIT = 64
_HALF = 64  # elements of half a block
_CHUNK = 1 << 16  # elements computed at a time

_real = numpy.float32
_hex = float.fromhex
_LOG = [
    _real(_hex(c))
    for c in (
        "-0x1.000000p+1",
        "0x1.fffe20p-1",
        "-0x1.55b59ep-1",
        "0x1.f143ccp-2",
        "-0x1.141556p-1",
        "-0x1.a0d8c4p-2",
        "-0x1.41f692p+1",
        "-0x1.b220a2p+1",
        "-0x1.70ec66p+1",
    )
]
_SINE = [
    _real(_hex(c)) for c in ("0x1.921fb6p+0", "-0x1.4abbbap-1", "0x1.465e92p-4", "-0x1.2d9302p-8")
]
_COSINE = [
    _real(_hex(c))
    for c in (
        "0x1.000000p+0",
        "-0x1.3bd3ccp+0",
        "0x1.03c1dap-2",
        "-0x1.55c4eap-6",
        "0x1.d99f54p-11",
    )
]
_TWO_LOG_2 = _real(_hex("-0x1.62e430p+0"))


def noise_words(elements: ArrayLike, draw: int, key: tuple[int, int]) -> Array:
    """Return the noise word of each element: 32 random bits that no mask uses.

    Returns
    -------
    numpy.ndarray of uint32, shape (n,)

    Examples
    --------
    >>> [f"{int(word):08x}" for word in noise_words([0, 1, 64], 0, (0xB0F478BE, 0xDB2CD7E7))]
    ['c010930b', 'e30505f8', 'fef30c15']
    """
    elements = numpy.asarray(elements, dtype=numpy.uint64)
    block, place = elements >> 7, elements & 127
    digit = NOISE_DIGIT + ((place & 63) >> 1)
    counter = (block & 0xFFFFFFFF, block >> 32, draw & 0xFFFFFFFF, (draw >> 32) << 8 | digit)
    word = 2 * (place >> 6) + (place & 1)
    return philox4x32(counter, key)[word.astype(numpy.int64), numpy.arange(elements.size)]


def _polynomial(coefficients: Sequence[numpy.float32], x: Array) -> Array:
    """Horner's rule, a product and a sum at a time."""
    total: Array = numpy.full(x.shape, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def _signed(words: Array) -> Array:
    """Words as signed integers, rounded to float32."""
    return words.view(numpy.int32).astype(numpy.float32)


def normals(lengths: Array, turns: Array) -> tuple[Array, Array]:
    """Return the two normal numbers of each pair of words [1]_.

    Parameters
    ----------
    lengths, turns : numpy.ndarray of uint32, shape (n,)
        The words of an element below 64 of its block, and of the one 64 further.

    Returns
    -------
    tuple of two numpy.ndarray of float32, shape (n,)
        Of the one element and of the other.

    Examples
    --------
    >>> normals(numpy.array([2**31], numpy.uint32), numpy.array([0], numpy.uint32))
    (array([1.17741], dtype=float32), array([0.], dtype=float32))
    """
    odd = lengths | numpy.uint32(1)
    u = _signed(odd) * _real(2.0**-32)
    bits = u.view(numpy.uint32)
    fraction = ((bits & numpy.uint32(0x7FFFFF)) | numpy.uint32(0x3F000000)).view(numpy.float32)
    power = ((bits >> numpy.uint32(23)).astype(numpy.int32) - 126).astype(numpy.float32)
    upper = odd >= 2**31
    x = numpy.where(upper, u, fraction - _real(1))
    whole = numpy.where(upper, _real(0), power * _TWO_LOG_2)
    radius = numpy.sqrt(whole + x * _polynomial(_LOG, x))
    radius = numpy.where(turns >= 2**31, -radius, radius)
    t = _signed(turns << numpy.uint32(2)) * _real(2.0**-32)
    z = t * t
    sine, cosine = t * _polynomial(_SINE, z), _polynomial(_COSINE, z)
    exchange = (turns >> numpy.uint32(30) & numpy.uint32(1)).astype(bool)
    first = radius * numpy.where(exchange, sine, cosine)
    return first, radius * numpy.where(exchange, cosine, sine)


def uniform_noise(words: Array) -> Array:
    """Return the uniform number in (-1, 1) of each word; the largest are rounded to 1.

    Examples
    --------
    >>> uniform_noise(numpy.array([0, 2**30, 2**31], numpy.uint32))
    array([ 4.656613e-10,  5.000000e-01, -1.000000e+00], dtype=float32)
    """
    return numpy.asarray(_signed(words | numpy.uint32(1)) * _real(2.0**-31))


def _noise(elements: ArrayLike, draw: int, noise: int, key: tuple[int, int]) -> Array:
    if noise == UNIFORM:
        return uniform_noise(noise_words(elements, draw, key))
    elements = numpy.asarray(elements, dtype=numpy.uint64)
    low = elements & ~numpy.uint64(_HALF)
    lengths, turns = (noise_words(part, draw, key) for part in (low, low + _HALF))
    first, second = normals(lengths, turns)
    return numpy.where(elements == low, first, second)


def draw_noise(
    key0: int,
    key1: int,
    draw: int,
    noise: int,
    shape: Shape,
    starts: Shape,
    stops: Shape,
    out: Array,
) -> None:
    """Write the noise of a window, whose own shape `out` has, to `out`, C-contiguous float32.

    Parameters
    ----------
    noise : int
        0: standard normal numbers; 1: uniform ones in (-1, 1).

    Examples
    --------
    >>> out = numpy.empty(3, numpy.float32)
    >>> draw_noise(0xB0F478BE, 0xDB2CD7E7, 0, NORMAL, (200,), (100,), (103,), out)
    >>> whole = numpy.empty(200, numpy.float32)
    >>> draw_noise(0xB0F478BE, 0xDB2CD7E7, 0, NORMAL, (200,), (0,), (200,), whole)
    >>> out.tolist() == whole[100:103].tolist()
    True
    """
    flat = out.reshape(-1)
    for first in range(0, flat.size, _CHUNK):
        last = min(first + _CHUNK, flat.size)
        elements = window_elements(first, last, shape, starts, stops)
        flat[first:last] = _noise(elements, draw, noise, (key0, key1))


def apply_noise(
    x: Array, key0: int, key1: int, draw: int, noise: int, scale: float, additive: bool, out: Array
) -> None:
    """Write ``x * (1 + scale * z)`` or, additive, ``x + scale * z`` to `out`.

    Parameters
    ----------
    x, out : numpy.ndarray of float16, float32 or float64, C-contiguous
        `out` may be `x`. float16 is computed in float32 and rounded once more.
    scale : float
        Rounded to the type that is computed in.

    Examples
    --------
    >>> x = numpy.ones(4)
    >>> apply_noise(x, 0xB0F478BE, 0xDB2CD7E7, 0, UNIFORM, 0.5, False, x)
    >>> x.round(3)
    array([0.75 , 0.887, 1.037, 1.009])
    """
    working = numpy.promote_types(x.dtype, numpy.float32).type
    z = _noise(numpy.arange(x.size), draw, noise, (key0, key1)).reshape(x.shape).astype(working)
    with numpy.errstate(all="ignore"):
        moved = working(scale) * z
        value = x.astype(working)
        out[...] = value + moved if additive else value * (working(1) + moved)
