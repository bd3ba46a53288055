"""ReLU, mask and scale in one pass, against the reference: bit for bit on every instruction set."""

import numpy
import pytest
from conftest import assert_identical, values

from fastdrop import _kernels, reference

SIZES = (0, 1, 7, 8, 9, 31, 33, 63, 64, 65, 127, 129, 1025, 16_384, 16_385, 300_001)
DTYPES = (numpy.float32, numpy.float64)


def random_bits(n, ones):
    kept = numpy.random.default_rng(n).random(n) < ones
    return numpy.packbits(kept, bitorder="little")


def both(x, bits, scale):
    """Rectify with both; the kernel's gate must end where the reference's does."""
    expected, size = x.copy(), (x.size + 7) // 8
    expected_gate = numpy.empty(size, numpy.uint8)
    count = reference.rectify(expected, bits, scale, expected_gate)
    gate = numpy.full(size + 16, 0xA5, numpy.uint8)
    assert _kernels.rectify(x, bits, scale, gate) == count
    assert_identical(x, expected)
    numpy.testing.assert_array_equal(gate[:size], expected_gate)
    assert (gate[size:] == 0xA5).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ones", [None, 0.0, 0.3, 1.0])
def test_sizes(each_isa, each_thread_count, dtype, ones):
    for size in SIZES:
        both(values(size, dtype), None if ones is None else random_bits(size, ones), 1 / 0.7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_at_every_alignment(each_isa, dtype):
    bits = random_bits(300, 0.5)
    for offset in range(17):
        buffer = values(320, dtype)
        before = buffer.copy()
        both(buffer[offset:][:300], bits, 2.0)
        assert_identical(buffer[:offset], before[:offset])
        assert_identical(buffer[offset + 300 :], before[offset + 300 :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_at_most_zero_passes(each_isa, dtype):
    """NaN does, so that it is seen; zeros of either sign and negative infinity become +0.0."""
    limits = numpy.finfo(dtype)
    special = [numpy.nan, -numpy.nan, numpy.inf, -numpy.inf, -0.0, 0.0, limits.max, limits.min]
    special += [limits.smallest_subnormal, -limits.smallest_subnormal, 1.0]
    for n in (11, 64 + 11, 130):
        x = numpy.resize(numpy.array(special, dtype), n)
        passing = [0, 1, 2, 6, 8, 10]
        given, gate = x.copy(), numpy.empty((n + 7) // 8, numpy.uint8)
        _kernels.rectify(given, None, 1.0, gate)
        passed = numpy.flatnonzero(numpy.unpackbits(gate, count=n, bitorder="little"))
        assert passed[passed < 11].tolist() == passing
        for scale in (1.0, 2.0, 0.0, numpy.inf, numpy.nan):
            both(x.copy(), None, scale)
            both(x.copy(), random_bits(n, 0.5), scale)


def test_a_mask_may_become_its_gate(each_isa):
    x = values(1000)
    bits = random_bits(1000, 0.5)
    expected, gate = x.copy(), numpy.empty(125, numpy.uint8)
    reference.rectify(expected, bits, 2.0, gate)
    _kernels.rectify(x, bits, 2.0, bits)
    assert_identical(x, expected)
    numpy.testing.assert_array_equal(bits, gate)
