"""Fixtures: every instruction set, several thread counts, kernels beside their references."""

import math
import signal
import sys

import numpy
import pytest
from hypothesis import HealthCheck, settings

from fastdrop import _kernels, reference

# A shell starts what it runs in the background with interrupts ignored; tests of Ctrl-C need them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

COMMON = {
    "deadline": None,
    # The fixtures select an instruction set, which does not change between examples.
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}
settings.register_profile("fastdrop", max_examples=60, derandomize=True, **COMMON)
# By hand: pytest --hypothesis-profile=long tests/test_hostile*.py tests/api/test_properties.py
settings.register_profile("long", max_examples=3000, derandomize=False, **COMMON)
settings.load_profile("fastdrop")

ISA_LEVELS = _kernels.build_info()["isa_available"]


def pytest_addoption(parser):
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="run what takes minutes or gigabytes, too: see docs/reference/promises.md",
    )


@pytest.fixture
def exhaustive(request):
    """Whether the long form of a test was asked for."""
    return request.config.getoption("exhaustive")


@pytest.fixture(params=ISA_LEVELS)
def each_isa(request):
    """Run the test once on every instruction set this machine has."""
    before = _kernels.build_info()["isa_used"]
    _kernels.select_isa(request.param)
    yield request.param
    _kernels.select_isa(before)


@pytest.fixture(params=[*ISA_LEVELS, "numpy"])
def each_backend(request, monkeypatch):
    """Run the test on every instruction set, and with the references in the kernels' place."""
    if request.param == "numpy":
        for name, module in list(sys.modules.items()):
            if name.startswith("fastdrop.") and getattr(module, "kernels", None) is _kernels:
                monkeypatch.setattr(module, "kernels", reference)
        yield request.param
        return
    before = _kernels.build_info()["isa_used"]
    _kernels.select_isa(request.param)
    yield request.param
    _kernels.select_isa(before)


@pytest.fixture
def restore_threads():
    """Put the number of threads back after the test."""
    before = _kernels.get_num_threads()
    yield
    _kernels.set_num_threads(before)


@pytest.fixture(params=[1, 2, 5])
def each_thread_count(request, restore_threads):
    """Run the test on one thread, on two, and on a number that is not a power of two."""
    _kernels.set_num_threads(request.param)
    return request.param


class Comparison:
    """Runs a kernel beside its reference in `fastdrop.reference` and insists on the same result."""

    KEY = (0xB0F478BE, 0xDB2CD7E7)

    def __init__(self):
        self._expected = {}

    def bernoulli(self, draw, threshold, shape, starts=None, stops=None, key=KEY):
        return self._draw("draw_bernoulli", key, draw, threshold, shape, starts, stops)

    def exact_count(self, draw, keep, shape, starts=None, stops=None, key=KEY):
        return self._draw("draw_exact_count", key, draw, keep, shape, starts, stops)

    def _draw(self, name, key, draw, parameter, shape, starts, stops):
        starts = (0,) * len(shape) if starts is None else starts
        stops = shape if stops is None else stops
        arguments = (*key, draw, parameter, shape, starts, stops)
        n = math.prod(stop - start for start, stop in zip(starts, stops, strict=True))
        size = (n + 7) // 8
        # The reference is slow; every instruction set and thread count is compared with one result.
        if (name, arguments) not in self._expected:
            expected = numpy.full(size, 0xA5, dtype=numpy.uint8)
            getattr(reference, name)(*arguments, expected)
            self._expected[name, arguments] = expected
        bits = numpy.full(size + 24, 0xA5, dtype=numpy.uint8)
        getattr(_kernels, name)(*arguments, bits)
        numpy.testing.assert_array_equal(
            bits[:size], self._expected[name, arguments], err_msg=f"{name}{arguments}"
        )
        assert (bits[size:] == 0xA5).all(), f"{name}{arguments} wrote past the mask"
        return bits[:size]

    @staticmethod
    def apply(x, bits, mask_shape, rows_per_mask, scale, out):
        """Apply with both; `out` is `x` itself or an array that receives the kernel's result."""
        expected = numpy.empty(x.shape, x.dtype)
        reference.apply_mask(x, bits, mask_shape, rows_per_mask, scale, expected)
        _kernels.apply_mask(x, bits, mask_shape, rows_per_mask, scale, out)
        assert_identical(out, expected)

    def forward(self, x, draw, threshold, scale, out):
        """Draw and apply with both; `out` as in `apply`."""
        size = (x.size + 7) // 8
        expected = numpy.empty_like(x)
        expected_bits = self.bernoulli(draw, threshold, x.shape)
        reference.apply_mask(x, expected_bits, x.shape, 1, scale, expected)
        bits = numpy.full(size + 24, 0xA5, dtype=numpy.uint8)
        _kernels.dropout_forward(x, *self.KEY, draw, threshold, scale, bits, out)
        numpy.testing.assert_array_equal(bits[:size], expected_bits)
        assert_identical(out, expected)


@pytest.fixture(scope="session")
def compare():
    return Comparison()


def assert_identical(actual, expected):
    """Same shape, dtype, NaN positions, and same bytes elsewhere: -0.0 is not +0.0."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    actual, expected = numpy.ascontiguousarray(actual), numpy.ascontiguousarray(expected)
    numpy.testing.assert_array_equal(actual, expected)
    numbers = ~numpy.isnan(expected)
    numpy.testing.assert_array_equal(
        numpy.signbit(actual[numbers]), numpy.signbit(expected[numbers])
    )


def layouts(shape, dtype, seed=0):
    """Yield (name, array) pairs: arrays of one shape and the same values in many layouts."""
    array = values(shape, dtype, seed)
    flipped = (..., *(slice(None, None, -1) for _ in shape))
    doubled = (..., *(slice(1, 2 * size, 2) for size in shape))
    reverse_order = tuple(range(len(shape)))[::-1]
    rotated_order = tuple(numpy.roll(numpy.arange(len(shape)), 1).tolist())

    yield "C", array.copy()
    yield "Fortran", array.copy(order="F")
    yield "transposed view", array.transpose(reverse_order).copy().transpose(reverse_order)
    yield (
        "rotated axes",
        array.transpose(rotated_order).copy().transpose(numpy.argsort(rotated_order)),
    )
    strided = numpy.zeros(tuple(2 * size for size in shape), dtype)
    strided[doubled] = array
    yield "every second element", strided[doubled]
    yield "negative strides", array[flipped].copy()[flipped]
    if shape:
        wide = numpy.zeros((*shape[:-1], shape[-1] + 5), dtype)
        wide[..., 3 : 3 + shape[-1]] = array
        yield "part of longer rows", wide[..., 3 : 3 + shape[-1]]
        backwards = array[..., ::-1].copy()
        yield "last axis backwards", backwards[..., ::-1]


def values(shape, dtype=numpy.float32, seed=0):
    """Normally distributed numbers."""
    return numpy.random.default_rng(seed).standard_normal(shape).astype(dtype)


def unaligned(array):
    """A copy of a one-dimensional array that begins one byte off."""
    raw = numpy.zeros(array.nbytes + 1, numpy.uint8)
    copy = raw[1:].view(array.dtype)
    copy[...] = array
    return copy


def selected(x, kept, scale):
    """What the design calls select: kept values times scale, zeros elsewhere."""
    with numpy.errstate(all="ignore"):
        wide = numpy.promote_types(x.dtype, numpy.float32).type
        product = (x.astype(wide) * wide(x.dtype.type(scale))).astype(x.dtype)
    return numpy.where(kept, product, x.dtype.type(0))
