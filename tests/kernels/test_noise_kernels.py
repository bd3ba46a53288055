"""The kernels that draw noise and apply it, against their references and their golden numbers."""

import make_golden_noise
import numpy
import pytest
from conftest import assert_identical
from test_kernels import DTYPES, SIZES, WINDOWS

from fastdrop import _kernels, reference

KEY = (0xB0F478BE, 0xDB2CD7E7)
KINDS = (reference.NORMAL, reference.UNIFORM)
GOLDEN = make_golden_noise.read()
# The most that a normal number of the reference differs from the exact one of its words.
BOUND = 2.0**-21


def drawn(kernels, draw, noise, shape, starts, stops):
    extents = [stop - start for start, stop in zip(starts, stops, strict=True)]
    out = numpy.full(extents, numpy.nan, numpy.float32)
    kernels.draw_noise(*KEY, draw, noise, shape, starts, stops, out)
    return out


@pytest.mark.parametrize("noise", KINDS)
def test_sizes(each_isa, each_thread_count, noise):
    for size in SIZES:
        arguments = (2**40 + 3, noise, (size,), (0,), (size,))
        assert_identical(drawn(_kernels, *arguments), drawn(reference, *arguments))


@pytest.mark.parametrize("noise", KINDS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows(each_isa, noise, window):
    assert_identical(drawn(_kernels, 5, noise, *window), drawn(reference, 5, noise, *window))


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("noise", KINDS)
def test_applied(each_isa, each_thread_count, dtype, noise, additive):
    """Out of place and in place, odd values too; nothing behind the end is touched."""
    random = numpy.random.default_rng(1)
    for size in (0, 1, 2, 7, 15, 31, 127, 128, 129, 1023, 1024, 1025, 2051, 20_001):
        x = random.normal(size=size).astype(dtype)
        x[::11] = numpy.array([numpy.inf, -0.0, numpy.nan, 6e-8], dtype)[
            numpy.arange(x[::11].size) % 4
        ]
        expected = numpy.empty_like(x)
        reference.apply_noise(x, *KEY, 9, noise, 0.7, additive, expected)
        room = numpy.full(size + 40, 3, dtype)
        _kernels.apply_noise(x, *KEY, 9, noise, 0.7, additive, room[:size])
        numpy.testing.assert_array_equal(room[:size], expected)
        assert (room[size:] == 3).all()
        _kernels.apply_noise(x, *KEY, 9, noise, 0.7, additive, x)
        numpy.testing.assert_array_equal(x, expected)


def test_golden_reference():
    assert len(GOLDEN) >= 16
    for line in GOLDEN:
        numbers = make_golden_noise.drawn_with(reference, *line[:5])
        assert make_golden_noise.summarize(numbers) == line[5], line


def test_golden_kernels(each_isa, each_thread_count):
    for line in GOLDEN:
        numbers = make_golden_noise.drawn_with(_kernels, *line[:5])
        assert make_golden_noise.summarize(numbers) == line[5], line


def exact(lengths, turns):
    """The transform of the words in float64, by the functions of the definition."""
    lengths, turns = lengths.astype(numpy.int64), turns.astype(numpy.int64)
    odd = lengths | 1
    below_one = numpy.where(odd >= 2**31, (odd - 2**32) / 2**32, odd / 2**32 - 1)
    logarithm = numpy.where(odd >= 2**31, numpy.log1p(below_one), numpy.log(odd / 2**32))
    radius = numpy.sqrt(-2 * logarithm) * numpy.where(turns >= 2**31, -1, 1)
    part = turns & (2**30 - 1)
    angle = numpy.where(part >= 2**29, part - 2**30, part) * (numpy.pi / 2 / 2**30)
    sine, cosine = numpy.sin(angle), numpy.cos(angle)
    exchange = (turns >> 30 & 1).astype(bool)
    return radius * numpy.where(exchange, sine, cosine), radius * numpy.where(
        exchange, cosine, sine
    )


def test_accuracy():
    """At the ends of the words' range, at every power of two, and in between."""
    random = numpy.random.default_rng(0)
    edges = [2**k + d for k in range(33) for d in range(-3, 4) if 0 <= 2**k + d < 2**32]
    lengths = numpy.concatenate(
        [numpy.array(edges, numpy.uint32), random.integers(0, 2**32, 1 << 18, numpy.uint32)]
    )
    for turns in (lengths[::-1], random.permutation(lengths)):
        for got, right in zip(
            reference.normals(lengths, turns), exact(lengths, turns), strict=True
        ):
            assert numpy.isfinite(got).all()
            assert (numpy.abs(got - right) <= BOUND * numpy.abs(right)).all()
    assert reference.normals(numpy.zeros(1, numpy.uint32), numpy.zeros(1, numpy.uint32))[0] < 6.67


def test_noise_shares_no_counter_with_masks():
    """Masks have digits 0 to 63 of a block, noise 64 to 95: the words differ."""
    elements = numpy.arange(128)
    words = reference.noise_words(elements, 3, KEY)
    digits = numpy.arange(64)
    masks = reference.philox4x32((0, 0, 3, digits), KEY)
    assert numpy.intersect1d(words, masks).size == 0
    assert numpy.unique(words).size == 128
