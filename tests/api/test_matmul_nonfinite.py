"""NaN and infinity in masked products: what is dropped never leaks, what is not does."""

import functools
import itertools
import warnings

import numpy
import pytest
from conftest import assert_identical, values
from matmul_cases import (
    METHODS,
    Expected,
    check_dropped,
    fitting_methods,
    gradients,
    kept,
    make_mask,
    operands,
    product,
)
from rounding import assert_close

from fastdrop import Mask, masked_matmul, masked_matmul_backward

ROWS, UNITS_IN, UNITS_OUT = SIZE = (40, 33, 50)
KINDS = ("per sample", "units", "groups", "samples", "few")
PAIRS = [*itertools.product(KINDS, ("none", *KINDS)), *(("none", kind) for kind in KINDS)]
WITH_MASK_OUT = [pair for pair in PAIRS if pair[1] != "none"]
BAD = (numpy.nan, numpy.inf, -numpy.inf)


class Situation:
    """Operands with masks, what is expected of them, and the same with bad numbers in places."""

    def __init__(self, kinds, dtype=numpy.float32, masks=None, change=lambda array: array):
        self.shapes = (ROWS, UNITS_IN), (ROWS, UNITS_OUT)
        arrays = operands(self.shapes[0], UNITS_OUT, dtype)
        self.x, self.w, self.bias, self.grad_y = (change(array) for array in arrays)
        self.masks = masks or [
            make_mask(kind, shape, seed)
            for seed, (kind, shape) in enumerate(zip(kinds, self.shapes, strict=True))
        ]
        self.kept_in, self.kept_out = (
            numpy.ones(shape, bool) if mask is None else kept(mask, shape)
            for mask, shape in zip(self.masks, self.shapes, strict=True)
        )
        self.methods = fitting_methods(*kinds)
        # Weights from units that no sample keeps, to units that no sample keeps.
        self.dead_in = ~self.kept_in.any(axis=0)[:, numpy.newaxis]
        self.dead_out = ~self.kept_out.any(axis=0)
        self.expected = Expected(self.x, self.w, *self.masks, self.bias)

    @functools.cached_property
    def gradients(self):
        """The gradients that are expected, and how far rounding may take them off."""
        return self.expected.backward(self.grad_y)

    def arrays(self, bad, **places):
        """The operands, with a bad number in the places given by the operands' names."""
        return tuple(
            numpy.where(places[name], array.dtype.type(bad), array) if name in places else array
            for name, array in vars(self).items()
            if name in ("x", "w", "bias", "grad_y")
        )

    def check_gradients(self, found, label):
        for gradient, (expected, error) in zip(found, self.gradients, strict=True):
            assert_close(gradient, expected, error, label)
        check_dropped(found[0], self.masks[0], label)


@functools.cache
def situation(kinds, dtype=numpy.float32):
    return Situation(kinds, dtype)


def run(function, *args, **options):
    """Call a function that may warn of NaN, since here some is kept."""
    with numpy.errstate(invalid="ignore"):
        return function(*args, **options)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_dropped_inputs_do_not_matter(each_backend, dtype):
    """Elements of x that the mask drops, rows of w of units that it drops in every sample."""
    for kinds in PAIRS:
        case = situation(kinds, dtype)
        for method, skip_zeros in itertools.product(case.methods, (False, True)):
            options = {"method": method, "skip_zeros": skip_zeros}
            clean = product(case.arrays(0), case.masks, **options)
            for bad in BAD:
                dirty = case.arrays(bad, x=~case.kept_in, w=case.dead_in)
                y = run(product, dirty, case.masks, **options)
                case.expected.check(y, f"{kinds} {options} {bad}")
                if method in ("compact", "skip"):
                    assert_identical(y, clean)


def test_dropped_outputs_are_zero_whatever_they_would_be(each_backend):
    for kinds in WITH_MASK_OUT:
        case = situation(kinds)
        for method, bad in itertools.product(case.methods, BAD):
            label = f"{kinds} {method} {bad}"
            dirty = case.arrays(bad, w=case.dead_out, bias=case.dead_out)
            case.expected.check(run(product, dirty, case.masks, method), label)
            dirty = case.arrays(bad, w=numpy.ones(case.w.shape, bool))
            check_dropped(run(product, dirty, case.masks, method), case.masks[1], label)


def test_a_row_of_weights_reaches_the_samples_that_keep_its_unit(each_backend):
    """A zero that a mask made is no factor: the other samples stay as they are."""
    for kinds in PAIRS:
        case = Situation(kinds, change=lambda array: numpy.where(array == 0, 1, array))
        reached = case.kept_in[:, 17]
        expected, error = case.expected.forward
        unit = numpy.arange(UNITS_IN)[:, numpy.newaxis] == 17
        for method, bad in itertools.product(case.methods, BAD):
            y = run(product, case.arrays(bad, w=unit), case.masks, method)
            label = f"{kinds} {method} {bad}"
            assert_close(y[~reached], expected[~reached], error[~reached], label)
            assert not numpy.isfinite(y[reached][case.kept_out[reached]]).any(), label


@pytest.mark.parametrize("skip_zeros", [False, True])
def test_dropped_elements_do_not_reach_gradients(each_backend, skip_zeros):
    """Of x and grad_y, and weights between units one of which no sample keeps."""
    for kinds in PAIRS:
        case = situation(kinds)
        for method, bad in itertools.product(case.methods, BAD):
            dead = case.dead_in | case.dead_out
            dirty = case.arrays(bad, x=~case.kept_in, w=dead, grad_y=~case.kept_out)
            found = run(gradients, dirty, case.masks, method, skip_zeros=skip_zeros)
            case.check_gradients(found, f"{kinds} {method} {bad}")


def test_a_sample_whose_outputs_are_dropped_has_no_part_in_the_gradients(each_backend):
    """Also where what is kept of the sample itself is NaN."""
    some = numpy.arange(ROWS) // 7 != 2
    for kinds in WITH_MASK_OUT:
        case = situation(kinds)
        kept_out = case.kept_out & some[:, numpy.newaxis]
        case = Situation(kinds, masks=[case.masks[0], Mask.from_array(kept_out, keep_prob=0.5)])
        gone = numpy.broadcast_to(~some[:, numpy.newaxis], case.x.shape)
        for method, bad in itertools.product(("auto", "skip", "dense"), BAD):
            found = run(gradients, case.arrays(bad, x=gone), case.masks, method)
            case.check_gradients(found, f"{kinds} {method} {bad}")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_without_masks_they_are_what_matmul_makes_of_them(each_backend, dtype, method):
    x, w = values((ROWS, UNITS_IN), dtype), values((UNITS_IN, UNITS_OUT), dtype, 1)
    x[values(x.shape, seed=2) > 1] = 0
    x[3, 5], x[4, 6], x[5, 6] = BAD
    w[11, 12], w[13, 14], w[13, 15] = BAD
    grad_y = values((ROWS, UNITS_OUT), dtype, 3)
    grad_y[values(grad_y.shape, seed=4) > 1] = 0
    grad_y[7, 8], grad_y[9, 10], grad_y[9, 11] = BAD
    with numpy.errstate(invalid="ignore"):
        found = [masked_matmul(x, w, method=method)]
        found += masked_matmul_backward(grad_y, x, w, method=method)
        expected = [x @ w, grad_y @ w.T, x.T @ grad_y, grad_y.sum(axis=0)]
    for result, right in zip(found, expected, strict=True):
        assert (~numpy.isfinite(right)).sum() > 1
        numpy.testing.assert_array_equal(numpy.isnan(result), numpy.isnan(right))
        infinite = numpy.isinf(right)
        numpy.testing.assert_array_equal(result[infinite], right[infinite])


def test_zeros_are_skipped_only_where_the_caller_says_so(each_backend):
    """0 * inf is NaN, and with skip_zeros nothing, where the zeros are indeed skipped."""
    x, w = numpy.array([[0.0, 1.0]] * 20), numpy.array([[numpy.inf] * 20, [2.0] * 20])
    for method in METHODS:
        assert numpy.isnan(run(masked_matmul, x, w, method=method)).all()
    assert (masked_matmul(x, w, method="skip", skip_zeros=True) == 2).all()


# --- Warnings ----------------------------------------------------------------------------------


@pytest.fixture
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_numbers_whose_sum_overflows(each_backend, warnings_are_errors):
    """A product that fits is not spoilt by looking for NaN in it, and nothing warns."""
    for kinds in PAIRS:
        if "few" in kinds:  # their scale is too large
            continue
        # Products of 2^118, of which a few hundred add up to more than the largest float32.
        case = Situation(kinds, change=lambda array: abs(array) * array.dtype.type(2.0**59))
        arrays = case.x, case.w, case.bias, case.grad_y
        for method in case.methods:
            case.expected.check(product(arrays, case.masks, method), f"{kinds} {method}")
            case.check_gradients(gradients(arrays, case.masks, method), f"{kinds} {method}")


def test_nothing_warns_of_dropped_numbers(each_backend, warnings_are_errors):
    for kinds in PAIRS:
        case = situation(kinds)
        dirty = case.arrays(
            numpy.inf, x=~case.kept_in, w=case.dead_in | case.dead_out, grad_y=~case.kept_out
        )
        for method in case.methods:
            product(dirty, case.masks, method)
            gradients(dirty, case.masks, method)
