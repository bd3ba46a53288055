"""Dropout of bfloat16 against its NumPy reference, on the bits: NumPy holds them as uint16."""

import numpy
import pytest
from conftest import layouts

from fastdrop import _kernels, reference

KEY = (0xB0F478BE, 0xDB2CD7E7)
SIZES = (0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 1023, 32767, 32769)
EVERY = numpy.arange(2**16, dtype=numpy.uint16)
# All that a bfloat16 can be: zeros, subnormals, NaN of any payload, infinities.
SCALES = (1.0, 2.0, 1 / 0.9, 1 / 3, 0.0, -1.5, 1e-3, 2.0**-20, 3e38, numpy.inf)


def some_bits(n, ones=0.5):
    kept = numpy.random.default_rng(n).random(n) < ones
    return numpy.packbits(kept, bitorder="little")


@pytest.mark.parametrize("scale", SCALES)
def test_every_bfloat16_value(each_isa, compare, scale):
    bits = some_bits(EVERY.size, ones=0.9)
    compare.apply(EVERY, bits, EVERY.shape, 1, scale, numpy.empty_like(EVERY))
    compare.apply(EVERY, some_bits(1, ones=1.0), (1,), 1, scale, numpy.empty_like(EVERY))
    strided = numpy.zeros((2**16, 2), numpy.uint16)
    compare.apply(EVERY, bits, EVERY.shape, 1, scale, strided[:, 1])


def test_a_scale_of_nan(each_isa):
    """Which of two NaN a processor returns is its own business."""
    out, bits = numpy.empty_like(EVERY), some_bits(EVERY.size)
    _kernels.apply_mask(EVERY, bits, EVERY.shape, 1, numpy.nan, out)
    kept = numpy.unpackbits(bits, count=EVERY.size, bitorder="little").astype(bool)
    assert numpy.isnan(reference.float32_of(out[kept])).all()
    assert (out[~kept] == 0).all()


def test_sizes_and_places(each_isa, compare):
    for size in SIZES:
        for start in (0, 1, 5):
            buffer = numpy.full(size + start + 40, 0x1234, numpy.uint16)
            x = EVERY[0x3F00 : 0x3F00 + size] if size < 0x4000 else EVERY[:size]
            out = buffer[start : start + size]
            compare.forward(x, 3, reference.bernoulli_threshold(0.9), 1 / 0.9, out)
            assert (buffer[:start] == 0x1234).all()
            assert (buffer[start + size :] == 0x1234).all()


@pytest.mark.parametrize(
    ("mask_shape", "rows"), [((6, 5, 33), 1), ((3, 5, 33), 2), ((6, 1, 33), 1), ((6, 5, 1), 1)]
)
def test_layouts(each_isa, compare, mask_shape, rows):
    bits = some_bits(int(numpy.prod(mask_shape)))
    for _, x in layouts((6, 5, 33), numpy.uint16):
        for _, out in layouts((6, 5, 33), numpy.uint16, seed=9):
            compare.apply(x, bits, mask_shape, rows, 1.25, out)


def test_threads_and_the_last_level_cache(each_isa, each_thread_count, compare):
    x = numpy.resize(EVERY, 700_001)
    compare.forward(x, 1, reference.bernoulli_threshold(0.7), 1 / 0.7, numpy.empty_like(x))


def test_products_are_rounded_once():
    """Against exact arithmetic: the nearest bfloat16, of two the even one."""
    x = EVERY[0x3C00:0x4400].copy()
    wide = reference.float32_of(x).astype(numpy.float64)
    for scale in (1 / 0.9, 1.5):
        factor = float(reference.float32_of(reference.bfloat16_of(scale)))
        assert abs(factor - scale) <= scale * 2.0**-8
        out = numpy.empty_like(x)
        _kernels.apply_mask(x, some_bits(x.size, ones=1.0), x.shape, 1, scale, out)
        exact, got = wide * factor, reference.float32_of(out).astype(numpy.float64)
        below = reference.float32_of(out - 1).astype(numpy.float64)
        above = reference.float32_of(out + 1).astype(numpy.float64)
        assert (abs(got - exact) <= abs(below - exact)).all()
        assert (abs(got - exact) <= abs(above - exact)).all()
        tie = (abs(got - exact) == abs(below - exact)) | (abs(got - exact) == abs(above - exact))
        assert tie.any()
        assert (out[tie] % 2 == 0).all()


def test_doubles_become_bfloat16_by_one_rounding():
    """Just above a tie of two bfloat16: by way of float32 it would look like the tie itself."""
    tie = 1.0 + 2.0**-8
    values = numpy.array([tie, tie + 2.0**-40, tie - 2.0**-40, -tie - 2.0**-40, 1e39, -1e-50])
    expected = [0x3F80, 0x3F81, 0x3F80, 0xBF81, 0x7F80, 0x8000]
    assert reference.bfloat16_of(values).tolist() == expected
    one = numpy.array([0x3F80], numpy.uint16)
    for value, bits in zip(values.tolist(), expected, strict=True):
        out = numpy.empty_like(one)
        _kernels.apply_mask(one, some_bits(1, ones=1.0), (1,), 1, value, out)
        assert out.tolist() == [bits]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("n", [0, 1, 63, 1000, 300_001])
def test_memory_by_address(each_isa, number, n):
    """What tensors use: the same as of arrays, in place and not, and nothing beyond it."""
    dtype = (numpy.float16, numpy.float32, numpy.float64, numpy.uint16)[number]
    threshold = reference.bernoulli_threshold(0.6)
    x = numpy.resize(EVERY, n).astype(dtype)
    expected, expected_bits = reference.dropout_fresh(*KEY, 2, x, threshold, 1.5, None)
    for module in (_kernels, reference):
        out, bits = numpy.full(n + 9, 7, dtype), numpy.full((n + 7) // 8 + 9, 0xA5, numpy.uint8)
        places = bits.ctypes.data, out.ctypes.data
        module.dropout_at(x.ctypes.data, number, n, *KEY, 2, threshold, 1.5, *places)
        numpy.testing.assert_array_equal(out[:n], expected)
        numpy.testing.assert_array_equal(bits[:-9], expected_bits)
        assert (out[n:] == 7).all()
        assert (bits[-9:] == 0xA5).all()
        again = x.copy()
        place = again.ctypes.data
        module.apply_mask_at(place, number, n, bits.ctypes.data, 1.5, place)
        numpy.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("name", ["gather", "Product", "rectify"])
def test_only_dropout_knows_bfloat16(name):
    x = numpy.zeros((2, 2), numpy.uint16)
    arguments = {
        "gather": (x, None, None, x),
        "Product": (x, x, x),
        "rectify": (x, None, 1.0, numpy.zeros(1, numpy.uint8)),
    }
    with pytest.raises(TypeError, match="float16, float32 or float64, got uint16"):
        getattr(_kernels, name)(*arguments[name])
