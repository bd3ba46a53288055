"""The kernels of the family of dropouts, against their references, on every instruction set."""

import itertools

import numpy
import pytest
from conftest import assert_identical, layouts, values

from fastdrop import _kernels, reference

SIZES = (0, 1, 7, 31, 63, 64, 65, 129, 1025, 65_537, 150_001)
HALF_AND_WHOLE = (numpy.float16, numpy.float32, numpy.float64)
DTYPES = [*HALF_AND_WHOLE, numpy.uint16]  # uint16 holds bfloat16
NUMBERS = (1.25, -0.3, -0.7)  # scale, shift, dropped


def bits_of(n, ones=0.6):
    return numpy.packbits(numpy.random.default_rng(n).random(n) < ones, bitorder="little")


def sample(shape, dtype, seed=0):
    """Values with NaN and infinities among them."""
    x = values(shape, numpy.float32, seed)
    x.ravel()[::11] = numpy.nan
    x.ravel()[3::13] = numpy.inf
    return reference.bfloat16_of(x) if dtype == numpy.uint16 else x.astype(dtype)


def same(actual, expected):
    if actual.dtype == numpy.uint16:
        actual, expected = reference.float32_of(actual), reference.float32_of(expected)
    assert_identical(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_affine(each_isa, each_thread_count, dtype):
    for n in SIZES:
        x, bits = sample(n, dtype), bits_of(n)
        expected, out = numpy.empty_like(x), numpy.empty_like(x)
        reference.apply_affine(x, bits, (n,), 1, *NUMBERS, expected)
        _kernels.apply_affine(x, bits, (n,), 1, *NUMBERS, out)
        same(out, expected)
        _kernels.apply_affine(x, bits, (n,), 1, *NUMBERS, x)
        same(x, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_affine_in_every_layout_and_sharing(each_isa, dtype):
    shape = (5, 9, 70)
    for mask_shape in itertools.product(*((1, extent) for extent in shape)):
        bits = bits_of(numpy.prod(mask_shape))
        expected = numpy.empty(shape, dtype)
        given = sample(shape, dtype)
        reference.apply_affine(given, bits, mask_shape, 1, *NUMBERS, expected)
        for _, place in layouts(shape, numpy.float32):
            x = place.astype(dtype, copy=True, order="K") if dtype != numpy.float32 else place
            x[...] = given
            out = numpy.empty_like(x)
            _kernels.apply_affine(x, bits, mask_shape, 1, *NUMBERS, out)
            same(out, expected)


@pytest.mark.parametrize("dtype", HALF_AND_WHOLE)
@pytest.mark.parametrize("shape", [(4, 300, 3), (2, 1000, 64), (3, 9, 256), (70, 8, 5), (1000, 40)])
def test_channels_behind_their_places(each_isa, each_thread_count, dtype, shape):
    """Short rows that share the bits of their example, which are repeated."""
    x = sample(shape, dtype)
    for mask_shape in ((*shape[:-2], 1, shape[-1]), (1,) * (len(shape) - 1) + shape[-1:]):
        bits = bits_of(numpy.prod(mask_shape))
        expected, out = numpy.empty_like(x), numpy.empty_like(x)
        reference.apply_mask(x, bits, mask_shape, 1, 1.5, expected)
        _kernels.apply_mask(x, bits, mask_shape, 1, 1.5, out)
        same(out, expected)


def test_affine_is_streamed_and_shifted(each_isa):
    """Beyond the caches, at every alignment."""
    _kernels.assume_cache_of_core(1)
    try:
        for offset in range(17):
            x, bits = sample(700 + offset, numpy.float32), bits_of(700)
            out, expected = numpy.zeros(740, numpy.float32), numpy.empty(700, numpy.float32)
            reference.apply_affine(x[offset:], bits, (700,), 1, *NUMBERS, expected)
            _kernels.apply_affine(x[offset:], bits, (700,), 1, *NUMBERS, out[offset : offset + 700])
            same(out[offset : offset + 700], expected)
            assert not out[:offset].any()
            assert not out[offset + 700 :].any()
            residual = sample(700, numpy.float32, 1)
            reference.residual_forward(x[offset:], None, residual, bits, 2.0, expected)
            _kernels.residual_forward(
                x[offset:], None, residual, bits, 2.0, out[offset : offset + 700]
            )
            same(out[offset : offset + 700], expected)
    finally:
        _kernels.assume_cache_of_core(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_residual(each_isa, each_thread_count, dtype, with_bias):
    for shape in [
        (0, 4),
        (3, 0),
        (1, 1),
        (5, 7),
        (3, 64),
        (9, 65),
        (200, 130),
        (300, 1024),
        (2, 70_001),
    ]:
        x, residual = sample(shape, dtype), sample(shape, dtype, 1)
        bias = sample(shape[-1], dtype, 2) if with_bias else None
        for bits in (None, bits_of(x.size)):
            expected, out = numpy.empty_like(x), numpy.empty_like(x)
            reference.residual_forward(x, bias, residual, bits, 1.25, expected)
            _kernels.residual_forward(x, bias, residual, bits, 1.25, out)
            same(out, expected)
            inplace = x.copy()
            _kernels.residual_forward(inplace, bias, residual, bits, 1.25, inplace)
            same(inplace, expected)
            inplace = residual.copy()
            _kernels.residual_forward(x, bias, inplace, bits, 1.25, inplace)
            same(inplace, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_gradient(each_isa, each_thread_count, dtype):
    """The sums do not depend on the threads, and are right to the precision of 64 rows' sums."""
    for shape in [(0, 4), (3, 0), (1, 1), (5, 7), (9, 65), (700, 33), (300, 1024), (20_000, 3)]:
        grad = values(shape, numpy.float32)
        grad = reference.bfloat16_of(grad) if dtype == numpy.uint16 else grad.astype(dtype)
        for bits in (None, bits_of(grad.size)):
            expected, out = numpy.empty_like(grad), numpy.empty_like(grad)
            totals, sums = numpy.empty(shape[-1]), numpy.full(shape[-1], 7.0)
            reference.residual_backward(grad, bits, 1.25, expected, totals)
            _kernels.residual_backward(grad, bits, 1.25, out, sums)
            same(out, expected)
            eps = numpy.finfo(numpy.float64 if dtype == numpy.float64 else numpy.float32).eps
            numpy.testing.assert_allclose(sums, totals, rtol=0, atol=64 * eps * (shape[0] + 1))


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_softmax(each_isa, each_thread_count, dtype, scale):
    """To 8 units in the last place of each probability, and of the largest in the gradient."""
    eps = numpy.finfo(dtype).eps
    for rows, width in [(0, 3), (3, 0), (1, 1), (5, 3), (7, 16), (9, 17), (40, 33), (130, 200)]:
        x = (4 * values((rows, width), numpy.float64)).astype(dtype)
        attend = bits_of(rows * width, 0.7)
        starts = numpy.arange(rows, dtype=numpy.int64) * width
        for allowed, causal in itertools.product((None, attend), (0, 3, 1000)):
            for bits in (None, bits_of(rows * width)) if scale != 1 else (None,):
                masks = (allowed, None if allowed is None else starts, causal, bits)
                p, y = numpy.full_like(x, 9), numpy.full_like(x, 9)
                by = scale if bits is not None else 1.0
                _kernels.softmax_forward(x, *masks, by, p, y)
                expected_p, expected_y = numpy.empty(x.shape), numpy.empty(x.shape)
                reference.softmax_forward(x.astype(float), *masks, by, expected_p, expected_y)
                numpy.testing.assert_allclose(p, expected_p, rtol=16 * eps, atol=1e-37)
                numpy.testing.assert_allclose(y, expected_y, rtol=16 * eps, atol=1e-37)
                assert ((expected_p == 0) == (p == 0)).all()
                inplace = x.copy()
                _kernels.softmax_forward(inplace, *masks, by, q := numpy.empty_like(x), inplace)
                assert_identical(inplace, y)
                assert_identical(q, p)
                grad, out, expected = (
                    values(x.shape, dtype, 5),
                    numpy.empty_like(x),
                    numpy.empty(x.shape),
                )
                _kernels.softmax_backward(grad, p, bits, by, out)
                reference.softmax_backward(grad.astype(float), p.astype(float), bits, by, expected)
                numpy.testing.assert_allclose(out, expected, rtol=0, atol=32 * eps)
                _kernels.softmax_backward(grad, p, bits, by, grad)
                assert_identical(grad, out)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_softmax_of_far_and_special_scores(each_isa, dtype):
    inf, nan = numpy.inf, numpy.nan
    rows = [
        [0, -1e4, -87, -88, -100, -700, -745, 2],
        [1e30, -1e30, 1e30, 0, 0, 0, 0, 0],
        [-inf, 1, 2, -inf, 3, 4, 5, 6],
        [-inf] * 8,
        [-inf] * 7 + [nan],
        [nan] + [1.0] * 7,
        [inf] + [1.0] * 7,
        [inf, -inf, nan, 0, 0, 0, 0, 0],
    ]
    x = numpy.tile(numpy.array(rows, dtype), (1, 5))[:, :37].copy()
    p, y, expected = numpy.empty_like(x), numpy.empty_like(x), numpy.empty_like(x)
    _kernels.softmax_forward(x, None, None, 0, None, 1.0, p, y)
    reference.softmax_forward(x, None, None, 0, None, 1.0, expected, expected)
    tiny = numpy.finfo(dtype).tiny
    numpy.testing.assert_allclose(y, expected, rtol=16 * numpy.finfo(dtype).eps, atol=tiny)
    assert_identical(p, y)
    assert not y[3].any()
    assert numpy.isnan(y[4]).all()


def test_exponentials_are_right_to_two_units(each_isa):
    """Softmax of two scores: of x and 0, the first times the sum is e^x."""
    for dtype, lowest in ((numpy.float32, -87.0), (numpy.float64, -708.0)):
        x = numpy.linspace(lowest, 0, 40_001).astype(dtype)
        pairs = numpy.stack([x, numpy.zeros_like(x)], 1)
        p, y = numpy.empty_like(pairs), numpy.empty_like(pairs)
        _kernels.softmax_forward(pairs, None, None, 0, None, 1.0, p, y)
        wide = numpy.exp(x.astype(numpy.longdouble))
        exact = wide / (1 + wide)
        error = numpy.abs(p[:, 0] - exact) / numpy.spacing(exact.astype(dtype))
        assert error.max() < 4


@pytest.mark.parametrize(
    ("maps", "extent", "block"),
    [
        (0, (1, 1, 5), (1, 1, 2)),
        (1, (1, 1, 1), (1, 1, 1)),
        (9, (1, 1, 7), (1, 1, 7)),
        (17, (1, 1, 130), (1, 1, 66)),
        (11, (1, 5, 9), (1, 3, 3)),
        (3, (1, 64, 64), (1, 7, 7)),
        (5, (1, 13, 200), (1, 4, 6)),
        (10, (3, 4, 5), (2, 3, 2)),
        (2, (7, 6, 65), (3, 3, 5)),
        (4, (5, 1, 3), (5, 1, 1)),
    ],
)
def test_blocks(each_isa, each_thread_count, maps, extent, block):
    starts = [whole - part + 1 for whole, part in zip(extent, block, strict=True)]
    n, size = maps * int(numpy.prod(starts)), -(-maps * int(numpy.prod(extent)) // 8)
    for ones in (0.0, 0.02, 0.3, 1.0):
        seeds = bits_of(n, ones)
        expected, bits = numpy.empty(size, numpy.uint8), numpy.full(size + 8, 0xA5, numpy.uint8)
        kept = reference.drop_blocks(seeds, maps, extent, block, expected)
        assert _kernels.drop_blocks(seeds, maps, extent, block, bits) == kept
        numpy.testing.assert_array_equal(bits[:size], expected)
        assert (bits[size:] == 0xA5).all()


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_softmax_shares_rows_among_threads(each_thread_count, dtype):
    """So many that five threads get some each: the bits are those of calls that one thread does."""
    rows, width, part = 700, 257, 20
    x, grad = values((rows, width), dtype), values((rows, width), dtype, 1)
    attend, starts = bits_of(rows * width, 0.7), numpy.arange(rows, dtype=numpy.int64) * width
    p, y, out = (numpy.full_like(x, 9) for _ in range(3))
    _kernels.softmax_forward(x, attend, starts, 0, None, 1.0, p, y)
    _kernels.softmax_backward(grad, p, None, 1.0, out)
    for first in range(0, rows, part):
        some = slice(first, first + part)
        few_p, few_y, few_out = (numpy.empty((part, width), dtype) for _ in range(3))
        _kernels.softmax_forward(x[some], attend, starts[some], 0, None, 1.0, few_p, few_y)
        _kernels.softmax_backward(grad[some], few_p, None, 1.0, few_out)
        assert_identical(p[some], few_p)
        assert_identical(y[some], few_y)
        assert_identical(out[some], few_out)
