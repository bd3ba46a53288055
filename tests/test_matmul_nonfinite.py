"""NaN and infinity in masked products: what is dropped never leaks, what is not does."""

import itertools
import warnings

import numpy
import pytest
from conftest import assert_identical, values
from matmul_cases import METHODS, fitting_methods, gradients, kept, make_mask, operands, product

from fastdrop import Mask, masked_matmul, masked_matmul_backward

ROWS, UNITS_IN, UNITS_OUT = 40, 33, 50
KINDS = ("per sample", "units", "groups", "samples", "few")
PAIRS = [*itertools.product(KINDS, ("none", *KINDS)), *(("none", kind) for kind in KINDS)]
BAD = (numpy.nan, numpy.inf, -numpy.inf)


def case(kinds, dtype=numpy.float32):
    """Operands, masks, and which elements of x and of the result are kept."""
    shapes = (ROWS, UNITS_IN), (ROWS, UNITS_OUT)
    arrays = operands(shapes[0], UNITS_OUT, dtype)
    masks = [make_mask(kinds[side], shapes[side], seed=side) for side in (0, 1)]
    return arrays, masks, [written_out(masks[side], shapes[side]) for side in (0, 1)]


def written_out(mask, shape):
    return numpy.ones(shape, bool) if mask is None else kept(mask, shape)


def replaced(array, where, value):
    """A copy of an array with some elements replaced."""
    return numpy.where(where, array.dtype.type(value), array)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
@pytest.mark.parametrize("kinds", PAIRS, ids=str)
def test_dropped_inputs_do_not_matter(each_backend, dtype, kinds):
    """Elements of x that the mask drops, rows of w of units that it drops in every sample."""
    (x, w, bias, _), masks, (kept_in, _) = case(kinds, dtype)
    for method, skip_zeros in itertools.product(fitting_methods(*kinds), (False, True)):
        clean = product((x, w, bias, None), masks, method, skip_zeros=skip_zeros)
        for bad in BAD:
            dirty = (
                replaced(x, ~kept_in, bad),
                replaced(w, ~kept_in.any(axis=0)[:, numpy.newaxis], bad),
            )
            y = product((*dirty, bias, None), masks, method, skip_zeros=skip_zeros)
            assert numpy.isfinite(y).all(), f"{method} {bad}"
            numpy.testing.assert_allclose(y, clean, rtol=1e-3, atol=1e-3)
            if method in ("compact", "skip"):
                assert_identical(y, clean)


@pytest.mark.parametrize("kinds", [pair for pair in PAIRS if pair[1] != "none"], ids=str)
def test_dropped_outputs_are_zero_whatever_they_would_be(each_backend, kinds):
    (x, w, bias, _), masks, (_, kept_out) = case(kinds)
    for method, bad in itertools.product(fitting_methods(*kinds), BAD):
        dead = ~kept_out.any(axis=0)
        with numpy.errstate(invalid="ignore"):
            clean = product((x, w, bias, None), masks, method)
            y = product((x, replaced(w, dead, bad), replaced(bias, dead, bad), None), masks, method)
            everywhere = product((x, replaced(w, True, bad), bias, None), masks, method)
        numpy.testing.assert_allclose(y, clean, rtol=1e-3, atol=1e-3)
        for result in (y, everywhere):
            assert_identical(result[~kept_out], numpy.zeros(int((~kept_out).sum()), x.dtype))


@pytest.mark.parametrize("kinds", PAIRS, ids=str)
def test_a_row_of_weights_reaches_the_samples_that_keep_its_unit(each_backend, kinds):
    """A zero that a mask made is no factor: the others stay as they are."""
    (x, w, bias, _), masks, (kept_in, kept_out) = case(kinds)
    x = replaced(x, x == 0, 1)
    unit = numpy.arange(UNITS_IN)[:, numpy.newaxis] == 17
    reached = kept_in[:, 17]
    for method, bad in itertools.product(fitting_methods(*kinds), BAD):
        with numpy.errstate(invalid="ignore"):
            clean = product((x, w, bias, None), masks, method)
            y = product((x, replaced(w, unit, bad), bias, None), masks, method)
        numpy.testing.assert_allclose(y[~reached], clean[~reached], rtol=1e-3, atol=1e-3)
        assert not numpy.isfinite(y[reached][kept_out[reached]]).any()


@pytest.mark.parametrize("kinds", PAIRS, ids=str)
@pytest.mark.parametrize("skip_zeros", [False, True])
def test_dropped_elements_do_not_reach_gradients(each_backend, kinds, skip_zeros):
    """Of x and grad_y, and weights between units one of which no sample keeps."""
    (x, w, _, grad_y), masks, (kept_in, kept_out) = case(kinds)
    dead = ~kept_in.any(axis=0)[:, numpy.newaxis] | ~kept_out.any(axis=0)
    for method in fitting_methods(*kinds):
        clean = gradients((x, w, None, grad_y), masks, method, skip_zeros=skip_zeros)
        for bad in BAD:
            dirty = (
                replaced(x, ~kept_in, bad),
                replaced(w, dead, bad),
                None,
                replaced(grad_y, ~kept_out, bad),
            )
            found = gradients(dirty, masks, method, skip_zeros=skip_zeros)
            for gradient, expected in zip(found, clean, strict=True):
                assert numpy.isfinite(gradient).all(), f"{method} {bad}"
                numpy.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)
            assert_identical(found[0][~kept_in], numpy.zeros(int((~kept_in).sum()), x.dtype))


@pytest.mark.parametrize("kinds", [pair for pair in PAIRS if pair[1] != "none"], ids=str)
def test_a_sample_whose_outputs_are_dropped_has_no_part_in_the_gradients(each_backend, kinds):
    """Also where what is kept of the sample itself is NaN."""
    (x, w, _, grad_y), masks, (_, kept_out) = case(kinds)
    kept_out = kept_out & (numpy.arange(ROWS) // 7 != 2)[:, numpy.newaxis]  # drop a whole group
    if kinds[1] in ("units", "none"):
        kept_out = written_out(masks[1], (ROWS, UNITS_OUT))
    else:
        masks = [masks[0], Mask.from_array(kept_out, keep_prob=0.5)]
    gone = ~kept_out.any(axis=1)[:, numpy.newaxis]
    for method in ("auto", "skip", "dense"):
        clean = gradients((x, w, None, grad_y), masks, method)
        for bad in BAD:
            found = gradients((replaced(x, gone, bad), w, None, grad_y), masks, method)
            for gradient, expected in zip(found, clean, strict=True):
                numpy.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)


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
        rest = numpy.isfinite(right)
        numpy.testing.assert_allclose(result[rest], right[rest], rtol=1e-3, atol=1e-3)


def test_zeros_are_skipped_only_where_the_caller_says_so(each_backend):
    """0 * inf is NaN, and with skip_zeros nothing, where the zeros are indeed skipped."""
    x, w = numpy.array([[0.0, 1.0]] * 20), numpy.array([[numpy.inf] * 20, [2.0] * 20])
    with numpy.errstate(invalid="ignore"):
        assert numpy.isnan(masked_matmul(x, w, method="skip")).all()
        assert numpy.isnan(masked_matmul(x, w)).all()
    assert (masked_matmul(x, w, method="skip", skip_zeros=True) == 2).all()


@pytest.mark.parametrize("kinds", [pair for pair in PAIRS if "few" not in pair], ids=str)
def test_numbers_whose_sum_overflows(each_backend, kinds):
    """A product that fits is not spoilt by looking for NaN in it, and nothing warns."""
    (x, w, bias, grad_y), masks, _ = case(kinds)
    x, w, bias, grad_y = (abs(array) for array in (x, w, bias, grad_y))
    huge = x.dtype.type(2.0**118)
    for method in fitting_methods(*kinds):
        expected = product((x, w, bias, None), masks, method) * huge
        ordinary = gradients((x, w, None, grad_y), masks, method)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y = product((x * huge, w, bias * huge, None), masks, method)
            found = gradients((x, w, None, grad_y * huge), masks, method)
        numpy.testing.assert_allclose(y, expected, rtol=1e-5)
        for gradient, right in zip(found, ordinary, strict=True):
            numpy.testing.assert_allclose(gradient, right * huge, rtol=1e-5)


@pytest.mark.parametrize("kinds", PAIRS, ids=str)
def test_nothing_warns_of_dropped_numbers(each_backend, kinds):
    (x, w, bias, grad_y), masks, (kept_in, kept_out) = case(kinds)
    dead = ~kept_in.any(axis=0)[:, numpy.newaxis] | ~kept_out.any(axis=0)
    dirty = replaced(x, ~kept_in, numpy.inf), replaced(w, dead, numpy.inf), bias
    dirty += (replaced(grad_y, ~kept_out, numpy.inf),)
    for method in fitting_methods(*kinds):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            product(dirty, masks, method)
            gradients(dirty, masks, method)
