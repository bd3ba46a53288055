"""Matrices for the tests of the matrix kernels: shapes, surroundings that tell, packed bits."""

import numpy
from conftest import values

SIZES = (0, 1, 2, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 200)
# Every size for the rows, the depth and the columns, each among others of another kind.
SHAPES = [
    (SIZES[i], SIZES[(5 * i + shift) % len(SIZES)], SIZES[(7 * i + 2 * shift) % len(SIZES)])
    for shift in (1, 3, 8)
    for i in range(len(SIZES))
]
DTYPES = (numpy.float32, numpy.float64)
DENSITIES = (0.5, 0.05, 1.0, 0.0)
OFFSETS = (0, 1, 7, 8, 13, 63, 64, 65)


def matrix(shape, dtype, seed=0, *, transposed=False):
    """Normal numbers with NaN around them: rows (columns, if transposed) are contiguous."""
    rows, columns = shape[::-1] if transposed else shape
    around = numpy.full((rows + 2, columns + 5), numpy.nan, dtype)
    around[1:-1, 3:-2] = values((rows, columns), dtype, seed)
    return around[1:-1, 3:-2].T if transposed else around[1:-1, 3:-2]


class Result:
    """A matrix to write to, and what must not change around it."""

    def __init__(self, shape, dtype, start=7):
        self._around = numpy.full((shape[0] + 2, shape[1] + 5), 7, dtype)
        self.matrix = self._around[1:-1, 3:-2]
        self.matrix[...] = start

    def checked(self):
        inside = self.matrix.copy()
        self.matrix[...] = 7
        assert (self._around == 7).all(), "written beside the result"
        return inside


def random_bits(n, density, seed=0, offset=0):
    """Packed random bits from bit `offset` on, with nothing behind them, ones before them."""
    kept = numpy.random.default_rng(seed).random(n) < density
    return numpy.packbits(numpy.concatenate([numpy.ones(offset, bool), kept]), bitorder="little")


def number_of_active(units, n):
    if units is None:
        return n
    bits, offset = units
    return int(numpy.unpackbits(bits, count=offset + n, bitorder="little")[offset:].sum())


def units(shape, seed):
    """Active rows and columns, bits and offset of the first, of every density; some None: all."""
    chosen = []
    for axis, n in enumerate(shape):
        number = seed + 3 * axis
        offset = OFFSETS[number % len(OFFSETS)]
        density = DENSITIES[number % len(DENSITIES)]
        bits = random_bits(n, density, number, offset)
        chosen.append(None if number % 5 == 4 else (bits, offset))
    return chosen
