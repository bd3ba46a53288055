"""Gathering the active part of a matrix, and scattering it, against their references.

Bit for bit, on every instruction set and thread count; within two roundings where something is
added.
"""

import numpy
import pytest
from conftest import assert_identical, values
from matrices import (
    DTYPES,
    SHAPES,
    Result,
    matrix,
    number_of_active,
    random_bits,
    units,
)
from rounding import assert_close, sum_error

from fastdrop import _kernels, reference


@pytest.mark.parametrize("dtype", DTYPES)
def test_gather(each_isa, each_thread_count, dtype):
    for seed, (rows, columns, _) in enumerate(SHAPES):
        x, which = matrix((rows, columns), dtype, seed), units((rows, columns), seed)
        active = tuple(map(number_of_active, which, (rows, columns)))
        expected = numpy.empty(active, dtype)
        reference.gather(x, *which, expected)
        for source in (x, x.copy()):
            room = numpy.full(active[0] * active[1] + 32, 7, dtype)
            out = room[16:-16].reshape(active)
            _kernels.gather(source, *which, out)
            assert_identical(out, expected)
            assert (room[:16] == 7).all()
            assert (room[-16:] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1 / 0.7])
def test_scatter(each_isa, each_thread_count, dtype, scale):
    for seed, (rows, columns, _) in enumerate(SHAPES):
        which = units((rows, columns), seed)
        active = tuple(map(number_of_active, which, (rows, columns)))
        x, out = values(active, dtype, seed), Result((rows, columns), dtype)
        expected = numpy.empty((rows, columns), dtype)
        reference.scatter(x, *which, expected, scale=scale)
        _kernels.scatter(x, *which, out.matrix, scale=scale)
        assert_identical(out.checked(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_with_bias(each_isa, each_thread_count, dtype):
    """Product, product of the bias, sum: two roundings each, one where they are fused."""
    scale, bias_scale = float(dtype(1 / 0.7)), float(dtype(-1 / 0.3))
    for seed, (rows, columns, _) in enumerate(SHAPES):
        which = units((rows, columns), seed)
        active = tuple(map(number_of_active, which, (rows, columns)))
        x, bias = values(active, dtype, seed), matrix((1, columns), dtype, seed)[0]
        out = Result((rows, columns), dtype)
        expected, magnitude = numpy.empty((2, rows, columns))
        wide, wide_bias = x.astype(float), bias.astype(float)
        options = {"scale": scale, "bias_scale": bias_scale}
        reference.scatter(wide, *which, expected, bias=wide_bias, **options)
        reference.scatter(
            abs(wide), *which, magnitude, scale=scale, bias=abs(wide_bias),
            bias_scale=abs(bias_scale),
        )  # fmt: skip
        _kernels.scatter(x, *which, out.matrix, bias=bias, **options)
        result = out.checked()
        assert_close(result, expected, sum_error(magnitude, 2, dtype))
        dropped = magnitude == 0
        assert_identical(result[dropped], numpy.zeros(int(dropped.sum()), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_adds(each_isa, each_thread_count, dtype):
    options = {"scale": float(dtype(1 / 0.7)), "accumulate": True}
    for seed, (rows, columns, _) in enumerate(SHAPES):
        which = units((rows, columns), seed)
        active = tuple(map(number_of_active, which, (rows, columns)))
        x, start = values(active, dtype, seed), values((rows, columns), dtype, seed + 1)
        out = Result((rows, columns), dtype, start)
        expected, magnitude = start.astype(float), abs(start.astype(float))
        reference.scatter(x.astype(float), *which, expected, **options)
        reference.scatter(abs(x.astype(float)), *which, magnitude, **options)
        _kernels.scatter(x, *which, out.matrix, **options)
        result = out.checked()
        untouched = magnitude == abs(start)
        assert_identical(result[untouched], start[untouched])
        assert_close(result, expected, sum_error(magnitude, 2, dtype))


def test_gather_and_scatter_split_over_threads(each_isa, restore_threads):
    """4 million elements, enough for four threads, of which some get a row more than others."""
    shape, dtype = (2101, 2047), numpy.float32
    x = matrix(shape, dtype)
    rows, columns = random_bits(shape[0], 0.5, 1, 3), random_bits(shape[1], 0.6, 2, 5)
    _kernels.set_num_threads(5)
    for which in (((rows, 3), (columns, 5)), (None, (columns, 5)), ((rows, 3), None)):
        active = tuple(map(number_of_active, which, shape))
        gathered, expected = numpy.empty((2, *active), dtype)
        _kernels.gather(x, *which, gathered)
        reference.gather(x, *which, expected)
        assert_identical(gathered, expected)
        out, expected = Result(shape, dtype), numpy.empty(shape, dtype)
        _kernels.scatter(gathered, *which, out.matrix, scale=3.0)
        reference.scatter(gathered, *which, expected, scale=3.0)
        assert_identical(out.checked(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gather_takes_any_row_stride(each_isa, dtype):
    rows, columns = random_bits(33, 0.5, 1, 3), random_bits(70, 0.5, 2, 1)
    active = number_of_active((rows, 3), 33), number_of_active((columns, 1), 70)
    for x in (
        values((33, 70), dtype)[::-1],
        values((66, 70), dtype)[::2],
        numpy.broadcast_to(values(70, dtype), (33, 70)),
        values((33, 90), dtype)[:, 11:81],
    ):
        gathered, expected = numpy.empty((2, *active), dtype)
        _kernels.gather(x, (rows, 3), (columns, 1), gathered)
        reference.gather(x, (rows, 3), (columns, 1), expected)
        assert_identical(gathered, expected)
